"""Ops that pick and replace elements by position: take, slices, scatters, one-hot."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina import config
from lamina.errors import DtypeError, ShapeError
from lamina.ir import elementary, indexing, movement
from lamina.ir.graph import Node, constant
from lamina.ops.creation import as_shape, full, zeros
from lamina.ops.dispatch import normal_axis, operation
from lamina.tensor import Tensor, as_dtype, cast, convert, operands
from lamina.tensor.broadcasting import broadcast_shape, broadcast_to
from lamina.tensor.indexing import wrapped
from lamina.types import FLOATS


def _index(x: Any) -> Tensor:
    tensor = convert(x)
    if tensor.dtype in FLOATS:
        raise DtypeError(f"positions must be integers, got {tensor.node.type}")
    return cast(tensor, "int32") if tensor.dtype == "bool" else tensor


def lookup(table: Any, indices: Any, axis: int = 0) -> Tensor:
    """Rows of a table by number, from 0: `take` without negative positions.

    table (V, *D); indices (*I) integer in [0, V). Returns (*I, *D). This is what an embedding
    uses: a position that comes straight from an input is checked before the step runs.
    """
    node = convert(table).node
    return Tensor(indexing.gather(node, _index(indices).node, normal_axis(axis, len(node.shape))))


@operation
def take(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """Slices along an axis by position (None: of the flattened values); negative from the end."""
    tensor = convert(x)
    if axis is None:
        tensor, axis = tensor.reshape((-1,)), 0
    at = normal_axis(axis, tensor.ndim)
    where = wrapped(_index(indices).node, tensor.shape[at])
    return Tensor(indexing.gather(tensor.node, where, at))


@operation
def take_along_axis(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """One element for each position: `out[i, j] = x[i, indices[i, j]]` for the last axis.

    The other axes of x and indices broadcast.
    """
    tensor, where = convert(x), _index(indices)
    if axis is None:
        tensor, where, axis = tensor.reshape((-1,)), where.reshape((-1,)), 0
    rank = tensor.ndim
    if where.ndim != rank:
        raise ShapeError(
            f"take_along_axis: {tensor.node.type} and {where.node.type} differ in their axes"
        )
    at = normal_axis(axis, rank)
    order = tuple(a for a in range(rank) if a != at)
    lead = broadcast_shape(
        tuple(tensor.shape[a] for a in order), tuple(where.shape[a] for a in order)
    )
    table = _moved(tensor.node, (*order, at), lead)
    index = _moved(wrapped(where.node, tensor.shape[at]), (*order, at), lead)
    found = indexing.gather(table, index, rank - 1, rank - 1)
    back = [0] * rank
    for place, a in enumerate((*order, at)):
        back[a] = place
    return Tensor(found if at == rank - 1 else movement.transpose(found, tuple(back)))


def _moved(node: Node, order: tuple[int, ...], lead: Any) -> Node:
    if order != tuple(range(len(order))):
        node = movement.transpose(node, order)
    return broadcast_to(node, (*lead, node.shape[-1]))


@operation
def get_item(x: Any, key: Any) -> Tensor:
    """`x[key]`."""
    return convert(x)[key]


@operation
def slice(inputs: Any, start_indices: Any, shape: Any) -> Tensor:
    """The block of `shape` that begins at `start_indices` (numbers, or a tensor of them)."""
    tensor = convert(inputs)
    sizes = as_shape(shape)
    sizes = tuple(
        here if wanted == -1 else wanted for wanted, here in zip(sizes, tensor.shape, strict=True)
    )
    starts = _starts(start_indices, tensor.ndim)
    if all(isinstance(start, int) for start in starts):
        key = []
        for start, wanted, here in zip(starts, sizes, tensor.shape, strict=True):
            whole = start == 0 and wanted == here
            key.append(np.s_[:] if whole else np.s_[start : start + wanted])
        return tensor[tuple(key)]
    nodes = [cast(start, "int32").node for start in starts]
    return Tensor(indexing.dynamic_slice(tensor.node, nodes, sizes))


def _starts(given: Any, rank: int) -> list[Any]:
    if isinstance(given, Tensor):
        return [given[i] for i in range(rank)]
    starts = list(given)
    return [start if isinstance(start, (Tensor, int)) else int(start) for start in starts]


@operation
def slice_update(inputs: Any, start_indices: Any, updates: Any) -> Tensor:
    """inputs with the block that begins at `start_indices` replaced by `updates`."""
    tensor = convert(inputs)
    patch = cast(updates, tensor.dtype)
    nodes = [cast(start, "int32").node for start in _starts(start_indices, tensor.ndim)]
    return Tensor(indexing.dynamic_update(tensor.node, patch.node, nodes))


def _flat_positions(indices: Tensor, shape: tuple[Any, ...]) -> Tensor:
    """Positions (n, depth) in the leading axes, as one number each."""
    depth = indices.shape[-1]
    flat: Tensor | None = None
    for axis in range(int(depth)):  # type: ignore[arg-type]
        here = Tensor(wrapped(cast(indices[..., axis], "int32").node, shape[axis]))
        flat = here if flat is None else flat * shape[axis] + here
    if flat is None:
        raise ShapeError("scatter: the positions have no coordinates")
    return flat


def _scatter(kind: str, base: Tensor, indices: Any, values: Any) -> Tensor:
    where = _index(indices)
    depth = int(where.shape[-1])  # type: ignore[arg-type]
    lead, rest = base.shape[:depth], base.shape[depth:]
    count = int(np.prod([int(size) for size in lead]))  # type: ignore[arg-type]
    flat = _flat_positions(where, lead).reshape((-1,))
    rows = cast(values, base.dtype).reshape((flat.shape[0], *rest))
    table = base.reshape((count, *rest))
    result = indexing.scatter(kind, table.node, flat.node, rows.node, 0)
    return Tensor(result).reshape(base.shape)


@operation
def scatter(indices: Any, values: Any, shape: Any) -> Tensor:
    """Zeros of `shape` to which values (n, ...) are added at positions indices (n, depth)."""
    rows = convert(values)
    return _scatter("add", zeros(as_shape(shape), rows.dtype), indices, rows)


@operation
def scatter_update(inputs: Any, indices: Any, updates: Any, reduction: str | None = None) -> Tensor:
    """inputs with updates (n, ...) written at positions indices (n, depth).

    reduction   None replaces (of equal positions the last wins), "add", "max", "min" or "mul"
                combine
    """
    base = convert(inputs)
    if reduction in (None, "add", "max"):
        return _scatter(reduction or "set", base, indices, updates)
    if reduction == "min":
        return -_scatter("max", -base, indices, -cast(updates, base.dtype))
    raise ShapeError(f"scatter_update: unknown reduction {reduction!r}; known: add, max, min")


@operation
def one_hot(
    x: Any, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False
) -> Tensor:
    """1 at the class number, 0 elsewhere; a number outside [0, num_classes) gives zeros only."""
    index = _index(x)
    node = index.node
    rank = len(node.shape) + 1
    at = normal_axis(axis, rank)
    shape = (*node.shape[:at], int(num_classes), *node.shape[at:])
    kept = tuple(a for a in range(rank) if a != at)
    spread = elementary.broadcast(node, shape, kept)
    classes = movement.iota(shape, at, node.dtype)
    return cast(Tensor(elementary.map_("eq", spread, classes)), as_dtype(dtype))


@operation
def multi_hot(
    inputs: Any, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False
) -> Tensor:
    """1 for every class number on the axis before last (a set of labels), 0 elsewhere."""
    index = _index(inputs)
    hot = one_hot(index, num_classes, dtype=dtype)
    reduce_axis = hot.ndim - 2 if hot.ndim > 1 else 0
    if hot.ndim == 1:
        return hot
    return Tensor(elementary.reduce_max(hot.node, (reduce_axis,)))


def _segments(kind: str, data: Any, ids: Any, number: int | None) -> Tensor:
    rows, where = convert(data), _index(ids)
    count = int(where.numpy().max()) + 1 if number is None else int(number)
    shape = (count, *rows.shape[1:])
    if kind == "add":
        base = zeros(shape, rows.dtype)
    else:
        base = full(shape, _lowest(rows.dtype), rows.dtype)
    # A negative id belongs to no segment: it is sent to a row that is cut off afterwards.
    extra = full((1, *rows.shape[1:]), 0, rows.dtype)
    table = movement.concat([base.node, extra.node], 0)
    limit = constant(count, where.dtype)
    number_node = broadcast_to(limit, where.shape)
    zero = broadcast_to(constant(0, where.dtype), where.shape)
    outside = elementary.map_(
        "or",
        elementary.map_("lt", where.node, zero),
        elementary.map_("ge", where.node, number_node),
    )
    target = elementary.map_("where", outside, number_node, where.node)
    return Tensor(indexing.scatter(kind, table, target, rows.node, 0))[:count]


def _lowest(dtype: str) -> Any:
    if dtype in FLOATS:
        return -np.inf
    return np.iinfo(dtype).min


@operation
def segment_sum(
    data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """Sums of the rows of data (n, ...) with equal ids: row k of the result is segment k."""
    return _segments("add", data, segment_ids, num_segments)


@operation
def segment_max(
    data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """Maxima of the rows of data with equal ids; -infinity (the least integer) where empty."""
    return _segments("max", data, segment_ids, num_segments)


@operation
def segment_min(
    data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """Minima of the rows of data with equal ids."""
    return -_segments("max", -convert(data), segment_ids, num_segments)


@operation
def bincount(x: Any, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Tensor:
    """How often each number from 0 occurs (or the sum of its weights), on the last axis.

    Without a trace the result is as long as the largest number needs; inside a trace it has
    `minlength` entries.
    """
    index = _index(x)
    length = int(minlength)
    known = not _is_traced(index)
    if known and index.size:
        length = max(length, int(index.numpy().max()) + 1)
    hot = one_hot(index, length, dtype=config.floatx() if weights is not None else "int32")
    if weights is not None:
        weight = convert(weights)
        hot = cast(hot, weight.dtype) * Tensor(movement.expand(weight.node, weight.ndim))
    return Tensor(elementary.reduce_sum(hot.node, (hot.ndim - 2,)))


def _is_traced(x: Tensor) -> bool:
    try:
        x._value()
    except TypeError:
        return True
    return False


@operation
def unravel_index(indices: Any, shape: Any) -> Any:
    """Row-major positions as coordinates, one tensor for each axis of `shape`."""
    rest = _index(indices)
    coordinates = []
    for size in reversed(as_shape(shape)):
        coordinates.append(rest % int(size))  # type: ignore[arg-type]
        rest = rest // int(size)  # type: ignore[arg-type]
    return tuple(reversed(coordinates))


@operation
def segment_prod(
    data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """Products of the rows of data (n, ...) with equal ids; 1 where empty."""
    rows, where = convert(data), _index(segment_ids)
    count = int(where.numpy().max()) + 1 if num_segments is None else int(num_segments)
    hot = one_hot(where, count, dtype="bool")
    wide = hot.reshape((*hot.shape, *(1,) * (rows.ndim - 1)))
    a, b = operands(Tensor(movement.expand(rows.node, 1)), 1)
    shape = (rows.shape[0], count, *rows.shape[1:])
    chosen = elementary.map_("where", *(broadcast_to(node, shape) for node in (wide.node, a, b)))
    return Tensor(elementary.reduce_prod(chosen, (0,)))
