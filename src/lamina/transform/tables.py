"""Products with rows of a table: multiply each row that is met once, then look up the product.

An embedding (of words, characters, pixels, categories) in front of a product meets the same rows of
its table many times in a batch. The product of a row is the same each time: a small table is
multiplied as a whole, of a large one the rows that the batch names, each once. Backwards, what
reaches the same row is added before it is multiplied.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lamina.ir.contractions import Conv, Dot, dot
from lamina.ir.control import Body, Scan, scan
from lamina.ir.distinct import distinct
from lamina.ir.elementary import full
from lamina.ir.graph import Node, input_node, rewrite
from lamina.ir.indexing import Gather, Scatter, gather, scatter, scatter_counted
from lamina.ir.movement import Transpose, inverse, pad, reshape, slice_, transpose
from lamina.ir.scalar import add
from lamina.transform.loops import replaced_scans
from lamina.transform.scan import is_zero
from lamina.types import Type, fixed

TablesPay = Callable[[int, int, int | None], bool]
DistinctPay = Callable[[int, int], bool]


def use_tables(
    roots: Sequence[Node],
    capacity: int,
    tables_pay: TablesPay,
    distinct_pay: DistinctPay,
    most_taps: int,
) -> list[Node]:
    """Move products in front of look-ups, and behind sums by row.

    Before: dot(gather(table, index), w)               After: gather(dot(table, w), index)
    Before: conv(gather(table, index), w)              After: the same for each tap, then their sum
    Before: dot(transpose(gather(table, index)), g)    After: dot(transpose(table), sums)
    Before: scatter_add(0, index, dot(g, w))           After: dot(sums, w)

    where `sums` is scatter_add(0, index, g). Where the table is large, the rows that the index
    names take its place, and their places that of the index; how many they are is known as the
    step runs. A batch has room for `capacity` rows.

    tables_pay    from the rows of a table, how many are looked up, and the terms of the products
                  that sums by row save (None where there are none), whether it is worth while
    distinct_pay  from how many rows are looked up, and the terms of the products, whether it is
                  worth while to find the different ones among them
    most_taps     of a convolution over looked-up rows
    """
    rule = _Rule(capacity, tables_pay, distinct_pay)

    def visit(node: Node) -> Node:
        found = None
        if isinstance(node.op, Dot) and not node.op.batch and node.type.is_float:
            found = _looked_up(node, node.op, rule) or _summed_first(node, node.op, rule)
        elif isinstance(node.op, Conv):
            found = _convolved(node, node.op, rule, most_taps)
        elif isinstance(node.op, Scatter):
            found = _multiplied_last(node, node.op, rule)
        return found or node

    new = rewrite(roots, visit)
    return new if new == list(roots) else _inside_loops(new, rule)


@dataclass(frozen=True)
class _Met:
    """The rows of a table that are multiplied, and where each look-up finds its own.

    Those are all rows, or the `rows` that are named, of which there are `count`.
    """

    size: int
    index: Node
    rows: Node | None = None
    count: Node | None = None

    def of(self, table: Node) -> Node:
        return table if self.rows is None else gather(table, self.rows)

    def sums(self, values: Node) -> Node:
        """For each of the rows, the sum of what stands in `values` where it is looked up."""
        base = full((self.size, *values.shape[self.index.type.rank :]), 0, values.dtype)
        if self.count is None:
            return scatter("add", base, self.index, values)
        return scatter_counted("base", base, self.index, values, self.count)

    def spread(self, base: Node, sums: Node) -> Node:
        """Sums of the rows as those of all rows of the table."""
        if self.rows is None or self.count is None:
            return sums
        return scatter_counted("index", base, self.rows, sums, self.count)


@dataclass(frozen=True)
class _Rule:
    """When what is worth while."""

    capacity: int
    tables_pay: TablesPay
    distinct_pay: DistinctPay

    def often(self, table: Type, index: Type, terms: int | None) -> bool:
        """Whether look-ups meet all rows of a table often."""
        size = table.shape[0]
        return isinstance(size, int) and self.tables_pay(size, index.size_at(self.capacity), terms)

    def met(self, table: Type, index: Node, *, sums: bool = False) -> _Met | None:
        """The rows that products give way to, if any do."""
        size, terms = fixed(table.shape[0]), fixed(table.shape[1])
        if self.often(table, index.type, terms if sums else None):
            return _Met(size, index)
        lookups = index.type.size_at(self.capacity)
        if table.dtype != "float32" or not self.distinct_pay(lookups, terms):
            return None
        return _distinct(size, min(size, lookups), index)


def _distinct(size: int, room: int, index: Node) -> _Met | None:
    """The different rows among `size` that an index names; room for `room` is enough."""
    if isinstance(index.op, Transpose):
        inner = _distinct(size, room, index.inputs[0])
        if inner is None:
            return None
        return _Met(room, transpose(inner.index, index.op.perm), inner.rows, inner.count)
    if index.type.batch_axis not in {None, 0} or index.dtype not in {"int32", "int64"}:
        return None
    rows, places, count = distinct(index, size, room)
    return _Met(room, places, rows, count)


def _lookup(node: Node) -> tuple[Node, Node] | None:
    """(table, index) if the node is `table[index]` of rows that are vectors."""
    if isinstance(node.op, Gather):
        table, index = node.inputs
        plain = node.op.axis == 0 and node.op.batch == 0
        static = table.type.rank == 2 and table.type.batch_axis is None
        return (table, index) if plain and static else None
    if isinstance(node.op, Transpose):
        found, perm = _lookup(node.inputs[0]), node.op.perm
        if found and perm[-1] == len(perm) - 1:
            return found[0], transpose(found[1], perm[:-1])
    return None


def _looked_up(node: Node, op: Dot, rule: _Rule) -> Node | None:
    x, w = node.inputs[:2]
    found = _lookup(x)
    if found is None or w.type.batch_axis is not None or len(op.contract) != 1:
        return None
    table, index = found
    (axis, other), *_ = op.contract
    met = rule.met(table.type, index) if axis == x.type.rank - 1 else None
    if met is None:
        return None
    product = dot(met.of(table), w, [(1, other)], out_dtype=op.out_dtype, count=met.count)
    return gather(product, met.index)


def _convolved(node: Node, op: Conv, rule: _Rule, most_taps: int) -> Node | None:
    x, w = node.inputs
    found = _lookup(x)
    *size, _, filters = w.shape
    if found is None or op.groups > 1 or w.type.batch_axis is not None:
        return None
    if math.prod(size) > most_taps:
        return None
    met = rule.met(found[0].type, found[1])
    if met is None:
        return None
    channels_first = transpose(w, [len(size), *range(len(size)), len(size) + 1])
    products = dot(met.of(found[0]), channels_first, [(1, 0)], count=met.count)
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


def _summed_first(node: Node, op: Dot, rule: _Rule) -> Node | None:
    for side in (0, 1):
        found = _lookup(node.inputs[side])
        if found is None:
            continue
        table, index = found
        other = node.inputs[1 - side]
        pairs = {pair[side]: pair[1 - side] for pair in op.contract}
        if sorted(pairs) != list(range(index.type.rank)) or not _exact(other):
            continue
        met = rule.met(table.type, index, sums=True)
        if met is None:
            continue
        order = [pairs[axis] for axis in sorted(pairs)]
        rest = [axis for axis in range(other.type.rank) if axis not in order]
        rows, sums = met.of(table), met.sums(transpose(other, [*order, *rest]))
        a, b = (rows, sums) if side == 0 else (sums, rows)
        return dot(a, b, [(0, 0)], out_dtype=op.out_dtype, count=met.count)
    return None


def _exact(values: Node) -> bool:
    """Half precision is left alone: its products are summed in more bits than it has."""
    return values.dtype in ("float32", "float64")


def _multiplied_last(node: Node, op: Scatter, rule: _Rule) -> Node | None:
    base, index, rows = node.inputs[:3]
    static = base.type.rank == 2 and base.type.batch_axis is None
    if op.kind != "add" or op.axis or op.batch or op.counted or not static or not is_zero(base):
        return None
    while isinstance(rows.op, Transpose) and rows.op.perm[-1] == len(rows.op.perm) - 1:
        index = transpose(index, inverse(rows.op.perm[:-1]))
        rows = rows.inputs[0]
    if not isinstance(rows.op, Dot) or rows.op.batch or len(rows.inputs) > 2:
        return None
    g, w = rows.inputs
    contracted = [axis for axis, _ in rows.op.contract]
    free = [axis for axis in range(g.type.rank) if axis not in contracted]
    alone = w.type.batch_axis is None and w.type.rank == len(contracted) + 1
    if not alone or len(free) != index.type.rank or not _exact(g):
        return None
    met = rule.met(base.type, index, sums=True)
    if met is None:
        return None
    sums = met.sums(transpose(g, [*free, *contracted]))
    pairs = [(1 + place, axis) for place, (_, axis) in enumerate(rows.op.contract)]
    return met.spread(base, dot(sums, w, pairs, out_dtype=rows.op.out_dtype, count=met.count))


# ----------------------------------------------------------------------------------- loops


def _inside_loops(roots: Sequence[Node], rule: _Rule) -> list[Node]:
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
            found = _lookup(value)
            if found is None:
                continue
            table, index = found
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
