"""Products with rows of a table: multiply each row that is met once, then look up the product.

An embedding (of words, characters, pixels, categories) in front of a product meets the same rows of
its table many times in a batch. The product of a row is the same each time: a small table is
multiplied as a whole, of a large one the rows that the batch names, each once. Backwards, what
reaches the same row is added before it is multiplied.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

from lamina.ir.contractions import Conv, ConvFilterGrad, Dot, dot
from lamina.ir.control import Body, Scan, scan
from lamina.ir.elementary import broadcast, full, reduce_sum
from lamina.ir.graph import Node, input_node, rewrite
from lamina.ir.indexing import gather
from lamina.ir.movement import concat, pad, reshape, slice_, transpose
from lamina.ir.scalar import add
from lamina.transform.lookups import Rule, exact, looked_up, seen
from lamina.transform.loops import replaced_scans
from lamina.transform.sums import use_sums
from lamina.types import Type, fixed


def use_tables(roots: Sequence[Node], rule: Rule) -> list[Node]:
    """Move products in front of look-ups, and behind sums by row.

    Before: dot(gather(table, index), w)               After: gather(dot(table, w), index)
    Before: dot(transpose(gather(table, index)), g)    After: dot(transpose(table), sums)
    Before: scatter_add(0, index, dot(g, w))           After: dot(sums, w)

    where `sums` is scatter_add(0, index, g), and the same for each tap of a convolution. Where the
    table is large, the rows that the index names take its place, and their places that of the
    index; how many they are is known as the step runs. What is added to all samples, as positions
    are, is multiplied once.
    """

    def visit(node: Node) -> Node:
        found = None
        match node.op:
            case Dot(batch=()) if node.type.is_float and len(node.inputs) == 2:
                found = _product(node, node.op, rule) or _gradient(node, node.op, rule)
            case Conv():
                found = _convolution(node, node.op, rule)
            case ConvFilterGrad():
                found = _filter_gradient(node, node.op, rule)
        return found or node

    new = use_sums(rewrite(roots, visit), rule)
    return new if new == list(roots) else _inside_loops(new, rule)


# ------------------------------------------------------------------------- products


def _product(node: Node, op: Dot, rule: Rule) -> Node | None:
    x, w = node.inputs
    found = seen(x)
    if found is None or w.type.batch_axis is not None or len(op.contract) != 1:
        return None
    (axis, other), *_ = op.contract
    met = rule.met(found.table.type, found.index) if axis == x.type.rank - 1 else None
    if met is None:
        return None
    rows = dot(met.of(found.table), w, [(1, other)], out_dtype=op.out_dtype, count=met.count)
    product = gather(rows, met.index)
    if found.same is None:
        return product
    one = dot(found.same, w, [(len(found.axes), other)], out_dtype=op.out_dtype)
    places = (*found.axes, *range(x.type.rank - 1, product.type.rank))
    return add(product, broadcast(one, product.shape, places))


def _gradient(node: Node, op: Dot, rule: Rule) -> Node | None:
    """A product summed over all look-ups: the gradient of what looked-up rows are multiplied by."""
    for side in (0, 1):
        found = seen(node.inputs[side])
        if found is None:
            continue
        other = node.inputs[1 - side]
        pairs = {pair[side]: pair[1 - side] for pair in op.contract}
        rank = found.index.type.rank
        if sorted(pairs) != list(range(rank)) or not exact(other):
            continue
        met = rule.met(found.table.type, found.index, sums=True)
        if met is None:
            continue
        order = [pairs[axis] for axis in range(rank)]
        rest = [axis for axis in range(other.type.rank) if axis not in order]
        g = transpose(other, [*order, *rest])

        def paired(rows: Node, sums: Node, count: Node | None = None, side: int = side) -> Node:
            a, b = (rows, sums) if side == 0 else (sums, rows)
            pairs = [(axis, axis) for axis in range(rows.type.rank - 1)]
            return dot(a, b, pairs, out_dtype=op.out_dtype, count=count)

        total = paired(met.of(found.table), met.sums(g), met.count)
        if found.same is None:
            return total
        repeated = [axis for axis in range(rank) if axis not in found.axes]
        return add(total, paired(found.same, reduce_sum(g, repeated)))
    return None


# ------------------------------------------------------------------------- convolutions


def _convolution(node: Node, op: Conv, rule: Rule) -> Node | None:
    x, w = node.inputs
    found = looked_up(x)
    *size, _, filters = w.shape
    if found is None or w.type.batch_axis is not None or not rule.few_taps(op, size):
        return None
    met = rule.met(found.table.type, found.index)
    if met is None:
        return None
    channels_first = transpose(w, [len(size), *range(len(size)), len(size) + 1])
    products = dot(met.of(found.table), channels_first, [(1, 0)], count=met.count)
    parts = []
    for tap in itertools.product(*map(range, size)):
        one = slice_(products, (0, *tap, 0), (met.size, *(i + 1 for i in tap), filters))
        rows = gather(reshape(one, (met.size, filters)), met.index)
        low, high = zip(*op.padding, strict=True)
        padded = pad(rows, (0, *low, 0), (0, *high, 0))
        start = [i * gap for i, gap in zip(tap, op.dilation, strict=True)]
        reach = zip(start, node.shape[1:-1], op.strides, strict=True)
        stop = [first + (count - 1) * step + 1 for first, count, step in reach]
        parts.append(slice_(padded, (0, *start, 0), (None, *stop, filters), (1, *op.strides, 1)))
    return functools.reduce(add, parts)


def _filter_gradient(node: Node, op: ConvFilterGrad, rule: Rule) -> Node | None:
    x, g = node.inputs
    found = looked_up(x)
    if found is None or not rule.few_taps(op, op.kernel) or not exact(g):
        return None
    met = rule.met(found.table.type, found.index, sums=True)
    if met is None:
        return None
    rows = met.of(found.table)
    channels, filters = fixed(node.shape[-2]), fixed(node.shape[-1])
    taps = []
    for tap in itertools.product(*map(range, op.kernel)):
        sums = met.sums_at_tap(op, tap, g)
        one = full((channels, filters), 0, node.dtype)
        if sums is not None:
            one = dot(rows, sums, [(0, 0)], count=met.count)
        taps.append(reshape(one, (1, channels, filters)))
    return reshape(concat(taps, 0), node.shape)


# ----------------------------------------------------------------------------------- loops


def _inside_loops(roots: Sequence[Node], rule: Rule) -> list[Node]:
    """Look up rows in the step that reads them, instead of all beforehand.

    Before: scan(x[t]) over x = table[index]    After: scan(table[i[t]]) over i = index
    """

    def replacement(node: Node, inputs: tuple[Node, ...]) -> Sequence[Node] | None:
        assert isinstance(node.op, Scan)
        op = node.op
        carries, elements, constants = op.split(op.body.parameters)
        first, walked, same = (list(part) for part in op.split(inputs))
        known: dict[Node, Node] = {}
        parameters, tables = list(elements), list(constants)
        for number, (parameter, value) in enumerate(zip(elements, walked, strict=True)):
            found = looked_up(value)
            if found is None:
                continue
            table, index = found.table, found.index
            if not _counted(table) and not rule.often(table.type, index.type, None):
                continue
            step = Type(index.shape[1:], index.dtype)
            parameters[number], walked[number] = input_node(step), index
            tables.append(input_node(table.type))
            same.append(table)
            known[parameter] = gather(tables[-1], parameters[number])
        if not known:
            return None
        results = rewrite(op.body.results, lambda node: node, known)
        body = Body((*carries, *parameters, *tables), tuple(results))
        return scan(body, op.length, first, walked, same, reverse=op.reverse)

    return replaced_scans(roots, replacement)


def _counted(table: Node) -> bool:
    """Whether a table is the product of rows that are counted as the step runs."""
    return isinstance(table.op, Dot) and len(table.inputs) > 2
