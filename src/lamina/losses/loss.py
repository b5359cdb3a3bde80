"""The base of losses, and how the values of single entries become one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamina import config, ops, tree
from lamina.errors import BatchError, ShapeError, layout
from lamina.naming import to_snake_case, unique_name
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import Tensor, convert
from lamina.types import FLOATS, Batch

# Functions whose targets are class numbers. These stay integers, which floating point would round
# where they are large, and stand one rank below the predictions by rule, not by mistake.
CLASS_NUMBERS: set[Callable[..., Any]] = set()

REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)


class Loss:
    """Base of losses: `loss(y_true, y_pred, sample_weight=None)` gives a scalar.

    A subclass overrides `call(y_true, y_pred)`, which gives one value per entry, usually of shape
    (batch, ...) without the last axis of `y_pred`.

    reduction   "sum_over_batch_size" (the sum divided by the number of values), "mean" (the same),
                "mean_with_sample_weight" (divided by the sum of the weights), "sum", or "none"
    dtype       in which is computed; `config.floatx()` if it is not given

    >>> class Quartic(Loss):
    ...     def call(self, y_true, y_pred):
    ...         return ops.mean((y_true - y_pred) ** 4, axis=-1)
    """

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        if reduction not in REDUCTIONS:
            raise ValueError(
                f"{type(self).__name__}: reduction is one of "
                f"{', '.join(repr(known) for known in REDUCTIONS)}, got {reduction!r}."
            )
        self.name = name or unique_name(to_snake_case(type(self).__name__))
        self.reduction = reduction
        self._dtype_argument = dtype

    @property
    def dtype(self) -> str:
        """The dtype in which the loss is computed."""
        return dtype_of(self._dtype_argument)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss, a scalar unless `reduction` is "none".

        y_true, y_pred   tensors or arrays, or nests of them
        sample_weight    one weight per row, or per value of `call`; a mask that `y_pred` carries
                         leaves out the entries that it marks as absent
        """
        y_pred = tree.map_structure(lambda x: with_dtype(x, self.dtype), y_pred)
        y_true = tree.map_structure(self.prepare_target, y_true)
        masks = [getattr(x, "_keras_mask", None) for x in tree.flatten(y_pred)]
        given = next((mask for mask in masks if mask is not None), None)
        values = convert(self.call(y_true, y_pred))
        found = getattr(values, "_keras_mask", None)
        if given is not None and found is not None:
            given = ops.logical_and(*same_rank(given, found))
        return reduce_values(
            values, sample_weight, found if given is None else given, self.reduction
        )

    def prepare_target(self, y_true: Any) -> Tensor:
        """`y_true` as a tensor of the dtype in which the loss is computed."""
        return with_dtype(y_true, self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One value per entry; overridden by every loss."""
        raise NotImplementedError(f"{type(self).__name__} has no call(y_true, y_pred).")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"name": self.name, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        return cls(**config)


class LossFunctionWrapper(Loss):
    """A loss made of a function `fn(y_true, y_pred, **arguments)` that gives one value per entry.

    Targets and predictions whose ranks differ by an axis of size one are brought to one rank.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **arguments: Any,
    ) -> None:
        super().__init__(
            name=name or getattr(fn, "__name__", None), reduction=reduction, dtype=dtype
        )
        self.fn = fn
        self.arguments = arguments

    def prepare_target(self, y_true: Any) -> Tensor:
        y_true = convert(y_true)
        numbers = self.fn in CLASS_NUMBERS and y_true.dtype not in FLOATS
        return y_true if numbers else with_dtype(y_true, self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if not tree.is_nested(y_pred) and self.fn not in CLASS_NUMBERS:
            y_true, y_pred = same_rank(y_true, y_pred)
        return self.fn(y_true, y_pred, **self.arguments)

    def get_config(self) -> dict[str, Any]:
        known = super().get_config()
        if type(self) is LossFunctionWrapper:
            known["fn"] = serialize_keras_object(self.fn)
        return {**known, **self.arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        if isinstance(config.get("fn"), dict):
            config = {**config, "fn": deserialize_keras_object(config["fn"])}
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


# ------------------------------------------------------------------------------- helpers


def dtype_of(given: Any) -> str:
    """The dtype that a `dtype` argument means: a name, a policy (its compute type), or None."""
    if given is None:
        return config.floatx()
    return str(getattr(given, "compute_dtype", given))


def with_dtype(value: Any, dtype: str) -> Tensor:
    """A tensor of that dtype which still carries the mask and the logits of `value`."""
    x = convert(value)
    if x.dtype == dtype:
        return x
    return _carry(x, ops.cast(x, dtype), lambda logits: ops.cast(logits, dtype))


def _carry(old: Tensor, new: Tensor, change: Callable[[Any], Any]) -> Tensor:
    logits = getattr(old, "_keras_logits", None)
    if logits is not None:
        new._keras_logits = change(logits)
    mask = getattr(old, "_keras_mask", None)
    if mask is not None:
        new._keras_mask = mask
    return new


def same_rank(one: Any, other: Any) -> tuple[Any, Any]:
    """Both at one rank, where they differ by one axis of size one at the end.

    A vector gets the axis, so that (N,) beside (N, 1) never becomes (N, N); a tensor of more
    axes loses it.
    """
    one, other = convert(one), convert(other)
    ranks = len(one.shape), len(other.shape)
    if ranks[0] == ranks[1] + 1 and one.shape[-1] == 1:
        if ranks[1] == 1:
            return one, _with_axis(other)
        return _without_axis(one), other
    if ranks[1] == ranks[0] + 1 and other.shape[-1] == 1:
        if ranks[0] == 1:
            return _with_axis(one), other
        return one, _without_axis(other)
    return one, other


def _with_axis(x: Tensor) -> Tensor:
    return _carry(x, ops.expand_dims(x, axis=-1), lambda y: ops.expand_dims(y, axis=-1))


def _without_axis(x: Tensor) -> Tensor:
    return _carry(x, ops.squeeze(x, axis=-1), lambda y: ops.squeeze(y, axis=-1))


def element_count(x: Any, dtype: str) -> Tensor:
    """The number of elements that are there, as a scalar; inside a step it follows the batch."""
    count: Any = 1
    for size in x.shape:
        count = count * size
    return convert(count, dtype)


def reduce_values(values: Any, sample_weight: Any, mask: Any, reduction: str | None) -> Any:
    """One number of many values.

    Weights multiply the values. Values that a mask leaves out count nothing, and the mean is
    taken over the others.
    """
    values = convert(values)
    weight = weight_of(sample_weight, mask, values, reduction)
    if weight is not None:
        values, weight = same_rank(values, weight)
        values = values * aligned(weight, values, "sample_weight", "loss values")
    if reduction in (None, "none") or not values.shape:
        return values
    if reduction == "sum":
        return ops.sum(values)
    if reduction == "mean_with_sample_weight" and weight is not None:
        return ops.divide_no_nan(ops.sum(values), ops.sum(weight))
    return ops.mean(values)


def weight_of(sample_weight: Any, mask: Any, values: Tensor, reduction: str | None) -> Any:
    """Weights and mask as one factor, or None if there is neither."""
    weight = None if sample_weight is None else with_dtype(sample_weight, values.dtype)
    if mask is None:
        return weight
    kept = ops.cast(mask, values.dtype)
    if reduction in ("mean", "sum_over_batch_size"):
        # The mean divides by the number of all; this factor makes it that of those kept.
        kept = kept * ops.divide_no_nan(element_count(kept, values.dtype), ops.sum(kept))
    if weight is None:
        return kept
    kept, weight = same_rank(kept, weight)
    return weight * aligned(kept, weight, "mask", "sample_weight")


def aligned(part: Tensor, whole: Tensor, name: str, other: str) -> Tensor:
    """`part` with axes of size one at its end up to the rank of `whole`.

    raises   ShapeError if the shapes do not fit
    """
    rank = len(whole.shape)
    given = part.shape
    if 0 < len(part.shape) < rank:
        part = ops.reshape(part, (*part.shape, *(1 for _ in range(rank - len(part.shape)))))
    fits = len(part.shape) <= rank and all(
        1 in (a, b) or a == b for a, b in zip(part.shape, whole.shape, strict=False)
    )
    if not fits:
        # A fixed number of rows beside the run-time batch: the caller compiles for that number.
        mixed = isinstance(part.shape[0], Batch) != isinstance(whole.shape[0], Batch)
        raise (BatchError if mixed else ShapeError)(
            layout(
                f"{name} does not fit the {other}.",
                [("weights", str(tuple(given))), ("values", str(tuple(whole.shape)))],
                hint="give one weight per row, or one per value",
            )
        )
    return part
