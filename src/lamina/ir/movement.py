"""Ops that only move elements: reshape, transpose, slice, pad, concat; and iota, which counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.errors import BatchError, DtypeError, ShapeError, layout
from lamina.ir.elementary import Broadcast, broadcast, full, table
from lamina.ir.graph import Node, Op, Vjp, apply
from lamina.types import (
    Batch,
    Dimension,
    Shape,
    Type,
    numpy_dtype,
    same_size,
    static_shape,
)

__all__ = ["Broadcast", "broadcast"]


def _before_batch(shape: Shape) -> int:
    """The product of the sizes in front of the batch axis (1 where there is none)."""
    axis = next((i for i, size in enumerate(shape) if isinstance(size, Batch)), 0)
    return math.prod(size for size in shape[:axis] if isinstance(size, int))


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order under another shape.

    The batch may take in or give up factors behind it, `(batch, 3) -> (3*batch)`; it cannot move
    past another axis.
    """

    shape: Shape

    def infer(self, x: Type) -> Type:
        details = [("input", str(x)), ("shape", str(Type(self.shape, x.dtype)))]
        if not same_size(x.shape, self.shape):
            raise ShapeError(layout("reshape: the numbers of elements differ.", details))
        if x.batch_axis is not None and _before_batch(x.shape) != _before_batch(self.shape):
            raise BatchError(
                layout(
                    "reshape: the batch axis cannot move past another axis.",
                    details,
                    hint="transpose first",
                )
            )
        return Type(self.shape, x.dtype)

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        return (reshape(gradient, x.shape),)

    def numpy(self, x: Any) -> Any:
        return np.reshape(x, self.shape)

    def at(self, rows: int) -> Reshape:
        return Reshape(static_shape(self.shape, rows))


@dataclass(frozen=True)
class Transpose(Op):
    """Axes in another order: output axis i is input axis `perm[i]`."""

    perm: tuple[int, ...]

    def infer(self, x: Type) -> Type:
        if sorted(self.perm) != list(range(x.rank)):
            raise ShapeError(
                layout(f"transpose: {self.perm} is no order of {x.rank} axes.", [("input", str(x))])
            )
        return Type(tuple(x.shape[axis] for axis in self.perm), x.dtype)

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        return (transpose(gradient, inverse(self.perm)),)

    def numpy(self, x: Any) -> Any:
        return np.transpose(x, self.perm)


@dataclass(frozen=True)
class Slice(Op):
    """Per axis the elements `range(start, stop, step)`; nothing wraps around.

    A negative step runs backwards, with stop -1 to include element 0. Start 0, stop None, step 1
    takes an axis whole: the only way in which the batch may be taken.
    """

    start: tuple[int, ...]
    stop: tuple[int | None, ...]
    step: tuple[int, ...]

    def infer(self, x: Type) -> Type:
        if not len(self.start) == len(self.stop) == len(self.step) == x.rank:
            raise ShapeError(
                layout(f"slice: needs {x.rank} starts, stops and steps.", [("input", str(x))])
            )
        sizes: list[Dimension] = []
        ranges = zip(x.shape, self.start, self.stop, self.step, strict=True)
        for axis, (size, start, stop, step) in enumerate(ranges):
            if isinstance(size, Batch):
                if (start, stop, step) != (0, None, 1):
                    raise BatchError(
                        layout(
                            f"slice: axis {axis} is the run-time batch and can only be taken "
                            "whole.",
                            [("input", str(x)), ("slice", f"{start}:{stop}:{step}")],
                        )
                    )
                sizes.append(size)
                continue
            if (start, stop, step) == (0, None, 1):
                sizes.append(size)
                continue
            picked = range(0) if stop is None or step == 0 else range(start, stop, step)
            inside = not picked or (min(picked) >= 0 and max(picked) < size)
            if stop is None or step == 0 or not inside:
                raise ShapeError(
                    layout(
                        f"slice: {start}:{stop}:{step} leaves axis {axis} of size {size}.",
                        [("input", str(x))],
                    )
                )
            sizes.append(len(picked))
        return Type(tuple(sizes), x.dtype)

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        flipped = [axis for axis, step in enumerate(self.step) if step < 0]
        gradient = flip(gradient, flipped) if flipped else gradient
        low, high, interior = [], [], []
        sizes = zip(x.shape, out.shape, self.start, self.step, strict=True)
        for size, taken, start, step in sizes:
            if isinstance(size, Batch) or not taken:
                low.append(0)
                high.append(0 if isinstance(size, Batch) else size)
                interior.append(0)
                continue
            first, last = sorted((start, start + (taken - 1) * step))
            low.append(first)
            high.append(size - 1 - last)
            interior.append(abs(step) - 1)
        return (pad(gradient, low, high, 0, interior),)

    def numpy(self, x: Any) -> Any:
        index = []
        for start, stop, step in zip(self.start, self.stop, self.step, strict=True):
            beyond = stop is not None and stop < 0
            index.append(slice(start, None if beyond else stop, step))
        return x[tuple(index)]


