"""Layers that change no numbers, or that apply a function: inputs, activations, lambdas, masks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from lamina import activations, ops
from lamina.errors import ShapeError
from lamina.layers.layer import Layer, set_mask
from lamina.layers.symbolic import KerasTensor, Node
from lamina.naming import unique_name
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import as_dtype


class InputLayer(Layer):
    """The entry of a functional model; usually made by `Input`."""

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: Any = None,
        sparse: bool | None = None,
        batch_shape: Any = None,
        input_tensor: Any = None,
        optional: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name)
        if "input_shape" in kwargs and shape is None:
            shape = kwargs.pop("input_shape")
        if shape is not None and batch_shape is not None:
            raise ValueError(f"{self.name}: give shape or batch_shape, not both")
        if shape is None and batch_shape is None and input_tensor is None:
            raise ValueError(f"{self.name}: an input needs a shape (without the batch axis)")
        if input_tensor is not None:
            batch_shape, dtype = input_tensor.shape, input_tensor.dtype
        elif batch_shape is None:
            inner = (shape,) if isinstance(shape, int) else tuple(shape)
            batch_shape = (batch_size, *inner)
        self._batch_shape = tuple(None if s is None else int(s) for s in batch_shape)
        if any(size is not None and size < 1 for size in self._batch_shape):
            raise ShapeError(f"{self.name}: sizes are positive or None, got {self._batch_shape}")
        self._dtype = as_dtype(dtype)
        self.sparse = bool(sparse)
        self.optional = optional
        self.built = True
        tensor = input_tensor
        if tensor is None:
            tensor = KerasTensor(self._batch_shape, self._dtype, name=self.name)
        Node(self, (), {}, tensor)

    @property
    def batch_shape(self) -> tuple[int | None, ...]:
        return self._batch_shape

    @property
    def dtype(self) -> str:
        return self._dtype

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args else None

    def get_config(self) -> dict[str, Any]:
        return {
            "batch_shape": self._batch_shape,
            "dtype": self._dtype,
            "sparse": self.sparse,
            "ragged": False,
            "optional": self.optional,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InputLayer:
        known = {key: value for key, value in config.items() if key not in ("ragged", "trainable")}
        return cls(**known)


def Input(  # noqa: N802  # Keras's name
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: bool | None = None,
    batch_shape: Any = None,
    name: str | None = None,
    tensor: Any = None,
    optional: bool = False,
    **kwargs: Any,
) -> Any:
    """A symbolic tensor with which a functional model begins.

    shape   the sizes of one sample, without the batch axis; None for a size that may vary

    >>> Input((28, 28)).shape
    (None, 28, 28)
    """
    layer = InputLayer(
        shape=shape,
        batch_size=batch_size,
        dtype=dtype,
        sparse=sparse,
        batch_shape=batch_shape,
        input_tensor=tensor,
        optional=optional,
        name=name or unique_name("input_layer"),
        **kwargs,
    )
    return layer.output


class Activation(Layer):
    """`activation(inputs)`.

    activation   a function, or its name
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.activation = activations.get(activation)
        self.built = True

    def call(self, inputs: Any) -> Any:
        return inputs if self.activation is None else self.activation(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "activation": activations.serialize(self.activation)}


class Identity(Layer):
    """The inputs themselves."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any) -> Any:
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class Lambda(Layer):
    """Any function of tensors as a layer. A function with weights needs a Layer of its own.

    function    takes the inputs, and if it wants `mask` and `training`
    arguments   further keyword arguments for it

    A model that holds one is saved without the function: pass it in `custom_objects`, or register
    it, to load the model again.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        output_shape: Any = None,
        mask: Any = None,
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(function):
            raise TypeError(f"{self.name}: a function is expected, got {type(function).__name__}")
        self.function = function
        self.arguments = arguments or {}
        self.mask = mask
        self._output_shape = output_shape
        self.supports_masking = mask is not None
        self.built = True

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        accepted = inspect.signature(self.function).parameters
        extra = {"mask": mask, "training": training}
        given = {key: value for key, value in extra.items() if key in accepted}
        return self.function(inputs, **{**self.arguments, **given})

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return self.mask(inputs, previous_mask) if callable(self.mask) else self.mask

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "function": serialize_keras_object(self.function),
            "arguments": self.arguments,
            "output_shape": self._output_shape,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Lambda:
        config = dict(config)
        if not callable(config["function"]):
            config["function"] = deserialize_keras_object(config["function"])
        if isinstance(config.get("output_shape"), list):
            config["output_shape"] = tuple(config["output_shape"])
        return cls(**config)


class Masking(Layer):
    """Marks time steps that hold `mask_value` in all features, and sets them to 0.

    inputs (batch, time, features); the mask (batch, time) is true at steps that count.
    """

    def __init__(self, mask_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_value = mask_value
        self.supports_masking = True
        self.built = True

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)

    def call(self, inputs: Any) -> Any:
        counts = ops.any(ops.not_equal(inputs, self.mask_value), axis=-1, keepdims=True)
        outputs = inputs * ops.cast(counts, inputs.dtype)
        return set_mask(outputs, ops.squeeze(counts, -1))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mask_value": self.mask_value}


class ActivityRegularization(Layer):
    """The inputs themselves; adds `l1 * sum(|x|) + l2 * sum(x^2)`, per row, to the loss."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(
            activity_regularizer={"class_name": "L1L2", "config": {"l1": l1, "l2": l2}}
            if l1 or l2
            else None,
            **kwargs,
        )
        self.l1, self.l2 = l1, l2
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any) -> Any:
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("activity_regularizer", None)
        return {**config, "l1": self.l1, "l2": self.l2}
