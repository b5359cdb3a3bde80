"""Ops that move elements: reshape, transpose, join, split, repeat, pad, flip, roll."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lamina.errors import BatchError, ShapeError
from lamina.ir import elementary, movement
from lamina.ops.creation import as_shape
from lamina.ops.dispatch import normal_axes, normal_axis, operation
from lamina.tensor import Tensor, convert, operands
from lamina.tensor import reshape as reshape_tensor
from lamina.tensor.broadcasting import broadcast_shape
from lamina.tensor.broadcasting import broadcast_to as broadcast_node
from lamina.types import Batch


def shape(x: Any) -> tuple[Any, ...]:
    """The sizes of the axes. Inside a trace, one may be the run-time `Batch`."""
    return tuple(x.shape) if hasattr(x, "shape") else convert(x).shape


@operation
def ndim(x: Any) -> int:
    """The number of axes."""
    return convert(x).ndim


def size(x: Any) -> int:
    """The number of elements."""
    return convert(x).size


@operation
def reshape(x: Any, newshape: Any) -> Tensor:
    """The same elements, in row-major order, in another shape; one size may be -1."""
    return reshape_tensor(x, newshape)


@operation
def ravel(x: Any) -> Tensor:
    """All elements on one axis."""
    return reshape_tensor(x, (-1,))


@operation
def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """Axes in another order: `axes[i]` comes to place i (None: in reverse)."""
    node = convert(x).node
    rank = len(node.shape)
    order = (
        tuple(reversed(range(rank)))
        if axes is None
        else tuple(normal_axis(axis, rank) for axis in axes)
    )
    if sorted(order) != list(range(rank)):
        raise ShapeError(f"transpose: {tuple(axes or ())} does not order the axes of {node.type}")
    return Tensor(node if order == tuple(range(rank)) else movement.transpose(node, order))


@operation
def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    order = list(range(convert(x).ndim))
    a, b = normal_axis(axis1, len(order)), normal_axis(axis2, len(order))
    order[a], order[b] = order[b], order[a]
    return transpose(x, order)


@operation
def moveaxis(x: Any, source: Any, destination: Any) -> Tensor:
    """Axes `source` moved to the places `destination`; the others keep their order."""
    tensor = convert(x)
    rank = tensor.ndim
    sources = [normal_axis(a, rank) for a in _several(source)]
    targets = [normal_axis(a, rank) for a in _several(destination)]
    order = [axis for axis in range(rank) if axis not in sources]
    for target, moved in sorted(zip(targets, sources, strict=True)):
        order.insert(target, moved)
    return transpose(tensor, order)


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@operation
def expand_dims(x: Any, axis: Any) -> Tensor:
    """A new axis of size 1 at `axis` (or at several)."""
    node = convert(x).node
    given = _several(axis)
    rank = len(node.shape) + len(given)
    places = {normal_axis(at, rank) for at in given}
    sizes = iter(node.shape)
    wanted = tuple(1 if at in places else next(sizes) for at in range(rank))
    return Tensor(movement.reshape(node, wanted))


@operation
def squeeze(x: Any, axis: Any = None) -> Tensor:
    """Without the axes of size 1 (or without the given ones).

    raises   ShapeError if a given axis has another size
    """
    node = convert(x).node
    rank = len(node.shape)
    if axis is None:
        axes = {at for at, here in enumerate(node.shape) if here == 1}
    else:
        axes = {normal_axis(at, rank) for at in _several(axis)}
    for at in axes:
        if node.shape[at] != 1:
            kind = BatchError if isinstance(node.shape[at], Batch) else ShapeError
            raise kind(f"squeeze: axis {at} of {node.type} has size {node.shape[at]}, not 1")
    kept = tuple(here for at, here in enumerate(node.shape) if at not in axes)
    return Tensor(movement.reshape(node, kept) if kept != node.shape else node)


@operation
def broadcast_to(x: Any, shape: Any) -> Tensor:
    """x repeated along missing axes and axes of size 1 until it has `shape`."""
    return Tensor(broadcast_node(convert(x).node, as_shape(shape)))


def broadcast_shapes(*shapes: Any) -> tuple[Any, ...]:
    """The shape that these broadcast to; None stands for an unknown size."""
    return broadcast_shape(*(tuple(one) for one in shapes))


@operation
def concatenate(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors joined along an axis; the other axes must agree."""
    nodes = operands(*xs)
    if not nodes:
        raise ShapeError("concatenate needs at least one tensor")
    if axis is None:
        nodes = [reshape_tensor(Tensor(node), (-1,)).node for node in nodes]
        axis = 0
    at = normal_axis(axis, len(nodes[0].shape))
    return Tensor(nodes[0] if len(nodes) == 1 else movement.concat(nodes, at))


