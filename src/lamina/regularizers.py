"""Penalties on weights and activations that are added to the loss."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from lamina import ops
from lamina.errors import ShapeError, layout
from lamina.naming import by_both_names, resolve
from lamina.serialization import deserialize_keras_object, serialize_keras_object


class Regularizer:
    """Base of penalties: `__call__(x)` gives a scalar that is added to the loss.

    >>> class Sparse(Regularizer):
    ...     def __call__(self, x):
    ...         return 0.1 * ops.sum(ops.abs(x))
    """

    def __call__(self, x: Any) -> Any:
        """The penalty of the tensor `x`, a scalar; 0 unless a subclass says otherwise."""
        return 0.0

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        raise NotImplementedError(
            f"{type(self).__name__} has no get_config(), which saving a model needs."
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Regularizer:
        return cls(**config)


class L1L2(Regularizer):
    """`l1 * sum(|x|) + l2 * sum(x^2)`; each factor is a non-negative number."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = _factor("l1", 0.0 if l1 is None else l1)
        self.l2 = _factor("l2", 0.0 if l2 is None else l2)

    def __call__(self, x: Any) -> Any:
        penalty: Any = 0.0
        if self.l1:
            penalty = penalty + self.l1 * ops.sum(ops.abs(x))
        if self.l2:
            penalty = penalty + self.l2 * ops.sum(ops.square(x))
        return penalty

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1, "l2": self.l2}


class L1(Regularizer):
    """`l1 * sum(|x|)`."""

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = _factor("l1", 0.01 if l1 is None else l1)

    def __call__(self, x: Any) -> Any:
        return self.l1 * ops.sum(ops.abs(x))

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1}


class L2(Regularizer):
    """`l2 * sum(x^2)`."""

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = _factor("l2", 0.01 if l2 is None else l2)

    def __call__(self, x: Any) -> Any:
        return self.l2 * ops.sum(ops.square(x))

    def get_config(self) -> dict[str, Any]:
        return {"l2": self.l2}


class OrthogonalRegularizer(Regularizer):
    """Mean absolute cosine between distinct rows (or columns) of a matrix, times `factor`.

    factor   a non-negative number
    mode     "rows" or "columns"
    raises   ShapeError when called with anything but a matrix
    source   Brock et al. 2017, in the form that Keras uses
    """

    MODES: ClassVar[tuple[str, ...]] = ("rows", "columns")

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        self.factor = _factor("factor", factor)
        if mode not in self.MODES:
            raise ValueError(f"OrthogonalRegularizer: mode is 'rows' or 'columns', got {mode!r}.")
        self.mode = mode

    def __call__(self, x: Any) -> Any:
        if len(x.shape) != 2:
            raise ShapeError(
                layout(
                    f"OrthogonalRegularizer: expected a matrix, got {len(x.shape)} axes.",
                    [("inputs", str(tuple(x.shape)))],
                )
            )
        rows = x if self.mode == "rows" else ops.transpose(x)
        size: Any = rows.shape[0]
        # As Keras normalises: a row of zeros stays one.
        rows = rows * ops.rsqrt(ops.maximum(ops.sum(ops.square(rows), -1, keepdims=True), 1e-12))
        products = ops.matmul(rows, ops.transpose(rows)) * (1.0 - ops.eye(size, dtype=rows.dtype))
        return self.factor * 0.5 * ops.sum(ops.abs(products)) / (size * (size - 1.0) / 2.0)

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor, "mode": self.mode}


def _factor(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a non-negative number, got {type(value).__name__}.")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is a non-negative number, got {value}.")
    return float(value)


l1 = L1
l2 = L2
l1_l2 = L1L2
orthogonal_regularizer = OrthogonalRegularizer

OBJECTS: dict[str, Any] = {
    **by_both_names(Regularizer, L1L2, L1, L2, OrthogonalRegularizer),
    "l1": L1,
    "l2": L2,
    "l1_l2": L1L2,
}


def get(identifier: Any) -> Any:
    """A regularizer from a string ("l2"), a configuration, a class, or a callable.

    >>> get("l2").l2
    0.01
    """
    return resolve(identifier, OBJECTS, "regularizer", "keras.regularizers")


def serialize(regularizer: Regularizer) -> dict[str, Any]:
    """The regularizer as plain data."""
    data: dict[str, Any] = serialize_keras_object(regularizer)
    return data


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
    """The regularizer that `serialize` wrote."""
    return deserialize_keras_object(config, custom_objects, within="keras.regularizers")
