"""Normalisation of activations: over the batch, over features, over groups, to unit length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina import config, initializers, ops
from lamina.errors import ShapeError, layout
from lamina.layers.layer import Layer
from lamina.layers.rules import rules_config, set_rules
from lamina.layers.spec import InputSpec
from lamina.tensor import Tensor, Variable
from lamina.types import promote

Axes = int | Sequence[int]


def _size(layer: Layer, input_shape: Any, axis: int) -> int:
    size = input_shape[axis] if -len(input_shape) <= axis < len(input_shape) else None
    if size is None:
        raise ShapeError(
            layout(
                f"{layer.name}: axis {axis} of the inputs must exist and have a known size.",
                [("inputs", str(tuple(input_shape)))],
            )
        )
    return int(size)


class ScaledNormalization(Layer):
    """Base: a learned scale gamma and offset beta, kept in full precision."""

    supports_masking = True
    gamma: Variable | None
    beta: Variable | None

    def __init__(
        self,
        epsilon: float,
        center: bool,
        scale: bool,
        beta: tuple[Any, Any, Any],
        gamma: tuple[Any, Any, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.epsilon = float(epsilon)
        self.center = center
        self.scale = scale
        set_rules(self, "beta", *beta)
        set_rules(self, "gamma", *gamma)
        self.gamma = None
        self.beta = None

    def add_scale_and_offset(self, shape: tuple[int, ...]) -> None:
        """Make gamma and beta, as far as they are wanted."""
        if self.scale:
            self.gamma = self._full_precision("gamma", shape)
        if self.center:
            self.beta = self._full_precision("beta", shape)

    def _full_precision(self, name: str, shape: tuple[int, ...]) -> Variable:
        return self.add_weight(
            shape=shape,
            initializer=getattr(self, f"{name}_initializer"),
            regularizer=getattr(self, f"{name}_regularizer"),
            constraint=getattr(self, f"{name}_constraint"),
            autocast=False,
            name=name,
        )

    def apply(self, x: Any, mean: Any, variance: Any, shape: Sequence[Any]) -> Any:
        """(x - mean) / sqrt(variance + epsilon), scaled and shifted, in the compute dtype.

        shape   to which gamma and beta are brought, so that they broadcast against x
        """
        factor = ops.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            factor = factor * ops.reshape(ops.cast(self.gamma, x.dtype), shape)
        outputs = (x - mean) * factor
        if self.beta is not None:
            outputs = outputs + ops.reshape(ops.cast(self.beta, x.dtype), shape)
        return ops.cast(outputs, self.compute_dtype)

    def scaled_config(self, *names: str) -> dict[str, Any]:
        """The arguments of this base, and those of `names`."""
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in (*names, "epsilon", "center", "scale")},
            **rules_config(self, "beta", "gamma"),
        }


def _widened(inputs: Any) -> Any:
    """At least float32: means of half-precision numbers lose too much."""
    return ops.cast(inputs, promote(inputs.dtype, "float32"))


class BatchNormalization(ScaledNormalization):
    """Normalise each channel with the batch's own mean and variance (Ioffe & Szegedy 2015).

    In training these are the batch's; otherwise moving averages of them, gathered in training.
    A layer that is not trainable always uses the averages.

    axis        the axis of the channels
    momentum    average = momentum * average + (1 - momentum) * the batch's
    epsilon     added to the variance
    center, scale
                whether an offset beta and a factor gamma are learned
    renorm, renorm_clipping, renorm_momentum
                batch renormalisation (Ioffe 2017); clipping is a dict of rmin, rmax, dmax

    >>> import numpy as np
    >>> layer = BatchNormalization(center=False, scale=False)
    >>> layer(np.array([[1.0], [3.0]], "float32"), training=True).numpy().round(2).tolist()
    [[-1.0], [1.0]]
    """

    moving_mean: Variable
    moving_variance: Variable

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: dict[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            epsilon,
            center,
            scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
            **kwargs,
        )
        self.axis = int(axis)
        self.momentum = float(momentum)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.renorm = renorm
        self.renorm_clipping = dict(renorm_clipping or {}) if renorm else renorm_clipping
        self.renorm_momentum = renorm_momentum
        self.synchronized = synchronized
        unknown = set(self.renorm_clipping or ()) - {"rmin", "rmax", "dmax"}
        if unknown:
            raise ValueError(
                f"{self.name}: renorm_clipping has the keys rmin, rmax and dmax, got "
                f"{', '.join(sorted(unknown))}."
            )

    def build(self, input_shape: Any = None) -> None:
        size = _size(self, input_shape, self.axis)
        self.add_scale_and_offset((size,))
        self.moving_mean = self._average("moving_mean", size, self.moving_mean_initializer)
        self.moving_variance = self._average(
            "moving_variance", size, self.moving_variance_initializer
        )
        if self.renorm:
            start = self.moving_variance.numpy() ** 0.5
            self.moving_stddev = self._average("moving_stddev", size, start)
            self.renorm_mean = self._average("renorm_mean", size, self.moving_mean.numpy())
            self.renorm_stddev = self._average("renorm_stddev", size, start)
        rank = len(input_shape)
        self.input_spec = InputSpec(ndim=rank, axes={self.axis % rank: size})

    def _average(self, name: str, size: int, initializer: Any) -> Variable:
        return self.add_weight(
            shape=(size,), initializer=initializer, trainable=False, autocast=False, name=name
        )

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        x = _widened(inputs)
        channel = self.axis % len(x.shape)
        shape = [1] * len(x.shape)
        shape[channel] = -1
        if not (training and self.trainable):
            mean = ops.reshape(ops.cast(self.moving_mean, x.dtype), shape)
            variance = ops.reshape(ops.cast(self.moving_variance, x.dtype), shape)
            return self.apply(x, mean, variance, shape)
        axes = tuple(axis for axis in range(len(x.shape)) if axis != channel)
        mean, variance = self._moments(x, axes, mask)
        if self.renorm:
            return self._renormalised(x, mean, variance, shape)
        self._follow(self.moving_mean, mean, self.momentum)
        self._follow(self.moving_variance, variance, self.momentum)
        return self.apply(x, ops.reshape(mean, shape), ops.reshape(variance, shape), shape)

    def _moments(self, x: Any, axes: tuple[int, ...], mask: Any) -> tuple[Any, Any]:
        """Mean and variance of each channel over the entries that the mask keeps."""
        if mask is None:
            mean, variance = ops.moments(x, axes)
            return mean, variance
        if len(mask.shape) != len(x.shape) - 1:
            raise ShapeError(
                layout(
                    f"{self.name}: the mask must have one axis less than the inputs.",
                    [("mask", str(mask.node.type)), ("inputs", str(x.node.type))],
                )
            )
        kept = ops.broadcast_to(ops.cast(ops.expand_dims(mask, -1), x.dtype), x.shape)
        count = ops.sum(kept, axis=axes, keepdims=True) + config.epsilon()
        mean = ops.sum(kept * x, axis=axes, keepdims=True) / count
        variance = ops.sum(kept * ops.square(x - mean), axis=axes, keepdims=True) / count
        return ops.reshape(mean, (-1,)), ops.reshape(variance, (-1,))

    def _follow(self, average: Variable, value: Any, momentum: float) -> None:
        value = ops.cast(value, average.dtype)
        average.assign(average * momentum + value * (1.0 - momentum))

    def _renormalised(self, x: Any, mean: Any, variance: Any, shape: list[int]) -> Any:
        clipping = self.renorm_clipping or {}
        deviation = ops.sqrt(variance + self.epsilon)
        usual = ops.maximum(ops.cast(self.renorm_stddev, x.dtype), self.epsilon**0.5)
        r = deviation / usual
        d = (mean - ops.cast(self.renorm_mean, x.dtype)) / usual
        if "rmin" in clipping:
            r = ops.maximum(r, clipping["rmin"])
        if "rmax" in clipping:
            r = ops.minimum(r, clipping["rmax"])
        if "dmax" in clipping:
            d = ops.clip(d, -clipping["dmax"], clipping["dmax"])
        r, d = ops.stop_gradient(r), ops.stop_gradient(d)
        outputs = (x - ops.reshape(mean, shape)) / ops.reshape(deviation, shape)
        outputs = outputs * ops.reshape(r, shape) + ops.reshape(d, shape)
        if self.gamma is not None:
            outputs = outputs * ops.reshape(self.gamma, shape)
        if self.beta is not None:
            outputs = outputs + ops.reshape(self.beta, shape)
        self._follow(self.renorm_mean, mean, self.renorm_momentum)
        self._follow(self.renorm_stddev, deviation, self.renorm_momentum)
        self._follow(self.moving_mean, mean, self.momentum)
        self._follow(self.moving_stddev, deviation, self.momentum)
        square = ops.square(self.moving_stddev.value) - self.epsilon
        self.moving_variance.assign(ops.maximum(square, 0.0))
        return ops.cast(outputs, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        known = self.scaled_config("axis", "momentum")
        for name in ("moving_mean", "moving_variance"):
            initializer = getattr(self, f"{name}_initializer")
            known[f"{name}_initializer"] = initializers.serialize(initializer)
        for name in ("renorm", "renorm_clipping", "renorm_momentum", "synchronized"):
            known[name] = getattr(self, name)
        return known


class LayerNormalization(ScaledNormalization):
    """Normalise each row over its own features (Ba et al. 2016).

    axis            the axis, or axes, of the features
    epsilon         added to the variance
    center, scale   whether an offset beta and a factor gamma are learned
    """

    def __init__(
        self,
        axis: Axes = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("rms_scaling", False):
            raise ValueError("LayerNormalization: rms_scaling is gone; use RMSNormalization.")
        super().__init__(
            epsilon,
            center,
            scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
            **kwargs,
        )
        self.axis = list(axis) if isinstance(axis, Sequence) else int(axis)

    def _axes(self, rank: int) -> tuple[int, ...]:
        axes = self.axis if isinstance(self.axis, list) else [self.axis]
        return tuple(sorted(axis % rank for axis in axes))

    def build(self, input_shape: Any = None) -> None:
        axes = self._axes(len(input_shape))
        self.add_scale_and_offset(tuple(_size(self, input_shape, axis) for axis in axes))

    def call(self, inputs: Any) -> Any:
        x = _widened(inputs)
        axes = self._axes(len(x.shape))
        mean, variance = ops.moments(x, axes, keepdims=True)
        shape = [x.shape[axis] if axis in axes else 1 for axis in range(len(x.shape))]
        return self.apply(x, mean, variance, shape)

    def get_config(self) -> dict[str, Any]:
        return self.scaled_config("axis")


class GroupNormalization(ScaledNormalization):
    """Normalise groups of channels of each row (Wu & He 2018).

    groups   number of groups; -1: one for each channel, which is instance normalisation
    axis     the axis of the channels; the other arguments as for `LayerNormalization`
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            epsilon,
            center,
            scale,
            (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint),
            **kwargs,
        )
        if not isinstance(groups, int) or (groups < 1 and groups != -1):
            raise ValueError(f"{self.name}: groups is a positive integer or -1, got {groups!r}.")
        self.groups = groups
        self.axis = int(axis)

    def build(self, input_shape: Any = None) -> None:
        size = _size(self, input_shape, self.axis)
        if self.groups == -1:
            self.groups = size
        if size % self.groups:
            raise ShapeError(
                layout(
                    f"{self.name}: {size} channels cannot form {self.groups} groups.",
                    [("inputs", str(tuple(input_shape)))],
                )
            )
        self.add_scale_and_offset((size,))
        rank = len(input_shape)
        self.input_spec = InputSpec(ndim=rank, axes={self.axis % rank: size})

    def call(self, inputs: Any) -> Any:
        x = _widened(inputs)
        shape = x.shape
        at = self.axis % len(shape)
        split = (self.groups, shape[at] // self.groups)
        grouped = ops.reshape(x, (*shape[:at], *split, *shape[at + 1 :]))
        axes = tuple(axis for axis in range(1, len(shape) + 1) if axis != at)
        mean, variance = ops.moments(grouped, axes, keepdims=True)
        outputs = ops.reshape((grouped - mean) * ops.rsqrt(variance + self.epsilon), shape)
        weights = [1] * len(shape)
        weights[at] = -1
        if self.gamma is not None:
            outputs = outputs * ops.reshape(ops.cast(self.gamma, x.dtype), weights)
        if self.beta is not None:
            outputs = outputs + ops.reshape(ops.cast(self.beta, x.dtype), weights)
        return ops.cast(outputs, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return self.scaled_config("groups", "axis")


class RMSNormalization(Layer):
    """Divide each row by the root mean square of its features (Zhang & Sennrich 2019).

    axis      the axis, or axes, of the features, for which a factor `scale` is learned
    epsilon   added to the mean square
    """

    supports_masking = True
    scale: Variable

    def __init__(self, axis: Axes = -1, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = list(axis) if isinstance(axis, Sequence) else int(axis)
        self.epsilon = float(epsilon)

    def _axes(self, rank: int) -> tuple[int, ...]:
        axes = self.axis if isinstance(self.axis, list) else [self.axis]
        return tuple(sorted(axis % rank for axis in axes))

    def build(self, input_shape: Any = None) -> None:
        axes = self._axes(len(input_shape))
        shape = tuple(_size(self, input_shape, axis) for axis in axes)
        self.scale = self.add_weight(shape=shape, initializer="ones", name="scale")

    def call(self, inputs: Any) -> Any:
        x = _widened(inputs)
        axes = self._axes(len(x.shape))
        shape = [x.shape[axis] if axis in axes else 1 for axis in range(len(x.shape))]
        square = ops.mean(ops.square(x), axis=axes, keepdims=True)
        scale = ops.reshape(ops.cast(self.scale, x.dtype), shape)
        return ops.cast(x * ops.rsqrt(square + self.epsilon) * scale, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}


class UnitNormalization(Layer):
    """Scale each row to Euclidean length one along `axis`."""

    supports_masking = True

    def __init__(self, axis: Axes = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = list(axis) if isinstance(axis, Sequence) else int(axis)

    def call(self, inputs: Any) -> Any:
        axes = tuple(self.axis) if isinstance(self.axis, list) else self.axis
        outputs: Tensor = ops.normalize(inputs, axis=axes, order=2, epsilon=1e-12)
        return outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}
