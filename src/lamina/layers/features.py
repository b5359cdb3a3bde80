"""Preparing numbers and classes: rescaling, standardising, binning, encoding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lamina import config, ops
from lamina.errors import ShapeError, layout
from lamina.layers.layer import Layer
from lamina.tensor import Tensor, Variable, convert
from lamina.types import FLOATS

MODES = ("int", "one_hot", "multi_hot", "count")


class Rescaling(Layer):
    """`inputs * scale + offset`; both may be numbers or one number per channel.

    >>> Rescaling(1 / 255)(np.array([0.0, 255.0])).numpy().tolist()
    [0.0, 1.0]
    """

    supports_masking = True

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, self.compute_dtype)
        return x * convert(self.scale, x.dtype) + convert(self.offset, x.dtype)

    def get_config(self) -> dict[str, Any]:
        given = {"scale": self.scale, "offset": self.offset}
        plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in given.items()}
        return {**super().get_config(), **plain}


def _batches(data: Any) -> Iterable[np.ndarray]:
    """The arrays of a data set: one array, or what an iterable gives (the inputs of tuples)."""
    if isinstance(data, (np.ndarray, Tensor)):
        return [np.asarray(data)]
    return (np.asarray(batch[0] if isinstance(batch, tuple) else batch) for batch in data)


class Normalization(Layer):
    """(inputs - mean) / sqrt(variance), each feature by itself.

    axis             the axes whose entries have a mean of their own; None: one for all
    mean, variance   given, or found by `adapt(data)`
    invert           compute inputs * sqrt(variance) + mean instead

    >>> layer = Normalization()
    >>> layer.adapt(np.array([[1.0], [3.0]]))
    >>> layer(np.array([[5.0]])).numpy().tolist()
    [[3.0]]
    """

    supports_masking = True
    adapt_mean: Variable
    adapt_variance: Variable
    count: Variable

    def __init__(
        self,
        axis: Any = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        given = () if axis is None else axis
        self.axis = (given,) if isinstance(given, int) else tuple(given)
        if (mean is None) != (variance is None):
            raise ValueError(f"{self.name}: give both mean and variance, or neither.")
        self.input_mean = mean
        self.input_variance = variance
        self.invert = invert

    def build(self, input_shape: Any = None) -> None:
        kept = self._kept(len(input_shape))
        shape = tuple(input_shape[axis] for axis in kept)
        if None in shape:
            raise ShapeError(
                layout(
                    f"{self.name}: the sizes of the axes {self.axis} must be known.",
                    [("inputs", str(tuple(input_shape)))],
                )
            )
        if self.input_mean is None:
            options: dict[str, Any] = {"trainable": False, "autocast": False}
            self.adapt_mean = self.add_weight(shape, "zeros", name="mean", **options)
            self.adapt_variance = self.add_weight(shape, "ones", name="variance", **options)
            self.count = self.add_weight((), "zeros", "int32", name="count", **options)

    def _kept(self, rank: int) -> tuple[int, ...]:
        if any(not -rank <= axis < rank for axis in self.axis):
            raise ShapeError(f"{self.name}: inputs with {rank} axes have no axes {self.axis}.")
        return tuple(sorted(axis % rank for axis in self.axis))

    def adapt(self, data: Any) -> None:
        """Find mean and variance of an array, or of all batches of an iterable.

        raises   ValueError if mean and variance were given, or if there is no data
        """
        if self.input_mean is not None:
            raise ValueError(f"{self.name}: mean and variance were given; nothing to adapt.")
        rows = 0.0
        mean: Any = 0.0
        square: Any = 0.0
        for batch in _batches(data):
            if not self.built:
                self.build((None, *batch.shape[1:]))
                self.built = True
            axes = tuple(a for a in range(batch.ndim) if a not in self._kept(batch.ndim))
            # Chan et al. 1983: joining the moments of two parts without losing digits.
            size = float(np.prod([batch.shape[axis] for axis in axes]))
            centre = batch.mean(axes, dtype=np.float64)
            difference = centre - mean
            square = square + batch.var(axes, dtype=np.float64) * size
            square = square + difference**2 * rows * size / (rows + size)
            mean = mean + difference * size / (rows + size)
            rows += size
        if not rows:
            raise ValueError(f"{self.name}: adapt() got no data.")
        self.adapt_mean.assign(np.asarray(mean, self.variable_dtype))
        self.adapt_variance.assign(np.asarray(square / rows, self.variable_dtype))
        self.count.assign(min(int(rows), 2**31 - 1))

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, self.compute_dtype)
        kept = self._kept(len(x.shape))
        shape = [x.shape[axis] if axis in kept else 1 for axis in range(len(x.shape))]
        given = (self.input_mean, self.input_variance)
        found = (self.adapt_mean, self.adapt_variance) if given[0] is None else given
        mean, variance = (
            ops.reshape(ops.broadcast_to(convert(v, x.dtype), [x.shape[a] for a in kept]), shape)
            for v in found
        )
        spread = ops.maximum(ops.sqrt(variance), config.epsilon())
        return mean + x * spread if self.invert else (x - mean) / spread

    def get_config(self) -> dict[str, Any]:
        plain = [
            None if v is None else np.asarray(v).tolist()
            for v in (self.input_mean, self.input_variance)
        ]
        return {
            **super().get_config(),
            "axis": self.axis,
            "invert": self.invert,
            "mean": plain[0],
            "variance": plain[1],
        }


def encoded(numbers: Any, mode: str, depth: int, dtype: str, weights: Any = None) -> Any:
    """Class numbers as themselves, one-hot, as a set, or counted; a last axis of size one falls.

    numbers   integers; "multi_hot" and "count" join those along the last axis
    """
    if mode == "int":
        return ops.cast(numbers, "int32")
    numbers = convert(numbers)
    if numbers.dtype in FLOATS:
        numbers = ops.cast(numbers, "int32")
    if not numbers.shape:
        numbers = ops.expand_dims(numbers, -1)
    if mode == "one_hot":
        if len(numbers.shape) > 1 and numbers.shape[-1] == 1:
            numbers = ops.squeeze(numbers, -1)
        return ops.one_hot(numbers, depth, dtype=dtype)
    if mode == "multi_hot":
        return ops.multi_hot(numbers, depth, dtype=dtype)
    hot = ops.one_hot(numbers, depth, dtype=dtype)
    if weights is not None:
        hot = hot * ops.expand_dims(ops.cast(weights, dtype), -1)
    return ops.sum(hot, axis=1 if len(numbers.shape) > 1 else 0)


class CategoryEncoding(Layer):
    """Class numbers in [0, num_tokens) as vectors of `num_tokens` entries.

    output_mode   "one_hot" (a vector per number), "multi_hot" (1 for each number that occurs in
                  a row), or "count" (how often, or the sum of `count_weights`)
    """

    def __init__(
        self, num_tokens: int | None = None, output_mode: str = "multi_hot", **kwargs: Any
    ) -> None:
        if kwargs.pop("sparse", False):
            raise ValueError("CategoryEncoding: sparse tensors are not supported.")
        super().__init__(**kwargs)
        if not isinstance(num_tokens, int) or num_tokens < 1:
            raise ValueError(f"{self.name}: num_tokens is a positive integer, got {num_tokens!r}.")
        if output_mode not in MODES[1:]:
            raise ValueError(
                f"{self.name}: output_mode is one of {', '.join(MODES[1:])}, got {output_mode!r}."
            )
        self.num_tokens = num_tokens
        self.output_mode = output_mode

    def call(self, inputs: Any, count_weights: Any = None) -> Any:
        if count_weights is not None and self.output_mode != "count":
            raise ValueError(f"{self.name}: count_weights is for output_mode 'count'.")
        mode, depth = self.output_mode, self.num_tokens
        return encoded(inputs, mode, depth, self.compute_dtype, count_weights)

    def get_config(self) -> dict[str, Any]:
        names = ("num_tokens", "output_mode")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class Discretization(Layer):
    """The number of the bin of each value: bin i is [boundaries[i - 1], boundaries[i]).

    bin_boundaries   rising numbers; or `num_bins`, whose boundaries `adapt(data)` then finds so
                     that as many values fall into each
    epsilon          accepted for Keras's sake; quantiles are exact here
    output_mode      "int", or as for `CategoryEncoding`

    >>> Discretization([0.0, 1.0])(np.array([-1.0, 0.0, 2.5])).numpy().tolist()
    [0, 1, 2]
    """

    def __init__(
        self,
        bin_boundaries: Sequence[float] | None = None,
        num_bins: int | None = None,
        epsilon: float = 0.01,
        output_mode: str = "int",
        sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if sparse:
            raise ValueError(f"{self.name}: sparse tensors are not supported.")
        if (num_bins is None) == (bin_boundaries is None):
            raise ValueError(f"{self.name}: give either bin_boundaries or num_bins.")
        if output_mode not in MODES:
            raise ValueError(
                f"{self.name}: output_mode is one of {', '.join(MODES)}, got {output_mode!r}."
            )
        self.bin_boundaries = None if bin_boundaries is None else [float(b) for b in bin_boundaries]
        self.num_bins = num_bins
        self.epsilon = epsilon
        self.output_mode = output_mode

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Find boundaries between which equally many values of the data lie."""
        if self.num_bins is None:
            raise ValueError(f"{self.name}: the boundaries were given; there is nothing to adapt.")
        parts = [
            batch.ravel()
            for place, batch in enumerate(_batches(data))
            if steps is None or place < steps
        ]
        shares = np.arange(1, self.num_bins) / self.num_bins
        self.bin_boundaries = np.quantile(np.concatenate(parts), shares).tolist()

    def call(self, inputs: Any) -> Any:
        if self.bin_boundaries is None:
            raise ValueError(f"{self.name}: call adapt(data) first, which finds the boundaries.")
        x = ops.cast(inputs, config.floatx())
        numbers = ops.digitize(x, np.asarray(self.bin_boundaries, x.dtype))
        depth = len(self.bin_boundaries) + 1
        return encoded(numbers, self.output_mode, depth, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        names = ("bin_boundaries", "num_bins", "epsilon", "output_mode")
        known = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **known, "sparse": False}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        found = config.pop("bin_boundaries", None) if config.get("num_bins") else None
        layer = cls(**config)
        if found is not None:
            layer.bin_boundaries = found
        return layer
