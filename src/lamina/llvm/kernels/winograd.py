"""Convolutions by fewer multiplications: Winograd's F(2 x 2, 3 x 3), and its kin of `llvm.minimal`.

Lavin & Gray 2016, section 4.1: an output tile of 2 x 2 comes from an input tile d as

    Y = A^T [(G g G^T) * (B^T d B)] A

with 16 multiplications instead of 36 for 3 x 3 taps, 25 where their stride is 2, 9 instead of 16
for 2 x 2 taps. Summed over channels, each of these positions is a product of matrices, tiles x
channels by channels x filters. For every image:

    copy it with its border, if there is one or the last tile would read beyond it
    for a group of tiles: transform the inputs; for a block of filters: the products, then
    transform the outputs and evaluate the epilogue while the four outputs are in registers

The filters are transformed once a call. Errors are smaller than those of the direct sum (half, for
32 to 128 channels), because its chains of additions are longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lamina.llvm import choices
from lamina.llvm.emit import FLOAT, I64, Index, Place, Value, index, vector
from lamina.llvm.expression import Expression, Point
from lamina.llvm.host import Target
from lamina.llvm.kernel import Access, Contraction, Guard
from lamina.llvm.kernels.halo import Coordinate, Halo, copy_image
from lamina.llvm.kernels.nest import Frame, aligned
from lamina.llvm.kernels.product import product
from lamina.llvm.kernels.taps import with_taps
from lamina.llvm.minimal import FORMS, Minimal, both_ways
from lamina.types import fixed

_SIZE = 4
_N, _OY, _OX, _F, _KH, _KW, _C = range(7)


@dataclass(frozen=True)
class Winograd:
    """A convolution as this module computes it.

    kernel   with filter taps in the order in which they meet the image
    form     the method along either axis
    tiles    tiles of 2 x 2 outputs along both axes
    group    tiles that are taken together, at most
    rows     tiles in a register tile, at most
    vectors  vectors of filters in a block
    image    what is copied; None if tiles may read the operand itself
    """

    kernel: Contraction
    form: Minimal
    lanes: int
    tiles: tuple[int, int]
    group: int
    rows: int
    vectors: int
    image: Halo | None

    @property
    def channels(self) -> int:
        return fixed(self.kernel.reduced[2])

    @property
    def filters(self) -> int:
        return fixed(self.kernel.space[_F])

    @property
    def block(self) -> int:
        """Filters in a block."""
        return self.vectors * self.lanes

    @property
    def positions(self) -> int:
        """Multiplications for a tile, of every channel with every filter."""
        return self.form.positions**2

    @property
    def filter_bytes(self) -> int:
        """The transformed filters of a block."""
        return self.form.weights**2 * self.channels * self.block * _SIZE

    @property
    def areas(self) -> tuple[int, int, int, int]:
        """Bytes of the image, the filters, the inputs and the products of a group."""
        return (
            aligned(self.image.bytes) if self.image else 0,
            self.filter_bytes * (self.filters // self.block),
            self.positions * self.group * self.channels * _SIZE,
            self.positions * self.group * self.block * _SIZE,
        )

    @property
    def scratch_bytes(self) -> int:
        return sum(self.areas)


# ------------------------------------------------------------------------- where it fits


def winograd(kernel: Contraction, target: Target) -> Winograd | None:
    """The plan for a convolution of one of the forms; None if it is another, or slower so."""
    if len(kernel.space) != 4 or len(kernel.reduced) != 3:
        return None
    for axis in (_KH, _KW):
        if kernel.a.strides[axis] < 0:
            kernel = _flipped(kernel, axis)
    form = _form(kernel)
    if form is None or not _fits(kernel, form):
        return None
    lanes = target.lanes
    high, wide, filters = (fixed(size) for size in kernel.space[1:])
    channels = fixed(kernel.reduced[2])
    if channels % lanes or filters % lanes:
        return None
    tiles = (-(-high // 2), -(-wide // 2))
    vectors = next(v for v in (4, 3, 2, 1) if filters // lanes % v == 0)
    vectors = min(vectors, 2) if target.registers < 32 and vectors != 3 else vectors
    rows = choices.accumulators(target, vectors)
    shape = choices.WinogradShape(math.prod(tiles), channels, filters, form)
    group = choices.winograd_group(shape, rows=rows, vectors=vectors, lanes=lanes)
    plan = Winograd(kernel, form, lanes, tiles, group, rows, vectors, _image(kernel, form, tiles))
    direct = math.prod(_positions(kernel))
    pays = choices.winograd_pays(shape, direct, lanes, copied=plan.image is not None)
    return plan if pays else None


def _form(kernel: Contraction) -> Minimal | None:
    """What both axes of the filter are, if it is one and the same."""
    high, wide = (
        (kernel.reduced[tap - _KH], kernel.a.strides[axis], kernel.a.strides[tap])
        for axis, tap in ((_OY, _KH), (_OX, _KW))
    )
    found = [
        FORMS.get((taps, between // step)) if isinstance(taps, int) and step > 0 else None
        for taps, between, step in (high, wide)
    ]
    return found[0] if found[0] is found[1] else None


def _positions(kernel: Contraction) -> tuple[int, int]:
    """The positions that a direct sum computes: those that a tap reaches, where that is fewer."""
    high, wide = (fixed(size) for size in kernel.space[1:3])
    tapped = with_taps(kernel) if kernel.a.guards else None
    if tapped is not None:
        counts = {reach.axis: reach.count for reach in tapped[1]}
        high, wide = counts.get(_OY, high), counts.get(_OX, wide)
    return high, wide


def _flipped(kernel: Contraction, axis: int) -> Contraction:
    """Count an axis of taps from its end."""
    last = fixed(kernel.reduced[axis - _KH]) - 1

    def turned(strides: tuple[int, ...]) -> tuple[int, ...]:
        return (*strides[:axis], -strides[axis], *strides[axis + 1 :])

    def access(one: Access) -> Access:
        guards = tuple(
            Guard(
                turned(guard.strides),
                guard.offset + last * guard.strides[axis],
                guard.low,
                guard.high,
            )
            for guard in one.guards
        )
        offset = one.offset + last * one.strides[axis]
        return replace(one, offset=offset, strides=turned(one.strides), guards=guards)

    return replace(kernel, a=access(kernel.a), b=access(kernel.b))


def _fits(kernel: Contraction, form: Minimal) -> bool:
    """Whether `a` is an image with channels side by side, and `b` has filters side by side."""
    a, b = kernel.a, kernel.b
    static = all(isinstance(size, int) for size in (*kernel.space[1:], kernel.reduced[2]))
    kinds = {a.dtype, b.dtype, kernel.accumulator} == {"float32"}
    image = (
        a.strides[_KH] * form.stride == a.strides[_OY]
        and a.strides[_KW] * form.stride == a.strides[_OX]
        and a.strides[_C] == 1
        and a.strides[_F] == 0
    )
    weights = not any(b.strides[:_F]) and b.strides[_F] == 1 and not b.guards
    guards = [tuple(axis for axis, s in enumerate(guard.strides) if s) for guard in a.guards]
    plain = all(
        axes in {(_OY, _KH), (_OX, _KW)}
        and [guard.strides[axis] for axis in axes] == [form.stride, 1]
        for axes, guard in zip(guards, a.guards, strict=True)
    )
    once = len(set(guards)) == len(guards)
    whole = not kernel.accumulate and kernel.split == _N
    return static and kinds and image and weights and plain and once and whole


def _image(kernel: Contraction, form: Minimal, tiles: tuple[int, int]) -> Halo | None:
    """What is copied: all that the tiles read, zero outside of the guards."""
    coordinates = []
    for axis, tap, count in zip((_OY, _OX), (_KH, _KW), tiles, strict=True):
        size = form.step * (count - 1) + form.inputs
        low, high = 0, form.stride * (fixed(kernel.space[axis]) - 1) + form.taps
        for guard in kernel.a.guards:
            if guard.strides[axis]:
                low, high = guard.low - guard.offset, guard.high - guard.offset
        low, high = max(0, min(low, size)), max(0, min(high, size))
        coordinates.append(Coordinate(kernel.a.strides[tap], size, low, high))
    if all((one.low, one.high) == (0, one.size) for one in coordinates):
        return None
    channels = fixed(kernel.reduced[2])
    return Halo("float32", (*coordinates, Coordinate(1, channels, 0, channels)))


# ------------------------------------------------------------------------- code


def write(frame: Frame, plan: Winograd) -> None:
    """Write the body of the function."""
    _Writer(frame, plan).run()


class _Writer:
    def __init__(self, frame: Frame, plan: Winograd) -> None:
        self.frame, self.emit = frame, frame.emit
        self.plan, self.form = plan, plan.form
        self.kernel = plan.kernel
        self.operands = frame.operands
        self.type = vector(FLOAT, plan.lanes)
        self.bytes = plan.lanes * _SIZE
        starts = [sum(plan.areas[:number]) for number in range(4)]
        self.image, self.filters, self.inputs, self.products = (
            Place(frame.scratch, start) for start in starts
        )
        self.epilogue = Expression(frame.emit, self.kernel.body, frame.operands, frame.rows)

    def run(self) -> None:
        emit, plan, a = self.emit, self.plan, self.kernel.a
        if plan.image:
            emit.clear(self.image, plan.image.bytes)
        self._transform_filters()
        whole = Place(self.operands[a.operand], a.offset * _SIZE)
        with emit.loop(self.frame.low, self.frame.high) as n:
            image = whole.step(n.index, a.strides[_N] * _SIZE)
            strides = (a.strides[_KH] * _SIZE, a.strides[_KW] * _SIZE)
            if plan.image:
                copy_image(emit, plan.image, image, self.image)
                image = self.image
                pixel = plan.channels * _SIZE
                strides = (plan.image.coordinates[1].size * pixel, pixel)
            first = 0
            for size, count in choices.pieces(math.prod(plan.tiles), plan.group):
                with emit.loop(first, first + size * count, size) as group:
                    self._group(n.index, group.index, size, image, strides)
                first += size * count

    # --------------------------------------------------------------- transforms

    def _transform_filters(self) -> None:
        """G g G^T of every channel and filter: [block][weight][channel][filter of the block]."""
        emit, plan, b = self.emit, self.plan, self.kernel.b
        start = Place(self.operands[b.operand], b.offset * _SIZE)
        row = plan.block * _SIZE
        with emit.loop(0, plan.filters, plan.block) as block, emit.loop(0, plan.channels) as c:
            here = start.step(block.index, _SIZE).step(c.index, b.strides[_C] * _SIZE)
            there = self.filters.step(block.index, plan.filter_bytes // plan.block)
            there = there.step(c.index, row)
            with emit.loop(0, row, self.bytes) as at:
                taps = [
                    [
                        emit.load(
                            here.step(at.index) + (y * b.strides[_KH] + x * b.strides[_KW]) * _SIZE,
                            self.type,
                        )
                        for x in range(self.form.taps)
                    ]
                    for y in range(self.form.taps)
                ]
                for number, value in enumerate(both_ways(taps, self.form.filter)):
                    emit.store(value, there.step(at.index) + number * plan.channels * row)

    def _transform_inputs(
        self, first: Index, count: int, image: Place, strides: tuple[int, int]
    ) -> None:
        """B^T d B of the tiles of a group: [position][tile][channel]."""
        emit, plan, inputs = self.emit, self.plan, range(self.form.inputs)
        row = plan.channels * _SIZE
        with emit.loop(0, count) as tile:
            y, x = self._position(first + tile.index)
            corner = image.step(y, self.form.step * strides[0])
            corner = corner.step(x, self.form.step * strides[1])
            there = self.inputs.step(tile.index, row)
            with emit.loop(0, row, self.bytes) as at:
                here = corner.step(at.index)
                values = [
                    [emit.load(here + i * strides[0] + j * strides[1], self.type) for j in inputs]
                    for i in inputs
                ]
                for number, value in enumerate(both_ways(values, self.form.image)):
                    emit.store(value, there.step(at.index) + number * count * row)

    def _transform_outputs(self, n: Index, first: Index, count: int, block: Index) -> None:
        """A^T m A of the tiles of a group, and the epilogue."""
        emit, plan, side = self.emit, self.plan, self.form.positions
        row = plan.block * _SIZE
        with emit.loop(0, count) as tile:
            y, x = self._position(first + tile.index)
            corner = self.products.step(tile.index, row)
            with emit.loop(0, plan.block, plan.lanes) as at:
                here = corner.step(at.index, _SIZE)
                values = [
                    [emit.load(here + (side * i + j) * count * row, self.type) for j in range(side)]
                    for i in range(side)
                ]
                column = block + at.index
                for number, value in enumerate(both_ways(values, self.form.result)):
                    self._finish(n, y * 2 + number // 2, x * 2 + number % 2, column, value)

    def _finish(self, n: Index, y: Index, x: Index, column: Index, value: Value) -> None:
        """The epilogue of one vector of outputs, where the position exists."""
        emit = self.emit
        inside: Value | None = None
        for at, size in zip((y, x), self.kernel.space[1:3], strict=True):
            if at.constant and fixed(size) % 2:
                exists = at.on(emit) < fixed(size)
                inside = exists if inside is None else inside & exists
        point = Point((n, y, x, column), _F, self.plan.lanes, None, hoist=inside is None)
        if inside is None:
            self.epilogue.at(point, [value]).store(self.kernel.stores)
            return
        with emit.when(inside):
            self.epilogue.at(point, [value]).store(self.kernel.stores)

    def _position(self, tile: Index) -> tuple[Index, Index]:
        """The row and column of a tile in the image."""
        number = tile.on(self.emit)
        return index(number // self.plan.tiles[1]), index(number % self.plan.tiles[1])

    # --------------------------------------------------------------- products

    def _group(
        self, n: Index, first: Index, count: int, image: Place, strides: tuple[int, int]
    ) -> None:
        emit, plan = self.emit, self.plan
        self._transform_inputs(first, count, image, strides)
        with emit.loop(0, plan.filters, plan.block) as block:
            filters = self.filters.step(block.index, plan.filter_bytes // plan.block)
            with emit.loop(0, plan.positions) as position:
                a = self.inputs.step(position.index, count * plan.channels * _SIZE)
                b = filters.step(self._weight(position.index), plan.channels * plan.block * _SIZE)
                c = self.products.step(position.index, count * plan.block * _SIZE)
                start = 0
                for rows, number in choices.pieces(count, plan.rows):
                    with emit.loop(start, start + rows * number, rows) as tile:
                        self._product(
                            a.step(tile.index, plan.channels * _SIZE),
                            b,
                            c.step(tile.index, plan.block * _SIZE),
                            rows,
                        )
                    start += rows * number
            self._transform_outputs(n, first, count, block.index)

    def _weight(self, position: Index) -> Index:
        """Which transformed filter is met at a position of the tile."""
        side, weights = self.form.positions, self.form.weights
        if side == weights:
            return position
        number = position.on(self.emit)
        last = self.emit.value(weights - 1, I64)
        y, x = (self.emit.select(at < last, at, last) for at in (number // side, number % side))
        return index(y * weights + x)

    def _product(self, a: Place, b: Place, c: Place, rows: int) -> None:
        """`rows` tiles by one block of filters, summed over the channels in registers."""
        emit, plan = self.emit, self.plan
        row, column = plan.channels * _SIZE, plan.block * _SIZE
        zeros = [emit.zeros(self.type)] * (rows * plan.vectors)
        sums = product(emit, a, b, zeros, plan.channels, rows=rows, steps=(row, _SIZE, column))
        for r in range(rows):
            for v in range(plan.vectors):
                emit.store(sums[r * plan.vectors + v], c + r * column + v * self.bytes)
