"""Losses between numbers: squared, absolute, relative and robust errors, and directions.

Every function takes y_true and y_pred of shape (batch, ..., d), or of ranks that differ by a last
axis of size one, and gives (batch, ...).
"""

from __future__ import annotations

import math
from typing import Any

from lamina import config, ops
from lamina.losses.loss import Loss, LossFunctionWrapper, same_rank, with_dtype
from lamina.tensor import Tensor, convert


def floats(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors of the dtype of `y_pred`."""
    prediction = convert(y_pred)
    return with_dtype(y_true, prediction.dtype), prediction


def _pair(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    target, prediction = floats(y_true, y_pred)
    return same_rank(target, prediction)


def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of (y_true - y_pred)^2 over the last axis."""
    y_true, y_pred = _pair(y_true, y_pred)
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of |y_true - y_pred| over the last axis."""
    y_true, y_pred = _pair(y_true, y_pred)
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """100 times the mean of |y_true - y_pred| / max(|y_true|, epsilon) over the last axis."""
    y_true, y_pred = _pair(y_true, y_pred)
    relative = ops.abs((y_true - y_pred) / ops.maximum(ops.abs(y_true), config.epsilon()))
    return 100.0 * ops.mean(relative, axis=-1)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of (log(1 + y_true) - log(1 + y_pred))^2, both at least epsilon, over the last axis."""
    y_true, y_pred = _pair(y_true, y_pred)
    predicted = ops.log(ops.maximum(y_pred, config.epsilon()) + 1.0)
    wanted = ops.log(ops.maximum(y_true, config.epsilon()) + 1.0)
    return ops.mean(ops.square(predicted - wanted), axis=-1)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """Mean of Huber's (1964) error: e^2 / 2 up to `delta`, delta |e| - delta^2 / 2 beyond."""
    y_true, y_pred = _pair(y_true, y_pred)
    error = y_pred - y_true
    size = ops.abs(error)
    near = 0.5 * ops.square(error)
    far = delta * size - 0.5 * delta * delta
    return ops.mean(ops.where(size <= delta, near, far), axis=-1)


def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """Mean of log(cosh(y_pred - y_true)) over the last axis, in a form that does not overflow."""
    y_true, y_pred = _pair(y_true, y_pred)
    error = y_pred - y_true
    return ops.mean(error + ops.softplus(-2.0 * error) - math.log(2.0), axis=-1)


def normalised(x: Any, axis: Any) -> Any:
    """`x` scaled to Euclidean norm one along `axis`; what is shorter than 1e-6 stays short."""
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=axis, keepdims=True), 1e-12))


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Minus the cosine of the angle between y_true and y_pred along `axis`: -1 is the same way."""
    y_true, y_pred = _pair(y_true, y_pred)
    return -ops.sum(normalised(y_true, axis) * normalised(y_pred, axis), axis=axis)


def poisson(y_true: Any, y_pred: Any) -> Any:
    """Mean of y_pred - y_true * log(y_pred + epsilon) over the last axis."""
    y_true, y_pred = floats(y_true, y_pred)
    return ops.mean(y_pred - y_true * ops.log(y_pred + config.epsilon()), axis=-1)


def signed_labels(y_true: Any) -> Any:
    """Labels of 0 and 1 as -1 and 1; labels that hold anything else stay as they are."""
    binary = ops.all(ops.logical_or(ops.equal(y_true, 0.0), ops.equal(y_true, 1.0)))
    return ops.where(binary, 2.0 * y_true - 1.0, y_true)


def hinge(y_true: Any, y_pred: Any) -> Any:
    """Mean of max(1 - y_true * y_pred, 0); labels are -1 and 1, or 0 and 1."""
    y_true, y_pred = floats(y_true, y_pred)
    return ops.mean(ops.maximum(1.0 - signed_labels(y_true) * y_pred, 0.0), axis=-1)


def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """Mean of max(1 - y_true * y_pred, 0)^2; labels are -1 and 1, or 0 and 1."""
    y_true, y_pred = floats(y_true, y_pred)
    margin = ops.maximum(1.0 - signed_labels(y_true) * y_pred, 0.0)
    return ops.mean(ops.square(margin), axis=-1)


class MeanSquaredError(LossFunctionWrapper):
    """Mean squared error: see `mean_squared_error`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "mean_squared_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_squared_error, reduction, name, dtype)


class MeanAbsoluteError(LossFunctionWrapper):
    """Mean absolute error: see `mean_absolute_error`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "mean_absolute_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_absolute_error, reduction, name, dtype)


class MeanAbsolutePercentageError(LossFunctionWrapper):
    """Mean absolute error in percent of the target: see `mean_absolute_percentage_error`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "mean_absolute_percentage_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_absolute_percentage_error, reduction, name, dtype)


class MeanSquaredLogarithmicError(LossFunctionWrapper):
    """Mean squared difference of logarithms: see `mean_squared_logarithmic_error`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "mean_squared_logarithmic_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(mean_squared_logarithmic_error, reduction, name, dtype)


class Huber(LossFunctionWrapper):
    """Squared near zero, absolute beyond `delta`: see `huber`."""

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "huber_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(huber, reduction, name, dtype, delta=delta)


class LogCosh(LossFunctionWrapper):
    """log(cosh(error)): see `log_cosh`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "log_cosh",
        dtype: Any = None,
    ) -> None:
        super().__init__(log_cosh, reduction, name, dtype)


class CosineSimilarity(LossFunctionWrapper):
    """Minus the cosine between target and prediction: see `cosine_similarity`."""

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cosine_similarity",
        dtype: Any = None,
    ) -> None:
        super().__init__(cosine_similarity, reduction, name, dtype, axis=axis)


class Poisson(LossFunctionWrapper):
    """Poisson's negative log-likelihood without its constant: see `poisson`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "poisson",
        dtype: Any = None,
    ) -> None:
        super().__init__(poisson, reduction, name, dtype)


class Hinge(LossFunctionWrapper):
    """The support vector machine's loss: see `hinge`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "hinge",
        dtype: Any = None,
    ) -> None:
        super().__init__(hinge, reduction, name, dtype)


class SquaredHinge(LossFunctionWrapper):
    """The hinge, squared: see `squared_hinge`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "squared_hinge",
        dtype: Any = None,
    ) -> None:
        super().__init__(squared_hinge, reduction, name, dtype)


REGRESSION: tuple[type[Loss], ...] = (
    *(MeanSquaredError, MeanAbsoluteError, MeanAbsolutePercentageError),
    *(MeanSquaredLogarithmicError, Huber, LogCosh, CosineSimilarity, Poisson, Hinge, SquaredHinge),
)
