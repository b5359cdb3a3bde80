"""Gradients of a convolution at the winners of the max pooling behind it.

A winner is one scalar at one place, so the vectors run along the input channels: for every winner
one broadcast gradient meets a row of `kernel x channels` values, whose sums stay in registers.
Where they are too many for the registers, several passes take some of them each.

Relu leaves many winners without gradient, in no order that a processor could foresee. So those
with one are noted first, without a branch, and a pass meets no zeros. For the filter's gradient,
one filter at a time, they are written into a list; for the input's, where all filters add to the
same cell of the image, they are bits of words. A gradient of NaN counts as one.

Behind a maximum over all positions a filter has one winner a sample: its sums need not stay in
registers, and each is added as soon as its bit is found.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lamina.llvm import choices
from lamina.llvm.emit import FLOAT, I1, I32, I64, Emit, Index, Module, Place, Value, index, vector
from lamina.llvm.host import Target
from lamina.llvm.kernel import WinnerFilterGradient, WinnerInputGradient
from lamina.llvm.kernels.nest import Axis, Frame, Span, aligned, open_kernel, sweep

BYTES = 4
WORD = 64  # bits
WORD_BYTES = 8
ENTRY_BYTES = 8  # where the winner's row of values begins (bytes, int32), and its gradient

_Kernel = WinnerFilterGradient | WinnerInputGradient


def operands(kernel: _Kernel) -> int:
    """How many pointers the functions take."""
    return 3 + kernel.placed


def scratch_bytes(kernel: _Kernel, _target: Target) -> int:
    """The list of one filter, or the words of all windows of a sample."""
    if isinstance(kernel, WinnerFilterGradient):
        if not kernel.placed:
            return 0
        return aligned(_band(kernel) * kernel.windows[1] * ENTRY_BYTES)
    return aligned(math.prod(kernel.windows) * _window_bytes(kernel))


def _band(kernel: WinnerFilterGradient) -> int:
    """Rows of windows whose winners are listed together."""
    high, wide = kernel.windows
    return choices.winner_band(high, wide * kernel.filters * 2 * BYTES)


def _words(kernel: WinnerInputGradient) -> int:
    """Words with a bit for each filter."""
    return -(-kernel.filters // WORD)


def _window_bytes(kernel: WinnerInputGradient) -> int:
    """The words of all cells of a window."""
    return math.prod(kernel.size) * _words(kernel) * WORD_BYTES


# ------------------------------------------------------------------------- vectors and passes


def _widths(count: int, lanes: int) -> Iterator[tuple[int, int]]:
    """Cut `count` elements into vectors, the last ones narrower: (first, lanes)."""
    first = 0
    while first < count:
        while lanes > count - first:
            lanes //= 2
        yield first, lanes
        first += lanes


@dataclass(frozen=True)
class _Unit:
    """One vector of channels at one tap: where it lies from a winner on, and in the filter."""

    in_image: int
    in_filter: int
    lanes: int


def _units(kernel: _Kernel, lanes: int) -> list[_Unit]:
    """All vectors of a filter; the last ones of a tap are narrower where channels do not fit."""
    found = []
    for i in range(kernel.kernel[0]):
        for j in range(kernel.kernel[1]):
            cell = (i * kernel.image[1] + j) * kernel.channels
            tap = (i * kernel.kernel[1] + j) * kernel.channels
            for first, width in _widths(kernel.channels, lanes):
                found.append(_Unit((cell + first) * BYTES, (tap + first) * BYTES, width))
    return found


def _passes(units: Sequence[_Unit], target: Target) -> list[Sequence[_Unit]]:
    """Cut the vectors into equal groups that fit the registers."""
    most = target.registers - 4
    count = -(-len(units) // most)
    size = -(-len(units) // count)
    return [units[first : first + size] for first in range(0, len(units), size)]


def _filter_bytes(kernel: _Kernel) -> int:
    return kernel.kernel[0] * kernel.kernel[1] * kernel.channels * BYTES


def _terms(
    emit: Emit, slope: Value, row: Place, units: Sequence[tuple[int, int]], sums: Sequence[Value]
) -> list[Value]:
    """One broadcast gradient meets a row of values; units are (bytes in the row, lanes)."""
    return [
        emit.fma(emit.splat(slope, lanes), emit.load(row + there, vector(FLOAT, lanes)), total)
        for (there, lanes), total in zip(units, sums, strict=True)
    ]


# ------------------------------------------------------------------------- the filter's gradient


def build_filter(kernel: WinnerFilterGradient, name: str, module: Module) -> None:
    """Add the function of a filter's gradient to the module."""
    frame = open_kernel(module, name, operands(kernel))
    if kernel.placed:
        _listed_filter(kernel, frame)
    else:
        _sparse_filter(kernel, frame)
    frame.emit.finish()


