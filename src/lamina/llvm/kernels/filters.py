"""The gradient of a filter of 3 x 3 by fewer multiplications: Winograd's method, transposed.

The convolution is `Y = A^T [(G g G^T) * (B^T d B)] A` (see `winograd`), so its gradient is

    dg = G^T [sum over tiles of (A dY A^T) * (B^T d B)] G

with 16 multiplications for each 2 x 2 tile of dY instead of 36. Summed over tiles, each of the 16
positions is a product of matrices, channels x tiles by tiles x filters. What is in brackets is
summed here; `lowering.filters` takes G^T [...] G once a step, when all tiles have been added.

For a group of tiles (several images, or some rows of tiles of one) and one of four rows of
positions after the other: transform the image, transform dY, multiply. A row of positions needs
two rows of an image tile and of dY, so nothing is computed twice, and what a group has transformed
stays in the second level of cache. A sum meets its tiles in their order in the batch, whatever
the groups are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lamina.llvm import choices
from lamina.llvm.emit import FLOAT, I64, Index, Module, Place, Value, vector
from lamina.llvm.host import Target
from lamina.llvm.kernel import TileFilterGradient
from lamina.llvm.kernels.halo import Coordinate, Halo, copy_image
from lamina.llvm.kernels.nest import Axis, Frame, aligned, open_kernel
from lamina.llvm.kernels.product import product

_SIZE = 4

_Visit: TypeAlias = Callable[[Place, Index], None]

# B^T d: row i of positions is the first row of the image's tile plus sign times the second.
_IMAGE_ROWS = ((0, 2), (1, 2), (2, 1), (3, 1))
_IMAGE_SIGNS = (-1.0, 1.0, -1.0, -1.0)
# A dY, up to a sign: a factor times the upper plus one times the lower row.
_GRADIENT_ROWS = ((1.0, 0.0), (1.0, 1.0), (1.0, -1.0), (0.0, 1.0))


def operands(_kernel: TileFilterGradient) -> int:
    """How many pointers the function takes."""
    return 3


@dataclass(frozen=True)
class _Plan:
    """How the gradient is computed.

    tiles      tiles of 2 x 2 along both axes
    images     images in a group of tiles
    rows       rows of tiles in a group; all of an image's if there are several images
    channels   channels in a register tile, at most
    vectors    vectors of filters in a register tile
    x, dy      what is copied with a border or to an even size; None if it is read as it lies
    """

    kernel: TileFilterGradient
    lanes: int
    tiles: tuple[int, int]
    images: int
    rows: int
    channels: int
    vectors: int
    x: Halo | None
    dy: Halo | None

    @property
    def group(self) -> int:
        """Tiles in a group, at most."""
        return self.images * self.rows * self.tiles[1]

    @property
    def areas(self) -> tuple[int, int, int, int]:
        """Bytes of the copies of x and dy, and of a row of positions of both, transformed."""
        return (
            self.images * aligned(self.x.bytes) if self.x else 0,
            self.images * aligned(self.dy.bytes) if self.dy else 0,
            4 * self.group * self.kernel.channels * _SIZE,
            4 * self.group * self.kernel.filters * _SIZE,
        )


def _plan(kernel: TileFilterGradient, target: Target) -> _Plan:
    tiles = (-(-kernel.outputs[0] // 2), -(-kernel.outputs[1] // 2))
    lanes = math.gcd(target.lanes, kernel.channels, kernel.filters)
    across = kernel.filters // lanes
    widest = 4 if target.registers >= 32 else 3
    vectors = next(v for v in range(widest, 0, -1) if across % v == 0)
    if target.registers < 32 and vectors == 3 and across % 2 == 0:
        vectors = 2
    images, rows = choices.tiles_together(tiles, kernel.channels + kernel.filters)
    return _Plan(
        kernel,
        lanes,
        tiles,
        images,
        rows,
        choices.accumulators(target, vectors),
        vectors,
        _copied(kernel.image, kernel.channels, kernel.low, tiles, 2),
        _copied(kernel.outputs, kernel.filters, (0, 0), tiles, 0),
    )


def _copied(
    image: tuple[int, int], channels: int, low: tuple[int, int], tiles: tuple[int, int], more: int
) -> Halo | None:
    """What the tiles read: 2 x 2 positions a tile and `more` at the end, zero outside."""
    strides = (image[1] * channels, channels)
    axes = []
    for extent, first, count, stride in zip(image, low, tiles, strides, strict=True):
        size = 2 * count + more
        axes.append(Coordinate(stride, size, min(first, size), min(first + extent, size)))
    if not any(low) and all(axis.high == axis.size for axis in axes):
        return None
    return Halo("float32", (*axes, Coordinate(1, channels, 0, channels)))


def scratch_bytes(kernel: TileFilterGradient, target: Target) -> int:
    """How much scratch, aligned to 64 bytes, a call of the kernel needs."""
    return sum(_plan(kernel, target).areas)


def build(kernel: TileFilterGradient, name: str, module: Module) -> None:
    """Add the function of a filter's gradient to the module."""
    frame = open_kernel(module, name, operands(kernel))
    _Writer(frame, _plan(kernel, module.target)).run()
    frame.emit.finish()


