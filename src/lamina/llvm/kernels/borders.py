"""Cut a padded convolution into its inside, which needs no guards, and its borders.

A depthwise convolution does so little with each element that copying the image with its border
would take as long as the sums. Its inside reads the image as it lies; the few outputs at the
borders, some of whose taps leave the image, are computed under guards.
"""

from __future__ import annotations

from dataclasses import replace

from lamina.llvm.kernel import (
    Access,
    Contraction,
    Guard,
    Inside,
    Instruction,
    Load,
    Lookup,
    Position,
    Random,
)

Box = dict[int, tuple[int, int]]
"""Ranges of indexes by axis of space."""


def cut(kernel: Contraction) -> tuple[Contraction, ...] | None:
    """The inside, then the borders, as contractions over parts of the space.

    None where there is no inside, or a guard bounds something else than one axis and its taps.
    """
    ranges: Box = {}
    for guard in kernel.a.guards:
        found = _inside(kernel, guard)
        if found is None or found[0] in ranges:
            return None
        ranges[found[0]] = found[1]
    parts = [restricted(kernel, ranges)]
    done: Box = {}
    for axis, (start, stop) in ranges.items():
        size = kernel.space[axis]
        assert isinstance(size, int)
        parts += [
            restricted(kernel, {**done, axis: side})
            for side in ((0, start), (stop, size))
            if side[0] < side[1]
        ]
        done[axis] = (start, stop)
    return tuple(parts)


def _inside(kernel: Contraction, guard: Guard) -> tuple[int, tuple[int, int]] | None:
    """The axis of space that a guard bounds, and the indexes at which no tap leaves."""
    count = len(kernel.space)
    axes = [axis for axis, step in enumerate(guard.strides) if step]
    space = [axis for axis in axes if axis < count]
    if len(space) != 1 or space[0] in (kernel.split, count - 1):
        return None
    axis = space[0]
    size, step = kernel.space[axis], guard.strides[axis]
    low = high = guard.offset
    for tap in axes[1:]:
        taps = kernel.reduced[tap - count]
        if not isinstance(taps, int) or tap == kernel.split:
            return None
        end = guard.strides[tap] * (taps - 1)
        low, high = low + min(0, end), high + max(0, end)
    if step <= 0 or not isinstance(size, int):
        return None
    start = max(0, -((low - guard.low) // step))
    stop = min(size, (guard.high - 1 - high) // step + 1)
    return (axis, (start, stop)) if start < stop else None


def restricted(kernel: Contraction, box: Box) -> Contraction:
    """The contraction over a part of its space, without the guards that always hold there."""
    shift = {axis: start for axis, (start, _) in box.items()}
    space = tuple(
        box[axis][1] - box[axis][0] if axis in box else size
        for axis, size in enumerate(kernel.space)
    )
    part = replace(
        kernel,
        space=space,
        a=_access(kernel.a, shift),
        b=_access(kernel.b, shift),
        body=tuple(_instruction(one, shift) for one in kernel.body),
        stores=tuple(
            replace(one, offset=one.offset + _moved(one.strides, shift)) for one in kernel.stores
        ),
    )
    guards = tuple(guard for guard in part.a.guards if not _holds(part, guard))
    return replace(part, a=replace(part.a, guards=guards))


def _moved(strides: tuple[int, ...], shift: dict[int, int]) -> int:
    return sum(strides[axis] * start for axis, start in shift.items())


def _guards(guards: tuple[Guard, ...], shift: dict[int, int]) -> tuple[Guard, ...]:
    return tuple(
        replace(guard, offset=guard.offset + _moved(guard.strides, shift)) for guard in guards
    )


def _access(access: Access, shift: dict[int, int]) -> Access:
    offset = access.offset + _moved(access.strides, shift)
    return replace(access, offset=offset, guards=_guards(access.guards, shift))


def _instruction(one: Instruction, shift: dict[int, int]) -> Instruction:
    match one:
        case Load() | Lookup():
            offset = one.offset + _moved(one.strides, shift)
            return replace(one, offset=offset, guards=_guards(one.guards, shift))
        case Position():
            return replace(one, offset=one.offset + _moved(one.strides, shift))
        case Inside():
            return replace(one, guards=_guards(one.guards, shift))
        case Random():
            return replace(
                one,
                row_offset=one.row_offset + _moved(one.row, shift),
                within_offset=one.within_offset + _moved(one.within, shift),
            )
        case _:
            return one


def _holds(kernel: Contraction, guard: Guard) -> bool:
    """Whether a guard holds everywhere."""
    low = high = guard.offset
    for size, step in zip((*kernel.space, *kernel.reduced), guard.strides, strict=True):
        if step:
            assert isinstance(size, int)
            low, high = low + min(0, step * (size - 1)), high + max(0, step * (size - 1))
    return guard.low <= low and high < guard.high
