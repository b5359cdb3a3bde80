"""NumPy's indexing, `x[key]`, on nodes: integers, slices, None, `...`, arrays and masks."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from lamina.errors import BatchError, ShapeError, layout
from lamina.ir import elementary, indexing, movement, scalar
from lamina.ir.graph import Node, constant, rows
from lamina.tensor.broadcasting import broadcast_shape, broadcast_to
from lamina.types import Batch, Shape


def index(x: Node, key: Any) -> Node:
    """`x[key]`, where arrays in the key are integer nodes.

    Slices and integers become slices, None a new axis, integer nodes gathers. Negative indices in
    an array count from the end, as in NumPy; indices outside clamp to the nearest row.

    raises   ShapeError if there are too many indices or an integer is out of range;
             BatchError where a piece of the run-time batch axis is asked for by number
    """
    parts = _expanded(x, key if isinstance(key, tuple) else (key,))
    advanced = [part for part in parts if isinstance(part, Node)]
    if not advanced:
        return _basic(x, parts)
    basic = [slice(None) if isinstance(part, Node) else part for part in parts]
    kept: list[Node | None] = []
    for part in parts:
        if isinstance(part, Node):
            kept.append(part)
        elif part is None or isinstance(part, slice):
            kept.append(None)
    return _advanced(_basic(x, basic), kept)


def _expanded(x: Node, key: tuple[Any, ...]) -> list[Any]:
    """The key with `...` written out: one part for each axis of x, and the Nones between."""
    rank = len(x.shape)
    used = sum(part is not None and part is not Ellipsis for part in key)
    if used > rank:
        raise ShapeError(f"{used} indices are too many for a value of {x.type}")
    if sum(part is Ellipsis for part in key) > 1:
        raise ShapeError("an index can hold only one ellipsis ('...')")
    if Ellipsis not in [part for part in key if not isinstance(part, Node)]:
        key = (*key, Ellipsis)
    parts: list[Any] = []
    for part in key:
        if part is Ellipsis:
            parts.extend([slice(None)] * (rank - used))
        else:
            parts.append(part)
    return parts


def _basic(x: Node, parts: list[Any]) -> Node:
    start: list[int] = []
    stop: list[int | None] = []
    step: list[int] = []
    shape: list[Any] = []
    axis = 0
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        size = x.shape[axis]
        if isinstance(part, slice):
            low, high, stride, length = _slice(part, size, x)
            shape.append(length)
        else:
            at = _integer(part, size, axis, x)
            low, high, stride = at, at + 1, 1
        start.append(low)
        stop.append(high)
        step.append(stride)
        axis += 1
    whole = all(
        low == 0 and stride == 1 and (high is None or high == size)
        for low, high, stride, size in zip(start, stop, step, x.shape, strict=True)
    )
    cut = x if whole else movement.slice_(x, tuple(start), tuple(stop), tuple(step))
    return cut if cut.shape == tuple(shape) else movement.reshape(cut, tuple(shape))


def _slice(part: slice, size: Any, x: Node) -> tuple[int, int | None, int, Any]:
    if isinstance(size, Batch):
        whole = part.start in (None, 0) and part.step in (None, 1)
        if not whole or not (part.stop is None or part.stop == size):
            raise BatchError(
                layout(
                    f"a part of the batch axis of {x.type} cannot be taken by number.",
                    hint="the number of rows is known only when the step runs",
                )
            )
        return 0, None, 1, size
    bounds = slice(*(None if b is None else operator.index(b) for b in _bounds(part)))
    low, high, stride = bounds.indices(size)
    length = len(range(low, high, stride))
    return (low, high, stride, length) if length else (0, 0, 1, 0)


def _bounds(part: slice) -> tuple[Any, Any, Any]:
    return part.start, part.stop, part.step


def _integer(part: Any, size: Any, axis: int, x: Node) -> int:
    try:
        at = operator.index(part)
    except TypeError:
        raise ShapeError(
            f"an index must be an integer, a slice, None, '...' or an array of integers, "
            f"got {type(part).__name__}"
        ) from None
    if isinstance(size, Batch):
        raise BatchError(f"row {at} of the batch axis of {x.type} cannot be taken by number")
    if not -size <= at < size:
        raise ShapeError(f"index {at} is out of range for axis {axis} of {x.type}")
    return int(at % size)


def wrapped(where: Node, size: Any) -> Node:
    """Negative indices counted from the end: `where + size` where it is negative."""
    if where.dtype.startswith("u"):
        return where
    zero = broadcast_to(constant(0, where.dtype), where.shape)
    count = (
        rows(size.factor, where.dtype) if isinstance(size, Batch) else constant(size, where.dtype)
    )
    length = broadcast_to(count, where.shape)
    negative = elementary.map_("lt", where, zero)
    return elementary.map_("where", negative, elementary.map_("add", where, length), where)


def _advanced(x: Node, parts: list[Node | None]) -> Node:
    """Gather along the axes that hold an array; several arrays broadcast against each other."""
    axes = [axis for axis, part in enumerate(parts) if part is not None]
    arrays = [part for part in parts if part is not None]
    shape = broadcast_shape(*(array.shape for array in arrays))
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    wheres = [
        broadcast_to(wrapped(array, x.shape[axis]), shape)
        for axis, array in zip(axes, arrays, strict=True)
    ]
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    front = axes[0] if together else 0
    order = (*rest[:front], *axes, *rest[front:])
    if order != tuple(range(len(x.shape))):
        x = movement.transpose(x, order)
    sizes = x.shape[front : front + len(axes)]
    where = wheres[0]
    if len(axes) > 1:
        if any(isinstance(size, Batch) for size in sizes):
            raise BatchError(f"the batch axis of {x.type} cannot be indexed beside other axes")
        where = _flat_index(wheres, sizes)
        flat = (*x.shape[:front], int(np.prod(sizes)), *x.shape[front + len(axes) :])
        x = movement.reshape(x, flat)
    return indexing.gather(x, where, axis=front)


def _flat_index(wheres: list[Node], sizes: Shape) -> Node:
    """The row-major position; each index is clamped alone, so that none runs into another row."""
    flat = scalar.cast(wheres[0], "int32")
    for where, size in zip(wheres[1:], sizes[1:], strict=True):
        step = broadcast_to(constant(size, "int32"), flat.shape)
        flat = elementary.map_(
            "add", elementary.map_("mul", flat, step), scalar.cast(where, "int32")
        )
    return flat