@dataclass(frozen=True)
class _Source:
    """An image as the tiles read it, from its first position on; strides in bytes."""

    start: Place
    image: int
    row: int
    pixel: int


class _Writer:
    def __init__(self, frame: Frame, plan: _Plan) -> None:
        self.frame, self.emit, self.plan = frame, frame.emit, plan
        self.kernel = plan.kernel
        self.type = vector(FLOAT, plan.lanes)
        starts = [sum(plan.areas[:number]) for number in range(4)]
        self.copies = [Place(frame.scratch, start) for start in starts[:2]]
        self.images, self.gradients = (Place(frame.scratch, start) for start in starts[2:])

    def run(self) -> None:
        emit, plan = self.emit, self.plan
        for halo, copy, bytes in zip((plan.x, plan.dy), self.copies, plan.areas, strict=False):
            if halo:
                emit.clear(copy, bytes)
        low, high = Axis(self.kernel.batch, split=True).bounds(self.frame)
        with emit.loop(low, high, plan.images) as at:
            count = self._at_most(plan.images, high + at.index * -1)
            x = self._source(0, plan.x, self.kernel.image, self.kernel.channels, at.index, count)
            dy = self._source(1, plan.dy, self.kernel.outputs, self.kernel.filters, at.index, count)
            with emit.loop(0, plan.tiles[0], plan.rows) as piece:
                rows = self._at_most(plan.rows, Index(None, plan.tiles[0]) + piece.index * -1)
                with emit.loop(0, 4) as position:
                    self._transform_images(x, position.index, count, piece.index, rows)
                    self._transform_gradients(dy, position.index, count, piece.index, rows)
                    tiles = (count + -1) * plan.rows + rows
                    self._products(position.index, tiles * plan.tiles[1])

    def _at_most(self, most: int, left: Index) -> Index:
        if most == 1:
            return Index(None, 1)
        if left.number is not None:
            return Index(None, min(most, left.number))
        value = left.on(self.emit)
        return Index(self.emit.select(value < most, value, most))

    def _source(
        self,
        operand: int,
        halo: Halo | None,
        image: tuple[int, int],
        channels: int,
        first: Index,
        count: Index,
    ) -> _Source:
        """The images of a group, copied where tiles reach beyond them."""
        emit, pixel = self.emit, channels * _SIZE
        row, whole = image[1] * pixel, image[0] * image[1] * pixel
        start = Place(self.frame.operands[operand]).step(first, whole)
        if halo is None:
            return _Source(start, whole, row, pixel)
        above, left, _ = (coordinate.low for coordinate in halo.coordinates)
        source = _Source(
            self.copies[operand], aligned(halo.bytes), halo.coordinates[1].size * pixel, pixel
        )
        with emit.loop(0, count) as number:
            here = start.step(number.index, whole) + -(above * row + left * pixel)
            copy_image(emit, halo, here, source.start.step(number.index, source.image))
        return source

    # --------------------------------------------------------------- transforms

    def _tiles(
        self, source: _Source, count: Index, first: Index, rows: Index, visit: _Visit
    ) -> None:
        """Call `visit` with the place of every tile of a group, and its number in the group."""
        emit, plan = self.emit, self.plan
        with emit.loop(0, count) as number:
            image = source.start.step(number.index, source.image).step(first, 2 * source.row)
            with emit.loop(0, rows) as y, emit.loop(0, plan.tiles[1]) as x:
                corner = image.step(y.index, 2 * source.row).step(x.index, 2 * source.pixel)
                tile = (number.index * plan.rows + y.index) * plan.tiles[1] + x.index
                visit(corner, tile)

    def _table(self, numbers: Sequence[int], position: Index) -> Value:
        """The number of a row of positions."""
        table = Place(self.emit.symbol(self.emit.module.table(struct.pack("4q", *numbers))))
        return self.emit.load(table.step(position, 8), I64)

    def _factor(self, numbers: Sequence[float], position: Index) -> Value:
        table = Place(self.emit.symbol(self.emit.module.table(struct.pack("4f", *numbers))))
        return self.emit.splat(self.emit.load(table.step(position, 4), FLOAT), self.plan.lanes)

    def _transform_images(
        self, source: _Source, position: Index, count: Index, first: Index, rows: Index
    ) -> None:
        """One row of positions of B^T d B: [4][tile][channel]."""
        emit, plan, channels = self.emit, self.plan, self.kernel.channels
        one, other = (
            self._table([row[side] * source.row for row in _IMAGE_ROWS], position)
            for side in (0, 1)
        )
        sign = self._factor(_IMAGE_SIGNS, position)

        def visit(corner: Place, tile: Index) -> None:
            upper, lower = corner.step(one), corner.step(other)
            there = self.images.step(tile, channels * _SIZE)
            with emit.loop(0, channels, plan.lanes) as c:
                values = []
                for column in range(4):
                    a, b = (
                        emit.load(side.step(c.index, _SIZE) + column * source.pixel, self.type)
                        for side in (upper, lower)
                    )
                    values.append(emit.fma(sign, b, a))
                first, second, third, last = values
                self._put(
                    there.step(c.index, _SIZE),
                    channels,
                    (first - third, second + third, third - second, last - second),
                )

        self._tiles(source, count, first, rows, visit)

    def _transform_gradients(
        self, source: _Source, position: Index, count: Index, first: Index, rows: Index
    ) -> None:
        """One row of positions of A dY A^T: [4][block][tile][filter of the block].

        Blocks lie apart, for a block's rows to spread over all of the first level of cache.
        """
        emit, plan, filters = self.emit, self.plan, self.kernel.filters
        block = plan.vectors * plan.lanes
        above, below = (
            self._factor([row[side] for row in _GRADIENT_ROWS], position) for side in (0, 1)
        )

        def visit(corner: Place, tile: Index) -> None:
            there = self.gradients.step(tile, block * _SIZE)
            with emit.loop(0, filters, block) as f:
                for v in range(plan.vectors):
                    here = corner.step(f.index, _SIZE) + v * plan.lanes * _SIZE
                    a, b = (
                        emit.fma(
                            below,
                            emit.load(here + source.row + column * source.pixel, self.type),
                            above * emit.load(here + column * source.pixel, self.type),
                        )
                        for column in range(2)
                    )
                    target = there.step(f.index, plan.group * _SIZE) + v * plan.lanes * _SIZE
                    self._put(target, filters, (a, a + b, a - b, b))

        self._tiles(source, count, first, rows, visit)

    def _put(self, there: Place, columns: int, values: Sequence[Value]) -> None:
        for number, value in enumerate(values):
            self.emit.store(value, there + number * self.plan.group * columns * _SIZE)

    # --------------------------------------------------------------- products

    def _products(self, position: Index, tiles: Index) -> None:
        """Add a row of positions to its sums: channels x tiles by tiles x filters."""
        emit, plan = self.emit, self.plan
        channels, filters = self.kernel.channels, self.kernel.filters
        block = plan.vectors * plan.lanes
        matrix = channels * filters * _SIZE
        with emit.loop(0, 4) as column:
            sums = Place(self.frame.operands[2])
            sums = sums.step(position, 4 * matrix).step(column.index, matrix)
            a = self.images.step(column.index, plan.group * channels * _SIZE)
            b = self.gradients.step(column.index, plan.group * filters * _SIZE)
            with emit.loop(0, filters, block) as f:
                start = 0
                for size, count in choices.pieces(channels, plan.channels):
                    with emit.loop(start, start + size * count, size) as c:
                        self._product(
                            a.step(c.index, _SIZE),
                            b.step(f.index, plan.group * _SIZE),
                            sums.step(c.index, filters * _SIZE).step(f.index, _SIZE),
                            size,
                            tiles,
                        )
                    start += size * count

    def _product(self, a: Place, b: Place, sums: Place, rows: int, tiles: Index) -> None:
        """`rows` channels by one block of filters, over all tiles of a group."""
        emit, plan = self.emit, self.plan
        image_row, gradient_row = self.kernel.channels * _SIZE, plan.vectors * plan.lanes * _SIZE
        places = [
            sums + r * self.kernel.filters * _SIZE + v * plan.lanes * _SIZE
            for r in range(rows)
            for v in range(plan.vectors)
        ]
        totals = [emit.load(place, self.type) for place in places]
        steps = (_SIZE, image_row, gradient_row)
        totals = product(emit, a, b, totals, tiles, rows=rows, steps=steps)
        for total, place in zip(totals, places, strict=True):
            emit.store(total, place)
