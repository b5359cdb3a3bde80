"""Losses between probabilities: cross-entropies, focal forms, divergences.

Probabilities that come straight from a softmax or sigmoid activation carry the logits they were
made of; the cross-entropies then compute from these, which is exact where a probability rounds to
0 or 1. Other probabilities are divided by their sum and kept inside [epsilon, 1 - epsilon].
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from lamina import config, ops
from lamina.errors import IndexRangeError, ShapeError, layout
from lamina.losses.loss import CLASS_NUMBERS, Loss, LossFunctionWrapper
from lamina.losses.regression import floats
from lamina.ops.creation import iota
from lamina.ops.indexing import lookup
from lamina.tensor import Tensor, convert
from lamina.tensor.values import known_value


def _logits_of(y_pred: Any, *, from_logits: bool, axis: int = -1) -> Any:
    """The logits behind `y_pred` where they are known, else None."""
    if from_logits:
        return y_pred
    last = axis in (-1, len(y_pred.shape) - 1)
    return getattr(y_pred, "_keras_logits", None) if last else None


def _inside(probability: Any) -> Any:
    return ops.clip(probability, config.epsilon(), 1.0 - config.epsilon())


def _smooth(y_true: Any, amount: float, level: Any) -> Any:
    return y_true * (1.0 - amount) + amount * level if amount else y_true


def _check_same(name: str, y_true: Any, y_pred: Any) -> None:
    if len(y_true.shape) != len(y_pred.shape) or any(
        a != b and 1 not in (a, b) for a, b in zip(y_true.shape, y_pred.shape, strict=True)
    ):
        hint = ""
        if name == "categorical_crossentropy":
            hint = "for labels that are class numbers use sparse_categorical_crossentropy"
        raise ShapeError(
            layout(
                f"{name}: y_true and y_pred have different shapes.",
                [("y_true", str(convert(y_true).node.type)), ("y_pred", str(y_pred.node.type))],
                hint=hint,
            )
        )


def categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """-sum of y_true * log(y_pred) over the classes.

    y_true            (batch, ..., classes), one-hot or probabilities
    y_pred            the same shape: probabilities, or logits with `from_logits`
    label_smoothing   in [0, 1): that share of each target is spread over all classes
    axis              the axis of the classes
    """
    y_true, y_pred = floats(y_true, y_pred)
    _check_same("categorical_crossentropy", y_true, y_pred)
    if y_pred.shape[-1] == 1:
        warnings.warn(
            "categorical_crossentropy: y_pred has one class only, so the loss is always zero; "
            "use binary_crossentropy for two classes.",
            SyntaxWarning,
            stacklevel=2,
        )
    y_true = _smooth(y_true, label_smoothing, 1.0 / int(y_true.shape[-1]))
    logits = _logits_of(y_pred, from_logits=from_logits, axis=axis)
    if logits is not None:
        logarithm = ops.log_softmax(logits, axis=axis)
    else:
        logarithm = ops.log(_inside(y_pred / ops.sum(y_pred, axis=axis, keepdims=True)))
    return -ops.sum(y_true * logarithm, axis=axis)


def sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Any:
    """-log of the probability that y_pred gives to the class y_true.

    y_true         (batch, ...) or (batch, ..., 1), class numbers
    y_pred         (batch, ..., classes): probabilities, or logits with `from_logits`
    ignore_class   a number that marks entries to be left out
    axis           the axis of the classes
    """
    y_true, y_pred = convert(y_true), convert(y_pred)
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[axis] == 1:
        y_true = ops.squeeze(y_true, axis=axis)
    _check_labels(y_true, y_pred, axis)
    classes: Any = y_pred.shape[axis]
    labels = ops.cast(y_true, "int32")
    kept = None
    if ignore_class is not None:
        kept = ops.not_equal(labels, ignore_class)
        labels = ops.where(kept, labels, 0)
    labels = _within(labels, classes)
    logits = _logits_of(y_pred, from_logits=from_logits, axis=axis)
    if logits is not None:
        logarithm = ops.log_softmax(logits, axis=axis)
    else:
        logarithm = ops.log(_inside(y_pred / ops.sum(y_pred, axis=axis, keepdims=True)))
    chosen = ops.one_hot(labels, classes, axis=axis, dtype="bool")
    # Selected, not multiplied: a class that is masked with -inf must not give NaN.
    loss = -ops.sum(ops.where(chosen, logarithm, 0.0), axis=axis)
    if kept is not None:
        loss = ops.where(kept, loss, 0.0)
        loss._keras_mask = kept
    return loss


CLASS_NUMBERS.add(sparse_categorical_crossentropy)


def _within(labels: Tensor, classes: int) -> Tensor:
    """The labels themselves, which must lie in [0, classes).

    Looked up in the table 0, 1, ..., so that a compiled step checks the labels of its data as it
    checks the tokens of an embedding: before the step runs, naming the row.
    """
    known = known_value(labels.node)
    if known is not None and known.size:
        wrong = np.flatnonzero((known < 0) | (known >= classes))
        if wrong.size:
            raise IndexRangeError(
                layout(
                    f"sparse_categorical_crossentropy: a class number lies outside [0, {classes}).",
                    [("value", str(known.flat[wrong[0]])), ("at", f"entry {wrong[0]}")],
                    hint="y_pred must have one column for every class; ignore_class marks "
                    "entries to be left out",
                )
            )
    return lookup(iota((classes,), 0, labels.dtype), labels)


def _check_labels(y_true: Tensor, y_pred: Tensor, axis: int) -> None:
    at = axis % len(y_pred.shape)
    expected = tuple(size for place, size in enumerate(y_pred.shape) if place != at)
    if tuple(y_true.shape) == expected:
        return
    hint = ""
    if tuple(y_true.shape) == tuple(y_pred.shape):
        hint = "y_true looks one-hot: use categorical_crossentropy"
    raise ShapeError(
        layout(
            "sparse_categorical_crossentropy: y_true must hold one class number per row of y_pred.",
            [
                ("y_true", str(y_true.node.type)),
                ("y_pred", str(y_pred.node.type)),
                ("expected", f"({', '.join(map(str, expected))})"),
            ],
            hint=hint,
        )
    )


def _binary_values(y_true: Any, y_pred: Any, *, from_logits: bool) -> Any:
    """Cross-entropy of each entry."""
    logits = _logits_of(y_pred, from_logits=from_logits)
    if logits is not None:
        # -y log(s(x)) - (1 - y) log(1 - s(x)), written so that exp never overflows.
        positive = ops.maximum(logits, 0.0) - logits * y_true
        return positive + ops.log1p(ops.exp(-ops.abs(logits)))
    output = _inside(y_pred)
    return -(y_true * ops.log(output) + (1.0 - y_true) * ops.log(1.0 - output))


def binary_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Mean of -y_true log(y_pred) - (1 - y_true) log(1 - y_pred) over `axis`.

    y_true            0 or 1, or probabilities
    y_pred            probabilities, or logits with `from_logits`
    label_smoothing   in [0, 1): moves the targets that far towards 0.5
    """
    y_true, y_pred = floats(y_true, y_pred)
    _check_same("binary_crossentropy", y_true, y_pred)
    y_true = _smooth(y_true, label_smoothing, 0.5)
    return ops.mean(_binary_values(y_true, y_pred, from_logits=from_logits), axis=axis)


