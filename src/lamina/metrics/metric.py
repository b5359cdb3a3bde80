"""The base of metrics, and the two that all others are made of: sums and means over batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lamina import config, initializers, ops
from lamina.ir.graph import scope
from lamina.losses.loss import aligned, dtype_of, same_rank, weight_of, with_dtype
from lamina.naming import to_snake_case, unique_name
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import Tensor, Variable, convert


class Metric:
    """Base of metrics: numbers that are gathered over the batches of an epoch.

    A subclass makes its state with `add_variable`, changes it in `update_state(...)` and computes
    the number from it in `result()`.

    >>> class Largest(Metric):
    ...     def __init__(self):
    ...         super().__init__(name="largest")
    ...         self.value = self.add_variable((), "zeros", name="value")
    ...
    ...     def update_state(self, y_true, y_pred, sample_weight=None):
    ...         self.value.assign(ops.maximum(self.value, ops.max(y_pred)))
    ...
    ...     def result(self):
    ...         return self.value.value
    """

    # Whether a larger value is better ("up") or worse ("down"); callbacks ask for it.
    _direction: str | None = None
    _variables: list[Variable]
    _metrics: list[Metric]

    def __init__(self, dtype: Any = None, name: str | None = None) -> None:
        self._metrics = []
        self._variables = []
        self.name: str = name or unique_name(to_snake_case(type(self).__name__))
        self._dtype = dtype_of(dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        # Variables and metrics that a subclass keeps as attributes are part of the state.
        if isinstance(value, Variable) and not any(value is known for known in self._variables):
            self._variables.append(value)
        elif isinstance(value, Metric):
            self._metrics.append(value)
        elif isinstance(value, list) and name not in {"_metrics", "_variables"}:
            self._metrics += [part for part in value if isinstance(part, Metric)]
        super().__setattr__(name, value)

    @property
    def dtype(self) -> str:
        """The dtype in which the metric is computed."""
        return self._dtype

    @property
    def variables(self) -> list[Variable]:
        """All state, that of inner metrics included."""
        return [*self._variables, *(v for metric in self._metrics for v in metric.variables)]

    def add_variable(
        self,
        shape: Sequence[int] = (),
        initializer: Any = "zeros",
        dtype: Any = None,
        name: str | None = None,
    ) -> Variable:
        """A new piece of state."""
        with scope(self.name.replace("/", ">")):
            variable = Variable(
                initializers.get("zeros" if initializer is None else initializer),
                shape=tuple(shape),
                dtype=dtype or self.dtype,
                trainable=False,
                autocast=False,
                name=name,
            )
        self._variables.append(variable)
        return variable

    def add_weight(
        self,
        shape: Sequence[int] = (),
        initializer: Any = None,
        dtype: Any = None,
        name: str | None = None,
    ) -> Variable:
        """`add_variable`, under the name that Keras 2 had for it."""
        return self.add_variable(shape, initializer, dtype, name)

    def update_state(self, *args: Any, **kwargs: Any) -> Any:
        """Take one batch into account; overridden by every metric."""
        raise NotImplementedError(f"{type(self).__name__} has no update_state.")

    def result(self) -> Any:
        """The number so far; overridden by every metric."""
        raise NotImplementedError(f"{type(self).__name__} has no result.")

    def reset_state(self) -> None:
        """Forget all batches: every piece of state becomes zero."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape, variable.numpy().dtype))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take a batch into account and give the number so far."""
        self.update_state(*args, **kwargs)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def by_sample(
    values: Any, sample_weight: Any, reduce: Callable[..., Any], dtype: str
) -> tuple[Tensor, Tensor | None]:
    """One value, and one weight, per row of the batch.

    values          (batch, ...)
    sample_weight   (batch,) or more of the axes of the values; None for equal weights
    """
    mask = getattr(values, "_keras_mask", None)
    values = ops.cast(values, dtype)
    weight = None
    if sample_weight is not None:
        weight = with_dtype(sample_weight, dtype)
        if mask is not None:
            weight = weight_of(weight, mask, values, "sum")
        values, weight = same_rank(values, weight)
        weight_rank, rank = len(weight.shape), len(values.shape)
        if rank > weight_rank:
            values = reduce(values, axis=tuple(range(weight_rank, rank)))
        weight = aligned(weight, values, "sample_weight", "values")
        values = values * weight
        if weight_rank > 1:
            weight = ops.broadcast_to(weight, values.shape)
            weight = reduce(weight, axis=tuple(range(1, weight_rank)))
        elif len(values.shape) and not weight.shape:
            weight = ops.broadcast_to(weight, values.shape)
    if len(values.shape) > 1:
        values = reduce(values, axis=tuple(range(1, len(values.shape))))
    return values, weight


class Sum(Metric):
    """The sum of all values, times their weights.

    >>> metric = Sum()
    >>> metric.update_state([1.0, 2.0, 4.0])
    >>> float(metric.result())
    7.0
    """

    def __init__(self, name: str = "sum", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable(name="total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        values, _ = by_sample(convert(values), sample_weight, ops.sum, self.dtype)
        self.total.assign_add(ops.sum(values))

    def result(self) -> Any:
        return self.total.value


class Mean(Metric):
    """The mean of all values, by their weights; 0 before there are any.

    >>> metric = Mean()
    >>> metric.update_state([1.0, 3.0], sample_weight=[3.0, 1.0])
    >>> float(metric.result())
    1.5
    """

    def __init__(self, name: str = "mean", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        values, weight = by_sample(convert(values), sample_weight, ops.mean, self.dtype)
        self.total.assign_add(ops.sum(values))
        if weight is not None:
            self.count.assign_add(ops.sum(weight))
        else:
            rows = values.shape[0] if values.shape else 1
            self.count.assign_add(convert(rows, self.dtype))

    def result(self) -> Any:
        return ops.divide_no_nan(self.total, self.count)


class MeanMetricWrapper(Mean):
    """The mean of what a function `fn(y_true, y_pred, **arguments)` gives for each entry.

    A mask that `y_pred` carries leaves entries out.
    """

    def __init__(
        self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **arguments: Any
    ) -> None:
        super().__init__(name or str(getattr(fn, "__name__", "metric")), dtype)
        self._fn = fn
        self._arguments = arguments

    def update_state(  # type: ignore[override]  # other arguments than a mean of values
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> None:
        y_true, y_pred = convert(y_true), convert(y_pred)
        mask = getattr(y_pred, "_keras_mask", None)
        values = convert(self._fn(y_true, y_pred, **self._arguments))
        if mask is not None:
            weight = None if sample_weight is None else with_dtype(sample_weight, self.dtype)
            sample_weight = weight_of(weight, mask, ops.cast(values, self.dtype), "sum")
        super().update_state(values, sample_weight)

    def get_config(self) -> dict[str, Any]:
        known = super().get_config()
        if type(self) is MeanMetricWrapper:
            known["fn"] = serialize_keras_object(self._fn)
        return {**known, **self._arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        if isinstance(config.get("fn"), dict):
            config = {**config, "fn": deserialize_keras_object(config["fn"])}
        return cls(**config)


def floatx_of(truth: Any) -> Tensor:
    """Truth values as 0 and 1."""
    return ops.cast(truth, config.floatx())
