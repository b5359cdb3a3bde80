"""How the loops of a contraction are arranged: which axes a tile covers, what runs around it.

    conv     n, [copy the image with its border], columns, oy, ox  | kh, (kw c)
    dot      columns, m                                            | k
    filter   n, [copy], blocks of oy, columns, kh, (kw c)          | oy in the block, ox
    input    n, [sums of an image], kh, kw, columns, oy, ox        | f

Left of the bar are the loops around the register tile, right of it those of its sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

from lamina.llvm import choices
from lamina.llvm.choices import typical
from lamina.llvm.host import Target
from lamina.llvm.kernel import Access, Contraction
from lamina.llvm.kernels.axes import Nest, simplify
from lamina.llvm.kernels.halo import Halo, with_halo
from lamina.llvm.kernels.nest import aligned
from lamina.llvm.kernels.taps import Reach, with_taps
from lamina.types import Batch, Dimension, itemsize

COLUMNS, COPY, SUMS = "columns", "copy", "sums"
FIRST, BEFORE = "first", "before"


@dataclass(frozen=True)
class Block:
    """A reduced axis that is looped over around the tiles, in steps of `size`.

    Where the batch stands inside of it, on the axis `rows`, one pass takes as many steps as have
    `size` terms together, whole batches, or a single one. So terms stay in the order of the axes.
    """

    axis: int
    size: int
    rows: int | None = None


@dataclass(frozen=True)
class Sums:
    """Where sums wait in scratch for the next block.

    strides  bytes between neighbours on every axis, of space and reduced
    start    bytes from the first sum to that of the first tile
    """

    bytes: int
    strides: tuple[int, ...]
    start: int = 0


@dataclass(frozen=True)
class RowBlock:
    """An axis of rows, taken in steps of `size` that are then cut into tiles."""

    axis: int
    size: int


Item: TypeAlias = int | Block | RowBlock | str


@dataclass(frozen=True)
class Schedule:
    """Everything that is decided about one contraction.

    nest     simplified; with a halo, its `a` reads scratch and has no guards
    lanes    elements of the accumulator's type in a vector
    tile     rows of a tile along each axis of space
    vectors  vectors of columns in a tile
    order    the loops around the tiles: axes of space, blocks, the columns, the copy of `a`, and
             where sums in scratch begin and end
    sums     where sums wait in scratch for the next block, if they do
    halo     what is copied, if anything
    pack     how panels of `b` come into scratch: FIRST, while the first of several tiles of rows
             is computed, BEFORE all tiles, or "" for not at all
    reaches  the positions that each tap reaches, where taps are taken one after another
    across   whether the columns are lanes of one sum, to be added before the epilogue
    """

    nest: Nest
    lanes: int
    tile: tuple[int, ...]
    vectors: int
    order: tuple[Item, ...]
    sums: Sums | None
    halo: Halo | None
    pack: str
    reaches: tuple[Reach, ...]
    across: bool

    @property
    def blocked(self) -> frozenset[int]:
        """The reduced axes that are looped over around the tiles."""
        return frozenset(one.axis for one in self.order if isinstance(one, Block))

    @property
    def halo_bytes(self) -> int:
        return aligned(self.halo.bytes) if self.halo else 0

    @property
    def scratch_bytes(self) -> int:
        return self.panel_start + self.panel_bytes

    @property
    def panel_start(self) -> int:
        """Panels stand behind the copy and the sums."""
        return self.halo_bytes + (self.sums.bytes if self.sums else 0)

    @property
    def panel_terms(self) -> tuple[int, ...]:
        """How many terms along each reduced axis stand in a panel: those of one pass.

        Steps of several batches share the room for the terms of one.
        """
        blocks = [one for one in self.order if isinstance(one, Block)]
        passes = {one.axis: one.size if one.rows is None else 1 for one in blocks}
        first = len(self.nest.kernel.space)
        return tuple(
            passes.get(first + number) or typical(size)
            for number, size in enumerate(self.nest.kernel.reduced)
        )

    @property
    def panel_bytes(self) -> int:
        """One panel (all terms of the columns of a tile), or all if rows are taken in blocks."""
        if not self.pack:
            return 0
        kernel = self.nest.kernel
        terms = math.prod(self.panel_terms)
        vectors = self.vectors
        if any(isinstance(item, RowBlock) for item in self.order):
            vectors = -(-typical(kernel.space[-1]) // self.lanes)
        return terms * vectors * self.lanes * itemsize(kernel.accumulator)


def _share(size: Dimension) -> Batch:
    """What a call is given of the split axis: a fourth of it or more."""
    return size if isinstance(size, Batch) else Batch(max(1, size // choices.USUAL_ROWS[-1]))


def schedule(
    kernel: Contraction, target: Target, *, part: bool = False, across: bool = False
) -> Schedule:
    """Arrange the loops of `kernel`; depends on nothing but shapes, strides and the target.

    A `part` of a convolution keeps its guards, and is called for one step of its split axis after
    the other. `across` says that the columns are lanes of one sum.
    """
    nest = simplify(Nest(_turned(kernel)))
    halo: Halo | None = None
    reaches: tuple[Reach, ...] = ()
    if nest.kernel.a.guards and not part:
        tapped = _tapped(nest)
        staged = None if tapped else with_halo(nest.kernel)
        if tapped:
            kernel, reaches = tapped
            nest = replace(nest, kernel=kernel)
        elif staged:
            kernel, source, halo = staged
            nest = simplify(Nest(kernel, nest.scale, source))
    kernel = nest.kernel
    counts = {reach.axis: reach.count for reach in reaches}
    sizes = tuple(counts.get(axis, size) for axis, size in enumerate(nest.sizes))
    lanes = target.lanes * 4 // itemsize(kernel.accumulator)
    column = len(kernel.space) - 1
    rows = [axis for axis in range(column) if not moves(kernel.b, axis)]
    others = [axis for axis in range(column) if axis not in rows]
    # What stands around the copy, or around the sums of one image.
    around = [axis for axis in range(column) if nest.source and nest.source.strides[axis]]
    if reaches:
        around = [axis for axis in rows if axis not in counts]
    if part:
        around = [kernel.split]
    blocks = [Block(reach.tap, 1) for reach in reaches if reach.tap >= 0] or _blocks(nest)
    blocks.sort(key=lambda block: block.axis)
    inside = [axis for axis in rows if axis not in around]
    blocked = [block.axis for block in blocks if block.size == 1]
    terms = [typical(n) for axis, n in enumerate(sizes) if axis > column and axis not in blocked]
    spread = _spread(kernel, sizes, blocks, target.vector_bytes)
    packable = not blocks and _packable(nest)
    shape = choices.tile_shape(
        target,
        tuple(_share(sizes[axis]) if axis == kernel.split else sizes[axis] for axis in inside),
        -(-typical(kernel.space[-1]) // lanes),
        math.prod(terms),
        a_vectors=moves(kernel.a, column),
        guarded=bool(kernel.a.guards),
        packed=packable and len(inside) == 1 and _packs_many(kernel, sizes, inside[0], spread),
        spread=spread,
    )
    of_axis = dict(zip(inside, shape.rows, strict=True))
    summed = bool(blocks or reaches) and not kernel.accumulate
    leading: list[int] = []
    for axis in inside:
        if of_axis[axis] != 1 or blocks:
            break
        leading.append(axis)
    first = [block for block in blocks if nest.source and nest.source.strides[block.axis]]
    order: list[Item] = [SUMS] if summed and not reaches else []
    order += [*around, *first]
    order += [COPY] if halo else []
    order += [SUMS] if reaches else []
    order += [block for block in blocks if block not in first]
    order += [axis for axis in others if axis not in around]
    order += leading
    # What every problem of several reads: another `b` for each need not stay.
    shared = tuple(1 if axis in others else size for axis, size in enumerate(sizes))
    if _bytes(kernel.b, shared) > choices.RESIDENT_BYTES and not blocks:
        order.insert(0, COLUMNS)
    else:
        order.append(COLUMNS)
    order += [axis for axis in inside if axis not in leading]
    pack = ""
    if packable:
        pack = _packing(kernel, sizes, order, of_axis, spread)
    elif _packs_passes(kernel, sizes, order, of_axis, spread):
        pack = FIRST
    if pack == FIRST and packable:
        order = _row_blocks(kernel, sizes, order, of_axis)
    return Schedule(
        nest,
        lanes,
        tuple(of_axis.get(axis, 1) for axis in range(column + 1)),
        shape.vectors,
        tuple(order),
        _sums(nest, lanes, reaches) if summed else None,
        halo,
        pack,
        reaches,
        across,
    )


def _spread(
    kernel: Contraction, sizes: tuple[Dimension, ...], blocks: list[Block], vector_bytes: int
) -> choices.Spread | None:
    """How the terms of one pass lie in memory."""
    column, last = len(kernel.space) - 1, len(sizes) - 1
    if not kernel.reduced or moves(kernel.a, column) or kernel.b.strides[column] != 1:
        return None
    cut = [block.size for block in blocks if block.axis == last]
    together = [block.size for block in blocks if block.rows == last]
    a, b = (abs(side.strides[last]) * itemsize(side.dtype) for side in (kernel.a, kernel.b))
    return choices.Spread(min(together or [typical(sizes[last]), *cut]), a, b, vector_bytes)


def _turned(kernel: Contraction) -> Contraction:
    """The contraction with `b` as the operand that more rows share.

    In the gradient of a filter with one output channel the columns are those of the image, and
    each tap meets another part of it: what all taps share is the gradient, a scalar.
    """
    column = len(kernel.space) - 1

    def shared(side: Access) -> int:
        sizes = [typical(kernel.space[axis]) for axis in range(column) if not moves(side, axis)]
        return math.prod(sizes)

    if kernel.a.strides[column] == 0 and shared(kernel.b) < 4 and shared(kernel.a) >= 4:
        return replace(kernel, a=kernel.b, b=kernel.a)
    return kernel


def _tapped(nest: Nest) -> tuple[Contraction, tuple[Reach, ...]] | None:
    """The contraction tap by tap, if that is possible and saves enough."""
    kernel = nest.kernel
    tapped = with_taps(kernel)
    if tapped is None or kernel.accumulate or moves(kernel.a, len(kernel.space) - 1):
        return None
    reaches = tapped[1]
    useful = math.prod(reach.count / typical(nest.sizes[reach.axis]) for reach in reaches)
    terms = math.prod(typical(size) for size in kernel.reduced)
    terms //= math.prod(typical(nest.sizes[reach.tap]) for reach in reaches if reach.tap >= 0)
    return tapped if useful < choices.USEFUL_SHARE and terms >= choices.TERMS_A_TAP else None


def _packable(nest: Nest) -> bool:
    """Whether panels of `b` can stand in scratch: their size must be known."""
    kernel = nest.kernel
    static = all(isinstance(size, int) for size in (kernel.space[-1], *kernel.reduced))
    return static and not kernel.b.guards and kernel.split < len(kernel.space) - 1


def _worth_packing(
    kernel: Contraction, sizes: tuple[Dimension, ...], rows: int, spread: choices.Spread | None
) -> bool:
    """Whether panels serve sums that are long enough, on the axis `rows`.

    Few columns need them only where they would push each other out of the first cache, or where
    vectors cross its lines and many rows come from further away.
    """
    columns = typical(kernel.space[-1])
    known = not isinstance(sizes[rows], Batch) and rows != kernel.split
    terms = math.prod(typical(size) for size in kernel.reduced)
    if terms >= choices.PACKED_TERMS and columns >= choices.PACKED_COLUMNS:
        return True
    if not known or spread is None:
        return False
    many = typical(sizes[rows]) >= choices.MANY_ROWS and terms >= choices.PACKED_TERMS
    crowded = spread.far(0) and terms >= choices.CROWDED_TERMS
    return crowded or (spread.askew and many)


def _packs_many(
    kernel: Contraction, sizes: tuple[Dimension, ...], rows: int, spread: choices.Spread | None
) -> bool:
    """Whether panels will surely be packed: a large product of matrices."""
    many = typical(sizes[rows]) >= choices.MANY_ROWS
    return many and _worth_packing(kernel, sizes, rows, spread)


def _packing(
    kernel: Contraction,
    sizes: tuple[Dimension, ...],
    order: list[Item],
    rows: dict[int, int],
    spread: choices.Spread | None,
) -> str:
    """Whether packing pays, and which way."""
    after = order[order.index(COLUMNS) + 1 :]
    if len(after) != 1 or not isinstance(after[0], int):
        heavy = _bytes(kernel.b, sizes) > choices.RESIDENT_BYTES
        # A panel serves all tiles behind it only if no loop between them moves `b`.
        fixed = not any(isinstance(axis, int) and moves(kernel.b, axis) for axis in after)
        return BEFORE if heavy and fixed and order[0] == COLUMNS else ""
    axis = after[0]
    unknown = isinstance(sizes[axis], Batch) or axis == kernel.split
    plain = kernel.b.strides[len(kernel.space) - 1] == 1 and kernel.b.dtype == kernel.accumulator
    enough = typical(sizes[axis]) >= choices.PACKED_TILES * rows[axis]
    if not _worth_packing(kernel, sizes, axis, spread):
        return ""
    return FIRST if (unknown and plain) or (not unknown and enough) else ""


def _packs_passes(
    kernel: Contraction,
    sizes: tuple[Dimension, ...],
    order: list[Item],
    rows: dict[int, int],
    spread: choices.Spread | None,
) -> bool:
    """Whether the columns of every pass over a sum are packed, for the tiles of all rows."""
    after = order[order.index(COLUMNS) + 1 :]
    if len(after) != 1 or not isinstance(after[0], int) or kernel.b.guards:
        return False
    axis, extent = after[0], sizes[after[0]]
    blocked = [one.axis for one in order if isinstance(one, Block)]
    inner = [n for number, n in enumerate(sizes) if number not in blocked]
    if isinstance(extent, Batch) or kernel.split == axis or spread is None:
        return False
    enough = extent >= choices.PACKED_TILES * rows[axis]
    static = all(isinstance(size, int) for size in inner[len(kernel.space) - 1 :])
    return enough and static and spread.terms >= choices.CROWDED_TERMS and spread.far(0)


def _row_blocks(
    kernel: Contraction, sizes: tuple[Dimension, ...], order: list[Item], rows: dict[int, int]
) -> list[Item]:
    """Take as many rows at a time as stay in cache while all columns pass by."""
    axis = order[-1]
    assert isinstance(axis, int)
    row = math.prod(typical(size) for size in kernel.reduced) * itemsize(kernel.a.dtype)
    step = rows[axis]
    size = max(2, choices.ROWS_BYTES // (row * step)) * step
    if size * 2 > typical(sizes[axis]):
        return order
    place = order.index(COLUMNS)
    return [*order[:place], RowBlock(axis, size), *order[place:]]


def moves(access: Access, axis: int) -> bool:
    """Whether the element that is read depends on the index on this axis."""
    return bool(access.strides[axis]) or any(guard.strides[axis] for guard in access.guards)


def _bytes(access: Access, sizes: tuple[Dimension, ...]) -> int:
    """How much memory an operand spans."""
    steps = [(typical(n) - 1) * abs(s) for n, s in zip(sizes, access.strides, strict=True)]
    return (sum(steps) + 1) * itemsize(access.dtype)


def _sums(nest: Nest, lanes: int, reaches: tuple[Reach, ...]) -> Sums:
    """Room for the sums of all space, or of one image where taps are taken one after another."""
    kernel = nest.kernel
    strides = [0] * len(nest.sizes)
    column = len(kernel.space) - 1
    reached = {reach.axis for reach in reaches}
    size = itemsize(kernel.accumulator)
    strides[column], size = size, -(-typical(kernel.space[-1]) // lanes) * lanes * size
    for axis in reversed(range(column)):
        if not reaches or axis in reached or moves(kernel.b, axis):
            strides[axis] = size
            size *= typical(kernel.space[axis])
    start = 0
    for reach in reaches:
        start += reach.first * strides[reach.axis]
        if reach.tap >= 0:
            strides[reach.tap] = reach.step * strides[reach.axis]
    return Sums(aligned(size), tuple(strides), start)


def _blocks(nest: Nest) -> list[Block]:
    """Which reduced axes are cut, so that one pass over the sums finds its operands in cache.

    The axes around a copy must be. Sums between blocks stand in memory, so space must be static.
    """
    kernel, sizes = nest.kernel, nest.sizes
    first = len(kernel.space)
    forced = [
        axis for axis in range(first, len(sizes)) if nest.source and nest.source.strides[axis]
    ]
    if any(isinstance(size, Batch) for size in kernel.space):
        return []
    touched = _bytes(kernel.a, sizes) + _bytes(kernel.b, sizes)
    # Where terms lie side by side in `a` its rows stream by; packed panels serve these better.
    streams = not any(kernel.a.strides[axis] == 1 for axis in range(first - 1))
    if touched <= choices.PASS_BYTES or streams:
        return [Block(axis, 1) for axis in forced]
    moved = [itemsize(side.dtype) * abs(side.strides[-1]) for side in (kernel.a, kernel.b)]
    many = len(kernel.reduced) > 1 and isinstance(sizes[-1], Batch)
    most = choices.terms_a_pass(*moved, steps=many and not kernel.b.guards)
    terms = 1
    found: list[Block] = []
    for axis in reversed(range(first, len(sizes))):
        extent = typical(sizes[axis])
        size = max(1, most // terms)
        inner = found[-1] if found else None
        if axis in forced or (inner and inner.rows is not None):
            found.append(Block(axis, 1))
        elif inner and inner.size > 1 and isinstance(sizes[inner.axis], Batch):
            found.append(Block(axis, inner.size, inner.axis))
        elif size < extent or isinstance(sizes[axis], Batch):
            found.append(Block(axis, size))
        terms *= extent
    return found[::-1]