@dataclass(frozen=True)
class Pad(Op):
    """`low` elements before, `high` after and `interior` between the elements of each axis.

    value   the bytes of the padding, in the dtype of the input (`pad` takes a number)
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    interior: tuple[int, ...]
    value: bytes

    def infer(self, x: Type) -> Type:
        amounts = (*self.low, *self.high, *self.interior)
        if not len(self.low) == len(self.high) == len(self.interior) == x.rank:
            raise ShapeError(
                layout(f"pad: needs {x.rank} low, high and interior.", [("input", str(x))])
            )
        if any(amount < 0 for amount in amounts):
            raise ShapeError(
                layout("pad: amounts cannot be negative.", [("input", str(x))], hint="use slice_")
            )
        sizes: list[Dimension] = []
        pads = zip(x.shape, self.low, self.high, self.interior, strict=True)
        for axis, (size, low, high, interior) in enumerate(pads):
            if isinstance(size, Batch):
                if low or high or interior:
                    raise BatchError(
                        layout(
                            f"pad: axis {axis} is the run-time batch and cannot be padded.",
                            [("input", str(x))],
                        )
                    )
                sizes.append(size)
            else:
                sizes.append(low + size + max(0, size - 1) * interior + high)
        return Type(tuple(sizes), x.dtype)

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        starts, stops, steps = [], [], []
        for size, low, between in zip(x.shape, self.low, self.interior, strict=True):
            batch = isinstance(size, Batch)
            starts.append(low)
            steps.append(1 + between)
            stops.append(None if batch else low + (size - 1) * (1 + between) + 1 if size else low)
        return (slice_(gradient, starts, stops, steps),)

    def number(self, dtype: str) -> Any:
        """The padding as a NumPy scalar."""
        return np.frombuffer(self.value, numpy_dtype(dtype))[0]

    def numpy(self, x: Any) -> Any:
        pads = list(zip(x.shape, self.low, self.high, self.interior, strict=True))
        shape = [low + n + max(0, n - 1) * inner + high for n, low, high, inner in pads]
        out = np.full(shape, np.frombuffer(self.value, x.dtype)[0], x.dtype)
        inside = (slice(low, low + max(0, (n - 1) * (1 + k) + 1), 1 + k) for n, low, _, k in pads)
        out[tuple(inside)] = x
        return out


@dataclass(frozen=True)
class Concat(Op):
    """The inputs one after the other along `axis`, which cannot be the batch axis."""

    axis: int

    def infer(self, *types: Type) -> Type:
        first = types[0]
        if not 0 <= self.axis < first.rank:
            raise ShapeError(layout(f"concat: there is no axis {self.axis}.", table(types)))
        if any(
            type.rank != first.rank
            or any(
                one != other
                for i, (one, other) in enumerate(zip(type.shape, first.shape, strict=True))
                if i != self.axis
            )
            for type in types
        ):
            raise ShapeError(
                layout(f"concat: shapes differ beside axis {self.axis}.", table(types))
            )
        if len({type.dtype for type in types}) > 1:
            raise DtypeError(layout("concat: the dtypes differ.", table(types), hint="cast them"))
        total = 0
        for type in types:
            size = type.shape[self.axis]
            if isinstance(size, Batch):
                raise BatchError(
                    layout(
                        f"concat: axis {self.axis} is the run-time batch.",
                        table(types),
                        hint="concatenate along another axis",
                    )
                )
            total += size
        return Type((*first.shape[: self.axis], total, *first.shape[self.axis + 1 :]), first.dtype)

    def vjp(self, gradient: Node, out: Node, *inputs: Node) -> Vjp:
        parts, position = [], 0
        for x in inputs:
            size = x.shape[self.axis]
            parts.append(take_range(gradient, self.axis, position, position + size))
            position += size
        return parts

    def numpy(self, *arrays: Any) -> Any:
        return np.concatenate(arrays, self.axis)


@dataclass(frozen=True)
class Iota(Op):
    """0, 1, 2, ... along `axis`, the same along every other."""

    shape: Shape
    axis: int
    dtype: str = "int32"

    def infer(self) -> Type:
        if not 0 <= self.axis < len(self.shape):
            raise ShapeError(f"iota: there is no axis {self.axis} in shape {self.shape}.")
        return Type(self.shape, self.dtype)

    def numpy(self) -> Any:
        shape = static_shape(self.shape, 0)
        column = [-1 if axis == self.axis else 1 for axis in range(len(shape))]
        counted = np.arange(shape[self.axis]).astype(numpy_dtype(self.dtype))
        return np.broadcast_to(counted.reshape(column), shape)

    def at(self, rows: int) -> Iota:
        return Iota(static_shape(self.shape, rows), self.axis, self.dtype)


# ------------------------------------------------------------------------------- functions


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The order that undoes a transpose."""
    return tuple(sorted(range(len(perm)), key=lambda axis: perm[axis]))


