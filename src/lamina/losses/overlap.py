"""Losses on the overlap of two sets, for segmentation, and on similar pairs of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina import config, ops
from lamina.losses.loss import Loss, LossFunctionWrapper
from lamina.losses.regression import floats
from lamina.tensor import convert

Axes = int | Sequence[int] | None


def dice(y_true: Any, y_pred: Any, axis: Axes = None) -> Any:
    """1 - 2 |A and B| / (|A| + |B|), sums taken over `axis` (None: over everything)."""
    y_true, y_pred = floats(y_true, y_pred)
    common = ops.sum(y_true * y_pred, axis=axis)
    whole = ops.sum(y_true, axis=axis) + ops.sum(y_pred, axis=axis)
    return 1.0 - 2.0 * common / (whole + config.epsilon())


def tversky(
    y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Axes = None
) -> Any:
    """1 - Tversky's index, in the form that Keras computes (Salehi et al. 2017).

    alpha   weight of what is in y_true and not in y_pred
    beta    weight of what is in y_pred and not in y_true
    """
    y_true, y_pred = floats(y_true, y_pred)
    common = ops.sum(y_true * y_pred, axis=axis)
    missed = ops.sum((1.0 - y_pred) * y_true, axis=axis)
    excess = ops.sum(y_pred * (1.0 - y_true), axis=axis)
    return 1.0 - common / (common + missed * alpha + excess * beta + config.epsilon())


def circle(
    y_true: Any,
    y_pred: Any,
    ref_labels: Any = None,
    ref_embeddings: Any = None,
    remove_diagonal: bool = True,
    gamma: float = 80.0,
    margin: float = 0.4,
) -> Any:
    """Circle loss on pairs of normalised embeddings (Sun et al. 2020).

    y_true            (batch,) class numbers; ref_labels (n,) those of the references
    y_pred            (batch, d) embeddings of norm one; ref_embeddings (n, d)
    remove_diagonal   leave out the pair of an embedding with itself
    returns           (batch,) values
    """
    y_pred = convert(y_pred)
    labels = ops.reshape(ops.cast(y_true, "int32"), (-1, 1))
    others = labels if ref_labels is None else ops.reshape(ops.cast(ref_labels, "int32"), (-1, 1))
    references = y_pred if ref_embeddings is None else convert(ref_embeddings)
    distance = ops.maximum(1.0 - ops.matmul(y_pred, ops.transpose(references)), 0.0)
    same = ops.equal(labels, ops.transpose(others))
    different = ops.logical_not(same)
    if remove_diagonal:
        rows = ops.expand_dims(ops.arange(y_pred.shape[0]), 1)
        columns = ops.expand_dims(ops.arange(references.shape[0]), 0)
        same = ops.logical_and(same, ops.not_equal(rows, columns))
    near = ops.maximum(margin + distance, 0.0)
    far = ops.maximum(1.0 + margin - distance, 0.0)
    attract = ops.where(same, -gamma * near * (margin - distance), float("-inf"))
    repel = ops.where(different, gamma * far * (1.0 - margin - distance), float("-inf"))
    loss = ops.softplus(ops.logsumexp(attract, axis=1) + ops.logsumexp(repel, axis=1))
    loss._keras_mask = ops.greater(loss, 0.0)
    return loss


class Dice(LossFunctionWrapper):
    """One minus the Dice coefficient: see `dice`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "dice",
        axis: Axes = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(dice, reduction, name, dtype, axis=axis)


class Tversky(LossFunctionWrapper):
    """One minus Tversky's index: see `tversky`."""

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "tversky",
        axis: Axes = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(tversky, reduction, name, dtype, alpha=alpha, beta=beta, axis=axis)


class Circle(LossFunctionWrapper):
    """Circle loss on embeddings: see `circle`."""

    def __init__(
        self,
        gamma: float = 80.0,
        margin: float = 0.4,
        remove_diagonal: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str = "circle",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            circle,
            reduction,
            name,
            dtype,
            gamma=gamma,
            margin=margin,
            remove_diagonal=remove_diagonal,
        )


OVERLAP: tuple[type[Loss], ...] = (Dice, Tversky, Circle)
