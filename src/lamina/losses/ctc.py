"""Connectionist temporal classification: labels without their places in time."""

from __future__ import annotations

from typing import Any

from lamina import ops
from lamina.errors import ShapeError, layout
from lamina.losses.loss import CLASS_NUMBERS, Loss, LossFunctionWrapper
from lamina.tensor import Tensor, convert

# The logarithm of an impossible path: finite, so that gradients of sums stay numbers.
IMPOSSIBLE = -1e5


def ctc(y_true: Any, y_pred: Any) -> Any:
    """-log of the probability of all alignments of a label sequence (Graves et al. 2006).

    y_true   (batch, labels) class numbers; 0 is the blank, and fills short rows at their end
    y_pred   (batch, steps, classes) logits
    returns  (batch,)
    raises   ShapeError for other shapes
    """
    labels, logits = convert(y_true), convert(y_pred)
    if len(labels.shape) != 2 or len(logits.shape) != 3:
        raise ShapeError(
            layout(
                "ctc: expected y_true (batch, labels) and logits (batch, steps, classes).",
                [("y_true", str(labels.node.type)), ("y_pred", str(logits.node.type))],
            )
        )
    labels = ops.cast(labels, "int32")
    length = ops.sum(ops.cast(ops.not_equal(labels, 0), "int32"), axis=-1)
    return ctc_values(labels, logits, length)


def ctc_values(labels: Tensor, logits: Tensor, length: Tensor) -> Tensor:
    """The loss of each row, `length` being the number of labels that are there.

    alpha[s] is the log probability of all paths that have come to place s of the labels with
    blanks between them; section 4.1 of the paper.
    """
    rows, count = labels.shape
    blanks = ops.zeros_like(labels)
    between = ops.reshape(ops.stack([labels, blanks], axis=-1), (rows, 2 * count))
    places = ops.concatenate([blanks[:, :1], between], axis=1)
    size = 2 * int(count) + 1  # type: ignore[arg-type]  # the batch stands on axis 0
    logarithms = ops.log_softmax(logits, axis=-1)
    emitted = ops.take_along_axis(logarithms, ops.expand_dims(places, 1), axis=-1)
    emitted = ops.transpose(emitted, (1, 0, 2))
    # A path may jump over a blank, unless the labels on both sides of it are the same.
    before = ops.pad(places[:, :-2], ((0, 0), (2, 0)))
    jump = ops.logical_and(ops.not_equal(places, 0), ops.not_equal(places, before))
    place = ops.expand_dims(ops.arange(size, dtype="int32"), 0)
    first = ops.where(place < 2, emitted[0], IMPOSSIBLE)

    def step(alpha: Any, emission: Any) -> tuple[Any, None]:
        one = _shifted(alpha, 1)
        two = ops.where(jump, _shifted(alpha, 2), IMPOSSIBLE)
        return ops.logaddexp(ops.logaddexp(alpha, one), two) + emission, None

    alpha, _ = ops.scan(step, first, emitted[1:])
    end = ops.expand_dims(2 * length, 1)
    last = ops.logical_or(ops.equal(place, end), ops.equal(place, end - 1))
    loss: Tensor = -ops.logsumexp(ops.where(last, alpha, IMPOSSIBLE), axis=1)
    return loss


def _shifted(alpha: Any, by: int) -> Any:
    """The values of the places `by` earlier."""
    return ops.pad(alpha[:, :-by], ((0, 0), (by, 0)), constant_values=IMPOSSIBLE)


CLASS_NUMBERS.add(ctc)


class CTC(LossFunctionWrapper):
    """Connectionist temporal classification: see `ctc`."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "ctc",
        dtype: Any = None,
    ) -> None:
        super().__init__(ctc, reduction, name, dtype)


SEQUENCES: tuple[type[Loss], ...] = (CTC,)