@operation
def append(x1: Any, x2: Any, axis: int | None = None) -> Tensor:
    """x2 behind x1 along an axis (None: both flattened)."""
    return concatenate([x1, x2], axis)  # type: ignore[arg-type]  # None flattens


@operation
def stack(x: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape, joined along a new axis."""
    nodes = operands(*x)
    if not nodes:
        raise ShapeError("stack needs at least one tensor")
    at = normal_axis(axis, len(nodes[0].shape) + 1)
    return concatenate([Tensor(movement.expand(node, at)) for node in nodes], at)


@operation
def unstack(x: Any, num: int | None = None, axis: int = 0) -> list[Tensor]:
    """The slices along an axis, one tensor each."""
    tensor = convert(x)
    at = normal_axis(axis, tensor.ndim)
    count = _whole(tensor, at)
    if num is not None and num != count:
        raise ShapeError(f"unstack: axis {at} of {tensor.node.type} has not {num} parts")
    lead = (slice(None),) * at
    return [tensor[(*lead, i)] for i in range(count)]


def _whole(tensor: Tensor, axis: int) -> int:
    here = tensor.shape[axis]
    if isinstance(here, Batch):
        raise BatchError(f"axis {axis} of {tensor.node.type} is the batch and cannot be counted")
    return here


@operation
def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """Cut along an axis: into that many equal parts, or before the given positions."""
    tensor = convert(x)
    at = normal_axis(axis, tensor.ndim)
    length = _whole(tensor, at)
    if isinstance(indices_or_sections, (int, np.integer)):
        parts = int(indices_or_sections)
        if length % parts:
            raise ShapeError(
                f"split: axis {at} of {tensor.node.type} cannot be cut into {parts} equal parts"
            )
        cuts = [length // parts * i for i in range(1, parts)]
    else:
        cuts = [int(cut) for cut in indices_or_sections]
    return _cut(tensor, cuts, at)


def _cut(tensor: Tensor, cuts: list[int], at: int) -> list[Tensor]:
    lead = (slice(None),) * at
    bounds = [0, *cuts, None]
    return [tensor[(*lead, slice(a, b))] for a, b in itertools.pairwise(bounds)]


@operation
def array_split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """Like `split`, but the parts may differ in length by one (the first ones are longer)."""
    tensor = convert(x)
    if not isinstance(indices_or_sections, (int, np.integer)):
        return split(tensor, indices_or_sections, axis)
    at = normal_axis(axis, tensor.ndim)
    parts = int(indices_or_sections)
    short, longer = divmod(_whole(tensor, at), parts)
    lengths = [short + 1] * longer + [short] * (parts - longer)
    return _cut(tensor, list(np.cumsum(lengths)[:-1]), at)


@operation
def hstack(xs: Sequence[Any]) -> Tensor:
    """Joined along axis 1 (vectors: along axis 0)."""
    parts = [atleast_1d(x) for x in xs]
    return concatenate(parts, 0 if parts[0].ndim == 1 else 1)


@operation
def vstack(xs: Sequence[Any]) -> Tensor:
    """Joined along axis 0; vectors become rows."""
    return concatenate([atleast_2d(x) for x in xs], 0)


@operation
def dstack(xs: Sequence[Any]) -> Tensor:
    """Joined along axis 2."""
    return concatenate([atleast_3d(x) for x in xs], 2)


@operation
def hsplit(x: Any, indices_or_sections: Any) -> list[Tensor]:
    """`split` along axis 1 (of a vector: axis 0)."""
    return split(x, indices_or_sections, 1 if convert(x).ndim > 1 else 0)


@operation
def vsplit(x: Any, indices_or_sections: Any) -> list[Tensor]:
    """`split` along axis 0."""
    return split(x, indices_or_sections, 0)


@operation
def dsplit(x: Any, indices_or_sections: Any) -> list[Tensor]:
    """`split` along axis 2."""
    return split(x, indices_or_sections, 2)


@operation
def atleast_1d(x: Any) -> Tensor:
    """x with at least one axis."""
    tensor = convert(x)
    return tensor if tensor.ndim else tensor.reshape((1,))


@operation
def atleast_2d(x: Any) -> Tensor:
    """x with at least two axes; a vector becomes a row."""
    tensor = atleast_1d(x)
    return tensor if tensor.ndim > 1 else expand_dims(tensor, 0)


@operation
def atleast_3d(x: Any) -> Tensor:
    """x with at least three axes; a vector becomes (1, n, 1), a matrix (m, n, 1)."""
    tensor = atleast_2d(x)
    return tensor if tensor.ndim > 2 else expand_dims(tensor, 2)


@operation
def tile(x: Any, repeats: Any) -> Tensor:
    """x repeated as a whole, `repeats[i]` times along axis i."""
    tensor = convert(x)
    counts = [int(count) for count in _several(repeats)]
    counts = [1] * (tensor.ndim - len(counts)) + counts
    sizes = [1] * (len(counts) - tensor.ndim) + list(tensor.shape)
    if all(count == 1 for count in counts):
        return tensor.reshape(sizes)
    spread: list[Any] = []
    axes: list[int] = []
    for count, here in zip(counts, sizes, strict=True):
        if count != 1:
            spread.append(count)
        axes.append(len(spread))
        spread.append(here)
    node = movement.reshape(tensor.node, tuple(sizes))
    result = [count * here for count, here in zip(counts, sizes, strict=True)]
    return Tensor(
        movement.reshape(elementary.broadcast(node, tuple(spread), tuple(axes)), tuple(result))
    )


@operation
def repeat(x: Any, repeats: Any, axis: int | None = None) -> Tensor:
    """Each slice along an axis repeated (None: of the flattened values)."""
    tensor = convert(x)
    if axis is None:
        tensor, axis = tensor.reshape((-1,)), 0
    at = normal_axis(axis, tensor.ndim)
    counts = np.asarray(repeats.numpy() if isinstance(repeats, Tensor) else repeats).reshape(-1)
    if counts.size > 1:
        where = np.repeat(np.arange(_whole(tensor, at)), counts).astype(np.int32)
        return tensor[(*(slice(None),) * at, where)]
    count = int(counts[0])
    sizes = list(tensor.shape)
    spread = (*sizes[: at + 1], count, *sizes[at + 1 :])
    axes = tuple(a if a <= at else a + 1 for a in range(tensor.ndim))
    sizes[at] = sizes[at] * count
    return Tensor(movement.reshape(elementary.broadcast(tensor.node, spread, axes), tuple(sizes)))


@operation
def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = None) -> Tensor:
    """x with `pad_width` ((before, after) for each axis, or one pair for all) more elements.

    mode   "constant" (0, or `constant_values`), "reflect", "symmetric", "edge" or "wrap"
    """
    tensor = convert(x)
    widths = np.asarray(pad_width, dtype=np.int64)
    pairs = [(int(a), int(b)) for a, b in np.broadcast_to(widths, (tensor.ndim, 2))]
    if mode == "constant":
        low, high = zip(*pairs, strict=True) if pairs else ((), ())
        value = 0 if constant_values is None else constant_values
        if isinstance(value, Tensor):
            value = value.item()
        return Tensor(movement.pad(tensor.node, low, high, value))
    if mode not in ("reflect", "symmetric", "edge", "wrap"):
        raise ShapeError(f"pad: unknown mode {mode!r}; known: constant, reflect, symmetric, edge")
    for axis, (before, after) in enumerate(pairs):
        if before or after:
            where = np.pad(np.arange(_whole(tensor, axis)), (before, after), mode=mode)  # type: ignore[call-overload]
            tensor = tensor[(*(slice(None),) * axis, where.astype(np.int32))]
    return tensor


@operation
def flip(x: Any, axis: Any = None) -> Tensor:
    """x in reverse order along an axis, several, or all (None)."""
    tensor = convert(x)
    node = tensor.node
    for at in normal_axes(axis, tensor.ndim):
        node = movement.flip(node, at)
    return Tensor(node)


@operation
def fliplr(x: Any) -> Tensor:
    """x in reverse order along axis 1."""
    return flip(x, 1)


@operation
def flipud(x: Any) -> Tensor:
    """x in reverse order along axis 0."""
    return flip(x, 0)


@operation
def roll(x: Any, shift: Any, axis: Any = None) -> Tensor:
    """x moved by `shift` places along an axis; what falls off one end enters at the other."""
    tensor = convert(x)
    if axis is None:
        return roll(tensor.reshape((-1,)), shift, 0).reshape(tensor.shape)
    shifts, axes = _several(shift), _several(axis)
    if len(shifts) == 1:
        shifts = shifts * len(axes)
    for by, at in zip(shifts, axes, strict=True):
        at = normal_axis(at, tensor.ndim)
        length = _whole(tensor, at)
        cut = (-int(by)) % length if length else 0
        if cut:
            lead = (slice(None),) * at
            tensor = concatenate(
                [tensor[(*lead, slice(cut, None))], tensor[(*lead, slice(0, cut))]], at
            )
    return tensor


@operation
def rot90(array: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Tensor:
    """Rotated by k quarter turns from the first towards the second axis."""
    tensor = convert(array)
    turns = k % 4
    if turns == 0:
        return tensor
    if turns == 2:
        return flip(tensor, axes)
    if turns == 1:
        return swapaxes(flip(tensor, axes[1]), axes[0], axes[1])
    return flip(swapaxes(tensor, axes[0], axes[1]), axes[1])


@operation
def view(x: Any, dtype: Any = None) -> Tensor:
    """The same bytes read as another dtype; outside a trace only."""
    return convert(convert(x).numpy().view(dtype))


@operation
def rearrange(tensor: Any, pattern: str, **axes_lengths: int) -> Tensor:
    """Reorder, split and join axes by a pattern as in einops: `"b (h w) c -> b c h w"`.

    raises   ShapeError if the pattern does not fit the tensor
    """
    x = convert(tensor)
    left, arrow, right = pattern.partition("->")
    if not arrow:
        raise ShapeError(f"rearrange: a pattern has the form 'a b -> b a', got {pattern!r}")
    source, target = _groups(left), _groups(right)
    if len(source) != x.ndim:
        raise ShapeError(f"rearrange: {left.strip()!r} does not fit {x.node.type}")
    sizes: dict[str, Any] = dict(axes_lengths)
    for group, here in zip(source, x.shape, strict=True):
        unknown = [name for name in group if name not in sizes]
        known = math.prod(sizes[name] for name in group if name in sizes)
        if len(unknown) > 1:
            raise ShapeError(f"rearrange: the sizes of {', '.join(unknown)} must be given")
        if unknown:
            sizes[unknown[0]] = here // known if known != 1 else here
    flat = [name for group in source for name in group]
    wanted = [name for group in target for name in group]
    if sorted(flat) != sorted(wanted):
        raise ShapeError(f"rearrange: both sides of {pattern!r} must name the same axes")
    spread = x.reshape([sizes[name] for name in flat])
    moved = transpose(spread, [flat.index(name) for name in wanted])
    final: list[Any] = []
    for group in target:
        total: Any = 1
        for name in group:
            total = sizes[name] * total
        final.append(total)
    return moved.reshape(final)


def _groups(side: str) -> list[list[str]]:
    groups: list[list[str]] = []
    inside = False
    for word in side.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            inside = True
            groups.append([])
        elif word == ")":
            inside = False
        elif inside:
            groups[-1].append(word)
        else:
            groups.append([] if word == "1" else [word])
    return groups
