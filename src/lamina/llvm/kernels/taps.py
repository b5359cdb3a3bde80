"""Take the taps of a filter one after another, each over the positions that it reaches.

In the gradient of a convolution without padding, position `iy` receives `dy[iy - kh]` only where
that lies inside of `dy`. A copy of `dy` with its border would be multiplied by many zeros: more
than half of all terms for an image of 5 x 5 and a filter of 3 x 3. Here every tap adds to the sums
of the positions it reaches, `iy = kh + oy` for all `oy`, and the sums wait in scratch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lamina.llvm.kernel import Access, Contraction, Guard
from lamina.types import Dimension


@dataclass(frozen=True)
class Reach:
    """Along one axis of space: tap t reaches `count` positions from `first + t * step` on.

    tap  the reduced axis of the taps; -1 if there is but one tap
    """

    axis: int
    count: int
    first: int
    tap: int
    step: int


def with_taps(kernel: Contraction) -> tuple[Contraction, tuple[Reach, ...]] | None:
    """The contraction with positions counted from each tap's first one, without guards.

    None where a tap reaches beyond the space (a padded image), or a guard is of another form.
    """
    axes = (*kernel.space, *kernel.reduced)
    reaches: list[Reach] = []
    for guard in kernel.a.guards:
        reach = _reach(kernel, guard, axes)
        if reach is None:
            return None
        reaches.append(reach)
    taps = sorted(reach.tap for reach in reaches if reach.tap >= 0)
    first = len(kernel.space)
    if taps != list(range(first, first + len(taps))):
        return None
    if len({reach.axis for reach in reaches}) < len(reaches):
        return None
    a = kernel.a
    offset, strides = a.offset, list(a.strides)
    for reach in reaches:
        stride = a.strides[reach.axis]
        offset += stride * reach.first
        if reach.tap >= 0:
            strides[reach.tap] += stride * reach.step
    shifted = Access(a.operand, a.dtype, offset, tuple(strides))
    return replace(kernel, a=shifted), tuple(reaches)


def _reach(kernel: Contraction, guard: Guard, axes: tuple[Dimension, ...]) -> Reach | None:
    """A guard of the form `low <= position - tap * step + offset < high`."""
    moved = [axis for axis, step in enumerate(guard.strides) if step]
    space = [axis for axis in moved if axis < len(kernel.space)]
    taps = [axis for axis in moved if axis >= len(kernel.space)]
    if len(space) != 1 or len(taps) > 1:
        return None
    axis = space[0]
    extent = axes[axis]
    movable = axis not in (kernel.split, len(kernel.space) - 1)
    if guard.strides[axis] != 1 or not movable or not isinstance(extent, int):
        return None
    count, first = guard.high - guard.low, guard.low - guard.offset
    if not taps:
        fits = first >= 0 and first + count <= extent
        return Reach(axis, count, first, -1, 0) if fits else None
    tap, step = taps[0], -guard.strides[taps[0]]
    number = axes[tap]
    if not isinstance(number, int) or tap == kernel.split:
        return None
    ends = (first, first + step * (number - 1))
    if min(ends) < 0 or max(ends) + count > extent:
        return None
    return Reach(axis, count, first, tap, step)
