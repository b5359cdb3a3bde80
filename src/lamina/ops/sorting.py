"""Ops that order elements: sort, top-k, search, unique, quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina import config
from lamina.errors import ShapeError
from lamina.ir import movement, order
from lamina.ops.creation import arange
from lamina.ops.dispatch import known_axis, normal_axis, operation
from lamina.ops.elementwise import ceil, floor, isnan, where
from lamina.ops.reductions import any as any_of
from lamina.ops.reductions import sum as sum_of
from lamina.tensor import Tensor, cast, convert, operands
from lamina.tensor.broadcasting import broadcast_to
from lamina.types import FLOATS


@operation
def sort(x: Any, axis: int | None = -1) -> Tensor:
    """In rising order along an axis (None: of the flattened values); NaN last."""
    tensor = convert(x)
    if axis is None:
        tensor, axis = tensor.reshape((-1,)), 0
    return Tensor(order.sort(tensor.node, axis=known_axis(tensor, axis, "sort"))[0])


@operation
def argsort(x: Any, axis: int | None = -1) -> Tensor:
    """The positions (int32) that put an axis in rising order; equal elements keep theirs."""
    tensor = convert(x)
    if axis is None:
        tensor, axis = tensor.reshape((-1,)), 0
    return Tensor(order.arg_sort(tensor.node, known_axis(tensor, axis, "argsort")))


@operation
def top_k(x: Any, k: int, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest elements of the last axis, falling, and their positions (int32)."""
    tensor = convert(x)
    known_axis(tensor, -1, "top_k")
    values, indices = order.top_k(tensor.node, int(k))
    return Tensor(values), Tensor(indices)


@operation
def in_top_k(targets: Any, predictions: Any, k: int) -> Tensor:
    """Whether the target class of each row is among the k largest predictions; ties count."""
    labels, scores = convert(targets), convert(predictions)
    classes = movement.iota(scores.shape, 1, "int32")
    chosen = Tensor(classes) == cast(labels, "int32").reshape((*labels.shape, 1))
    score = sum_of(where(chosen, scores, 0), 1, keepdims=True)
    better = sum_of(cast(scores > score, "int32"), 1)
    return better < k


@operation
def argpartition(x: Any, kth: int, axis: int = -1) -> Tensor:
    """The positions that put the `kth` element in its sorted place (here: a full sort)."""
    return argsort(x, axis)


@operation
def searchsorted(sorted_sequence: Any, values: Any, side: str = "left") -> Tensor:
    """Where each value would be inserted into a rising sequence (n,); int32.

    side   "left": before equal elements, "right": behind them
    """
    a, v = (Tensor(node) for node in operands(sorted_sequence, values))
    if a.ndim != 1:
        raise ShapeError(f"searchsorted: the sorted sequence has one axis, got {a.node.type}")
    column = Tensor(movement.expand(v.node, v.ndim))
    before = a < column if side == "left" else a <= column
    return sum_of(cast(before, "int32"), -1)


@operation
def digitize(x: Any, bins: Any) -> Tensor:
    """The number of the bin of each element: bin i is [bins[i - 1], bins[i]); int32."""
    return searchsorted(bins, x, side="right")


def unique(
    x: Any,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    size: int | None = None,
    fill_value: Any = None,
) -> Any:
    """The different elements, rising; outside a trace only, because their number varies."""
    found: Any = np.unique(  # type: ignore[call-overload]  # the options are values
        convert(x).numpy(), return_inverse=return_inverse, return_counts=return_counts, axis=axis
    )
    if not isinstance(found, tuple):
        return convert(found)
    first, *rest = found
    return (convert(first), *(convert(part.astype(np.int32)) for part in rest))