def reshape(x: Node, shape: Sequence[Dimension]) -> Node:
    """The elements of `x` in row-major order under another shape of the same size."""
    return x if tuple(shape) == x.shape else apply(Reshape(tuple(shape)), x)


def transpose(x: Node, perm: Sequence[int] | None = None) -> Node:
    """Output axis i is axis `perm[i]` of x; None reverses the axes."""
    rank = x.type.rank
    order = tuple(range(rank))[::-1] if perm is None else tuple(axis % rank for axis in perm)
    return x if order == tuple(range(rank)) else apply(Transpose(order), x)


def slice_(
    x: Node,
    start: Sequence[int],
    stop: Sequence[int | None],
    step: Sequence[int] | None = None,
) -> Node:
    """Per axis the elements `range(start, stop, step)`; a batch axis whole: 0, None, 1."""
    steps = tuple(step) if step is not None else (1,) * len(start)
    whole = all(
        begin == 0 and by == 1 and (end is None if isinstance(size, Batch) else end == size)
        for size, begin, end, by in zip(x.shape, start, stop, steps, strict=False)
    )
    if whole and len(start) == len(stop) == len(steps) == x.type.rank:
        return x
    return apply(Slice(tuple(start), tuple(stop), steps), x)


def take_range(x: Node, axis: int, start: int, stop: int, step: int = 1) -> Node:
    """Elements `range(start, stop, step)` along one axis, everything along the others."""
    rank = x.type.rank
    starts, steps = [0] * rank, [1] * rank
    stops = [None if isinstance(size, Batch) else size for size in x.shape]
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return slice_(x, starts, stops, steps)


