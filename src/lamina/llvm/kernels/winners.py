"""Gradients of a convolution at the winners of the max pooling behind it.

A winner's place is one scalar, so the vectors run along the input channels: for every winner one
broadcast gradient meets a row of `kernel x channels` values, whose sums (or weights) stay in
registers. Where they are too many for the registers, several passes take some of them each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lamina.llvm.emit import FLOAT, I32, I64, Emit, Index, Module, Place, Value, vector
from lamina.llvm.host import Target
from lamina.llvm.kernel import WinnerFilterGradient, WinnerInputGradient
from lamina.llvm.kernels.nest import Axis, Frame, open_kernel

BYTES = 4


def operands(_kernel: WinnerFilterGradient | WinnerInputGradient) -> int:
    """How many pointers the functions take."""
    return 4


@dataclass(frozen=True)
class _Unit:
    """One vector of channels at one tap: where it lies from a winner on, and in the filter."""

    in_image: int
    in_filter: int
    lanes: int


def _units(kernel: WinnerFilterGradient | WinnerInputGradient, lanes: int) -> list[_Unit]:
    """All vectors of a filter; the last ones of a tap are narrower where channels do not fit."""
    found = []
    for i in range(kernel.kernel[0]):
        for j in range(kernel.kernel[1]):
            cell = (i * kernel.image[1] + j) * kernel.channels
            tap = (i * kernel.kernel[1] + j) * kernel.channels
            first, width = 0, lanes
            while first < kernel.channels:
                while width > kernel.channels - first:
                    width //= 2
                found.append(_Unit((cell + first) * BYTES, (tap + first) * BYTES, width))
                first += width
    return found


def _passes(units: Sequence[_Unit], target: Target) -> Iterator[Sequence[_Unit]]:
    """Cut the vectors into equal groups that fit the registers."""
    most = target.registers - 4
    count = -(-len(units) // most)
    size = -(-len(units) // count)
    for first in range(0, len(units), size):
        yield units[first : first + size]


def _filter_bytes(kernel: WinnerFilterGradient | WinnerInputGradient) -> int:
    return kernel.kernel[0] * kernel.kernel[1] * kernel.channels * BYTES


def _samples(
    kernel: WinnerFilterGradient | WinnerInputGradient,
    frame: Frame,
    visit: Callable[[Index], None],
) -> None:
    start, stop = Axis(kernel.batch, split=True).bounds(frame)
    with frame.emit.loop(start, stop) as samples:
        visit(samples.index)


def _winner(
    kernel: WinnerFilterGradient | WinnerInputGradient,
    emit: Emit,
    places: Place,
    gradient: Place,
    number: Index,
) -> tuple[Value, Value]:
    """(cell, gradient) of the winner at `number` for the filter that the places start with."""
    step = kernel.filters * BYTES
    cell = emit.resize(emit.load(places.step(number, step), I32), I64)
    return cell, emit.load(gradient.step(number, step), FLOAT)


def build_filter(kernel: WinnerFilterGradient, name: str, module: Module) -> None:
    """Add the function of a filter's gradient to the module."""
    frame = open_kernel(module, name, operands(kernel))
    emit = frame.emit
    x, places, gradient, result = (Place(operand) for operand in frame.operands)
    cell_bytes = kernel.channels * BYTES
    units = _units(kernel, emit.lanes)

    def sample(number: Index) -> None:
        image = x.step(number, kernel.image[0] * kernel.image[1] * cell_bytes)
        mine = places.step(number, kernel.windows * kernel.filters * BYTES)
        slopes = gradient.step(number, kernel.windows * kernel.filters * BYTES)
        for group in _passes(units, emit.target):
            with emit.loop(0, kernel.filters) as filters:
                sums = result.step(filters.index, _filter_bytes(kernel))
                start = [
                    emit.load(sums + unit.in_filter, vector(FLOAT, unit.lanes)) for unit in group
                ]
                here = mine.step(filters.index, BYTES), slopes.step(filters.index, BYTES)
                with emit.loop(0, kernel.windows, carry=start) as windows:
                    cell, slope = _winner(kernel, emit, *here, windows.index)
                    corner = image.step(cell, cell_bytes)
                    windows.next = [
                        emit.fma(
                            emit.splat(slope, unit.lanes),
                            emit.load(corner + unit.in_image, vector(FLOAT, unit.lanes)),
                            total,
                        )
                        for unit, total in zip(group, windows.carry, strict=True)
                    ]
                for unit, total in zip(group, windows.result, strict=True):
                    emit.store(total, sums + unit.in_filter)

    _samples(kernel, frame, sample)
    emit.finish()


def build_input(kernel: WinnerInputGradient, name: str, module: Module) -> None:
    """Add the function of an input's gradient to the module."""
    frame = open_kernel(module, name, operands(kernel))
    emit = frame.emit
    places, gradient, weights, result = (Place(operand) for operand in frame.operands)
    cell_bytes = kernel.channels * BYTES
    units = _units(kernel, emit.lanes)

    def sample(number: Index) -> None:
        image_bytes = kernel.image[0] * kernel.image[1] * cell_bytes
        image = result.step(number, image_bytes)
        emit.clear(image, image_bytes)
        mine = places.step(number, kernel.windows * kernel.filters * BYTES)
        slopes = gradient.step(number, kernel.windows * kernel.filters * BYTES)
        for group in _passes(units, emit.target):
            with emit.loop(0, kernel.filters) as filters:
                filter_ = weights.step(filters.index, _filter_bytes(kernel))
                values = [
                    emit.load(filter_ + unit.in_filter, vector(FLOAT, unit.lanes)) for unit in group
                ]
                here = mine.step(filters.index, BYTES), slopes.step(filters.index, BYTES)
                with emit.loop(0, kernel.windows) as windows:
                    cell, slope = _winner(kernel, emit, *here, windows.index)
                    # Relu leaves many winners without gradient; NaN counts as one.
                    with emit.when(slope.differs(0.0)):
                        corner = image.step(cell, cell_bytes)
                        for unit, value in zip(group, values, strict=True):
                            place = corner + unit.in_image
                            old = emit.load(place, vector(FLOAT, unit.lanes))
                            emit.store(emit.fma(emit.splat(slope, unit.lanes), value, old), place)

    _samples(kernel, frame, sample)
    emit.finish()
