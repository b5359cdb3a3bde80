"""Running sums and sorting."""

from __future__ import annotations

from lamina.errors import BatchError, ShapeError
from lamina.ir.graph import Node
from lamina.ir.order import Sort, TopK
from lamina.ir.reductions import Cumulative
from lamina.llvm import kernel
from lamina.llvm.body import BodyBuilder, Operands
from lamina.llvm.fuse import Group
from lamina.llvm.lowering.workspace import Workspace, extent, result
from lamina.llvm.views import View, axis, identity, whole
from lamina.types import Batch, Shape, Type


def _three_axes(shape: Shape, position: int) -> tuple[int | Batch, int, int]:
    length = shape[position]
    if not isinstance(length, int):
        raise BatchError("an order or a running sum along the batch needs the number of rows")
    inner = extent(shape[position + 1 :])
    if isinstance(inner, Batch) or any(isinstance(size, Batch) for size in shape[1:]):
        raise BatchError("the batch must stand before the axis that is sorted or summed")
    return extent(shape[:position]), length, inner


def lower_cumulative(work: Workspace, node: Node, op: Cumulative, group: Group) -> None:
    """A running sum, product or maximum."""
    operands = Operands()
    operands.number(work.packed(node.inputs[0]))
    operands.written_number(work.place(node, group))
    outer, length, inner = _three_axes(node.shape, op.axis % len(node.shape))
    spec = kernel.Cumulative(outer, length, inner, op.kind, op.reverse, node.dtype)
    mode = "rows" if isinstance(outer, Batch) else "single"
    work.add(spec, operands, node.op.name, mode, outer)


def lower_sort(work: Workspace, node: Node, group: Group) -> None:
    """A sort, or the first few of one with their positions."""
    op = node.op
    source = node.inputs[0]
    position = len(source.shape) - 1
    if isinstance(op, Sort) and op.axis % len(source.shape) != position:
        raise ShapeError("the llvm executor sorts along the last axis")
    outer, length, _ = _three_axes(source.shape, position)
    operands = Operands()
    targets = []
    carried = tuple(parent.dtype for parent in node.inputs[1:])
    for parent in node.inputs:
        operands.number(work.packed(parent))
    if isinstance(op, TopK):
        positions = whole(work.buffer(Type(source.shape, "int32"), "positions"), work.capacity)
        _copy_positions(work, positions, source.shape)
        operands.number(positions)
        carried = ("int32",)
    for i in range(len(node.types)):
        picked = result(node, i)
        view = work.place(picked, group)
        targets.append(operands.written_number(view))
    descending = op.descending if isinstance(op, Sort) else True
    top = op.k if isinstance(op, TopK) else None
    spec = kernel.Sort(outer, length, source.dtype, carried, descending, top)
    mode = "rows" if isinstance(outer, Batch) else "single"
    work.add(spec, operands, op.name, mode, outer)


def _copy_positions(work: Workspace, target: View, shape: Shape) -> None:
    rank = len(shape)
    operands = Operands()
    builder = BodyBuilder(rank, operands, work.memory)
    last = axis(rank - 1, rank)
    argument = builder.emit(kernel.Position("int32", last.offset, last.strides))
    stores = (builder.store(argument, target, identity(rank), "int32"),)
    work.elementwise(shape, builder, stores, operands, "iota")
