"""Products and convolutions: one task a piece, or partial sums over the batch."""

from __future__ import annotations

from lamina.errors import ShapeError
from lamina.ir.contractions import Dot
from lamina.ir.graph import Node
from lamina.llvm import choices, kernel
from lamina.llvm.body import BodyBuilder, Operands
from lamina.llvm.fuse import Group
from lamina.llvm.kernel import Body, Core, Instruction
from lamina.llvm.lowering.filters import by_tiles, lower_by_tiles
from lamina.llvm.lowering.workspace import Workspace, names
from lamina.llvm.products import Piece, Side, pieces
from lamina.llvm.task import Counted
from lamina.types import Batch, Shape


def lower_contraction(work: Workspace, group: Group) -> None:
    """A product or convolution and the maps behind it."""
    anchor = group.anchors[0]
    if by_tiles(work, anchor):
        lower_by_tiles(work, anchor, group)
        return
    repeated = work.outer is not None
    found = pieces(anchor, work.required, work.reordered, repeated=repeated)
    if group.partial:
        _partial(work, anchor, found[0])
        return
    for node in group.nodes():
        if node in work.exported:
            work.place(node, group)
    for piece in found:
        _piece(work, group, anchor, piece)


def _accesses(
    operands: Operands, sides: tuple[Side, Side], dtypes: tuple[str, str]
) -> tuple[kernel.Access, kernel.Access]:
    a, b = (
        kernel.Access(operands.number(side.view), dtype, side.offset, side.strides, side.guards)
        for side, dtype in zip(sides, dtypes, strict=True)
    )
    return a, b


def _piece(work: Workspace, group: Group, anchor: Node, piece: Piece) -> None:
    operands = Operands()
    accumulator = _accumulator(anchor)
    rank = len(piece.space)
    core: dict[Node, Instruction] = {}
    builder = BodyBuilder(rank, operands, work.memory, core, group.members)
    if piece.sides is None:
        zero = builder.constant(0, anchor.dtype)
        core[anchor] = builder.instructions[zero]
    else:
        dtypes = _side_dtypes(piece.sides)
        a, b = _accesses(operands, piece.sides, dtypes)
        core[anchor] = Core(0, accumulator)
        if accumulator != anchor.dtype:
            argument = builder.emit(core[anchor])
            converted = builder.emit(kernel.Convert(argument, anchor.dtype))
            core[anchor] = builder.instructions[converted]
    stores = []
    for node in group.nodes():
        argument = builder.value(node, piece.index)
        if node in work.exported:
            view = work.views[node]
            assert view is not None
            stores.append(builder.store(argument, view, piece.index, node.dtype))
    label = names(group)
    if piece.sides is None:
        work.elementwise(piece.space, builder, tuple(stores), operands, label)
        return
    split, mode, extent = work.split(piece.space, piece.reduced)
    if (
        accumulator == anchor.dtype
        and len(anchor.inputs) == 2
        and choices.reduces_better(piece.space, piece.reduced, a.strides, b.strides)
    ):
        body, results = _product(a, b, accumulator)
        reduction = kernel.Reduction(
            piece.space, piece.reduced, body, results, builder.body(), tuple(stores), split
        )
        work.add(reduction, operands, label, mode, extent)
        return
    space, reduced, counted = piece.space, piece.reduced, None
    if len(anchor.inputs) > 2:
        space, reduced, counted = _counted(work, anchor, piece)
        extent = (*space, *reduced)[split]
    spec = kernel.Contraction(
        space,
        reduced,
        a,
        b,
        builder.body(),
        tuple(stores),
        split,
        accumulator=accumulator,
    )
    work.add(spec, operands, label, mode, extent, counted)


def _counted(work: Workspace, anchor: Node, piece: Piece) -> tuple[Shape, Shape, Counted]:
    """Space and reduced axes of a product of counted rows, and who counts them.

    To its kernel the number of rows is what that of the batch is to others, in units of several
    rows: what stands behind the last row is zero in one factor and finite in the other.
    """
    assert isinstance(anchor.op, Dot)
    axes = [*piece.space, *piece.reduced]
    summed = any(i == 0 for i, _ in anchor.op.contract)
    place = len(piece.space) if summed else 0
    unit = choices.counted_unit(axes[place])
    counted = work.counted(anchor.inputs[2], axes[place], unit)
    axes[place] = Batch(unit)
    return tuple(axes[: len(piece.space)]), tuple(axes[len(piece.space) :]), counted


def _partial(work: Workspace, anchor: Node, piece: Piece) -> None:
    assert piece.sides is not None
    operands = Operands()
    accumulator = _accumulator(anchor)
    if accumulator != anchor.dtype:
        raise ShapeError(f"sums over the batch in {anchor.dtype} are not supported")
    a, b = _accesses(operands, piece.sides, _side_dtypes(piece.sides))
    views = work.partial_views(anchor)
    builder = BodyBuilder(len(piece.space), operands, work.memory)
    argument = builder.emit(Core(0, accumulator))
    store = builder.store(argument, views[0], piece.index, anchor.dtype)
    split, mode, extent = work.split(piece.space, piece.reduced, partial=True)
    spec = kernel.Contraction(
        piece.space,
        piece.reduced,
        a,
        b,
        builder.body(),
        (store,),
        split,
        accumulate=True,
        accumulator=accumulator,
    )
    work.add(spec, operands, anchor.op.name, mode, extent)
    work.keep_partial(anchor, views)


def _product(
    a: kernel.Access, b: kernel.Access, dtype: str
) -> tuple[Body, tuple[tuple[int, str], ...]]:
    """The terms of a contraction as the body of a reduction."""
    loads = [
        kernel.Load(side.operand, side.dtype, side.offset, side.strides, side.guards)
        for side in (a, b)
    ]
    return (*loads, kernel.Scalar("mul", (0, 1), dtype)), ((2, "sum"),)


def _accumulator(node: Node) -> str:
    return "float32" if node.dtype in ("float16", "bfloat16") else node.dtype


def _side_dtypes(sides: tuple[Side, Side]) -> tuple[str, str]:
    return sides[0].view.buffer.type.dtype, sides[1].view.buffer.type.dtype