def _listed_filter(kernel: WinnerFilterGradient, frame: Frame) -> None:
    """One filter after another: its list, then passes over what stands in it."""
    emit, entries = frame.emit, Place(frame.scratch)
    x, places, gradient, result = (Place(operand) for operand in frame.operands)
    high, wide = kernel.windows
    pixel, row = kernel.channels * BYTES, kernel.filters * BYTES
    line = kernel.image[1] * pixel
    tall, broad = kernel.size
    cells = [i * line + j * pixel for i in range(tall) for j in range(broad)]
    in_window = Place(emit.symbol(emit.module.table(struct.pack(f"={len(cells)}i", *cells))))
    groups = _passes(_units(kernel, emit.lanes), emit.target)

    def listed(mine: Place, slopes: Place, rows: Value | int, corner: Index) -> Value:
        """Write the list of one filter; an entry stays only if its gradient is no zero."""
        with emit.loop(0, rows, carry=[emit.value(0, I64)], nonempty=True) as y:
            with emit.loop(0, wide, carry=y.carry) as at:
                number = y.index * wide + at.index
                (count,) = at.carry
                slope = emit.load(slopes.step(number, row), FLOAT)
                window = corner + y.index * (tall * line)
                window += at.index * (broad * pixel)
                place = emit.resize(window.on(emit), I32)
                cell = emit.load(mine.step(number, row), I32)
                place += emit.load(in_window.step(emit.resize(cell, I64), BYTES), I32)
                entry = entries.step(count, ENTRY_BYTES)
                emit.store(place, entry)
                emit.store(slope, entry + BYTES)
                at.next = [count + emit.cast("zext", slope.differs(0.0), I64)]
            y.next = at.result
        return y.result[0]

    def band(sample: Index, first: Index, rows: Value | int) -> None:
        image = x.step(sample, kernel.image[0] * line)
        sides = [
            side.step(sample, high * wide * row).step(first, wide * row)
            for side in (places, gradient)
        ]
        with emit.loop(0, kernel.filters) as filters:
            mine, slopes = (side.step(filters.index, BYTES) for side in sides)
            count = listed(mine, slopes, rows, first * (tall * line))
            sums = result.step(filters.index, _filter_bytes(kernel))
            for group in groups:
                units = [(unit.in_image, unit.lanes) for unit in group]
                start = [emit.load(sums + u.in_filter, vector(FLOAT, u.lanes)) for u in group]
                with emit.loop(0, count, carry=start) as at:
                    entry = entries.step(at.index, ENTRY_BYTES)
                    corner = image.step(emit.resize(emit.load(entry, I32), I64))
                    slope = emit.load(entry + BYTES, FLOAT)
                    at.next = _terms(emit, slope, corner, units, at.carry)
                for unit, total in zip(group, at.result, strict=True):
                    emit.store(total, sums + unit.in_filter)

    most = _band(kernel)
    with (
        emit.loop(*Axis(kernel.batch, split=True).bounds(frame)) as samples,
        emit.loop(0, high, most) as bands,
    ):
        rows: Value | int = most
        if high % most:
            left = high - bands.index.on(emit)
            rows = emit.select(left < most, left, most)
        band(samples.index, bands.index, rows)


