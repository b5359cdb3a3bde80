"""Gradients of tables: what reaches the same row is added before it is multiplied.

The gradient of a look-up is a sum by rows of what may itself be a sum of products, one for each
layer that reads what was looked up. Sums are linear: each product is summed by itself, its factor
before it is taken. What else is made of the same sum, as the gradient of positions that were
added, the sum over the batch, is taken apart likewise, so that nobody asks for the products.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lamina.ir.contractions import ConvInputGrad, Dot, dot
from lamina.ir.elementary import Map, Reduce, reduce_sum
from lamina.ir.graph import Node, rewrite, toposort, users
from lamina.ir.indexing import Scatter
from lamina.ir.movement import Transpose, inverse, reshape, slice_, transpose
from lamina.ir.scalar import add
from lamina.transform.lookups import Met, Rule, exact
from lamina.transform.scan import is_zero


def use_sums(roots: Sequence[Node], rule: Rule) -> list[Node]:
    """Take sums by rows, and over the batch, of sums of products apart.

    Before: scatter_add(0, index, dot(g, w) + r)    After: dot(sums of g, w) + sums of r
    Before: reduce_sum[batch](dot(g, w) + r)        After: dot(reduce_sum(g), w) + reduce_sum(r)
    """
    readers = users(toposort(roots))
    for root in roots:
        readers[root].append(root)  # whoever runs the program reads it whole

    def pays(node: Node) -> bool:
        return _by_rows(node) and _met(node, rule) is not None

    def visit(node: Node) -> Node:
        found = None
        if pays(node):
            found = _summed_by_rows(node, rule, readers)
        elif _over_batch(node) and any(map(pays, readers.get(node.inputs[0], ()))):
            found = _summed_over_batch(node, readers)
        return found or node

    return rewrite(roots, visit)


def _by_rows(node: Node) -> bool:
    """Whether a node is the gradient of a look-up."""
    match node.op:
        case Scatter(kind="add", axis=0, batch=0, counted=""):
            base = node.inputs[0]
            return base.type.rank == 2 and base.type.batch_axis is None and is_zero(base)
    return False


def _met(gradient: Node, rule: Rule) -> Met | None:
    base, index, _ = gradient.inputs
    return rule.met(base.type, index, sums=True)


def _over_batch(node: Node) -> bool:
    """Whether a node is a sum over the batch alone."""
    match node.op:
        case Reduce(kind="sum", axes=axes):
            return axes == (node.inputs[0].type.batch_axis,)
    return False


@dataclass(frozen=True)
class _Term:
    """One term of a sum, whose axes are those of the sum in the order `perm`.

    alone   nothing but the sum reads it
    """

    node: Node
    perm: tuple[int, ...]
    alone: bool = True

    @property
    def value(self) -> Node:
        """In the order of axes of the sum."""
        return transpose(self.node, self.perm)


def _terms(total: Node, readers: dict[Node, list[Node]]) -> list[_Term] | None:
    """The terms of a sum that nothing but sums by rows and over the batch reads; else None."""
    if total not in readers:
        return None
    if not all(_by_rows(reader) or _over_batch(reader) for reader in readers[total]):
        return None
    found: list[_Term] = []
    stack = [_Term(total, tuple(range(total.type.rank)))]
    while stack:
        term = stack.pop()
        node, own = term.node, term.node is total or len(readers.get(term.node, ())) == 1
        match node.op:
            case Transpose(perm=perm) if own:
                stack.append(_Term(node.inputs[0], tuple(perm[axis] for axis in term.perm)))
            case Map(fn="add") if own:
                stack += [_Term(parent, term.perm) for parent in node.inputs]
            case _:
                found.append(replace(term, alone=own))
    return found


def _summed_by_rows(node: Node, rule: Rule, readers: dict[Node, list[Node]]) -> Node | None:
    base, _, rows = node.inputs
    met = _met(node, rule)
    terms = _terms(rows, readers) if exact(rows) else None
    if met is None or terms is None:
        return None
    products, others = [], []
    for term in terms:
        if term.alone and term.perm[-1] == rows.type.rank - 1:
            there = replace(met, index=transpose(met.index, inverse(term.perm[:-1])))
            product = _product(term.node, there, rule)
            if product is not None:
                products.append(product)
                continue
        others.append(term.value)
    if not products:
        return None
    if others:
        products.append(met.sums(functools.reduce(add, others)))
    return met.spread(base, functools.reduce(add, products))


def _product(node: Node, met: Met, rule: Rule) -> Node | None:
    """The sums by row of a product, as a product of sums."""
    match node.op:
        case Dot(batch=()) if len(node.inputs) == 2:
            return _of_dot(node, node.op, met)
        case ConvInputGrad() if rule.few_taps(node.op, node.inputs[1].shape[:-2]):
            return _of_convolution(node, node.op, met)
    return None


def _of_dot(node: Node, op: Dot, met: Met) -> Node | None:
    g, w = node.inputs
    contracted = [axis for axis, _ in op.contract]
    free = [axis for axis in range(g.type.rank) if axis not in contracted]
    alone = w.type.batch_axis is None and w.type.rank == len(contracted) + 1
    if not alone or len(free) != met.index.type.rank or not exact(g):
        return None
    sums = met.sums(transpose(g, [*free, *contracted]))
    pairs = [(1 + place, axis) for place, (_, axis) in enumerate(op.contract)]
    return dot(sums, w, pairs, out_dtype=op.out_dtype, count=met.count)


def _of_convolution(node: Node, op: ConvInputGrad, met: Met) -> Node | None:
    g, w = node.inputs
    *size, channels, filters = w.shape
    if w.type.batch_axis is not None or not exact(g):
        return None
    parts = []
    for tap in itertools.product(*map(range, size)):
        sums = met.sums_at_tap(op, tap, g)
        if sums is not None:
            one = slice_(w, (*tap, 0, 0), (*(i + 1 for i in tap), channels, filters))
            one = reshape(one, (channels, filters))
            parts.append(dot(sums, one, [(1, 1)], count=met.count))
    return functools.reduce(add, parts) if parts else None


def _summed_over_batch(node: Node, readers: dict[Node, list[Node]]) -> Node | None:
    total = node.inputs[0]
    terms = _terms(total, readers)
    place = total.type.batch_axis
    if terms is None or place is None:
        return None
    products, others = [], []
    for term in terms:
        product = _summed_dot(term.node) if term.alone else None
        if product is None:
            others.append(term.value)
        else:
            gone = term.perm[place]
            rest = [axis - (axis > gone) for axis in term.perm if axis != gone]
            products.append(transpose(product, rest))
    if not products:
        return None
    if others:
        products.append(reduce_sum(functools.reduce(add, others), (place,)))
    return functools.reduce(add, products)


def _summed_dot(node: Node) -> Node | None:
    """The sum of a product over its batch axis, which the left factor alone has."""
    match node.op:
        case Dot(batch=()) if len(node.inputs) == 2 and exact(node.inputs[0]):
            g, w = node.inputs
            batch = g.type.batch_axis
            contracted = [axis for axis, _ in node.op.contract]
            if batch is None or batch in contracted:
                return None
            pairs = [(axis - (axis > batch), other) for axis, other in node.op.contract]
            return dot(reduce_sum(g, (batch,)), w, pairs, out_dtype=node.op.out_dtype)
    return None
