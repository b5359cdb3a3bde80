"""Counts of right and wrong yes-or-no predictions at thresholds, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lamina import config, ops
from lamina.errors import ShapeError, layout
from lamina.losses.loss import same_rank, with_dtype
from lamina.metrics.metric import Metric
from lamina.tensor import Tensor, Variable, convert

# Below every score: what the classes get that are not among the k best.
LOWEST = -1e10


def threshold_list(metric: str, given: Any, default: float) -> list[float]:
    """The thresholds of an argument that may be None, a number or a sequence of numbers.

    raises   ValueError for one outside [0, 1]
    """
    if given is None:
        return [default]
    values = [float(value) for value in given] if isinstance(given, Sequence) else [float(given)]
    if not all(0.0 <= value <= 1.0 for value in values):
        raise ValueError(f"{metric}: thresholds are in [0, 1], got {values}.")
    return values


def evenly_spaced(thresholds: Sequence[float]) -> bool:
    """Whether the thresholds are 0, 1/n, 2/n, ..., 1, up to epsilon."""
    count = len(thresholds)
    if count < 3:
        return False
    even = np.arange(count, dtype=np.float32) / (count - 1)
    return bool(np.allclose(thresholds, even, atol=config.epsilon()))


def update_counts(
    counts: dict[str, Variable],
    y_true: Any,
    y_pred: Any,
    thresholds: Sequence[float],
    *,
    top_k: int | None = None,
    class_id: int | None = None,
    sample_weight: Any = None,
    multi_label: bool = False,
    label_weights: Any = None,
) -> None:
    """Add a batch to the counts of each threshold.

    counts        variables under some of "tp", "fp", "tn", "fn", each of shape (thresholds,), or
                  (thresholds, labels) with `multi_label`
    y_true        0 or 1; y_pred scores of the same shape: "yes" is what lies above a threshold
    top_k         count only the k best classes of each row as "yes"
    class_id      look at this class only
    """
    dtype = next(iter(counts.values())).dtype
    y_pred, y_true = same_rank(ops.cast(y_pred, dtype), ops.cast(y_true, dtype))
    weight = _weights(sample_weight, label_weights, y_true, dtype)
    if top_k is not None:
        y_pred = _only_best(y_pred, top_k)
    if class_id is not None:
        if len(y_pred.shape) == 1:
            raise ShapeError(
                layout(
                    "class_id needs predictions of shape (batch, classes).",
                    [("y_pred", str(y_pred.node.type))],
                )
            )
        y_true, y_pred = (x[..., class_id : class_id + 1] for x in (y_true, y_pred))
    positive = ops.cast(ops.not_equal(y_true, 0.0), dtype)
    negative = 1.0 - positive
    if weight is not None:
        weight = ops.broadcast_to(weight, positive.shape)
        positive, negative = positive * weight, negative * weight
    above = _above_each_label if multi_label else _above
    if not multi_label:
        positive, negative, y_pred = (ops.reshape(x, (-1,)) for x in (positive, negative, y_pred))
    if "tp" in counts or "fn" in counts:
        yes = above(positive, y_pred, thresholds)
        if "tp" in counts:
            counts["tp"].assign_add(yes)
        if "fn" in counts:
            counts["fn"].assign_add(ops.sum(positive, axis=0) - yes)
    if "fp" in counts or "tn" in counts:
        yes = above(negative, y_pred, thresholds)
        if "fp" in counts:
            counts["fp"].assign_add(yes)
        if "tn" in counts:
            counts["tn"].assign_add(ops.sum(negative, axis=0) - yes)


def _weights(sample_weight: Any, label_weights: Any, y_true: Tensor, dtype: str) -> Any:
    """One factor that broadcasts against `y_true`, or None."""
    weight = None
    if sample_weight is not None:
        weight = with_dtype(sample_weight, dtype)
        missing = len(y_true.shape) - len(weight.shape)
        if missing > 0:
            weight = ops.reshape(weight, (*weight.shape, *(1 for _ in range(missing))))
        elif missing < 0 and weight.shape[-1] == 1:
            weight = ops.squeeze(weight, axis=-1)
    if label_weights is not None:
        by_label = with_dtype(label_weights, dtype)
        weight = by_label if weight is None else weight * by_label
    return weight


def _only_best(scores: Tensor, k: int) -> Tensor:
    _, places = ops.top_k(scores, k)
    classes = int(scores.shape[-1])  # type: ignore[arg-type]  # never the run-time batch
    best = ops.any(ops.one_hot(places, classes, dtype="bool"), axis=-2)
    only: Tensor = ops.where(best, scores, LOWEST)
    return only


def _buckets(scores: Tensor, thresholds: Sequence[float]) -> Tensor:
    """For evenly spaced thresholds: the number of the last one below each score, or -1."""
    inside = ops.clip(scores, 0.0, 1.0)
    bucket = ops.ceil(inside * float(len(thresholds) - 1)) - 1.0
    if thresholds[0] < 0.0 or thresholds[-1] > 1.0:
        bucket = ops.maximum(bucket, 0.0)
    return ops.cast(bucket, "int32")


def _above(part: Tensor, scores: Tensor, thresholds: Sequence[float]) -> Tensor:
    """For each threshold the sum of `part` where the score lies above; both (n,)."""
    count = len(thresholds)
    if not evenly_spaced(thresholds):
        limits = convert(np.asarray(thresholds), scores.dtype)
        yes = ops.greater(ops.expand_dims(scores, 0), ops.expand_dims(limits, 1))
        return ops.sum(ops.where(yes, ops.expand_dims(part, 0), 0.0), axis=1)
    # Sort into buckets, then add from the top: n steps instead of n times thresholds.
    bucket = _buckets(scores, thresholds)
    part = ops.where(bucket >= 0, part, 0.0)
    held = ops.segment_sum(part, ops.maximum(bucket, 0), count)
    return ops.flip(ops.cumsum(ops.flip(held, 0), axis=0), 0)


def _above_each_label(part: Tensor, scores: Tensor, thresholds: Sequence[float]) -> Tensor:
    """The same for (n, labels), giving (thresholds, labels)."""
    count, labels = len(thresholds), int(scores.shape[1])  # type: ignore[arg-type]
    if not evenly_spaced(thresholds):
        limits = convert(np.asarray(thresholds), scores.dtype)
        yes = ops.greater(ops.expand_dims(scores, 0), ops.reshape(limits, (-1, 1, 1)))
        return ops.sum(ops.where(yes, ops.expand_dims(part, 0), 0.0), axis=1)
    bucket = _buckets(scores, thresholds)
    part = ops.where(bucket >= 0, part, 0.0)
    place = ops.maximum(bucket, 0) * labels + ops.expand_dims(ops.arange(labels, dtype="int32"), 0)
    flat = ops.segment_sum(ops.reshape(part, (-1,)), ops.reshape(place, (-1,)), count * labels)
    held = ops.reshape(flat, (count, labels))
    return ops.flip(ops.cumsum(ops.flip(held, 0), axis=0), 0)


# ------------------------------------------------------------------------------ metrics


class _Count(Metric):
    """How many predictions fall into one cell of the confusion matrix."""

    CELL = ""

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.init_thresholds = thresholds
        self.thresholds = threshold_list(type(self).__name__, thresholds, 0.5)
        self.accumulator = self.add_variable((len(self.thresholds),), name="accumulator")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        update_counts(
            {self.CELL: self.accumulator},
            y_true,
            y_pred,
            self.thresholds,
            sample_weight=sample_weight,
        )

    def result(self) -> Any:
        return self.accumulator[0] if len(self.thresholds) == 1 else self.accumulator.value

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "thresholds": self.init_thresholds}


class TruePositives(_Count):
    """How many are 1 and predicted so, at each of `thresholds` (default 0.5)."""

    CELL = "tp"


class TrueNegatives(_Count):
    """How many are 0 and predicted so, at each of `thresholds` (default 0.5)."""

    CELL = "tn"


class FalsePositives(_Count):
    """How many are 0 but predicted 1, at each of `thresholds` (default 0.5)."""

    CELL = "fp"


class FalseNegatives(_Count):
    """How many are 1 but predicted 0, at each of `thresholds` (default 0.5)."""

    CELL = "fn"


class _Share(Metric):
    """True positives as a share of themselves and one kind of mistake."""

    MISTAKE = ("", "")
    _direction = "up"

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.init_thresholds = thresholds
        self.top_k = top_k
        self.class_id = class_id
        default = 0.5 if top_k is None else LOWEST
        self.thresholds = threshold_list(type(self).__name__, thresholds, default)
        size = (len(self.thresholds),)
        self.true_positives = self.add_variable(size, name="true_positives")
        self._mistakes = self.add_variable(size, name=self.MISTAKE[1])

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        update_counts(
            {"tp": self.true_positives, self.MISTAKE[0]: self._mistakes},
            y_true,
            y_pred,
            self.thresholds,
            top_k=self.top_k,
            class_id=self.class_id,
            sample_weight=sample_weight,
        )

    def result(self) -> Any:
        share = ops.divide_no_nan(self.true_positives, self.true_positives + self._mistakes)
        return share[0] if len(self.thresholds) == 1 else share

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "thresholds": self.init_thresholds,
            "top_k": self.top_k,
            "class_id": self.class_id,
        }


class Precision(_Share):
    """Share of the predicted ones that are one.

    thresholds   in [0, 1], a number or several (then a vector); default 0.5, or none with `top_k`
    top_k        count only the k best classes of each row as predicted
    class_id     look at this class only
    """

    MISTAKE = ("fp", "false_positives")

    @property
    def false_positives(self) -> Variable:
        """How many were predicted one wrongly."""
        return self._mistakes


class Recall(_Share):
    """Share of the ones that are predicted so; arguments as for `Precision`."""

    MISTAKE = ("fn", "false_negatives")

    @property
    def false_negatives(self) -> Variable:
        """How many ones were missed."""
        return self._mistakes


CONFUSION = (TruePositives, TrueNegatives, FalsePositives, FalseNegatives, Precision, Recall)