def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Binary cross-entropy times (1 - probability of the true class)^gamma (Lin et al. 2018).

    With `apply_class_balancing` also times `alpha` for class 1, 1 - alpha for class 0.
    """
    y_true, y_pred = floats(y_true, y_pred)
    _check_same("binary_focal_crossentropy", y_true, y_pred)
    y_true = _smooth(y_true, label_smoothing, 0.5)
    values = _binary_values(y_true, y_pred, from_logits=from_logits)
    probability = ops.sigmoid(y_pred) if from_logits else y_pred
    of_true = y_true * probability + (1.0 - y_true) * (1.0 - probability)
    values = ops.power(1.0 - of_true, gamma) * values
    if apply_class_balancing:
        values = (y_true * alpha + (1.0 - y_true) * (1.0 - alpha)) * values
    return ops.mean(values, axis=axis)


def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: Any = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Categorical cross-entropy, each class times alpha (1 - p)^gamma (Lin et al. 2018).

    alpha   a number, or one number per class
    """
    y_true, y_pred = floats(y_true, y_pred)
    _check_same("categorical_focal_crossentropy", y_true, y_pred)
    y_true = _smooth(y_true, label_smoothing, 1.0 / int(y_true.shape[-1]))
    output = ops.softmax(y_pred, axis=axis) if from_logits else y_pred
    output = _inside(output / ops.sum(output, axis=axis, keepdims=True))
    weight = ops.power(1.0 - output, gamma) * alpha
    return ops.sum(weight * -y_true * ops.log(output), axis=axis)


