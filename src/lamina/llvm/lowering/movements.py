"""Movements that must write: concatenation, padding between elements, scatter and its numbers."""

from __future__ import annotations

import itertools
import math

from lamina.errors import BatchError, ShapeError
from lamina.ir.distinct import Distinct
from lamina.ir.graph import Node
from lamina.ir.indexing import Scatter
from lamina.ir.movement import Concat, Pad
from lamina.llvm import choices, kernel
from lamina.llvm.body import BodyBuilder, Operands
from lamina.llvm.fuse import Group
from lamina.llvm.lowering.workspace import Workspace, extent, result
from lamina.llvm.views import View, identity, is_contiguous
from lamina.transform.scan import is_zero
from lamina.types import Batch, static_shape


def lower_concat(work: Workspace, node: Node, op: Concat, group: Group) -> None:
    """Each part goes to its place; neighbours of one shape are one kernel."""
    target = work.place(node, group)
    position = op.axis % len(node.shape)
    rank = len(node.shape)
    start = 0
    for shape, run in itertools.groupby(node.inputs, key=lambda part: part.shape):
        operands = Operands()
        builder = BodyBuilder(rank, operands, work.memory)
        stores = []
        for part in run:
            offset = target.offset + start * target.strides[position]
            piece = View(target.buffer, offset, shape, target.strides, target.loops)
            argument = builder.value(part, identity(rank))
            stores.append(builder.store(argument, piece, identity(rank), part.dtype))
            start += int(shape[position])
        work.elementwise(shape, builder, tuple(stores), operands, op.name)


def lower_interior_pad(work: Workspace, node: Node, op: Pad, group: Group) -> None:
    """Fill the whole, then copy the elements to their places."""
    target = work.place(node, group)
    operands = Operands()
    rank = len(node.shape)
    builder = BodyBuilder(rank, operands, work.memory)
    filling = builder.emit(kernel.Constant(op.value, node.dtype))
    stores = (builder.store(filling, target, identity(rank), node.dtype),)
    work.elementwise(node.shape, builder, stores, operands, "fill")
    offset = target.offset + sum(
        low * stride for low, stride in zip(op.low, target.strides, strict=True)
    )
    strides = tuple(
        stride * (inner + 1) for stride, inner in zip(target.strides, op.interior, strict=True)
    )
    source = node.inputs[0]
    work.copy(source, View(target.buffer, offset, source.shape, strides, target.loops))


def lower_scatter(work: Workspace, node: Node, op: Scatter, group: Group) -> None:
    """Clear the result or copy the base, then add to it, or replace, row by row of the index."""
    base, where, rows = node.inputs[:3]
    target = work.place(node, group)
    clear = is_zero(base) and is_contiguous(target, work.capacity)
    if not clear:
        work.copy(base, target)
    axis_, batch = op.axis % len(base.shape), op.batch
    if axis_ != batch:
        raise ShapeError("the llvm executor scatters along the first axis after the batch")
    operands = Operands()
    operands.written_number(target)
    for view in (work.packed(where), work.packed(rows)):
        operands.number(view)
    named = choices.counted_unit(base.shape[0]) if clear and op.counted == "base" else 0
    if named:
        operands.number(work.packed(node.inputs[3]))
    outer = extent(base.shape[:batch])
    inner = math.prod(static_shape(base.shape[axis_ + 1 :], work.capacity))
    table = base.shape[axis_]
    if not isinstance(table, int):
        raise BatchError("scatter along the batch axis needs the number of rows")
    # Time may stand before the batch, of which the rows that are present are one piece.
    place = batch or where.type.batch_axis or 0
    if where.type.batch_axis not in {None, 0, place}:
        raise BatchError("scatter needs the batch as the first of the shared axes of its index")
    count, counted = extent(where.shape[place:]), None
    if op.counted == "index":
        counted = work.counted(node.inputs[3], count)
        count = Batch(1)
    steps = math.prod(static_shape(where.shape[batch:place], work.capacity))
    pitch = math.prod(static_shape(where.shape[place:], work.capacity)) if steps > 1 else 0
    rowwise = isinstance(outer, Batch)
    split, mode, shared = 0, "rows", outer
    if not rowwise:
        wide = choices.scatter_by_column(inner)
        split, mode, shared = (2, "units", inner) if wide else (1, "units", table)
    spec = kernel.Scatter(
        outer,
        table,
        inner,
        count,
        op.kind,
        node.dtype,
        where.dtype,
        split,
        clear,
        named,
        steps,
        pitch,
    )
    work.add(spec, operands, node.op.name, mode, shared, counted)


def lower_distinct(work: Workspace, node: Node, op: Distinct, group: Group) -> None:
    """The different rows that an index names: one walk over it, by one thread."""
    index = node.inputs[0]
    total = extent(index.shape)
    if min(op.table, index.type.size_at(work.capacity)) > op.room:
        raise ShapeError(f"distinct: there may be more than {op.room} rows in {index.type}")
    operands = Operands()
    operands.number(work.packed(index))
    for position in range(3):
        operands.written_number(work.place(result(node, position), group))
    spec = kernel.Distinct(total, op.table, op.room, index.dtype)
    work.add(spec, operands, op.name, "single", total)
