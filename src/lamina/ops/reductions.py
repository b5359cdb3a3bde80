"""Ops that sum up axes: sums, means, extremes, counts, and their cumulative forms."""

from __future__ import annotations

import math
from typing import Any

from lamina import config
from lamina.ir import elementary, movement, reductions
from lamina.ir.graph import Node
from lamina.ops.dispatch import normal_axes, normal_axis, operation
from lamina.ops.elementwise import (
    exp,
    isclose,
    isinf,
    isnan,
    log,
    logical_not,
    sqrt,
    stop_gradient,
    where,
)
from lamina.tensor import Tensor, cast, convert
from lamina.types import FLOATS, UNSIGNED, itemsize


def keep_axes(reduced: Node, of: Node, axes: tuple[int, ...]) -> Node:
    """Give a reduced value its axes back, with size 1."""
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(of.shape))
    return movement.reshape(reduced, shape) if shape != reduced.shape else reduced


def _finish(reduced: Node, of: Node, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    return Tensor(keep_axes(reduced, of, axes) if keepdims else reduced)


def _widened(x: Any) -> Tensor:
    """Sums of small integers and truth values are taken in 32 bits, as in Keras."""
    tensor = convert(x)
    if tensor.dtype in FLOATS or itemsize(tensor.dtype) >= 4:
        return tensor
    return cast(tensor, "uint32" if tensor.dtype in UNSIGNED else "int32")


def _floating(x: Any) -> Tensor:
    tensor = convert(x)
    return tensor if tensor.dtype in FLOATS else cast(tensor, config.floatx())


@operation
def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The sum over one axis, several, or all (None)."""
    node = _widened(x).node
    axes = normal_axes(axis, len(node.shape))
    return _finish(elementary.reduce_sum(node, axes), node, axes, keepdims)


@operation
def prod(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
    """The product over one axis, several, or all (None)."""
    node = (_widened(x) if dtype is None else cast(x, dtype)).node
    axes = normal_axes(axis, len(node.shape))
    return _finish(elementary.reduce_prod(node, axes), node, axes, keepdims)


def _extreme(kind: str, x: Any, axis: Any, keepdims: bool, initial: Any) -> Tensor:
    tensor = convert(x)
    as_bool = tensor.dtype == "bool"
    node = cast(tensor, "int32").node if as_bool else tensor.node
    axes = normal_axes(axis, len(node.shape))
    reduce = elementary.reduce_max if kind == "max" else elementary.reduce_min
    result = _finish(reduce(node, axes), node, axes, keepdims)
    if initial is not None:
        better = result > initial if kind == "max" else result < initial
        result = where(better, result, initial)
    return cast(result, "bool") if as_bool else result


@operation
def max(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Tensor:
    """The largest element over one axis, several, or all (None); NaN if any is NaN."""
    return _extreme("max", x, axis, keepdims, initial)


@operation
def min(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Tensor:
    """The smallest element over one axis, several, or all (None); NaN if any is NaN."""
    return _extreme("min", x, axis, keepdims, initial)


amax = max
amin = min


@operation
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean over one axis, several, or all (None); over the batch, of the rows present."""
    node = _floating(x).node
    axes = normal_axes(axis, len(node.shape))
    return _finish(reductions.mean(node, axes), node, axes, keepdims)


@operation
def average(x: Any, axis: Any = None, weights: Any = None) -> Tensor:
    """The mean, weighted by `weights` (the shape of x, or of its one axis) if given."""
    if weights is None:
        return mean(x, axis)
    tensor, weight = _floating(x), _floating(weights)
    if weight.ndim == 1 and tensor.ndim > 1:
        at = normal_axis(axis, tensor.ndim)
        shape = [1] * tensor.ndim
        shape[at] = -1
        weight = weight.reshape(shape)
    return sum(tensor * weight, axis) / sum(weight * (tensor * 0 + 1), axis)


@operation
def var(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The variance (divided by the count) over one axis, several, or all (None)."""
    node = _floating(x).node
    axes = normal_axes(axis, len(node.shape))
    if not axes:
        return Tensor(node) - Tensor(node)
    return _finish(reductions.variance(node, axes), node, axes, keepdims)


@operation
def std(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The standard deviation over one axis, several, or all (None)."""
    return sqrt(var(x, axis, keepdims))


@operation
def any(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether any element is true (not zero)."""
    return _extreme("max", _truth(x), axis, keepdims, None)


@operation
def all(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether all elements are true (not zero)."""
    return _extreme("min", _truth(x), axis, keepdims, None)


def _truth(x: Any) -> Tensor:
    tensor = convert(x)
    return tensor if tensor.dtype == "bool" else tensor != 0


@operation
def count_nonzero(x: Any, axis: Any = None) -> Tensor:
    """How many elements are not zero, int32."""
    return sum(cast(_truth(x), "int32"), axis)


@operation
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """`log(sum(exp(x)))` without overflow."""
    tensor = _floating(x)
    largest = stop_gradient(max(tensor, axis, keepdims=True))
    largest = where(isinf(largest), 0.0, largest)
    node = tensor.node
    axes = normal_axes(axis, len(node.shape))
    result = log(sum(exp(tensor - largest), axis, keepdims=True)) + largest
    return result if keepdims else Tensor(_drop(result.node, axes))


def _drop(node: Node, axes: tuple[int, ...]) -> Node:
    shape = tuple(size for axis, size in enumerate(node.shape) if axis not in axes)
    return movement.reshape(node, shape) if shape != node.shape else node


def _arg_extreme(kind: str, x: Any, axis: Any, keepdims: bool) -> Tensor:
    tensor = convert(x)
    if tensor.dtype == "bool":
        tensor = cast(tensor, "int32")
    rank = tensor.ndim
    if axis is None:
        tensor = tensor.reshape((-1,))
    node = tensor.node
    at = 0 if axis is None else normal_axis(axis, len(node.shape))
    found = reductions.arg_max(node, at) if kind == "max" else reductions.arg_min(node, at)
    if not keepdims:
        return Tensor(found)
    if axis is None:
        return Tensor(found).reshape((1,) * rank)
    return Tensor(keep_axes(found, node, (at,)))


@operation
def argmax(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The position (int32) of the largest element, the first of equal ones."""
    return _arg_extreme("max", x, axis, keepdims)


@operation
def argmin(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The position (int32) of the smallest element, the first of equal ones."""
    return _arg_extreme("min", x, axis, keepdims)


def _cumulative(kind: str, x: Any, axis: Any, dtype: Any, reverse: bool) -> Tensor:
    tensor = _widened(x) if dtype is None else cast(x, dtype)
    if axis is None:
        tensor = tensor.reshape((-1,))
    at = 0 if axis is None else normal_axis(axis, tensor.ndim)
    return Tensor(reductions.cumulative(tensor.node, kind, at, reverse=reverse))


@operation
def cumsum(x: Any, axis: Any = None, dtype: Any = None, reverse: bool = False) -> Tensor:
    """Running sums along an axis (None: of the flattened values)."""
    return _cumulative("sum", x, axis, dtype, reverse)


@operation
def cumprod(x: Any, axis: Any = None, dtype: Any = None, reverse: bool = False) -> Tensor:
    """Running products along an axis (None: of the flattened values)."""
    return _cumulative("prod", x, axis, dtype, reverse)


@operation
def ptp(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest element minus the smallest."""
    return max(x, axis, keepdims) - min(x, axis, keepdims)


# ------------------------------------------------------------- reductions that leave out NaN


def _without_nan(x: Any, replacement: float) -> Tensor:
    tensor = _floating(x)
    return where(isnan(tensor), replacement, tensor)


@operation
def nansum(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The sum of the elements that are not NaN."""
    return sum(_without_nan(x, 0.0), axis, keepdims)


@operation
def nanprod(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The product of the elements that are not NaN."""
    return prod(_without_nan(x, 1.0), axis, keepdims)


@operation
def nanmean(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean of the elements that are not NaN; NaN where there is none."""
    tensor = _floating(x)
    present = cast(logical_not(isnan(tensor)), tensor.dtype)
    return nansum(tensor, axis, keepdims) / sum(present, axis, keepdims)


@operation
def nanvar(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The variance of the elements that are not NaN."""
    tensor = _floating(x)
    centred = tensor - nanmean(tensor, axis, keepdims=True)
    return nanmean(centred * centred, axis, keepdims)


@operation
def nanstd(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The standard deviation of the elements that are not NaN."""
    return sqrt(nanvar(x, axis, keepdims))


def _nan_extreme(kind: str, x: Any, axis: Any, keepdims: bool) -> Tensor:
    tensor = _floating(x)
    worst = -math.inf if kind == "max" else math.inf
    found = _extreme(kind, _without_nan(tensor, worst), axis, keepdims, None)
    return where(all(isnan(tensor), axis, keepdims), math.nan, found)


@operation
def nanmax(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest element that is not NaN; NaN where there is none."""
    return _nan_extreme("max", x, axis, keepdims)


@operation
def nanmin(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The smallest element that is not NaN; NaN where there is none."""
    return _nan_extreme("min", x, axis, keepdims)


@operation
def nanargmax(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The position of the largest element that is not NaN."""
    return argmax(_without_nan(x, -math.inf), axis, keepdims)


@operation
def nanargmin(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The position of the smallest element that is not NaN."""
    return argmin(_without_nan(x, math.inf), axis, keepdims)


@operation
def nancumsum(x: Any, axis: Any = None, dtype: Any = None) -> Tensor:
    """Running sums that count NaN as 0."""
    return cumsum(_without_nan(x, 0.0), axis, dtype)


@operation
def nancumprod(x: Any, axis: Any = None, dtype: Any = None) -> Tensor:
    """Running products that count NaN as 1."""
    return cumprod(_without_nan(x, 1.0), axis, dtype)


@operation
def allclose(
    x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether all elements are close: `|x1 - x2| <= atol + rtol * |x2|`."""
    return all(isclose(x1, x2, rtol, atol, equal_nan))


@operation
def diff(a: Any, n: int = 1, axis: int = -1) -> Tensor:
    """The n-th differences of neighbours along an axis."""
    tensor = convert(a)
    at = normal_axis(axis, tensor.ndim)
    lead = (slice(None),) * at
    for _ in range(n):
        later, earlier = tensor[(*lead, slice(1, None))], tensor[(*lead, slice(None, -1))]
        tensor = later != earlier if tensor.dtype == "bool" else later - earlier
    return tensor


@operation
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Tensor:
    """The integral along an axis by the trapezoidal rule."""
    tensor = _floating(y)
    at = normal_axis(axis, tensor.ndim)
    lead = (slice(None),) * at
    step: Any = dx
    if x is not None:
        places = _floating(x)
        step = diff(places, axis=0 if places.ndim == 1 else at)
        if places.ndim == 1:
            step = step.reshape([-1 if a == at else 1 for a in range(tensor.ndim)])
    heights = (tensor[(*lead, slice(1, None))] + tensor[(*lead, slice(None, -1))]) / 2.0
    return sum(heights * step, at)
