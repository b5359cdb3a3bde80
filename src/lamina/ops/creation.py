"""Ops that make tensors: constants, ranges, grids, diagonals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lamina import config
from lamina.errors import ShapeError
from lamina.ir import elementary, movement
from lamina.ir.graph import constant
from lamina.ops.dispatch import normal_axis, operation
from lamina.ops.elementwise import logical_and, power, where
from lamina.tensor import Tensor, as_dtype, cast, convert
from lamina.tensor.broadcasting import broadcast_to
from lamina.types import FLOATS, Batch, Shape


def as_shape(shape: Any) -> Shape:
    """A shape given as one size or several; sizes are integers or the run-time `Batch`."""
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    return tuple(size if isinstance(size, Batch) else int(size) for size in sizes)


@operation
def convert_to_tensor(x: Any, dtype: Any = None, sparse: Any = None, ragged: Any = None) -> Tensor:
    """A tensor of an array, a number, a list, or a variable; see `lamina.tensor.convert`."""
    return convert(x, dtype)


@operation
def array(x: Any, dtype: Any = None) -> Tensor:
    """A tensor of an array, a number, a list, or a variable."""
    return convert(x, dtype)


def convert_to_numpy(x: Any) -> np.ndarray:
    """The value of a tensor as an array.

    raises   TraceError inside a trace
    """
    return convert(x).numpy()


@operation
def full(shape: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    """A tensor of `shape` that holds `fill_value` everywhere (it may broadcast)."""
    if dtype is None and not hasattr(fill_value, "dtype"):
        dtype = config.floatx()
    filling = convert(fill_value, dtype)
    return Tensor(broadcast_to(filling.node, as_shape(shape)))


def zeros(shape: Any, dtype: Any = None) -> Tensor:
    """Zeros of the given shape; `config.floatx()` unless a dtype is given."""
    return full(shape, 0, as_dtype(dtype))


def ones(shape: Any, dtype: Any = None) -> Tensor:
    """Ones of the given shape; `config.floatx()` unless a dtype is given."""
    return full(shape, 1, as_dtype(dtype))


def empty(shape: Any, dtype: Any = None) -> Tensor:
    """Zeros: lamina hands out no memory with chance contents."""
    return zeros(shape, dtype)


@operation
def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    """A tensor like x that holds `fill_value` everywhere."""
    like = convert(x)
    return full(like.shape, fill_value, dtype or like.dtype)


@operation
def zeros_like(x: Any, dtype: Any = None) -> Tensor:
    """Zeros in the shape (and dtype) of x."""
    return full_like(x, 0, dtype)


@operation
def ones_like(x: Any, dtype: Any = None) -> Tensor:
    """Ones in the shape (and dtype) of x."""
    return full_like(x, 1, dtype)


@operation
def empty_like(x: Any, dtype: Any = None) -> Tensor:
    """Zeros in the shape (and dtype) of x."""
    return full_like(x, 0, dtype)


def iota(shape: Any, axis: int = 0, dtype: Any = "int32") -> Tensor:
    """The position along `axis`, as a tensor of `shape`."""
    sizes = as_shape(shape)
    return Tensor(movement.iota(sizes, normal_axis(axis, len(sizes)), as_dtype(dtype)))


def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Tensor:
    """`start, start + step, ...` up to but without `stop`; one argument counts from 0.

    dtype   int32 if all arguments are integers, `config.floatx()` otherwise
    """
    if stop is None:
        start, stop = 0, start
    step = 1 if step is None else step
    if isinstance(stop, Batch):
        if start != 0 or step != 1:
            raise ShapeError("a range up to the batch starts at 0 and counts by 1")
        return iota((stop,), 0, dtype or "int32")
    start, stop, step = (_number(value) for value in (start, stop, step))
    whole = all(isinstance(value, int) for value in (start, stop, step))
    name = as_dtype(dtype) if dtype is not None else "int32" if whole else config.floatx()
    count = max(0, math.ceil((stop - start) / step))
    if whole and name not in FLOATS:
        base = iota((count,), 0, name)
        return base if (start, step) == (0, 1) else base * step + start
    # In double precision, as NumPy does, so that long ranges do not drift.
    return convert(np.arange(count, dtype=np.float64) * step + start, name)


def _number(value: Any) -> Any:
    if isinstance(value, (int, float)):
        return value
    return np.asarray(value).item()


@operation
def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    """`num` numbers evenly from `start` to `stop` (with it, if `endpoint`)."""
    low, high = convert(start), convert(stop)
    name = as_dtype(dtype) if dtype is not None else config.floatx()
    work = name if name in FLOATS else config.floatx()
    low, high = cast(low, work), cast(high, work)
    parts = num - 1 if endpoint else num
    rank = (low + high).ndim
    at = normal_axis(axis, rank + 1)
    fractions = np.arange(num, dtype=np.float64) / max(parts, 1)
    column = convert(fractions, work).reshape([-1 if a == at else 1 for a in range(rank + 1)])
    low_, high_ = (Tensor(movement.expand(_spread(side, low + high), at)) for side in (low, high))
    # Symmetric in both ends, so that the last number is exactly `stop`.
    points = cast(low_ * (1.0 - column) + high_ * column, name)
    return (points, (high - low) / parts) if retstep else points


def _spread(side: Tensor, like: Tensor) -> Any:
    return broadcast_to(side.node, like.shape)


@operation
def logspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    base: Any = 10,
    dtype: Any = None,
    axis: int = 0,
) -> Tensor:
    """`base` to the powers of `linspace(start, stop, num)`."""
    exponents = linspace(start, stop, num, endpoint, axis=axis)
    return cast(power(cast(base, exponents.dtype), exponents), dtype or exponents.dtype)


@operation
def geomspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0
) -> Tensor:
    """`num` numbers from `start` to `stop` with constant ratios."""
    low, high = cast(start, config.floatx()), cast(stop, config.floatx())
    fraction = linspace(0.0, 1.0, num, endpoint)
    if axis not in (0, -1) or (low + high).ndim:
        rank = (low + high).ndim
        at = normal_axis(axis, rank + 1)
        fraction = fraction.reshape([-1 if a == at else 1 for a in range(rank + 1)])
        low = Tensor(movement.expand(_spread(low, high), at))
        high = Tensor(movement.expand(_spread(high, low), at))
    return cast(low * power(high / low, fraction), dtype or config.floatx())


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Tensor:
    """Ones on the k-th diagonal of an N x M matrix (M = N), zeros elsewhere."""
    shape = (int(N), int(N if M is None else M))
    return cast(iota(shape, 1) - iota(shape, 0) == int(k), as_dtype(dtype))


def identity(n: int, dtype: Any = None) -> Tensor:
    """The identity matrix."""
    return eye(n, dtype=dtype)


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Tensor:
    """Ones on and below the k-th diagonal, zeros above."""
    shape = (int(N), int(N if M is None else M))
    return cast(iota(shape, 1) - iota(shape, 0) <= int(k), as_dtype(dtype))


def _triangle(x: Any, k: int, *, lower: bool) -> Tensor:
    tensor = convert(x)
    rank = tensor.ndim
    if rank < 2:
        raise ShapeError(f"a triangle needs a matrix, got {tensor.node.type}")
    rows, columns = iota(tensor.shape[-2:], 0), iota(tensor.shape[-2:], 1)
    inside = columns - rows <= k if lower else columns - rows >= k
    return where(inside, tensor, 0)


@operation
def tril(x: Any, k: int = 0) -> Tensor:
    """x on and below the k-th diagonal of its last two axes, zero above."""
    return _triangle(x, k, lower=True)


@operation
def triu(x: Any, k: int = 0) -> Tensor:
    """x on and above the k-th diagonal of its last two axes, zero below."""
    return _triangle(x, k, lower=False)


@operation
def diag(x: Any, k: int = 0) -> Tensor:
    """A matrix with x (one axis) on its k-th diagonal, or that diagonal of a matrix."""
    tensor = convert(x)
    if tensor.ndim == 2:
        return diagonal(tensor, k)
    if tensor.ndim != 1:
        raise ShapeError(f"diag takes a vector or a matrix, got {tensor.node.type}")
    length = len(tensor)
    size = length + max(k, -k)
    low = (max(k, 0), size - length - max(k, 0))
    padded = Tensor(movement.pad(tensor.node, (low[0],), (low[1],)))
    row = broadcast_to(padded.node, (size, size))
    return where(eye(size, size, k, "bool"), Tensor(row), 0)


@operation
def diagflat(x: Any, k: int = 0) -> Tensor:
    """`diag` of the flattened values."""
    return diag(convert(x).reshape((-1,)), k)


@operation
def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The diagonal of two axes, as a new last axis."""
    tensor = convert(x)
    rank = tensor.ndim
    first, second = normal_axis(axis1, rank), normal_axis(axis2, rank)
    rest = [axis for axis in range(rank) if axis not in (first, second)]
    moved = movement.transpose(tensor.node, (*rest, first, second))
    height, width = int(moved.shape[-2]), int(moved.shape[-1])
    top, left = max(-offset, 0), max(offset, 0)
    count = max(0, min(height - top, width - left))
    flat = Tensor(movement.reshape(moved, (*moved.shape[:-2], height * width)))
    begin = top * width + left
    if count == 0:
        return flat[..., :0]
    return flat[..., begin : begin + (count - 1) * (width + 1) + 1 : width + 1]


