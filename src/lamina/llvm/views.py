"""Where values lie in memory, and how an index travels through reshapes, slices and transposes.

A `View` says how the elements of a value lie in a buffer: an offset and one stride per axis, as
in NumPy. An `Affine` is one coordinate of a value as a linear form over the axes of a kernel.
Movement ops turn the coordinates of their result into coordinates of their input, so that a
kernel reads through them without copying anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lamina.ir.elementary import Broadcast
from lamina.ir.graph import Op
from lamina.ir.movement import Pad, Reshape, Slice, Transpose
from lamina.llvm.kernel import Guard
from lamina.types import Batch, Dimension, Shape, Type, static_shape

# Stands for the unknown number of rows where sizes are compared: larger than any real extent.
_STAND_IN = 1_000_003


@dataclass(eq=False)
class Buffer:
    """A piece of memory that holds one value, row-major, the batch at its capacity.

    place   "shared": in the arena, seen by all threads; "private": one copy a thread, holding
            the rows of one block; "state", "input", "output": given by the caller
    slot    position in the table of pointers, for the last three
    parts   leading axis of that many partial sums (0: none)
    offset  bytes from the start of its area, set by the planner
    """

    type: Type
    place: str
    label: str = ""
    slot: int = -1
    parts: int = 0
    offset: int = -1

    def elements(self, capacity: int) -> int:
        return self.type.size_at(capacity) * max(self.parts, 1)


@dataclass(frozen=True)
class Affine:
    """One coordinate: `offset + sum(stride * axis index)` over the axes of a kernel."""

    offset: int
    strides: tuple[int, ...]

    def scaled(self, factor: int, shift: int = 0) -> Affine:
        return Affine(
            self.offset * factor + shift, tuple(stride * factor for stride in self.strides)
        )

    def plus(self, other: Affine) -> Affine:
        return Affine(
            self.offset + other.offset,
            tuple(a + b for a, b in zip(self.strides, other.strides, strict=True)),
        )

    def guard(self, low: int, high: int) -> Guard:
        return Guard(self.strides, self.offset, low, high)


Index = tuple[Affine, ...]


def axis(position: int, count: int) -> Affine:
    """The coordinate that is simply kernel axis `position` of `count`."""
    return Affine(0, tuple(int(i == position) for i in range(count)))


def identity(rank: int, count: int | None = None) -> Index:
    """The first `rank` kernel axes as coordinates."""
    return tuple(axis(position, count or rank) for position in range(rank))


def nowhere(count: int) -> Affine:
    """The constant coordinate 0."""
    return Affine(0, (0,) * count)


@dataclass(frozen=True)
class View:
    """How a value lies in a buffer; strides in elements, one an axis of the value.

    `loops` are time loops around the kernel: (loop number, stride) adds to the address in each
    iteration.
    """

    buffer: Buffer
    offset: int
    shape: Shape
    strides: tuple[int, ...]
    loops: tuple[tuple[int, int], ...] = ()

    def address(self, index: Index) -> tuple[int, tuple[int, ...]]:
        """(offset, strides over the kernel's axes) of the element at `index`."""
        count = len(index[0].strides) if index else 0
        total = Affine(self.offset, (0,) * count)
        for stride, coordinate in zip(self.strides, index, strict=True):
            total = total.plus(coordinate.scaled(stride))
        return total.offset, total.strides


def contiguous_strides(shape: Shape, capacity: int) -> tuple[int, ...]:
    """Elements from one index to the next on each axis, where nothing lies between."""
    strides, running = [], 1
    for extent in reversed(static_shape(shape, capacity)):
        strides.append(running)
        running *= extent
    return tuple(reversed(strides))


def whole(buffer: Buffer, capacity: int) -> View:
    """The view of everything in a buffer."""
    shape = buffer.type.shape
    return View(buffer, 0, shape, contiguous_strides(shape, capacity))


def stand_in(size: Dimension) -> int:
    """A number in the place of a dimension, by which batch dimensions can be told apart."""
    return size.factor * _STAND_IN if isinstance(size, Batch) else size


def _groups(one: Shape, other: Shape) -> list[tuple[list[int], list[int]]] | None:
    """Axes of two shapes of equal size, matched into the smallest groups of equal size."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(one) or j < len(other):
        left, right = [], []
        left_size = right_size = 1
        if i < len(one):
            left.append(i)
            left_size = stand_in(one[i])
            i += 1
        if j < len(other):
            right.append(j)
            right_size = stand_in(other[j])
            j += 1
        while left_size != right_size:
            if left_size < right_size and i < len(one):
                left.append(i)
                left_size *= stand_in(one[i])
                i += 1
            elif j < len(other):
                right.append(j)
                right_size *= stand_in(other[j])
                j += 1
            elif i < len(one):
                left.append(i)
                left_size *= stand_in(one[i])
                i += 1
            else:
                return None
        groups.append((left, right))
    return groups


def reshaped_index(source: Shape, target: Shape, index: Index) -> Index | None:
    """Coordinates in `source` of the element at `index` of its reshape, None if not linear."""
    if 0 in source:
        return tuple(nowhere(len(index[0].strides) if index else 0) for _ in source)
    groups = _groups(source, target)
    if groups is None:
        return None
    count = len(index[0].strides) if index else 0
    result = [nowhere(count) for _ in source]
    for inner, outer in groups:
        inner = [i for i in inner if source[i] != 1]
        outer = [i for i in outer if target[i] != 1]
        if [source[i] for i in inner] == [target[i] for i in outer]:
            for i, o in zip(inner, outer, strict=True):
                result[i] = index[o]
        elif len(inner) == 1:
            if any(isinstance(target[o], Batch) for o in outer[1:]):
                return None
            total, running = nowhere(count), 1
            for o in reversed(outer):
                total = total.plus(index[o].scaled(running))
                running *= stand_in(target[o])
            result[inner[0]] = total
        else:
            return None
    return tuple(result)


def reshaped_view(view: View, target: Shape, capacity: int) -> View | None:
    """The same memory under another shape, None where strides cannot express it."""
    if 0 in view.shape:
        return View(view.buffer, view.offset, target, (0,) * len(target), view.loops)
    groups = _groups(view.shape, target)
    if groups is None:
        return None
    strides = [0] * len(target)
    for inner, outer in groups:
        inner = [i for i in inner if view.shape[i] != 1]
        outer = [o for o in outer if target[o] != 1]
        if not inner:
            continue
        batched = any(isinstance(view.shape[i], Batch) for i in inner)
        if [view.shape[i] for i in inner] != [target[o] for o in outer]:
            if batched and not (
                isinstance(view.shape[inner[0]], Batch) and isinstance(target[outer[0]], Batch)
            ):
                return None
            extents = static_shape(view.shape, capacity)
            for i, after in itertools.pairwise(inner):
                if view.strides[i] != view.strides[after] * extents[after]:
                    return None
            running = view.strides[inner[-1]]
            sizes = static_shape(target, capacity)
            for o in reversed(outer):
                strides[o] = running
                running *= sizes[o]
        else:
            for i, o in zip(inner, outer, strict=True):
                strides[o] = view.strides[i]
    return View(view.buffer, view.offset, target, tuple(strides), view.loops)


def moved_index(op: Op, source: Shape, index: Index) -> tuple[Index, tuple[Guard, ...]] | None:
    """Coordinates in the input of a movement op of the element at `index` of its result.

    The guards say where the input has such an element at all (`Pad`). None where the way back is
    not linear.
    """
    match op:
        case Transpose(perm=perm):
            order = sorted(range(len(perm)), key=lambda i: perm[i])
            return tuple(index[position] for position in order), ()
        case Broadcast(axes=axes):
            return tuple(index[position] for position in axes), ()
        case Slice():
            starts, _, steps = sliced(op, source)
            moved = zip(index, starts, steps, strict=True)
            return tuple(c.scaled(step, start) for c, start, step in moved), ()
        case Pad():
            if any(op.interior):
                return None
            inside, guards = [], []
            for position, (coordinate, extent) in enumerate(zip(index, source, strict=True)):
                shifted = replace(coordinate, offset=coordinate.offset - op.low[position])
                inside.append(shifted)
                if (op.low[position] or op.high[position]) and isinstance(extent, int):
                    guards.append(shifted.guard(0, extent))
            return tuple(inside), tuple(guards)
        case Reshape(shape=shape):
            back = reshaped_index(source, shape, index)
            return None if back is None else (back, ())
    return None


def moved_view(op: Op, view: View, target: Shape, capacity: int) -> View | None:
    """The view of the result of a movement op, where no copy is needed."""
    match op:
        case Transpose(perm=perm):
            return replace(view, shape=target, strides=tuple(view.strides[i] for i in perm))
        case Broadcast(axes=axes):
            strides = [0] * len(target)
            for position, stride in zip(axes, view.strides, strict=True):
                strides[position] = stride
            return replace(view, shape=target, strides=tuple(strides))
        case Slice():
            starts, _, steps = sliced(op, view.shape)
            offset = view.offset + sum(
                start * stride for start, stride in zip(starts, view.strides, strict=True)
            )
            scaled = tuple(s * step for s, step in zip(view.strides, steps, strict=True))
            return replace(view, offset=offset, shape=target, strides=scaled)
        case Reshape():
            return reshaped_view(view, target, capacity)
    return None


def sliced(
    op: Slice, source: Shape
) -> tuple[tuple[int, ...], tuple[int | None, ...], tuple[int, ...]]:
    """Start, stop and step per axis with nothing left open; a batch axis is taken whole."""
    return tuple(op.start), tuple(op.stop), tuple(op.step)


def drop_axis(view: View, position: int, loop: int) -> View:
    """The slice of a view at the running index of a time loop along one axis."""
    rest = [i for i in range(len(view.shape)) if i != position]
    return View(
        view.buffer,
        view.offset,
        tuple(view.shape[i] for i in rest),
        tuple(view.strides[i] for i in rest),
        (*view.loops, (loop, view.strides[position])),
    )


def is_contiguous(view: View, capacity: int) -> bool:
    """Whether the elements lie one after the other in memory."""
    expected = contiguous_strides(view.shape, capacity)
    return all(
        size == 1 or stride == wanted
        for size, stride, wanted in zip(view.shape, view.strides, expected, strict=True)
    )


def row_major(indexes: Sequence[Affine], shape: Shape) -> Affine:
    """The row-major position as one coordinate; no axis of the shape may be the batch."""
    count = len(indexes[0].strides) if indexes else 0
    total, running = nowhere(count), 1
    for coordinate, extent in zip(reversed(indexes), reversed(shape), strict=True):
        total = total.plus(coordinate.scaled(running))
        running *= stand_in(extent)
    return total