def flip(x: Node, axes: Sequence[int] | int) -> Node:
    """`x` backwards along `axes`."""
    rank = x.type.rank
    several = (axes,) if isinstance(axes, int) else axes
    for axis in several:
        size = x.shape[axis % rank]
        if isinstance(size, Batch):
            raise BatchError(
                layout(f"flip: axis {axis} is the run-time batch.", [("input", str(x.type))])
            )
        x = take_range(x, axis % rank, size - 1, -1, -1) if size else x
    return x


def pad(
    x: Node,
    low: Sequence[int],
    high: Sequence[int],
    value: float = 0,
    interior: Sequence[int] | None = None,
) -> Node:
    """`x` with `low` elements of `value` before, `high` after, `interior` between, per axis."""
    between = tuple(interior) if interior is not None else (0,) * len(low)
    if not any((*low, *high, *between)) and len(low) == x.type.rank:
        return x
    bits = np.asarray(value).astype(numpy_dtype(x.dtype)).tobytes()
    return apply(Pad(tuple(low), tuple(high), between, bits), x)


def concat(nodes: Sequence[Node], axis: int = -1) -> Node:
    """The nodes one after the other along `axis`."""
    if len(nodes) == 1:
        return nodes[0]
    return apply(Concat(axis % nodes[0].type.rank), *nodes)


def iota(shape: Sequence[Dimension], axis: int, dtype: str = "int32") -> Node:
    """0, 1, 2, ... along `axis` of a value of `shape`."""
    return apply(Iota(tuple(shape), axis % len(shape), dtype))


def expand(x: Node, axis: int) -> Node:
    """A new axis of size 1 at position `axis` of the result."""
    rank = x.type.rank + 1
    position = axis % rank
    kept = tuple(i for i in range(rank) if i != position)
    return broadcast(x, (*x.shape[:position], 1, *x.shape[position:]), kept)


def squeeze(x: Node, axis: int) -> Node:
    """Without axis `axis`, whose size is 1."""
    position = axis % x.type.rank
    if x.shape[position] != 1:
        raise ShapeError(
            layout(f"squeeze: axis {axis} has size {x.shape[position]}.", [("input", str(x.type))])
        )
    return reshape(x, (*x.shape[:position], *x.shape[position + 1 :]))


def grow_last(x: Node, shape: Sequence[Dimension]) -> Node:
    """`x` repeated along new leading axes, so that it has `shape` (a bias over its rows)."""
    rank = len(shape)
    return broadcast(x, shape, range(rank - x.type.rank, rank))


def zeros(shape: Sequence[Dimension], dtype: str = "float32") -> Node:
    return full(shape, 0, dtype)


_ZERO = np.float32(0).tobytes()
Reshape.samples = (
    (Reshape((6, 2)), "float32 (3, 4)"),
    (Reshape((Batch(3), 2)), "float32 (batch, 3, 2)"),
    (Reshape((Batch(2), 4)), "float32 (4*batch, 2)"),
    (Reshape((1, 1)), "float32 ()"),
)
Transpose.samples = (
    (Transpose((1, 0)), "float32 (3, 4)"),
    (Transpose((2, 0, 1)), "float32 (batch, 3, 2)"),
)
Slice.samples = (
    (Slice((1, 0), (3, 4), (1, 2)), "float32 (3, 4)"),
    (Slice((0, 3), (None, -1), (1, -1)), "float32 (batch, 4)"),
    (Slice((4,), (0,), (-2,)), "float32 (6)"),
)
Pad.samples = (
    (Pad((1, 0), (0, 2), (0, 0), _ZERO), "float32 (3, 4)"),
    (Pad((0, 1), (0, 1), (0, 2), np.float32(1.5).tobytes()), "float32 (batch, 3)"),
)
Concat.samples = (
    (Concat(0), "float32 (3, 4)", "float32 (2, 4)"),
    (Concat(1), "float32 (batch, 1)", "float32 (batch, 3)", "float32 (batch, 2)"),
)
Iota.samples = (
    (Iota((2, 3), 1),),
    (Iota((Batch(1), 2), 0, "float32"),),
)
