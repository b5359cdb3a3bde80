"""Layers around layers: both directions of a sequence, each step by itself."""

from __future__ import annotations

from typing import Any

from lamina import ops, tree
from lamina.errors import ShapeError, layout
from lamina.initializers import TruncatedNormal
from lamina.layers.cells import takes
from lamina.layers.layer import Layer
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import Variable, convert

MERGES = ("concat", "sum", "ave", "mul", None)


class Wrapper(Layer):
    """Base of layers that run another layer, `layer`."""

    layer: Any

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(layer, Layer):
            raise TypeError(f"{self.name}: expected a layer, got {type(layer).__name__}.")
        self.layer = layer

    def build(self, input_shape: Any = None) -> None:
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer": serialize_keras_object(self.layer)}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Any:
        config = dict(config)
        return cls(deserialize_keras_object(config.pop("layer"), custom_objects), **config)


class TimeDistributed(Wrapper):
    """A layer applied to each step of a sequence (batch, steps, ...) by itself.

    All steps run together, as one batch of batch * steps rows.

    raises   ShapeError for inputs of less than three axes
    """

    supports_masking = True

    def build(self, input_shape: Any = None) -> None:
        if len(input_shape) < 3:
            raise ShapeError(
                layout(
                    f"{self.name}: expected inputs (batch, steps, ...).",
                    [("inputs", str(tuple(input_shape)))],
                )
            )
        super().build((input_shape[0], *input_shape[2:]))

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        rows, steps, *rest = inputs.shape
        kwargs: dict[str, Any] = {}
        if mask is not None and takes(self.layer.call, "mask") and len(mask.shape) > 2:
            kwargs["mask"] = ops.reshape(mask, (rows * steps, *mask.shape[2:]))
        if takes(self.layer.call, "training"):
            kwargs["training"] = training
        outputs = self.layer(ops.reshape(inputs, (rows * steps, *rest)), **kwargs)
        return tree.map_structure(
            lambda x: ops.reshape(x, (rows, steps, *convert(x).shape[1:])), outputs
        )


class SpectralNormalization(Wrapper):
    """Keeps the largest singular value of a layer's kernel at one (Miyato et al. 2018).

    power_iterations   steps of the power iteration at each training step

    The kernel itself is divided in training, as in Keras; a kernel of zeros stays as it is.
    """

    vector_u: Variable

    def __init__(self, layer: Any, power_iterations: int = 1, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        if not isinstance(power_iterations, int) or power_iterations < 1:
            raise ValueError(
                f"{self.name}: power_iterations is a positive integer, got {power_iterations!r}."
            )
        self.power_iterations = power_iterations

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        # As an attribute of its own the kernel comes first among the weights, as in Keras's files.
        self.kernel = self._kernel()
        self.vector_u = self.add_weight(
            shape=(1, self.kernel.shape[-1]),
            initializer=TruncatedNormal(stddev=0.02),
            trainable=False,
            name="vector_u",
        )

    def _kernel(self) -> Variable:
        for name in ("kernel", "embeddings"):
            found = getattr(self.layer, name, None)
            if isinstance(found, Variable):
                return found
        raise TypeError(f"{self.name}: {type(self.layer).__name__} has no kernel to normalise.")

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            self._normalise(self.kernel)
        return self.layer(inputs)

    def _normalise(self, kernel: Variable) -> None:
        matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
        u = self.vector_u.value
        for _ in range(self.power_iterations):
            v = _unit(ops.matmul(u, ops.transpose(matrix)))
            u = _unit(ops.matmul(v, matrix))
        u, v = ops.stop_gradient(u), ops.stop_gradient(v)
        largest = ops.reshape(ops.matmul(ops.matmul(v, matrix), ops.transpose(u)), ())
        empty = ops.all(ops.equal(kernel, 0.0))
        kernel.assign(ops.where(empty, kernel, kernel / ops.where(empty, 1.0, largest)))
        self.vector_u.assign(ops.where(empty, self.vector_u, u))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power_iterations": self.power_iterations}


def _unit(x: Any) -> Any:
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x)), 1e-12))