def kl_divergence(y_true: Any, y_pred: Any) -> Any:
    """Sum of y_true * log(y_true / y_pred) over the last axis, both at least epsilon."""
    y_true, y_pred = floats(y_true, y_pred)
    y_true = ops.clip(y_true, config.epsilon(), 1.0)
    y_pred = ops.clip(y_pred, config.epsilon(), 1.0)
    return ops.sum(y_true * ops.log(y_true / y_pred), axis=-1)


def categorical_hinge(y_true: Any, y_pred: Any) -> Any:
    """max(0, 1 + best wrong score - true score) for one-hot y_true, over the last axis."""
    y_true, y_pred = floats(y_true, y_pred)
    right = ops.sum(y_true * y_pred, axis=-1)
    wrong = ops.max((1.0 - y_true) * y_pred, axis=-1)
    return ops.maximum(wrong - right + 1.0, 0.0)


def categorical_generalized_cross_entropy(y_true: Any, y_pred: Any, q: float) -> Any:
    """(1 - p^q) / q, p the probability of the true class (Zhang & Sabuncu 2018)."""
    y_pred = convert(y_pred)
    chosen = ops.one_hot(ops.cast(y_true, "int32"), y_pred.shape[-1], dtype=y_pred.dtype)
    return (1.0 - ops.power(ops.sum(y_pred * chosen, axis=-1), q)) / q


class CategoricalCrossentropy(LossFunctionWrapper):
    """Cross-entropy with one-hot targets: see `categorical_crossentropy`."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class SparseCategoricalCrossentropy(LossFunctionWrapper):
    """Cross-entropy with class numbers as targets: see `sparse_categorical_crossentropy`."""

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            sparse_categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )


class BinaryCrossentropy(LossFunctionWrapper):
    """Cross-entropy of yes-or-no targets: see `binary_crossentropy`."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            binary_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class BinaryFocalCrossentropy(LossFunctionWrapper):
    """Binary cross-entropy that attends to hard examples: see `binary_focal_crossentropy`."""

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            binary_focal_crossentropy,
            reduction,
            name,
            dtype,
            apply_class_balancing=apply_class_balancing,
            alpha=alpha,
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class CategoricalFocalCrossentropy(LossFunctionWrapper):
    """Cross-entropy that attends to hard examples: see `categorical_focal_crossentropy`."""

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            categorical_focal_crossentropy,
            reduction,
            name,
            dtype,
            alpha=alpha,
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class KLDivergence(LossFunctionWrapper):
    """Kullback and Leibler's divergence: see `kl_divergence`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "kl_divergence",
        dtype: Any = None,
    ) -> None:
        super().__init__(kl_divergence, reduction, name, dtype)


class CategoricalHinge(LossFunctionWrapper):
    """The hinge for several classes: see `categorical_hinge`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_hinge",
        dtype: Any = None,
    ) -> None:
        super().__init__(categorical_hinge, reduction, name, dtype)


class CategoricalGeneralizedCrossEntropy(LossFunctionWrapper):
    """Robust to wrong labels: see `categorical_generalized_cross_entropy`."""

    def __init__(
        self,
        q: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_generalized_cross_entropy",
        dtype: Any = None,
    ) -> None:
        if not 0.0 < q < 1.0:
            raise ValueError(f"CategoricalGeneralizedCrossEntropy: q is inside (0, 1), got {q}.")
        super().__init__(categorical_generalized_cross_entropy, reduction, name, dtype, q=q)


PROBABILITY: tuple[type[Loss], ...] = (
    *(CategoricalCrossentropy, SparseCategoricalCrossentropy, BinaryCrossentropy),
    *(BinaryFocalCrossentropy, CategoricalFocalCrossentropy, KLDivergence, CategoricalHinge),
    CategoricalGeneralizedCrossEntropy,
)
