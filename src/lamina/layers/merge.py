"""Layers that join several inputs into one: sums, products, concatenation, dot products."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from lamina import ops
from lamina.errors import ShapeError, layout
from lamina.layers.layer import Layer
from lamina.layers.spec import described


class _Merge(Layer):
    """Element by element over a list of at least two inputs.

    Inputs with fewer axes get axes of size 1 behind the batch, as in Keras.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        if not isinstance(input_shape, (list, tuple)) or not all(
            isinstance(shape, (list, tuple)) for shape in input_shape
        ):
            raise ShapeError(f"{self.name}: a list of inputs is expected, got one input")
        if len(input_shape) < 1:
            raise ShapeError(f"{self.name}: a list of inputs is expected, got an empty list")

    def _merge(self, inputs: list[Any]) -> Any:
        raise NotImplementedError

    def call(self, inputs: Any) -> Any:
        rank = max(len(x.shape) for x in inputs)
        aligned = [_with_rank(x, rank) for x in inputs]
        try:
            return self._merge(aligned)
        except ShapeError as error:
            if "do not broadcast" not in str(error):
                raise
            details = [(f"input {i + 1}", described(x)) for i, x in enumerate(inputs)]
            raise type(error)(
                layout(f"{self.name}: the inputs do not broadcast to one shape.", details)
            ) from None

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        masks = [mask for mask in previous_mask or [] if mask is not None]
        if len(masks) < len(inputs):
            return None
        return functools.reduce(ops.logical_and, masks)


def _with_rank(x: Any, rank: int) -> Any:
    missing = rank - len(x.shape)
    if not missing:
        return x
    return ops.reshape(x, (x.shape[0], *(1,) * missing, *x.shape[1:]))


class Add(_Merge):
    """The sum of the inputs."""

    def _merge(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.add, inputs)


class Subtract(_Merge):
    """The first of two inputs minus the second."""

    def _merge(self, inputs: list[Any]) -> Any:
        if len(inputs) != 2:
            raise ShapeError(f"{self.name}: two inputs are expected, got {len(inputs)}")
        return ops.subtract(inputs[0], inputs[1])


class Multiply(_Merge):
    """The product of the inputs."""

    def _merge(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.multiply, inputs)


class Average(_Merge):
    """The mean of the inputs."""

    def _merge(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.add, inputs) / len(inputs)


class Maximum(_Merge):
    """The largest of the inputs."""

    def _merge(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.maximum, inputs)


class Minimum(_Merge):
    """The smallest of the inputs."""

    def _merge(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.minimum, inputs)


class Concatenate(Layer):
    """The inputs joined along an axis; the other axes must agree."""

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        if not isinstance(input_shape, (list, tuple)) or not all(
            isinstance(shape, (list, tuple)) for shape in input_shape
        ):
            raise ShapeError(f"{self.name}: a list of inputs is expected, got one input")
        if not input_shape:
            raise ShapeError(f"{self.name}: a list of inputs is expected, got an empty list")
        rank = len(input_shape[0])
        at = self.axis % rank if -rank <= self.axis < rank else None
        first = input_shape[0]
        for shape in input_shape:
            differs = (
                at is None
                or len(shape) != rank
                or any(
                    None not in (a, b) and a != b
                    for axis, (a, b) in enumerate(zip(shape, first, strict=False))
                    if axis != at
                )
            )
            if differs:
                details = [(f"input {i + 1}", str(s)) for i, s in enumerate(input_shape)]
                raise ShapeError(
                    layout(
                        f"{self.name}: the inputs must agree on all axes but axis {self.axis}.",
                        details,
                    )
                )

    def call(self, inputs: Any) -> Any:
        return ops.concatenate(inputs, axis=self.axis)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        masks = previous_mask or []
        if not isinstance(masks, (list, tuple)) or all(mask is None for mask in masks):
            return None
        full = []
        for x, mask in zip(inputs, masks, strict=True):
            if mask is None:
                full.append(ops.ones_like(x, dtype="bool"))
            else:
                wide = ops.reshape(mask, (*mask.shape, *(1,) * (len(x.shape) - len(mask.shape))))
                full.append(ops.broadcast_to(wide, x.shape))
        return ops.all(ops.concatenate(full, axis=self.axis), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


class Dot(Layer):
    """The products of two inputs over one axis of each, row by row of the batch.

    axes        the axis of both, or one each; the batch axis 0 cannot be summed over
    normalize   scale both to length 1 first: the cosine of their angle
    """

    def __init__(self, axes: Any, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes = axes if isinstance(axes, int) else tuple(axes)
        self.normalize = normalize
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        if len(inputs) != 2:
            raise ShapeError(f"{self.name}: two inputs are expected, got {len(inputs)}")
        pair = (self.axes, self.axes) if isinstance(self.axes, int) else self.axes
        a, b = inputs
        i, j = (axis % len(x.shape) for axis, x in zip(pair, inputs, strict=True))
        if not i or not j or a.shape[i] != b.shape[j]:
            details = [("input 1", described(a)), ("input 2", described(b))]
            raise ShapeError(
                layout(f"{self.name}: axes {i} and {j} cannot be summed together.", details)
            )
        if self.normalize:
            a, b = ops.normalize(a, axis=i), ops.normalize(b, axis=j)
        letters = "abcdefghijklmnop"
        left = letters[: len(a.shape)]
        right = [left[0], *letters[len(a.shape) : len(a.shape) + len(b.shape) - 1]]
        right[j] = left[i]
        kept = [one for one in left if one != left[i]] + [
            one for k, one in enumerate(right) if k not in (0, j)
        ]
        result = ops.einsum(f"{left},{''.join(right)}->{''.join(kept)}", a, b)
        return ops.expand_dims(result, 1) if len(result.shape) == 1 else result

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axes": self.axes, "normalize": self.normalize}


def _function(layer: Callable[..., Layer], name: str) -> Callable[..., Any]:
    def merged(inputs: Sequence[Any], **kwargs: Any) -> Any:
        return layer(**kwargs)(inputs)

    merged.__name__ = merged.__qualname__ = name
    merged.__doc__ = f"`{getattr(layer, '__name__', name)}` applied to a list of inputs."
    return merged


add = _function(Add, "add")
subtract = _function(Subtract, "subtract")
multiply = _function(Multiply, "multiply")
average = _function(Average, "average")
maximum = _function(Maximum, "maximum")
minimum = _function(Minimum, "minimum")


def concatenate(inputs: Sequence[Any], axis: int = -1, **kwargs: Any) -> Any:
    """`Concatenate` applied to a list of inputs."""
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs: Sequence[Any], axes: Any = -1, **kwargs: Any) -> Any:
    """`Dot` applied to two inputs."""
    return Dot(axes=axes, **kwargs)(inputs)