@operation
def quantile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """The values below which the shares `q` (in [0, 1]) of the elements lie.

    method   how to fall between two elements: "linear", "lower", "higher", "nearest", "midpoint"
    """
    tensor = convert(x)
    tensor = tensor if tensor.dtype in FLOATS else cast(tensor, config.floatx())
    axes = (
        list(range(tensor.ndim))
        if axis is None
        else [
            normal_axis(a, tensor.ndim)
            for a in (axis if isinstance(axis, (list, tuple)) else [axis])
        ]
    )
    rest = [a for a in range(tensor.ndim) if a not in axes]
    moved = Tensor(movement.transpose(tensor.node, (*rest, *axes)))
    lead = tuple(tensor.shape[a] for a in rest)
    rows = moved.reshape((*lead, -1))
    length = int(rows.shape[-1])  # type: ignore[arg-type]
    ordered = sort(rows, -1)
    share = convert(q, tensor.dtype)
    place = share.reshape((-1,)) * (length - 1)
    low, high = (cast(f(place), "int32") for f in (floor, ceil))
    below, above = (_last_axis(ordered, at) for at in (low, high))
    fraction = place - floor(place)
    if method == "lower":
        result = below
    elif method == "higher":
        result = above
    elif method == "nearest":
        result = where(fraction > 0.5, above, below)
    elif method == "midpoint":
        result = (below + above) / 2
    elif method == "linear":
        result = below + (above - below) * fraction
    else:
        raise ShapeError(f"quantile: unknown method {method!r}")
    result = where(any_of(isnan(rows), -1, keepdims=True), float("nan"), result)
    front = Tensor(movement.transpose(result.node, (len(lead), *range(len(lead)))))
    final = tuple(1 if a in axes else tensor.shape[a] for a in range(tensor.ndim))
    return front.reshape((*share.shape, *(final if keepdims else lead)))


def _last_axis(x: Tensor, where_: Tensor) -> Tensor:
    return x[..., where_]


@operation
def percentile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`quantile` with shares in percent."""
    share = convert(q)
    share = share if share.dtype in FLOATS else cast(share, config.floatx())
    return quantile(x, share / 100.0, axis, method, keepdims)


@operation
def median(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The middle element (or the mean of the two in the middle)."""
    return quantile(x, 0.5, axis, keepdims=keepdims)


@operation
def nanquantile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`quantile` of the elements that are not NaN; outside a trace only."""
    found = np.nanquantile(
        convert(x).numpy(), convert(q).numpy(), axis, method=method, keepdims=keepdims
    )  # type: ignore[call-overload]
    return convert(found, convert(x).dtype)


@operation
def nanmedian(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The median of the elements that are not NaN; outside a trace only."""
    return nanquantile(x, 0.5, axis, keepdims=keepdims)


@operation
def nanpercentile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`percentile` of the elements that are not NaN; outside a trace only."""
    return nanquantile(x, convert(q, config.floatx()) / 100.0, axis, method, keepdims)


@operation
def histogram(x: Any, bins: int = 10, range: Any = None) -> tuple[Tensor, Tensor]:
    """Counts (int32) in `bins` equal parts of the range of x, and the edges; not in a trace."""
    counts, edges = np.histogram(convert(x).numpy(), bins, range)
    return convert(counts.astype(np.int32)), convert(edges, config.floatx())


@operation
def isin(x1: Any, x2: Any, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element of x1 occurs in x2."""
    a, b = (Tensor(node) for node in operands(x1, x2))
    column = Tensor(movement.expand(a.node, a.ndim))
    found = any_of(column == b.reshape((-1,)), -1)
    return ~found if invert else found


@operation
def lexsort(keys: Any, axis: int = -1) -> Tensor:
    """The positions that sort by the last key, then the one before it, and so on."""
    rows = [convert(key) for key in keys]
    places = Tensor(movement.iota(rows[0].shape, normal_axis(axis, rows[0].ndim), "int32"))
    if rows[0].ndim != 1:
        raise ShapeError("lexsort: keys have one axis each")
    for key in rows:
        places = places[argsort(key[places])]
    return places


def shuffled_positions(keys: Tensor) -> Tensor:
    """0 to n - 1 in the order of random keys (n,)."""
    known_axis(keys, 0, "shuffle")
    count = keys.shape[0]
    numbers = arange(count)
    return Tensor(order.sort(keys.node, broadcast_to(numbers.node, keys.shape), axis=0)[1])
