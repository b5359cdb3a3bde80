"""Copy an image with its border into scratch, so that a convolution with padding reads no guards.

The guarded operand of a contraction is read at coordinates such as `oy * stride + kh - padding`.
Here each coordinate becomes an axis of a small array in scratch that covers all its values; the
copy fills what lies inside of the image, and what lies outside stays zero for the whole call. The
array is refilled whenever an axis outside of it (the image of a batch) moves on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lamina.llvm.emit import MEMORY, Emit, Integer, Place, index, vector
from lamina.llvm.kernel import Access, Contraction, Guard
from lamina.types import Batch, Dimension, itemsize

SCRATCH = -1
"""The operand number of scratch memory."""


@dataclass(frozen=True)
class Coordinate:
    """One axis of the copy: `size` positions, of which [low, high) are filled.

    stride   elements of the operand between neighbouring positions
    """

    stride: int
    size: int
    low: int
    high: int


@dataclass(frozen=True)
class Halo:
    """What is copied; `coordinates` are the axes of the copy, outermost first."""

    dtype: str
    coordinates: tuple[Coordinate, ...]

    @property
    def bytes(self) -> int:
        size = math.prod(coordinate.size for coordinate in self.coordinates)
        return size * itemsize(self.dtype)


@dataclass
class _Run:
    """A coordinate under construction: the axes that move it, and by how many positions."""

    stride: int
    axes: dict[int, int]
    first: int
    last: int
    low: int | None = None
    high: int | None = None


def with_halo(kernel: Contraction) -> tuple[Contraction, Access, Halo] | None:
    """The contraction reading a copy of `a` from scratch, and that copy; None if it cannot be.

    The access between them is the operand at the first position of every coordinate; its strides
    are those of the axes that must be looped over around the copy, zero for all others.

    It cannot be if a guard mixes axes in another way than the address does, or if an axis of
    unknown length would stand inside of the copy.
    """
    a = kernel.a
    axes = (*kernel.space, *kernel.reduced)
    found = [_guarded(a, guard, axes) for guard in a.guards]
    runs = [run for run in found if run is not None]
    taken = [axis for run in runs for axis in run.axes]
    if len(runs) < len(found) or len(set(taken)) < len(taken):
        return None
    reach = max(run.stride * (int(run.high or 0) - int(run.low or 0)) for run in runs)
    outside = [
        axis
        for axis, stride in enumerate(a.strides)
        if stride and axis not in taken and (abs(stride) >= reach or _unknown(axes[axis]))
    ]
    inner = [
        axis for axis, s in enumerate(a.strides) if s and axis not in taken and axis not in outside
    ]
    if any(_unknown(axes[axis]) for axis in (*taken, *inner)):
        return None
    count = len(kernel.space)
    reduced = [axis for axis in outside if axis >= count]
    if reduced != list(range(count, count + len(reduced))):
        return None
    if reduced and any(_unknown(size) for size in kernel.space):
        return None
    runs += _unguarded(a, inner, axes)
    runs.sort(key=lambda run: -run.stride)
    return _staged(kernel, runs, outside)


def _unknown(size: Dimension) -> bool:
    return isinstance(size, Batch)


def _guarded(a: Access, guard: Guard, axes: tuple[Dimension, ...]) -> _Run | None:
    """The coordinate that a guard bounds, if the address moves with it alone."""
    moved = {axis: step for axis, step in enumerate(guard.strides) if step and axes[axis] != 1}
    if not moved or any(_unknown(axes[axis]) for axis in moved):
        return None
    axis, step = next(iter(moved.items()))
    stride = a.strides[axis] // step
    if stride <= 0 or any(a.strides[i] != stride * step for i, step in moved.items()):
        return None
    ends = [(int(axes[i]) - 1) * step for i, step in moved.items()]  # type: ignore[arg-type]
    first = guard.offset + sum(min(0, end) for end in ends)
    last = guard.offset + sum(max(0, end) for end in ends)
    return _Run(stride, moved, first - guard.offset, last - guard.offset, guard.low - guard.offset,
                guard.high - guard.offset)  # fmt: skip


def _unguarded(a: Access, inner: list[int], axes: tuple[Dimension, ...]) -> list[_Run]:
    """The remaining axes; those whose steps overlap share a coordinate."""
    runs: list[_Run] = []
    for axis in sorted(inner, key=lambda axis: abs(a.strides[axis])):
        stride, end = a.strides[axis], int(axes[axis]) - 1  # type: ignore[arg-type]
        for run in runs:
            length = run.last - run.first + 1
            if stride % run.stride == 0 and abs(stride) < run.stride * length:
                steps = stride // run.stride
                run.axes[axis] = steps
                run.first += min(0, steps * end)
                run.last += max(0, steps * end)
                break
        else:
            steps = 1 if stride > 0 else -1
            ends = (0, steps * end)
            runs.append(_Run(abs(stride), {axis: steps}, min(ends), max(ends)))
    return runs


def _staged(
    kernel: Contraction, runs: list[_Run], outside: list[int]
) -> tuple[Contraction, Access, Halo]:
    a = kernel.a
    strides = [0] * len(a.strides)
    coordinates: list[Coordinate] = []
    offset, origin, step = 0, a.offset, 1
    for run in reversed(runs):
        size = run.last - run.first + 1
        low = 0 if run.low is None else run.low - run.first
        high = size if run.high is None else run.high - run.first
        coordinates.insert(
            0, Coordinate(run.stride, size, max(0, min(low, size)), max(0, min(high, size)))
        )
        for axis, steps in run.axes.items():
            strides[axis] = steps * step
        offset -= run.first * step
        origin += run.first * run.stride
        step *= size
    moving = tuple(s if axis in outside else 0 for axis, s in enumerate(a.strides))
    staged = replace(kernel, a=Access(SCRATCH, a.dtype, offset, tuple(strides)))
    source = Access(a.operand, a.dtype, origin, moving)
    return staged, source, Halo(a.dtype, tuple(coordinates))


# ------------------------------------------------------------------------- the copy itself


def copy_image(emit: Emit, halo: Halo, source: Place, scratch: Place) -> None:
    """Fill the inside of the copy from `source`, its first position; the border is left alone."""
    size = itemsize(halo.dtype)
    coordinates = _merged(halo.coordinates)
    steps = [
        math.prod(inner.size for inner in coordinates[number + 1 :]) * size
        for number in range(len(coordinates))
    ]

    def descend(number: int, here: Place, there: Place) -> None:
        coordinate = coordinates[number]
        stride = coordinate.stride * size
        if number == len(coordinates) - 1:
            _copy_run(emit, coordinate, halo.dtype, here, there)
            return
        with emit.loop(coordinate.low, coordinate.high) as at:
            descend(number + 1, here.step(at.index, stride), there.step(at.index, steps[number]))

    descend(0, source, scratch)


def _merged(coordinates: tuple[Coordinate, ...]) -> list[Coordinate]:
    """Make one of neighbours that lie in line in both places: the columns and channels of a row."""
    merged = [coordinates[-1]]
    for outer in reversed(coordinates[:-1]):
        inner = merged[0]
        whole = inner.low == 0 and inner.high == inner.size
        if whole and outer.stride == inner.stride * inner.size:
            merged[0] = Coordinate(
                inner.stride,
                outer.size * inner.size,
                outer.low * inner.size,
                outer.high * inner.size,
            )
        else:
            merged.insert(0, outer)
    return merged


def _copy_run(emit: Emit, run: Coordinate, dtype: str, here: Place, there: Place) -> None:
    """One innermost run: vectors where it is contiguous, then what is left one by one."""
    size, element = itemsize(dtype), MEMORY[dtype]
    start: Integer = run.low
    if run.stride == 1:
        lanes = emit.target.lanes * 4 // size
        for width in (4 * lanes, lanes):
            count = (run.high - index(start).constant) // width * width
            if not count:
                continue
            stop = index(start).constant + count
            with emit.loop(start, stop, width) as at:
                for part in range(0, width, lanes):
                    value = emit.load(here.step(at.index + part, size), vector(element, lanes))
                    emit.store(value, there.step(at.index + part, size))
            start = stop
        left = run.high - index(start).constant
        if left and emit.target.has_masks and size >= 4:
            mask = emit.row([lane < left for lane in range(lanes)], "i1")
            value = emit.load(here.step(start, size), vector(element, lanes), mask=mask)
            emit.store(value, there.step(start, size), mask=mask)
            return
    if index(start).constant == run.high:
        return
    with emit.loop(start, run.high) as at:
        value = emit.load(here.step(at.index, run.stride * size), element)
        emit.store(value, there.step(at.index, size))