def _sparse_filter(kernel: WinnerFilterGradient, frame: Frame) -> None:
    """One position after another: whatever is not zero is added to the sums of its filter."""
    emit = frame.emit
    x, gradient, result = (Place(operand) for operand in frame.operands)
    high, wide = kernel.windows
    pixel, row = kernel.channels * BYTES, kernel.filters * BYTES
    line, tap_row = kernel.image[1] * pixel, kernel.kernel[1] * pixel

    def add(slope: Value, source: Place, sums: Place) -> None:
        def visit(spans: list[Span]) -> None:
            for span in spans:
                kind = vector(FLOAT, span.lanes)
                here = sums.step(span.index, BYTES)
                value = emit.load(source.step(span.index, BYTES), kind, mask=span.mask)
                total = emit.load(here, kind, mask=span.mask)
                total = emit.fma(emit.splat(slope, span.lanes), value, total)
                emit.store(total, here, mask=span.mask)

        sweep(emit, Index(None), Index(None, tap_row // BYTES), emit.lanes, 4, visit)

    def filters(first: Index, count: int, corner: Place, slopes: Place) -> None:
        here = slopes.step(first, BYTES)
        word = emit.value(0, I64)
        for start, lanes in _widths(count, emit.lanes):
            word = word | (emit.lane_bits(_sloped(emit, here, start, lanes)) << start)
        with emit.loop(0, emit.intrinsic("ctpop", I64, word), carry=[word]) as bits:
            (left,) = bits.carry
            number = first + index(emit.intrinsic("cttz", I64, left, emit.value(1, I1)))
            slope = emit.load(slopes.step(number, BYTES), FLOAT)
            sums = result.step(number, _filter_bytes(kernel))
            with emit.loop(0, kernel.kernel[0]) as i:
                add(slope, corner.step(i.index, line), sums.step(i.index, tap_row))
            bits.next = [left & (left - 1)]

    with (
        emit.loop(*Axis(kernel.batch, split=True).bounds(frame)) as samples,
        emit.loop(0, high) as y,
        emit.loop(0, wide) as at,
    ):
        corner = x.step(samples.index, kernel.image[0] * line)
        corner = corner.step(y.index, line).step(at.index, pixel)
        slopes = gradient.step(samples.index, high * wide * row)
        slopes = slopes.step(y.index * wide + at.index, row)
        whole, rest = divmod(kernel.filters, WORD)
        with emit.loop(0, whole) as number:
            filters(number.index * WORD, WORD, corner, slopes)
        if rest:
            filters(Index(None, whole * WORD), rest, corner, slopes)


def _sloped(emit: Emit, slopes: Place, first: int, lanes: int) -> Value:
    """Which of some filters, from `first` on, have a gradient that is not zero."""
    return emit.load(slopes + first * BYTES, vector(FLOAT, lanes)).differs(0.0)


# ------------------------------------------------------------------------- the input's gradient


def build_input(kernel: WinnerInputGradient, name: str, module: Module) -> None:
    """Add the function of an input's gradient to the module."""
    frame = open_kernel(module, name, operands(kernel))
    emit, scratch = frame.emit, Place(frame.scratch)
    *places, gradient, weights, result = (Place(operand) for operand in frame.operands)
    (high, wide), (tall, broad) = kernel.windows, kernel.size
    pixel = kernel.channels * BYTES
    line, row = kernel.image[1] * pixel, kernel.filters * BYTES
    cell_bytes = _words(kernel) * WORD_BYTES
    groups = _passes(_units(kernel, emit.lanes), emit.target)

    def note(mine: list[Place], slopes: Place, words: Place, count: int) -> None:
        """Write a word for every cell of a window: `count` filters from here on."""
        found = [emit.value(0, I64)] * (tall * broad)
        for first, lanes in _widths(count, emit.lanes):
            cells = [emit.load(won + first * BYTES, vector(I32, lanes)) for won in mine]
            sloped = _sloped(emit, slopes, first, lanes)
            for cell in range(tall * broad):
                bits = emit.lane_bits(cells[0].equal(cell) & sloped if cells else sloped)
                found[cell] = found[cell] | (bits << first)
        for cell, word in enumerate(found):
            emit.store(word, words + cell * cell_bytes)

    def add(corner: Place, slopes: Place, words: Place, group: Sequence[_Unit]) -> None:
        """Add what all filters give to the cells around one that they won."""
        units = [(unit.in_filter, unit.lanes) for unit in group]
        start = [emit.load(corner + unit.in_image, vector(FLOAT, unit.lanes)) for unit in group]
        with emit.loop(0, _words(kernel), carry=start) as at:
            word = emit.load(words.step(at.index, WORD_BYTES), I64)
            won = emit.intrinsic("ctpop", I64, word)
            with emit.loop(0, won, carry=[word, *at.carry]) as bits:
                left, *sums = bits.carry
                lowest = emit.intrinsic("cttz", I64, left, emit.value(1, I1))
                number = at.index * WORD + index(lowest)
                slope = emit.load(slopes.step(number, BYTES), FLOAT)
                filter_ = weights.step(number, _filter_bytes(kernel))
                bits.next = [left & (left - 1), *_terms(emit, slope, filter_, units, sums)]
            at.next = bits.result[1:]
        for unit, total in zip(group, at.result, strict=True):
            emit.store(total, corner + unit.in_image)

    def image_of(sample: Index) -> None:
        image = result.step(sample, kernel.image[0] * line)
        emit.clear(image, kernel.image[0] * line)
        sides = [side.step(sample, high * wide * row) for side in (*places, gradient)]
        slopes = sides[-1]
        with emit.loop(0, high * wide) as windows:
            *cells, given = (side.step(windows.index, row) for side in sides)
            words = scratch.step(windows.index, _window_bytes(kernel))
            whole, rest = divmod(kernel.filters, WORD)
            with emit.loop(0, whole) as number:
                filters = number.index * (WORD * BYTES)
                here = words.step(number.index, WORD_BYTES)
                note([won.step(filters) for won in cells], given.step(filters), here, WORD)
            if rest:
                filters = index(whole * WORD * BYTES)
                here = words + whole * WORD_BYTES
                note([won.step(filters) for won in cells], given.step(filters), here, rest)
        for group in groups:
            with emit.loop(0, high) as y, emit.loop(0, wide) as x:
                window = y.index * wide + x.index
                words = scratch.step(window, _window_bytes(kernel))
                corner = image.step(y.index, tall * line).step(x.index, broad * pixel)
                with emit.loop(0, tall) as i, emit.loop(0, broad) as j:
                    add(
                        corner.step(i.index, line).step(j.index, pixel),
                        slopes.step(window, row),
                        words.step(i.index * broad + j.index, cell_bytes),
                        group,
                    )

    with emit.loop(*Axis(kernel.batch, split=True).bounds(frame)) as samples:
        image_of(samples.index)
    emit.finish()