@operation
def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of a diagonal."""
    picked = diagonal(x, offset, axis1, axis2)
    return Tensor(elementary.reduce_sum(picked.node, (picked.ndim - 1,)))


@operation
def meshgrid(*x: Any, indexing: str = "xy") -> list[Tensor]:
    """Grids of coordinates, one for each vector; "xy" swaps the first two axes, as in NumPy."""
    vectors = [convert(one).reshape((-1,)) for one in x]
    order = list(range(len(vectors)))
    if indexing == "xy" and len(vectors) > 1:
        order[0], order[1] = 1, 0
    elif indexing not in ("xy", "ij"):
        raise ShapeError(f"meshgrid: indexing is 'xy' or 'ij', got {indexing!r}")
    shape: list[Any] = [0] * len(vectors)
    for vector, axis in zip(vectors, order, strict=True):
        shape[axis] = vector.shape[0]
    return [
        Tensor(elementary.broadcast(vector.node, tuple(shape), (axis,)))
        for vector, axis in zip(vectors, order, strict=True)
    ]


@operation
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Tensor:
    """The Vandermonde matrix: powers of x (n,) as columns, falling unless `increasing`."""
    tensor = convert(x)
    count = len(tensor) if N is None else int(N)
    powers = np.arange(count) if increasing else np.arange(count)[::-1]
    name = tensor.dtype if tensor.dtype in FLOATS else config.floatx()
    column = Tensor(movement.expand(cast(tensor, name).node, 1))
    # A power by a real exponent is undefined for negative bases; whole exponents are products.
    result = [power_by_products(column, int(exponent)) for exponent in powers]
    joined = movement.concat([part.node for part in result], 1)
    return cast(Tensor(joined), tensor.dtype)


def power_by_products(x: Tensor, exponent: int) -> Tensor:
    """`x ** exponent` for a whole exponent of at least 0, by squaring."""
    result = ones(x.shape, x.dtype)
    base = x
    while exponent:
        if exponent & 1:
            result = result * base
        base = base * base
        exponent >>= 1
    return result


@operation
def tril_indices(n: int, k: int = 0, m: int | None = None) -> Any:
    """Row and column numbers of the lower triangle."""
    rows, columns = np.tril_indices(n, k, m)
    return convert(rows.astype(np.int32)), convert(columns.astype(np.int32))


def band(x: Any, lower: int, upper: int) -> Tensor:
    """x within `lower` diagonals below and `upper` above the main one, zero elsewhere."""
    tensor = convert(x)
    distance = iota(tensor.shape[-2:], 1) - iota(tensor.shape[-2:], 0)
    return where(logical_and(distance >= -lower, distance <= upper), tensor, 0)


def scalar(value: Any, dtype: Any = None) -> Tensor:
    """A scalar constant that is part of the program."""
    return Tensor(constant(value, as_dtype(dtype)))


def _hamming_like(x: Any, terms: tuple[float, ...]) -> Tensor:
    count = int(_number(x))
    if count == 1:
        return ones((1,))
    angle = 2 * np.pi * np.arange(count) / max(count - 1, 1)
    window = np.sum([weight * np.cos(k * angle) for k, weight in enumerate(terms)], axis=0)
    return convert(window, config.floatx())


def hanning(x: Any) -> Tensor:
    """The Hann window of x points."""
    return _hamming_like(x, (0.5, -0.5))


def hamming(x: Any) -> Tensor:
    """The Hamming window of x points."""
    return _hamming_like(x, (0.54, -0.46))


def blackman(x: Any) -> Tensor:
    """The Blackman window of x points."""
    return _hamming_like(x, (0.42, -0.5, 0.08))


def bartlett(x: Any) -> Tensor:
    """The triangular window of x points."""
    return convert(np.bartlett(int(_number(x))), config.floatx())


def kaiser(x: Any, beta: float) -> Tensor:
    """The Kaiser window of x points."""
    return convert(np.kaiser(int(_number(x)), float(beta)), config.floatx())
