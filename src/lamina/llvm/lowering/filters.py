"""The gradient of a 3 x 3 filter by tiles: fewer multiplications, see `kernels.filters`."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.ir.contractions import ConvFilterGrad
from lamina.ir.graph import Node
from lamina.llvm import choices, kernel
from lamina.llvm.body import BodyBuilder, Operands
from lamina.llvm.fuse import Group
from lamina.llvm.lowering.workspace import Workspace
from lamina.llvm.views import Affine, Index, View, axis
from lamina.types import Batch, Type


def by_tiles(work: Workspace, node: Node) -> bool:
    """Whether the gradient of a filter can be taken by tiles, and that is faster."""
    op = node.op
    if not isinstance(op, ConvFilterGrad) or node.dtype != "float32" or work.outer:
        return False
    x, dy = node.inputs
    plain = set(op.strides) == set(op.dilation) == {1} and op.groups == 1
    if not plain or node.shape[:2] != (3, 3) or len(node.shape) != 4:
        return False
    if {x.dtype, dy.dtype} != {"float32"} or not isinstance(x.shape[0], Batch):
        return False
    outputs = _image(dy)
    channels, filters = (int(size) for size in node.shape[2:])
    rows = x.shape[0].rows(work.capacity)
    return choices.tiles_pay(outputs, _tiles(outputs), rows, channels, filters)


def _image(node: Node) -> tuple[int, int]:
    return int(node.shape[1]), int(node.shape[2])


def _tiles(outputs: tuple[int, int]) -> tuple[int, int]:
    return -(-outputs[0] // 2), -(-outputs[1] // 2)


def lower_by_tiles(work: Workspace, node: Node, group: Group) -> None:
    """The sums of all tiles, then what is taken of them once."""
    op = node.op
    assert isinstance(op, ConvFilterGrad)
    x, dy = node.inputs
    operands = Operands()
    for parent in node.inputs:
        operands.number(work.packed(parent))
    channels, filters = (int(size) for size in node.shape[2:])
    sums = Type((4, 4, channels, filters), node.dtype)
    parts = work.partial_views(node, sums)
    operands.written_number(parts[0])
    spec = kernel.TileFilterGradient(
        x.shape[0], _image(x), _image(dy), (op.padding[0][0], op.padding[1][0]), channels, filters
    )
    work.add(spec, operands, op.name, "parts", x.shape[0])
    _take(work, parts, work.place(node, group), (channels, filters))


def _take(work: Workspace, parts: list[View], target: View, space: tuple[int, int]) -> None:
    """G^T S G of every channel and filter, S the sum of all parts."""
    operands = Operands()
    builder = BodyBuilder(2, operands, work.memory)

    def place(row: int, column: int) -> Index:
        return Affine(row, (0, 0)), Affine(column, (0, 0)), axis(0, 2), axis(1, 2)

    def total(row: int, column: int) -> int:
        at = place(row, column)
        return builder.sum([builder.load(part, "float32", at) for part in parts], "float32")

    def scalar(fn: str, a: int, b: int) -> int:
        return builder.scalar(fn, a, b, dtype="float32")

    half = builder.constant(0.5, "float32")

    def transposed(s: Sequence[int]) -> list[int]:
        """G^T s."""
        middle = scalar("mul", scalar("add", s[1], s[2]), half)
        slope = scalar("mul", scalar("sub", s[1], s[2]), half)
        return [scalar("add", s[0], middle), slope, scalar("add", middle, s[3])]

    columns = [transposed([total(row, column) for row in range(4)]) for column in range(4)]
    stores = []
    for row in range(3):
        taps = transposed([column[row] for column in columns])
        stores += [
            builder.store(tap, target, place(row, number), "float32")
            for number, tap in enumerate(taps)
        ]
    work.elementwise(space, builder, tuple(stores), operands, "taps")
