"""How the loops of a contraction are arranged: which axes a tile covers, what runs around it.

    conv     n, [copy the image with its border], columns, oy, ox  | kh, (kw c)
    dot      columns, m                                            | k
    filter   n, [copy], blocks of oy, columns, kh, (kw c)          | oy in the block, ox

Left of the bar are the loops around the register tile, right of it those of its sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from lamina.llvm import choices
from lamina.llvm.host import Target
from lamina.llvm.kernel import Access, Contraction
from lamina.llvm.kernels.axes import Nest, simplify
from lamina.llvm.kernels.halo import Halo, with_halo
from lamina.types import Batch, Dimension, itemsize

COLUMNS, COPY = "columns", "copy"
FIRST, BEFORE = "first", "before"


@dataclass(frozen=True)
class Block:
    """A reduced axis that is looped over around the tiles, in steps of `size`."""

    axis: int
    size: int


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
    order    the loops around the tiles: axes of space, blocks, the columns, and the copy of `a`
    sums     bytes of scratch for sums that wait for the next block; 0 if there are none
    halo     what is copied, if anything
    pack     how panels of `b` come into scratch: FIRST, while the first of several tiles of rows
             is computed, BEFORE all tiles, or "" for not at all
    """

    nest: Nest
    lanes: int
    tile: tuple[int, ...]
    vectors: int
    order: tuple[Item, ...]
    sums: int
    halo: Halo | None
    pack: str = ""

    @property
    def blocked(self) -> frozenset[int]:
        """The reduced axes that are looped over around the tiles."""
        return frozenset(one.axis for one in self.order if isinstance(one, Block))

    @property
    def halo_bytes(self) -> int:
        return _aligned(self.halo.bytes) if self.halo else 0

    @property
    def scratch_bytes(self) -> int:
        return self.halo_bytes + self.sums + self.panel_bytes

    @property
    def panel_bytes(self) -> int:
        """One panel (all terms of the columns of a tile), or all if rows are taken in blocks."""
        if not self.pack:
            return 0
        kernel = self.nest.kernel
        terms = math.prod(_guess(size) for size in kernel.reduced)
        vectors = self.vectors
        if any(isinstance(item, RowBlock) for item in self.order):
            vectors = -(-_guess(kernel.space[-1]) // self.lanes)
        return terms * vectors * self.lanes * itemsize(kernel.accumulator)


def _aligned(count: int) -> int:
    return -(-count // 64) * 64


def _guess(size: Dimension) -> int:
    """An extent for heuristics."""
    return size if isinstance(size, int) else size.rows(choices.USUAL_ROWS)


def schedule(kernel: Contraction, target: Target) -> Schedule:
    """Arrange the loops of `kernel`; depends on nothing but shapes, strides and the target."""
    nest = simplify(Nest(kernel))
    halo = None
    if nest.kernel.a.guards:
        staged = with_halo(nest.kernel)
        if staged is not None:
            kernel, source, halo = staged
            nest = simplify(Nest(kernel, nest.scale, source))
    kernel, sizes = nest.kernel, nest.sizes
    lanes = target.lanes * 4 // itemsize(kernel.accumulator)
    column = len(kernel.space) - 1
    rows = [axis for axis in range(column) if not moves(kernel.b, axis)]
    others = [axis for axis in range(column) if axis not in rows]
    around = [axis for axis in range(column) if nest.source and nest.source.strides[axis]]
    blocks = _blocks(nest)
    inside = [axis for axis in rows if axis not in around]
    shape = choices.tile_shape(
        target,
        tuple(Batch(1) if axis == kernel.split else sizes[axis] for axis in inside),
        -(-_guess(kernel.space[-1]) // lanes),
        math.prod(_guess(sizes[axis]) for axis in range(column + 1, len(sizes))),
        a_vectors=moves(kernel.a, column),
    )
    of_axis = dict(zip(inside, shape.rows, strict=True))
    leading: list[int] = []
    for axis in inside:
        if of_axis[axis] != 1 or blocks:
            break
        leading.append(axis)
    first = [block for block in blocks if nest.source and nest.source.strides[block.axis]]
    order: list[Item] = [*around, *first]
    order += [COPY] if halo else []
    order += [block for block in blocks if block not in first]
    order += [axis for axis in others if axis not in around]
    order += leading
    if _bytes(kernel.b, sizes) > choices.RESIDENT_BYTES and not blocks:
        order.insert(0, COLUMNS)
    else:
        order.append(COLUMNS)
    order += [axis for axis in inside if axis not in leading]
    pack = ""
    if not blocks and _packable(nest):
        pack = _packing(kernel, sizes, order, of_axis)
    if pack == FIRST:
        order = _row_blocks(kernel, sizes, order, of_axis)
    return Schedule(
        nest,
        lanes,
        tuple(of_axis.get(axis, 1) for axis in range(column + 1)),
        shape.vectors,
        tuple(order),
        _sums(kernel, lanes) if blocks and not kernel.accumulate else 0,
        halo,
        pack,
    )


def _packable(nest: Nest) -> bool:
    """Whether panels of `b` can stand in scratch: their size must be known."""
    kernel = nest.kernel
    static = all(isinstance(size, int) for size in (kernel.space[-1], *kernel.reduced))
    return static and not kernel.b.guards and kernel.split < len(kernel.space) - 1


def _packing(
    kernel: Contraction,
    sizes: tuple[Dimension, ...],
    order: list[Item],
    rows: dict[int, int],
) -> str:
    """Whether packing pays, and which way."""
    terms = math.prod(_guess(size) for size in kernel.reduced)
    columns = _guess(kernel.space[-1])
    after = order[order.index(COLUMNS) + 1 :]
    if len(after) != 1 or not isinstance(after[0], int):
        heavy = _bytes(kernel.b, sizes) > choices.RESIDENT_BYTES
        return BEFORE if heavy and order[0] == COLUMNS else ""
    axis = after[0]
    unknown = isinstance(sizes[axis], Batch) or axis == kernel.split
    plain = kernel.b.strides[len(kernel.space) - 1] == 1 and kernel.b.dtype == kernel.accumulator
    enough = _guess(sizes[axis]) >= choices.PACKED_TILES * rows[axis]
    if terms < choices.PACKED_TERMS or columns < choices.PACKED_COLUMNS:
        return ""
    return FIRST if (unknown and plain) or (not unknown and enough) else ""


def _row_blocks(
    kernel: Contraction, sizes: tuple[Dimension, ...], order: list[Item], rows: dict[int, int]
) -> list[Item]:
    """Take as many rows at a time as stay in cache while all columns pass by."""
    axis = order[-1]
    assert isinstance(axis, int)
    row = math.prod(_guess(size) for size in kernel.reduced) * itemsize(kernel.a.dtype)
    step = rows[axis]
    size = max(2, choices.ROWS_BYTES // (row * step)) * step
    if size * 2 > _guess(sizes[axis]):
        return order
    place = order.index(COLUMNS)
    return [*order[:place], RowBlock(axis, size), *order[place:]]


def moves(access: Access, axis: int) -> bool:
    """Whether the element that is read depends on the index on this axis."""
    return bool(access.strides[axis]) or any(guard.strides[axis] for guard in access.guards)


def _bytes(access: Access, sizes: tuple[Dimension, ...]) -> int:
    """How much memory an operand spans."""
    steps = [(_guess(n) - 1) * abs(s) for n, s in zip(sizes, access.strides, strict=True)]
    return (sum(steps) + 1) * itemsize(access.dtype)


def _sums(kernel: Contraction, lanes: int) -> int:
    width = -(-_guess(kernel.space[-1]) // lanes) * lanes
    count = math.prod(_guess(size) for size in kernel.space[:-1])
    return _aligned(count * width * itemsize(kernel.accumulator))


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
    most = choices.terms_a_pass(sum(moved))
    terms, found = 1, []
    for axis in reversed(range(first, len(sizes))):
        extent = _guess(sizes[axis])
        size = max(1, most // terms)
        if axis in forced:
            found.append(Block(axis, 1))
        elif size < extent or isinstance(sizes[axis], Batch):
            found.append(Block(axis, size))
        terms *= extent
    return found[::-1]