class Bidirectional(Layer):
    """A recurrent layer run forwards, and a copy of it run backwards; their outputs joined.

    layer            a recurrent layer
    merge_mode       "concat", "sum", "ave", "mul", or None (both outputs, apart)
    backward_layer   another layer for the way back; it must go in the other direction

    >>> import numpy as np
    >>> from lamina.layers.recurrent import LSTM
    >>> Bidirectional(LSTM(4))(np.ones((2, 5, 3), "float32")).shape
    (2, 8)
    """

    supports_masking = True

    def __init__(
        self,
        layer: Any,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for given in (layer, *(() if backward_layer is None else (backward_layer,))):
            if not isinstance(given, Layer) or not hasattr(given, "go_backwards"):
                raise TypeError(
                    f"{self.name}: expected a recurrent layer, got {type(given).__name__}."
                )
        if merge_mode not in MERGES:
            raise ValueError(
                f"{self.name}: merge_mode is one of {', '.join(map(repr, MERGES))}, "
                f"got {merge_mode!r}."
            )
        self.merge_mode = merge_mode
        self.forward_layer: Any = _copy(layer, "forward")
        self.backward_layer: Any = (
            _copy(layer, "backward", not layer.go_backwards)
            if backward_layer is None
            else backward_layer
        )
        if self.forward_layer.go_backwards == self.backward_layer.go_backwards:
            raise ValueError(
                f"{self.name}: the two layers must go in different directions; give one of them "
                "go_backwards=True."
            )
        for option in ("stateful", "return_sequences", "return_state"):
            if getattr(self.forward_layer, option) != getattr(self.backward_layer, option):
                raise ValueError(f"{self.name}: the two layers differ in {option}.")
        self.return_sequences = bool(layer.return_sequences)
        self.return_state = bool(layer.return_state)
        self.stateful = bool(layer.stateful)
        self._given_weights = weights

    @property
    def layer(self) -> Any:
        """The layer that runs forwards."""
        return self.forward_layer

    def build(self, sequences_shape: Any = None, initial_state_shape: Any = None) -> None:
        for layer in (self.forward_layer, self.backward_layer):
            if not layer.built:
                layer.build(sequences_shape)
                layer.built = True
        if self._given_weights is not None:
            self.set_weights(self._given_weights)
            self._given_weights = None

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool | None = None,
    ) -> Any:
        ahead, back = None, None
        if initial_state is not None:
            half = len(initial_state) // 2
            ahead, back = initial_state[:half], initial_state[half:]
        options = {"mask": mask, "training": training}
        y = self.forward_layer(sequences, initial_state=ahead, **options)
        z = self.backward_layer(sequences, initial_state=back, **options)
        states: tuple[Any, ...] = ()
        if self.return_state:
            states = (*y[1:], *z[1:])
            y, z = y[0], z[0]
        y, z = ops.cast(y, self.compute_dtype), ops.cast(z, self.compute_dtype)
        if self.return_sequences:
            z = ops.flip(z, 1)
        if self.merge_mode is None:
            return (y, z, *states)
        output = {
            "concat": lambda: ops.concatenate([y, z], axis=-1),
            "sum": lambda: y + z,
            "ave": lambda: (y + z) / 2.0,
            "mul": lambda: y * z,
        }[self.merge_mode]()
        return (output, *states) if self.return_state else output

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        mask = tree.flatten(previous_mask)[0] if tree.is_nested(previous_mask) else previous_mask
        kept = mask if self.return_sequences else None
        found = [kept, kept] if self.merge_mode is None else [kept]
        if self.return_state:
            count = len(self.forward_layer.state_size) + len(self.backward_layer.state_size)
            found += [None] * count
        return found if len(found) > 1 else found[0]

    def reset_state(self) -> None:
        """Let stateful layers begin at zero again."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    def reset_states(self) -> None:
        """`reset_state`, under its old name."""
        self.reset_state()

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "merge_mode": self.merge_mode,
            "layer": serialize_keras_object(self.forward_layer),
            "backward_layer": serialize_keras_object(self.backward_layer),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Any:
        config = dict(config)
        for name in ("layer", "backward_layer"):
            if config.get(name) is not None:
                config[name] = deserialize_keras_object(config[name], custom_objects)
        return cls(**config)


def _copy(layer: Any, direction: str, go_backwards: bool | None = None) -> Any:
    """A layer of the same configuration, named after its direction."""
    data = serialize_keras_object(layer)
    data.pop("build_config", None)
    name = data["config"]["name"].removeprefix("forward_").removeprefix("backward_")
    data["config"]["name"] = f"{direction}_{name}"
    if go_backwards is not None:
        data["config"]["go_backwards"] = go_backwards
    return type(layer).from_config(data["config"])
