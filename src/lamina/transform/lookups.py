"""Rows of tables that a program looks up, and which of them products are taken with instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lamina.ir.contractions import Conv, ConvFilterGrad, ConvInputGrad
from lamina.ir.distinct import distinct
from lamina.ir.elementary import Broadcast, Map, full
from lamina.ir.graph import Node
from lamina.ir.indexing import Gather, gather, scatter, scatter_counted
from lamina.ir.movement import Transpose, slice_, transpose
from lamina.types import Type, fixed

_ROWS_TOGETHER = 64  # room for different rows is a multiple, so that kernels may take several

Convolution = Conv | ConvInputGrad | ConvFilterGrad


@dataclass(frozen=True)
class Seen:
    """Rows of a table, looked up, and perhaps vectors added that are the same for all samples.

    axes    the axes of the index on which those of `same` lie, but for the last one
    """

    table: Node
    index: Node
    same: Node | None = None
    axes: tuple[int, ...] = ()


def looked_up(node: Node) -> Seen | None:
    """What the node looks up, if it is `table[index]` of rows that are vectors."""
    if isinstance(node.op, Gather):
        table, index = node.inputs
        plain = node.op.axis == 0 and node.op.batch == 0
        static = table.type.rank == 2 and table.type.batch_axis is None
        return Seen(table, index) if plain and static else None
    if isinstance(node.op, Transpose):
        return _moved(looked_up(node.inputs[0]), node.op.perm)
    return None


def seen(node: Node) -> Seen | None:
    """The same, where the rows of positions, say, may be added."""
    match node.op:
        case Transpose(perm=perm):
            return _moved(seen(node.inputs[0]), perm)
        case Map(fn="add"):
            for one, other in (node.inputs, node.inputs[::-1]):
                found, same = looked_up(one), _same_for_all(other)
                if found and same:
                    return replace(found, same=same[0], axes=same[1])
    return looked_up(node)


def _moved(found: Seen | None, perm: tuple[int, ...]) -> Seen | None:
    """What is seen behind a transposition that leaves vectors whole."""
    if found is None or perm[-1] != len(perm) - 1:
        return None
    index = transpose(found.index, perm[:-1])
    if found.same is None:
        return Seen(found.table, index)
    places = [perm.index(axis) for axis in found.axes]
    order = sorted(range(len(places)), key=places.__getitem__)
    same = transpose(found.same, [*order, len(order)])
    return Seen(found.table, index, same, tuple(sorted(places)))


def _same_for_all(node: Node) -> tuple[Node, tuple[int, ...]] | None:
    """(vectors without a batch, where their axes lie), if a value repeats such over the batch."""
    match node.op:
        case Broadcast(axes=(*axes, last)) if last == node.type.rank - 1:
            vectors = node.inputs[0]
            if vectors.type.batch_axis is None and axes == sorted(axes):
                return vectors, tuple(axes)
    return None


@dataclass(frozen=True)
class Met:
    """The rows of a table that are multiplied, and where each look-up finds its own.

    Those are all rows, or the `rows` that are named, of which there are `count`.
    """

    size: int
    index: Node
    rows: Node | None = None
    count: Node | None = None

    def of(self, table: Node) -> Node:
        """The rows, `size` of them."""
        return table if self.rows is None else gather(table, self.rows)

    def sums(self, values: Node) -> Node:
        """For each of the rows, the sum of what stands in `values` where it is looked up."""
        base = full((self.size, *values.shape[self.index.type.rank :]), 0, values.dtype)
        if self.count is None:
            return scatter("add", base, self.index, values)
        return scatter_counted("base", base, self.index, values, self.count)

    def sums_at_tap(
        self, conv: ConvInputGrad | ConvFilterGrad, tap: Sequence[int], g: Node
    ) -> Node | None:
        """The same of what stands in `g` where a tap of the convolution meets the look-ups.

        None if it meets the padding only.
        """
        starts, stops, firsts, lasts = [], [], [], []
        fields = zip(
            tap,
            self.index.shape[1:],
            g.shape[1:-1],
            conv.strides,
            conv.padding,
            conv.dilation,
            strict=True,
        )
        for i, length, count, stride, (low, _), gap in fields:
            shift = i * gap - low
            first = min(count, max(0, -(shift // stride)))
            last = min(count, (length - 1 - shift) // stride + 1)
            if first >= last:
                return None
            firsts.append(first)
            lasts.append(last)
            starts.append(first * stride + shift)
            stops.append(starts[-1] + (last - first - 1) * stride + 1)
        samples = None if g.type.batch_axis == 0 else fixed(g.shape[0])
        index = slice_(self.index, (0, *starts), (samples, *stops), (1, *conv.strides))
        values = slice_(g, (0, *firsts, 0), (samples, *lasts, g.shape[-1]))
        return replace(self, index=index).sums(values)

    def spread(self, base: Node, sums: Node) -> Node:
        """Sums of the rows as those of all rows of the table."""
        if self.rows is None or self.count is None:
            return sums
        return scatter_counted("index", base, self.rows, sums, self.count)


@dataclass(frozen=True)
class Rule:
    """When what is worth while, in a batch that has room for `capacity` rows.

    tables_pay    from the rows of a table, how many are looked up, and the terms of the products
                  that sums by row save (None where there are none), whether all are multiplied
    distinct_pay  from how many rows are looked up, and the terms of the products, whether the
                  different ones among them are found and multiplied
    most_taps     of a convolution over looked-up rows
    """

    capacity: int
    tables_pay: Callable[[int, int, int | None], bool]
    distinct_pay: Callable[[int, int], bool]
    most_taps: int

    def often(self, table: Type, index: Type, terms: int | None) -> bool:
        """Whether look-ups meet all rows of a table often."""
        size = table.shape[0]
        return isinstance(size, int) and self.tables_pay(size, index.size_at(self.capacity), terms)

    def met(self, table: Type, index: Node, *, sums: bool = False) -> Met | None:
        """The rows that products give way to, if any do."""
        size, terms = fixed(table.shape[0]), fixed(table.shape[1])
        if self.often(table, index.type, terms if sums else None):
            return Met(size, index)
        lookups = index.type.size_at(self.capacity)
        if table.dtype != "float32" or not self.distinct_pay(lookups, terms):
            return None
        room = -(-min(size, lookups) // _ROWS_TOGETHER) * _ROWS_TOGETHER
        return _distinct(size, room, index)

    def few_taps(self, conv: Convolution, size: Sequence[int]) -> bool:
        """Whether the taps of a convolution are taken one by one."""
        return conv.groups == 1 and math.prod(size) <= self.most_taps


def _distinct(size: int, room: int, index: Node) -> Met | None:
    """The different rows among `size` that an index names; room for `room` is enough."""
    if isinstance(index.op, Transpose):
        inner = _distinct(size, room, index.inputs[0])
        return inner and replace(inner, index=transpose(inner.index, index.op.perm))
    if index.type.batch_axis not in {None, 0} or index.dtype not in {"int32", "int64"}:
        return None
    rows, places, count = distinct(index, size, room)
    return Met(room, places, rows, count)


def exact(values: Node) -> bool:
    """Half precision is left alone: its products are summed in more bits than it has."""
    return values.dtype in ("float32", "float64")
