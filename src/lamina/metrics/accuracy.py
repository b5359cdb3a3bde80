"""How often a prediction is right."""

from __future__ import annotations

from typing import Any

from lamina import ops
from lamina.losses.loss import same_rank
from lamina.metrics.metric import MeanMetricWrapper, floatx_of
from lamina.tensor import convert
from lamina.types import FLOATS


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where y_true equals y_pred, 0 elsewhere, entry by entry."""
    y_pred = convert(y_pred)
    y_true, y_pred = same_rank(ops.cast(y_true, y_pred.dtype), y_pred)
    return floatx_of(ops.equal(y_true, y_pred))


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Any:
    """1 where `y_pred > threshold` equals y_true, which is 0 or 1."""
    y_true, y_pred = same_rank(y_true, y_pred)
    return floatx_of(ops.equal(y_true, ops.cast(ops.greater(y_pred, threshold), y_true.dtype)))


def categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where y_true (one-hot) and y_pred are largest for the same class."""
    return floatx_of(ops.equal(ops.argmax(y_true, axis=-1), ops.argmax(y_pred, axis=-1)))


def _class_numbers(y_true: Any, y_pred: Any) -> Any:
    """Class numbers of the shape of `y_pred` without its last axis, as int32."""
    y_true = convert(y_true)
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, axis=-1)
    return ops.cast(y_true, "int32")


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """1 where y_pred is largest for the class whose number y_true is."""
    y_pred = convert(y_pred)
    labels = _class_numbers(y_true, y_pred)
    matches = floatx_of(ops.equal(labels, ops.cast(ops.argmax(y_pred, axis=-1), "int32")))
    if len(matches.shape) > 1 and matches.shape[-1] == 1:
        matches = ops.squeeze(matches, axis=-1)
    return matches


def _among_largest(labels: Any, y_pred: Any, k: int) -> Any:
    """Whether fewer than k classes score higher than the class of each label.

    Classes that score just as high do not count against it, as in Keras.
    """
    chosen = ops.one_hot(labels, y_pred.shape[-1], dtype="bool")
    score = ops.max(ops.where(chosen, y_pred, float("-inf")), axis=-1, keepdims=True)
    higher = ops.sum(ops.cast(ops.greater(y_pred, score), "int32"), axis=-1)
    return ops.logical_and(ops.less(higher, k), ops.isfinite(ops.squeeze(score, axis=-1)))


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Any:
    """1 where the class of y_true (one-hot) is among the k largest of y_pred."""
    labels = ops.argmax(y_true, axis=-1)
    return floatx_of(_among_largest(labels, convert(y_pred), k))


def sparse_top_k_categorical_accuracy(
    y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False
) -> Any:
    """1 where the class whose number y_true is, is among the k largest of y_pred.

    from_sorted_ids   y_pred holds class numbers, best first, instead of scores
    """
    y_pred = convert(y_pred)
    labels = _class_numbers(y_true, y_pred)
    if from_sorted_ids:
        best = ops.cast(y_pred[..., :k], "int32")
        return floatx_of(ops.any(ops.equal(ops.expand_dims(labels, -1), best), axis=-1))
    if y_pred.dtype not in FLOATS:
        y_pred = ops.cast(y_pred, "float32")
    return floatx_of(_among_largest(labels, y_pred, k))


class Accuracy(MeanMetricWrapper):
    """Share of entries that are equal: see `accuracy`."""

    _direction = "up"

    def __init__(self, name: str = "accuracy", dtype: Any = None) -> None:
        super().__init__(accuracy, name, dtype)


class BinaryAccuracy(MeanMetricWrapper):
    """Share of yes-or-no predictions that are right: see `binary_accuracy`."""

    _direction = "up"

    def __init__(
        self, name: str = "binary_accuracy", dtype: Any = None, threshold: float = 0.5
    ) -> None:
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"BinaryAccuracy: threshold is in [0, 1], got {threshold}.")
        super().__init__(binary_accuracy, name, dtype, threshold=threshold)


class CategoricalAccuracy(MeanMetricWrapper):
    """Share of right classes, targets one-hot: see `categorical_accuracy`."""

    _direction = "up"

    def __init__(self, name: str = "categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(categorical_accuracy, name, dtype)


class SparseCategoricalAccuracy(MeanMetricWrapper):
    """Share of right classes, targets class numbers: see `sparse_categorical_accuracy`."""

    _direction = "up"

    def __init__(self, name: str = "sparse_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(sparse_categorical_accuracy, name, dtype)


class TopKCategoricalAccuracy(MeanMetricWrapper):
    """Share of targets among the k best: see `top_k_categorical_accuracy`."""

    _direction = "up"

    def __init__(
        self, k: int = 5, name: str = "top_k_categorical_accuracy", dtype: Any = None
    ) -> None:
        super().__init__(top_k_categorical_accuracy, name, dtype, k=k)


class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """Share of targets among the k best: see `sparse_top_k_categorical_accuracy`."""

    _direction = "up"

    def __init__(
        self,
        k: int = 5,
        name: str = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(
            sparse_top_k_categorical_accuracy, name, dtype, k=k, from_sorted_ids=from_sorted_ids
        )


ACCURACIES = (
    *(Accuracy, BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy),
    *(TopKCategoricalAccuracy, SparseTopKCategoricalAccuracy),
)
