"""Projections that the optimiser applies to a weight after each update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina import config, ops
from lamina.naming import by_both_names, resolve
from lamina.serialization import deserialize_keras_object, serialize_keras_object

Axes = int | Sequence[int]


class Constraint:
    """Base of projections: `__call__(w)` gives the nearest allowed weight, of the same shape.

    >>> class Halved(Constraint):
    ...     def __call__(self, w):
    ...         return 0.5 * w
    """

    def __call__(self, w: Any) -> Any:
        """The projected weight; `w` itself unless a subclass says otherwise."""
        return w

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Constraint:
        return cls(**config)


def _norms(w: Any, axis: Axes) -> Any:
    axes = axis if isinstance(axis, int) else tuple(axis)
    return ops.sqrt(ops.sum(ops.square(w), axis=axes, keepdims=True))


class MaxNorm(Constraint):
    """Shrink the weights of each unit to a norm of at most `max_value`.

    axis   the axes over which the norm is taken: 0 for Dense, [0, 1, 2] for Conv2D
    """

    def __init__(self, max_value: float = 2, axis: Axes = 0) -> None:
        self.max_value = max_value
        self.axis = axis

    def __call__(self, w: Any) -> Any:
        norms = _norms(w, self.axis)
        return w * (ops.clip(norms, 0, self.max_value) / (config.epsilon() + norms))

    def get_config(self) -> dict[str, Any]:
        return {"max_value": self.max_value, "axis": self.axis}


class NonNeg(Constraint):
    """Set negative weights to zero."""

    def __call__(self, w: Any) -> Any:
        return ops.maximum(w, 0)


class UnitNorm(Constraint):
    """Scale the weights of each unit to norm one; `axis` as for `MaxNorm`."""

    def __init__(self, axis: Axes = 0) -> None:
        self.axis = axis

    def __call__(self, w: Any) -> Any:
        return w / (config.epsilon() + _norms(w, self.axis))

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis}


class MinMaxNorm(Constraint):
    """Move the norm of each unit's weights towards [`min_value`, `max_value`].

    rate   in [0, 1]: 1 enforces the range at every step, less moves that share of the way
    axis   as for `MaxNorm`
    """

    def __init__(
        self,
        min_value: float = 0.0,
        max_value: float = 1.0,
        rate: float = 1.0,
        axis: Axes = 0,
    ) -> None:
        self.min_value = min_value
        self.max_value = max_value
        self.rate = rate
        self.axis = axis

    def __call__(self, w: Any) -> Any:
        norms = _norms(w, self.axis)
        inside = ops.clip(norms, self.min_value, self.max_value)
        desired = self.rate * inside + (1 - self.rate) * norms
        return w * (desired / (config.epsilon() + norms))

    def get_config(self) -> dict[str, Any]:
        return {
            "min_value": self.min_value,
            "max_value": self.max_value,
            "rate": self.rate,
            "axis": self.axis,
        }


max_norm = MaxNorm
non_neg = NonNeg
unit_norm = UnitNorm
min_max_norm = MinMaxNorm

OBJECTS: dict[str, Any] = {
    **by_both_names(Constraint, MaxNorm, NonNeg, UnitNorm, MinMaxNorm),
    "nonneg": NonNeg,
    "unitnorm": UnitNorm,
    "maxnorm": MaxNorm,
    "minmaxnorm": MinMaxNorm,
}


def get(identifier: Any) -> Any:
    """A constraint from a string ("non_neg"), a configuration, a class, or a callable."""
    return resolve(identifier, OBJECTS, "constraint", "keras.constraints")


def serialize(constraint: Constraint) -> dict[str, Any]:
    """The constraint as plain data."""
    data: dict[str, Any] = serialize_keras_object(constraint)
    return data


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
    """The constraint that `serialize` wrote."""
    return deserialize_keras_object(config, custom_objects, within="keras.constraints")
