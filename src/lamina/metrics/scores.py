"""Scores that need sums per class or per output: F scores, R^2, intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lamina import config, ops
from lamina.errors import ShapeError, layout
from lamina.losses.loss import element_count, same_rank, with_dtype
from lamina.metrics.metric import Metric
from lamina.tensor import Tensor, Variable, convert
from lamina.types import FLOATS


def _check_matrix(metric: str, y_true: Tensor, y_pred: Tensor) -> int:
    """The number of columns of two matrices."""
    if len(y_true.shape) != 2 or len(y_pred.shape) != 2:
        raise ShapeError(
            layout(
                f"{metric}: expected targets and predictions of shape (batch, outputs).",
                [("y_true", str(y_true.node.type)), ("y_pred", str(y_pred.node.type))],
            )
        )
    return int(y_pred.shape[1])  # type: ignore[arg-type]


class FBetaScore(Metric):
    """Precision and recall in one number: (1 + b^2) P R / (b^2 P + R), for each class.

    average     None (one score per class), "micro" (counts of all classes together), "macro"
                (the mean of the scores), "weighted" (the mean by the number of ones)
    beta        greater than 0: how much more recall counts than precision
    threshold   above which a score means "yes"; None: the largest score of each row
    """

    AVERAGES = (None, "micro", "macro", "weighted")
    _direction = "up"
    true_positives: Variable
    false_positives: Variable
    false_negatives: Variable
    intermediate_weights: Variable

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str = "fbeta_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if average not in self.AVERAGES:
            raise ValueError(f"FBetaScore: average is one of {self.AVERAGES}, got {average!r}.")
        if not isinstance(beta, (int, float)) or beta <= 0.0:
            raise ValueError(f"FBetaScore: beta is a number greater than 0, got {beta!r}.")
        if threshold is not None and not 0.0 < threshold <= 1.0:
            raise ValueError(f"FBetaScore: threshold is in (0, 1] or None, got {threshold}.")
        self.average = average
        self.beta = beta
        self.threshold = threshold
        self._built = False

    def _build(self, classes: int) -> None:
        shape = () if self.average == "micro" else (classes,)
        self.true_positives = self.add_variable(shape, name="true_positives")
        self.false_positives = self.add_variable(shape, name="false_positives")
        self.false_negatives = self.add_variable(shape, name="false_negatives")
        self.intermediate_weights = self.add_variable(shape, name="intermediate_weights")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = with_dtype(y_true, self.dtype), with_dtype(y_pred, self.dtype)
        classes = _check_matrix(self.name, y_true, y_pred)
        if not self._built:
            self._build(classes)
        if self.threshold is None:
            largest = ops.max(y_pred, axis=-1, keepdims=True)
            chosen = ops.logical_and(y_pred >= largest, ops.abs(y_pred) > 1e-9)
        else:
            chosen = y_pred > self.threshold
        yes = ops.cast(chosen, self.dtype)
        weight: Any = 1.0
        if sample_weight is not None:
            weight = ops.reshape(with_dtype(sample_weight, self.dtype), (-1, 1))
        axis = None if self.average == "micro" else 0
        self.true_positives.assign_add(ops.sum(yes * y_true * weight, axis=axis))
        self.false_positives.assign_add(ops.sum(yes * (1.0 - y_true) * weight, axis=axis))
        self.false_negatives.assign_add(ops.sum((1.0 - yes) * y_true * weight, axis=axis))
        self.intermediate_weights.assign_add(ops.sum(y_true * weight, axis=axis))

    def result(self) -> Any:
        epsilon = config.epsilon()
        hits = self.true_positives
        precision = hits / (hits + self.false_positives + epsilon)
        recall = hits / (hits + self.false_negatives + epsilon)
        square = self.beta**2
        score = (1.0 + square) * precision * recall / (square * precision + recall + epsilon)
        if self.average == "weighted":
            ones = self.intermediate_weights
            return ops.sum(score * (ones / (ops.sum(ones) + epsilon)))
        return score if self.average is None else ops.mean(score)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "average": self.average,
            "beta": self.beta,
            "threshold": self.threshold,
        }


class F1Score(FBetaScore):
    """The F score with beta 1: the harmonic mean of precision and recall."""

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str = "f1_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)

    def get_config(self) -> dict[str, Any]:
        known = super().get_config()
        del known["beta"]
        return known


class R2Score(Metric):
    """The coefficient of determination: 1 - residual sum of squares / total sum of squares.

    class_aggregation   "uniform_average", "variance_weighted_average", or None (one per output)
    num_regressors      number of independent regressors, for the adjusted score; 0: not adjusted
    """

    AGGREGATIONS = (None, "uniform_average", "variance_weighted_average")
    _direction = "up"
    squared_sum: Variable
    sum: Variable
    total_mse: Variable
    count: Variable

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str = "r2_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if class_aggregation not in self.AGGREGATIONS:
            raise ValueError(
                f"R2Score: class_aggregation is one of {self.AGGREGATIONS}, "
                f"got {class_aggregation!r}."
            )
        if num_regressors < 0:
            raise ValueError(f"R2Score: num_regressors is 0 or more, got {num_regressors}.")
        self.class_aggregation = class_aggregation
        self.num_regressors = num_regressors
        self.num_samples = self.add_variable(name="num_samples")
        self._built = False

    def _build(self, outputs: int) -> None:
        self.squared_sum = self.add_variable((outputs,), name="squared_sum")
        self.sum = self.add_variable((outputs,), name="sum")
        self.total_mse = self.add_variable((outputs,), name="residual")
        self.count = self.add_variable((outputs,), name="count")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = same_rank(with_dtype(y_true, self.dtype), with_dtype(y_pred, self.dtype))
        outputs = _check_matrix(self.name, y_true, y_pred)
        if not self._built:
            self._build(outputs)
        weight = convert(1.0 if sample_weight is None else sample_weight, self.dtype)
        if len(weight.shape) == 1:
            weight = ops.expand_dims(weight, axis=1)
        weight = ops.broadcast_to(weight, y_true.shape)
        self.sum.assign_add(ops.sum(y_true * weight, axis=0))
        self.squared_sum.assign_add(ops.sum(y_true * y_true * weight, axis=0))
        self.total_mse.assign_add(ops.sum(ops.square(y_true - y_pred) * weight, axis=0))
        self.count.assign_add(ops.sum(weight, axis=0))
        self.num_samples.assign_add(element_count(y_true, self.dtype))

    def result(self) -> Any:
        mean = self.sum / self.count
        total = self.squared_sum - self.sum * mean
        scores = 1.0 - self.total_mse / total
        scores = ops.where(ops.isinf(scores), 0.0, scores)
        if self.class_aggregation == "uniform_average":
            score = ops.mean(scores)
        elif self.class_aggregation == "variance_weighted_average":
            score = ops.sum(total * scores) / ops.sum(total)
        else:
            score = scores
        if not self.num_regressors:
            return score
        # With too few samples the adjusted score has no meaning; the plain one stays.
        freedom = self.num_samples - self.num_regressors - 1.0
        safe = ops.where(freedom > 0.0, freedom, 1.0)
        adjusted = 1.0 - (1.0 - score) * (self.num_samples - 1.0) / safe
        return ops.where(freedom > 0.0, adjusted, score)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "class_aggregation": self.class_aggregation,
            "num_regressors": self.num_regressors,
        }


class IoU(Metric):
    """Intersection over union of the wanted classes: TP / (TP + FP + FN), their mean.

    num_classes        number of classes
    target_class_ids   the classes whose mean is taken
    ignore_class       a class number in y_true that marks entries to be left out
    sparse_y_true, sparse_y_pred
                       whether class numbers are given, or scores along `axis`
    """

    _direction = "up"

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(name=name, dtype=dtype or "int32")
        if max(target_class_ids) >= num_classes:
            raise ValueError(
                f"{type(self).__name__}: class {max(target_class_ids)} is not among the "
                f"{num_classes} classes."
            )
        self.num_classes = num_classes
        self.target_class_ids = list(target_class_ids)
        self.ignore_class = ignore_class
        self.sparse_y_true = sparse_y_true
        self.sparse_y_pred = sparse_y_pred
        self.axis = axis
        self.total_cm = self.add_variable(
            (num_classes, num_classes), name="total_confusion_matrix", dtype=self.dtype
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        if not self.sparse_y_true:
            y_true = ops.argmax(y_true, axis=self.axis)
        if not self.sparse_y_pred:
            y_pred = ops.argmax(y_pred, axis=self.axis)
        truth = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        guess = ops.reshape(ops.cast(y_pred, "int32"), (-1,))
        known = ops.logical_and(truth >= 0, truth < self.num_classes)
        known = ops.logical_and(known, ops.logical_and(guess >= 0, guess < self.num_classes))
        if self.ignore_class is not None:
            known = ops.logical_and(known, ops.not_equal(truth, self.ignore_class))
        weight = ops.cast(known, self.dtype)
        if sample_weight is not None:
            given = ops.cast(sample_weight, self.dtype)
            if len(given.shape) > 1:
                given = ops.reshape(given, (-1,))
            weight = weight * ops.broadcast_to(given, truth.shape)
        cell = ops.where(known, truth * self.num_classes + guess, 0)
        added = ops.segment_sum(weight, cell, self.num_classes**2)
        self.total_cm.assign_add(ops.reshape(added, (self.num_classes, self.num_classes)))

    def result(self) -> Any:
        table = ops.cast(self.total_cm, "float32")
        hits = ops.diagonal(table)
        union = ops.sum(table, axis=0) + ops.sum(table, axis=1) - hits
        wanted = convert(np.asarray(self.target_class_ids, np.int32))
        hits, union = ops.take(hits, wanted), ops.take(union, wanted)
        present = union > 1e-9
        shares = ops.where(present, hits / (union + config.epsilon()), 0.0)
        return ops.sum(shares) / (ops.sum(ops.cast(present, "float32")) + config.epsilon())

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "target_class_ids": self.target_class_ids,
            "ignore_class": self.ignore_class,
            "sparse_y_true": self.sparse_y_true,
            "sparse_y_pred": self.sparse_y_pred,
            "axis": self.axis,
        }

    def _config_without(self, *names: str) -> dict[str, Any]:
        known = IoU.get_config(self)
        return {name: value for name, value in known.items() if name not in names}


class BinaryIoU(IoU):
    """Intersection over union of two classes, predictions being scores of class 1."""

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = convert(y_pred)
        if y_pred.dtype not in FLOATS:
            y_pred = ops.cast(y_pred, "float32")
        super().update_state(y_true, y_pred >= self.threshold, sample_weight)

    def get_config(self) -> dict[str, Any]:
        known = self._config_without(
            "num_classes", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis"
        )
        return {**known, "threshold": self.threshold}


class MeanIoU(IoU):
    """Mean intersection over union of all classes."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        classes = range(num_classes)
        super().__init__(
            num_classes, classes, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis
        )

    def get_config(self) -> dict[str, Any]:
        return self._config_without("target_class_ids")


class OneHotIoU(IoU):
    """`IoU` with one-hot targets and, unless `sparse_y_pred`, scores as predictions."""

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(
            num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis
        )

    def get_config(self) -> dict[str, Any]:
        return self._config_without("sparse_y_true")


class OneHotMeanIoU(MeanIoU):
    """`MeanIoU` with one-hot targets and, unless `sparse_y_pred`, scores as predictions."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        return self._config_without("sparse_y_true", "target_class_ids")


SCORES = (FBetaScore, F1Score, R2Score, IoU, BinaryIoU, MeanIoU, OneHotIoU, OneHotMeanIoU)
