"""Metrics over many thresholds: the area under a curve, one rate where another is fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lamina import config, ops
from lamina.errors import ShapeError, layout, near_matches
from lamina.metrics.confusion import update_counts
from lamina.metrics.metric import Metric
from lamina.tensor import Variable, convert

CURVES = ("ROC", "PR", "PRGAIN")
SUMMATIONS = ("interpolation", "majoring", "minoring")


def _inner_thresholds(count: int) -> list[float]:
    return [(place + 1) / (count - 1) for place in range(count - 2)]


class _FourCounts(Metric):
    """Keeps all four counts at every threshold."""

    _direction = "up"
    true_positives: Variable
    false_positives: Variable
    true_negatives: Variable
    false_negatives: Variable

    def make_counts(self, shape: tuple[int, ...]) -> None:
        """The four variables, in the order in which Keras writes them to files."""
        self.true_positives = self.add_variable(shape, name="true_positives")
        self.false_positives = self.add_variable(shape, name="false_positives")
        self.true_negatives = self.add_variable(shape, name="true_negatives")
        self.false_negatives = self.add_variable(shape, name="false_negatives")

    @property
    def counts(self) -> dict[str, Variable]:
        """The four variables under the names that `update_counts` takes."""
        return {
            "tp": self.true_positives,
            "fp": self.false_positives,
            "tn": self.true_negatives,
            "fn": self.false_negatives,
        }

    @property
    def recall(self) -> Any:
        """True positives over ones, at every threshold."""
        return ops.divide_no_nan(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def precision(self) -> Any:
        """True positives over predicted ones, at every threshold."""
        return ops.divide_no_nan(self.true_positives, self.true_positives + self.false_positives)

    @property
    def specificity(self) -> Any:
        """True negatives over zeros, at every threshold."""
        return ops.divide_no_nan(self.true_negatives, self.true_negatives + self.false_positives)


class AUC(_FourCounts):
    """Area under the receiver operating characteristic, or under precision over recall.

    num_thresholds     how finely the curve is sampled
    curve              "ROC", "PR", or "PRGAIN" (Flach & Kull 2015)
    summation_method   "interpolation" (trapezoids; for PR the rule of Davis & Goadrich 2006),
                       "minoring" or "majoring" (the lower or the upper step function)
    thresholds         inner thresholds of one's own, instead of evenly spaced ones
    multi_label        one curve per label; the mean of their areas, by `label_weights`
    num_labels         number of labels, if it is to be known before the first batch
    from_logits        predictions are logits
    """

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        curve, summation_method = curve.upper(), summation_method.lower()
        for what, given, known in (
            ("curve", curve, CURVES),
            ("summation_method", summation_method, SUMMATIONS),
        ):
            if given not in known:
                raise ValueError(
                    f"AUC: {what} is one of {', '.join(known)}, got {given!r}."
                    f"{near_matches(given, known)}"
                )
        if thresholds is None and num_thresholds < 2:
            raise ValueError(f"AUC: num_thresholds is 2 or more, got {num_thresholds}.")
        if num_labels and not multi_label:
            raise ValueError("AUC: num_labels is for multi_label=True only.")
        self._own_thresholds = thresholds is not None
        inner = _inner_thresholds(num_thresholds) if thresholds is None else sorted(thresholds)
        epsilon = config.epsilon()
        self.thresholds = [-epsilon, *inner, 1.0 + epsilon]
        self.num_thresholds = len(self.thresholds)
        self.curve = curve
        self.summation_method = summation_method
        self.multi_label = multi_label
        self.num_labels = num_labels
        self.label_weights = None if label_weights is None else np.asarray(label_weights)
        self.from_logits = from_logits
        self._built = False
        if not multi_label or num_labels:
            self._build(num_labels)

    def _build(self, labels: int | None) -> None:
        self.make_counts((self.num_thresholds, *(() if labels is None else (labels,))))
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = convert(y_pred)
        if self.multi_label and len(y_pred.shape) != 2:
            raise ShapeError(
                layout(
                    f"{self.name}: multi_label=True needs predictions of shape (batch, labels).",
                    [("y_pred", str(y_pred.node.type))],
                )
            )
        if not self._built:
            self._build(int(y_pred.shape[1]))
        update_counts(
            self.counts,
            y_true,
            ops.sigmoid(y_pred) if self.from_logits else y_pred,
            self.thresholds,
            sample_weight=sample_weight,
            multi_label=self.multi_label,
            label_weights=None if self.multi_label else self.label_weights,
        )

    def result(self) -> Any:
        if self.curve == "PR" and self.summation_method == "interpolation":
            return self._over_labels(self._interpolated_precision())
        if self.curve == "ROC":
            zeros = self.false_positives + self.true_negatives
            x, y = ops.divide_no_nan(self.false_positives, zeros), self.recall
        elif self.curve == "PR":
            x, y = self.recall, self.precision
        else:
            x, y = self._gains()
        low, high = y[:-1], y[1:]
        if self.summation_method == "interpolation":
            height = (low + high) / 2.0
        elif self.summation_method == "minoring":
            height = ops.minimum(low, high)
        else:
            height = ops.maximum(low, high)
        return self._over_labels((x[:-1] - x[1:]) * height)

    def _gains(self) -> tuple[Any, Any]:
        hits = self.true_positives.value
        ratio = ops.divide_no_nan(
            self.true_positives + self.false_negatives, self.true_negatives + self.false_positives
        )
        recall = 1.0 - ratio * ops.divide_no_nan(self.false_negatives, hits)
        precision = 1.0 - ratio * ops.divide_no_nan(self.false_positives, hits)
        none = ops.equal(hits, 0.0)
        return (
            ops.maximum(ops.where(none, 0.0, recall), 0.0),
            ops.where(none, 1.0, precision),
        )

    def _interpolated_precision(self) -> Any:
        """Areas between thresholds where true positives, not precision, grow in a line."""
        hits = self.true_positives.value
        chosen = self.true_positives + self.false_positives
        new_hits = hits[:-1] - hits[1:]
        slope = ops.divide_no_nan(new_hits, ops.maximum(chosen[:-1] - chosen[1:], 0.0))
        intercept = hits[1:] - slope * chosen[1:]
        both = ops.logical_and(chosen[:-1] > 0.0, chosen[1:] > 0.0)
        ratio = ops.where(both, ops.divide_no_nan(chosen[:-1], ops.maximum(chosen[1:], 0.0)), 1.0)
        ones = ops.maximum(hits[1:] + self.false_negatives[1:], 0.0)
        return ops.divide_no_nan(slope * (new_hits + intercept * ops.log(ratio)), ones)

    def _over_labels(self, areas: Any) -> Any:
        if not self.multi_label:
            return ops.sum(areas)
        by_label = ops.sum(areas, axis=0)
        if self.label_weights is None:
            return ops.mean(by_label)
        weights = convert(self.label_weights, self.dtype)
        return ops.divide_no_nan(ops.sum(by_label * weights), ops.sum(weights))

    def get_config(self) -> dict[str, Any]:
        weights = self.label_weights
        known = {
            **super().get_config(),
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": self.summation_method,
            "multi_label": self.multi_label,
            "num_labels": self.num_labels,
            "label_weights": None if weights is None else weights.tolist(),
            "from_logits": self.from_logits,
        }
        if self._own_thresholds:
            known["thresholds"] = self.thresholds[1:-1]
        return known


class _RateAtRate(_FourCounts):
    """The best value of one rate among the thresholds where another reaches a given value."""

    ARGUMENT = ""

    def __init__(
        self,
        value: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if not 0 <= value <= 1:
            raise ValueError(f"{type(self).__name__}: {self.ARGUMENT} is in [0, 1], got {value}.")
        if num_thresholds < 1:
            raise ValueError(
                f"{type(self).__name__}: num_thresholds is 1 or more, got {num_thresholds}."
            )
        self.value = value
        self.num_thresholds = num_thresholds
        self.class_id = class_id
        inner = [0.0, *_inner_thresholds(num_thresholds), 1.0]
        self.thresholds = [0.5] if num_thresholds == 1 else inner
        self.make_counts((len(self.thresholds),))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        update_counts(
            self.counts,
            y_true,
            y_pred,
            self.thresholds,
            class_id=self.class_id,
            sample_weight=sample_weight,
        )

    def best(self, wanted: Any, given: Any) -> Any:
        """The largest `wanted` where `given` is large enough, or 0."""
        return ops.max(ops.where(given >= self.value, wanted, 0.0))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            self.ARGUMENT: self.value,
            "num_thresholds": self.num_thresholds,
            "class_id": self.class_id,
        }


class SensitivityAtSpecificity(_RateAtRate):
    """The best recall of ones where at least `specificity` of the zeros are recognised."""

    ARGUMENT = "specificity"

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(specificity, num_thresholds, class_id, name, dtype)

    def result(self) -> Any:
        return self.best(self.recall, self.specificity)


class SpecificityAtSensitivity(_RateAtRate):
    """The best recall of zeros where at least `sensitivity` of the ones are recognised."""

    ARGUMENT = "sensitivity"

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)

    def result(self) -> Any:
        return self.best(self.specificity, self.recall)


class PrecisionAtRecall(_RateAtRate):
    """The best precision where recall is at least `recall`."""

    ARGUMENT = "recall"

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(recall, num_thresholds, class_id, name, dtype)

    def result(self) -> Any:
        return self.best(self.precision, self.recall)


class RecallAtPrecision(_RateAtRate):
    """The best recall where precision is at least `precision`."""

    ARGUMENT = "precision"

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(precision, num_thresholds, class_id, name, dtype)

    def result(self) -> Any:
        return self.best(self.recall, self.precision)


CURVE_METRICS = (
    *(AUC, SensitivityAtSpecificity, SpecificityAtSensitivity),
    *(PrecisionAtRecall, RecallAtPrecision),
)
