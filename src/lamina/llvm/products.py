"""Products and convolutions as affine accesses: what each is to the one contraction kernel.

`pieces(node, ...)` gives the loops of a `Dot`, `Conv`, `ConvInputGrad` or `ConvFilterGrad`. All
but the input gradient of a strided convolution are one piece; that one is a piece for every
residue of the output position modulo the strides, because each residue meets other filter taps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from lamina.errors import ShapeError
from lamina.ir.contractions import Conv, ConvFilterGrad, ConvInputGrad, Dot
from lamina.ir.graph import Node
from lamina.llvm import choices
from lamina.llvm.kernel import Guard
from lamina.llvm.views import Affine, Index, View, axis, nowhere
from lamina.types import Batch, Dimension, Shape, fixed


@dataclass(frozen=True)
class Side:
    """One operand: a view, an offset, and strides over space + reduced axes."""

    view: View
    offset: int
    strides: tuple[int, ...]
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True)
class Piece:
    """The loops of a contraction; `index` is where in the result each point of space belongs.

    Without `sides` the piece is zero: no tap of the filter reaches those positions.
    """

    space: Shape
    reduced: Shape
    index: Index
    sides: tuple[Side, Side] | None


Memory = Callable[[Node], View]
Reordered = Callable[[View, tuple[int, ...]], View]


def pieces(
    node: Node, memory: Memory, reordered: Reordered, *, repeated: bool = False
) -> list[Piece]:
    """The loops of `node`.

    Columns that are one element wide, as the filter axis of a convolution to one channel, give
    way to the next axis, if that one lies side by side in an operand. Counted rows stay where they
    are.

    memory      gives the view of an operand
    reordered   gives a contiguous copy of a view with its axes in another order, for operands
                whose columns do not lie side by side
    repeated    the product runs in a time loop, so that what does not change in it may be laid
                out as the kernel likes it best
    """
    first, second, *counted = node.inputs
    a, b = memory(first), memory(second)
    match node.op:
        case Dot():
            product = _dot(node, node.op, a, b, reordered, repeated=repeated)
            return [product if counted else _wide(product)]
        case Conv():
            return [_wide(_convolution(node, node.op, a, b))]
        case ConvFilterGrad():
            return [_wide(_filter_gradient(node, node.op, a, b))]
        case ConvInputGrad():
            return _input_gradient(node, node.op, a, b, reordered)
    raise ShapeError(f"{node.op.name} is no contraction")


def _wide(piece: Piece) -> Piece:
    """Swap a last axis of one element with the axis before it, and the sides if need be."""
    space = piece.space
    if len(space) < 2 or space[-1] != 1 or not isinstance(space[-2], int) or piece.sides is None:
        return piece
    last = len(space) - 1
    a, b = piece.sides
    strides = {side.strides[last - 1] for side in (a, b)}
    if strides != {0, 1}:
        return piece
    if a.strides[last - 1] == 1:
        a, b = b, a

    def swapped(values: tuple[int, ...]) -> tuple[int, ...]:
        return (*values[: last - 1], values[last], values[last - 1], *values[last + 1 :])

    def side(old: Side) -> Side:
        guards = tuple(replace(g, strides=swapped(g.strides)) for g in old.guards)
        return replace(old, strides=swapped(old.strides), guards=guards)

    return Piece(
        (*space[:-2], 1, space[-2]),
        piece.reduced,
        tuple(replace(c, strides=swapped(c.strides)) for c in piece.index),
        (side(a), side(b)),
    )


# ------------------------------------------------------------------------- products


def _dot(node: Node, op: Dot, a: View, b: View, reordered: Reordered, *, repeated: bool) -> Piece:
    a_batch = [x % len(a.shape) for x, _ in op.batch]
    b_batch = [y % len(b.shape) for _, y in op.batch]
    a_contract = [x % len(a.shape) for x, _ in op.contract]
    b_contract = [y % len(b.shape) for _, y in op.contract]
    a_free = [i for i in range(len(a.shape)) if i not in (*a_batch, *a_contract)]
    b_free = [i for i in range(len(b.shape)) if i not in (*b_batch, *b_contract)]
    space: Shape = node.shape
    a_axes: list[int | None] = [*a_batch, *a_free, *(None for _ in b_free)]
    b_axes: list[int | None] = [*b_batch, *(None for _ in a_free), *b_free]
    if not space:
        space, a_axes, b_axes = (1,), [None], [None]
    if b_axes[-1] is None or (a_axes[-1] is not None and _stride(a, a_axes[-1]) == 1):
        a, b, a_axes, b_axes = b, a, b_axes, a_axes
        a_contract, b_contract = b_contract, a_contract
    # Terms that lie far apart in `a` cost a line each: those of the innermost axis lie closest.
    together = sorted(zip(a_contract, b_contract, strict=True), key=lambda i: -abs(a.strides[i[0]]))
    a_contract, b_contract = [i for i, _ in together], [i for _, i in together]
    last = b_axes[-1]
    if last is not None and b.strides[last] != 1 and space[-1] != 1 and a_axes[-1] is None:
        order = [*(i for i in b_axes[:-1] if i is not None), *b_contract, last]
        # The batch comes first, so that each thread can make and keep the copy of its own rows.
        order.sort(key=lambda i: not isinstance(b.shape[i], Batch))
        b = reordered(b, tuple(order))
        places = {old: new for new, old in enumerate(order)}
        b_axes = [None if i is None else places[i] for i in b_axes]
        b_contract = [places[i] for i in b_contract]
        last = b_axes[-1]
    reduced = tuple(a.shape[i] for i in a_contract)
    constant = all(i is None for i in b_axes[:-1]) and not b.loops
    distance = max((abs(b.strides[i]) for i in b_contract), default=0)
    moving = any(isinstance(size, Batch) for size in space[:-1])
    fixed = constant and moving and b_contract
    cut = choices.in_panels(b.shape, space[-1], distance, repeated=repeated)
    if fixed and cut and last is not None:
        return _in_panels(a, b, a_axes, a_contract, b_contract, last, space, reordered)
    sides = (
        Side(a, a.offset, tuple(_stride(a, i) for i in (*a_axes, *a_contract))),
        Side(b, b.offset, tuple(_stride(b, i) for i in (*b_axes, *b_contract))),
    )
    index = tuple(axis(i, len(space)) for i in range(len(node.shape)))
    return Piece(space, reduced, index, sides)


def _in_panels(
    a: View,
    b: View,
    a_axes: list[int | None],
    a_contract: list[int],
    b_contract: list[int],
    last: int,
    space: Shape,
    reordered: Reordered,
) -> Piece:
    """A product whose right side is copied into panels of columns, once a step.

    Rows of a wide matrix lie a multiple of a kilobyte apart and push each other out of the first
    cache; the rows of a panel lie side by side.
    """
    width = choices.PANEL_COLUMNS
    columns = space[-1]
    assert isinstance(columns, int)
    shape = [*b.shape, width]
    strides = [*b.strides, b.strides[last]]
    shape[last], strides[last] = columns // width, b.strides[last] * width
    cut = replace(b, shape=tuple(shape), strides=tuple(strides))
    panels = reordered(cut, (last, *b_contract, len(b.shape)))
    count = len(space) + 1
    index = tuple(axis(i, count) for i in range(len(space) - 1))
    place = axis(count - 2, count).scaled(width).plus(axis(count - 1, count))
    terms = tuple(_stride(a, i) for i in a_contract)
    rows = tuple(_stride(a, i) for i in a_axes[:-1])
    sides = (
        Side(a, a.offset, (*rows, 0, 0, *terms)),
        Side(
            panels,
            panels.offset,
            (*(0 for _ in rows), panels.strides[0], 1, *panels.strides[1:-1]),
        ),
    )
    return Piece(
        (*space[:-1], columns // width, width),
        tuple(a.shape[i] for i in a_contract),
        (*index, place),
        sides,
    )


def _stride(view: View, position: int | None) -> int:
    return 0 if position is None else view.strides[position]


# ------------------------------------------------------------------------- convolutions


def _guards(
    extents: list[int],
    padding: tuple[tuple[int, int], ...],
    coordinates: list[Affine],
) -> tuple[Guard, ...]:
    """Bounds on the coordinates of the spatial axes that have padding."""
    return tuple(
        coordinate.guard(0, extent)
        for coordinate, extent, around in zip(coordinates, extents, padding, strict=True)
        if any(around)
    )


def _sum(terms: list[tuple[int, int]], count: int, offset: int) -> Affine:
    strides = [0] * count
    for position, stride in terms:
        strides[position] += stride
    return Affine(offset, tuple(strides))


def _dotted(view: View, parts: list[tuple[int, Affine]], extra: int = 0) -> tuple[int, list[int]]:
    """Offset and strides of a view whose axes are read at the given coordinates."""
    count = len(parts[0][1].strides)
    offset, strides = view.offset + extra, [0] * count
    for position, coordinate in parts:
        offset += view.strides[position] * coordinate.offset
        for i, stride in enumerate(coordinate.strides):
            strides[i] += view.strides[position] * stride
    return offset, strides


def _convolution(node: Node, op: Conv, x: View, w: View) -> Piece:
    """space (n, o..., [group,] filter), reduced (k..., channel); x is read at o*s + k*d - low."""
    spatial = len(op.strides)
    batch, *outs, filters = node.shape
    kernel, channels = list(w.shape[:spatial]), fixed(w.shape[-2])
    per_group = filters // op.groups
    depthwise = channels == 1 and per_group == 1
    grouped = op.groups > 1 and not depthwise
    space: list[Dimension] = [batch, *outs, *([op.groups] if grouped else []), 0]
    space[-1] = filters if depthwise or not grouped else per_group
    reduced = [*kernel, channels]
    count = len(space) + len(reduced)
    first = len(space)
    at = [
        _sum([(1 + i, op.strides[i]), (first + i, op.dilation[i])], count, -op.padding[i][0])
        for i in range(spatial)
    ]
    column, channel = axis(len(space) - 1, count), axis(count - 1, count)
    group = axis(len(space) - 2, count) if grouped else nowhere(count)
    x_channel = channel.plus(column) if depthwise else channel.plus(group.scaled(channels))
    w_filter = column.plus(group.scaled(per_group)) if grouped else column
    x_at = [(0, axis(0, count)), *((1 + i, at[i]) for i in range(spatial))]
    x_offset, x_strides = _dotted(x, [*x_at, (spatial + 1, x_channel)])
    taps = [(i, axis(first + i, count)) for i in range(spatial)]
    w_offset, w_strides = _dotted(w, [*taps, (spatial, channel), (spatial + 1, w_filter)])
    guards = _guards([fixed(e) for e in x.shape[1:-1]], op.padding, at)
    index = tuple(axis(i, len(space)) for i in range(1 + spatial))
    own = axis(len(space) - 1, len(space))
    if grouped:
        own = own.plus(axis(len(space) - 2, len(space)).scaled(per_group))
    return Piece(
        tuple(space),
        tuple(reduced),
        (*index, own),
        (Side(x, x_offset, tuple(x_strides), guards), Side(w, w_offset, tuple(w_strides))),
    )


def _filter_gradient(node: Node, op: ConvFilterGrad, x: View, dy: View) -> Piece:
    """space (k..., channel, filter), reduced (n, o...): x at o*s + k*d - low times dy at o."""
    spatial = len(op.strides)
    *kernel, channels, filters = node.shape
    per_group = filters // op.groups
    depthwise = channels == 1 and per_group == 1
    grouped = op.groups > 1 and not depthwise
    space: list[Dimension] = [*kernel, *([op.groups] if grouped else []), channels, 0]
    space[-1] = per_group if grouped else filters
    reduced = list(dy.shape[:-1])
    count, first = len(space) + len(reduced), len(space)
    at = [
        _sum([(i, op.dilation[i]), (first + 1 + i, op.strides[i])], count, -op.padding[i][0])
        for i in range(spatial)
    ]
    column, channel = axis(first - 1, count), axis(first - 2, count)
    group = axis(spatial, count) if grouped else nowhere(count)
    x_channel = channel.plus(column) if depthwise else channel.plus(group.scaled(channels))
    y_filter = column.plus(group.scaled(per_group)) if grouped else column
    rows = axis(first, count)
    x_offset, x_strides = _dotted(
        x, [(0, rows), *((1 + i, at[i]) for i in range(spatial)), (spatial + 1, x_channel)]
    )
    outs = [(1 + i, axis(first + 1 + i, count)) for i in range(spatial)]
    y_offset, y_strides = _dotted(dy, [(0, rows), *outs, (spatial + 1, y_filter)])
    guards = _guards([fixed(e) for e in x.shape[1:-1]], op.padding, at)
    own = axis(first - 1, first)
    if grouped:
        own = own.plus(axis(spatial, first).scaled(per_group))
    index = (
        *(axis(i, first) for i in range(spatial)),
        axis(first - 2, first),
        own,
    )
    return Piece(
        tuple(space),
        tuple(reduced),
        index,
        (Side(x, x_offset, tuple(x_strides), guards), Side(dy, y_offset, tuple(y_strides))),
    )


def _input_gradient(
    node: Node, op: ConvInputGrad, dy: View, w: View, reordered: Reordered
) -> list[Piece]:
    """For each residue of the position modulo the strides: the taps that reach it.

    Position p = s*y + r receives dy[o] * w[k] where o*s + k*d - low = p, so the taps k of the
    residue are those with (r + low - k*d) divisible by s: an arithmetic progression, or none.
    """
    spatial = len(op.strides)
    depthwise = w.shape[-2] == 1 and w.shape[-1] == op.groups
    if not depthwise:
        w = reordered(w, (*range(spatial), spatial + 1, spatial))
    choices = [
        [_residue(op, i, residue, fixed(w.shape[i]), fixed(node.shape[1 + i]))
         for residue in range(op.strides[i])]
        for i in range(spatial)
    ]  # fmt: skip
    return [
        _residue_piece(node, op, dy, w, combination, depthwise)
        for combination in itertools.product(*choices)
        if all(residue.positions > 0 for residue in combination)
    ]


@dataclass(frozen=True)
class _Residue:
    """Along one axis: positions s*y + residue, y < positions, met by taps first + j*step."""

    residue: int
    positions: int
    first: int
    step: int
    taps: int
    origin: int  # o at y = 0 and the first tap
    slope: int  # how far o moves back from one tap to the next


def _residue(op: ConvInputGrad, i: int, residue: int, kernel: int, extent: int) -> _Residue:
    stride, dilation, low = op.strides[i], op.dilation[i], op.padding[i][0]
    positions = -(-(extent - residue) // stride)
    step = stride // math.gcd(stride, dilation)
    fitting = [k for k in range(kernel) if (residue + low - k * dilation) % stride == 0]
    if not fitting:
        return _Residue(residue, positions, 0, 1, 0, 0, 0)
    first = fitting[0]
    origin = (residue + low - first * dilation) // stride
    return _Residue(
        residue, positions, first, step, len(fitting), origin, step * dilation // stride
    )


def _residue_piece(
    node: Node,
    op: ConvInputGrad,
    dy: View,
    w: View,
    residues: tuple[_Residue, ...],
    depthwise: bool,
) -> Piece:
    spatial = len(op.strides)
    batch, channels = node.shape[0], node.shape[-1]
    per_group = channels // op.groups
    grouped = op.groups > 1 and not depthwise
    space: list[Dimension] = [batch, *(r.positions for r in residues)]
    space += [op.groups, per_group] if grouped else [channels]
    filters = 1 if depthwise else fixed(dy.shape[-1]) // op.groups
    reduced = [*(r.taps for r in residues), filters]
    first, count = len(space), len(space) + len(reduced)
    index = [axis(0, first)]
    index += [axis(1 + i, first).scaled(op.strides[i], r.residue) for i, r in enumerate(residues)]
    own = axis(first - 1, first)
    if grouped:
        own = own.plus(axis(first - 2, first).scaled(per_group))
    index.append(own)
    if any(r.taps == 0 for r in residues):
        return Piece(tuple(space), (), tuple(index), None)
    at = [
        _sum([(1 + i, 1), (first + i, -r.slope)], count, r.origin) for i, r in enumerate(residues)
    ]
    column, tap_filter = axis(first - 1, count), axis(count - 1, count)
    group = axis(first - 2, count) if grouped else nowhere(count)
    y_filter = column if depthwise else tap_filter.plus(group.scaled(filters))
    y_offset, y_strides = _dotted(
        dy,
        [
            (0, axis(0, count)),
            *((1 + i, at[i]) for i in range(spatial)),
            (spatial + 1, y_filter),
        ],
    )
    taps = [(i, axis(first + i, count).scaled(r.step, r.first)) for i, r in enumerate(residues)]
    if depthwise:
        w_offset, w_strides = _dotted(w, [*taps, (spatial + 1, column)])
    else:
        w_offset, w_strides = _dotted(w, [*taps, (spatial, y_filter), (spatial + 1, column)])
    guards = tuple(
        coordinate.guard(0, fixed(extent))
        for coordinate, extent in zip(at, dy.shape[1:-1], strict=True)
    )
    return Piece(
        tuple(space),
        tuple(reduced),
        tuple(index),
        (Side(dy, y_offset, tuple(y_strides), guards), Side(w, w_offset, tuple(w_strides))),
    )
