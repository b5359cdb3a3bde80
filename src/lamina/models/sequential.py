"""Sequential: one layer after another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina import serialization, tree
from lamina.errors import ShapeError, layout
from lamina.layers.core import InputLayer
from lamina.layers.layer import Layer
from lamina.layers.symbolic import KerasTensor, is_keras_tensor
from lamina.models.graph import CallGraph
from lamina.models.model import Model


class Sequential(Model):
    """A chain of layers, each with one input and one output.

    layers   the layers; an `Input` in front fixes the shape, otherwise the first batch does

    >>> import lamina
    >>> model = Sequential([lamina.Input((4,)), lamina.layers.Dense(2)])
    >>> model.count_params()
    10
    """

    _keras_layers_first = True

    def __init__(
        self,
        layers: Iterable[Any] | None = None,
        trainable: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._entry: InputLayer | None = None
        self._entry_is_deferred = False  # made from a first batch, whose dtype binds no other
        self._chain: list[Layer] = []
        for layer in layers or ():
            self.add(layer)
        if not trainable:
            self.trainable = False

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the input."""
        return list(self._chain)

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Put a layer behind the others.

        raises   ValueError for a second layer of the same name, TypeError for something else
        """
        del rebuild
        if is_keras_tensor(layer) and layer._keras_history is not None:
            layer = layer._keras_history.operation
        if not isinstance(layer, Layer):
            raise TypeError(
                layout(
                    f"{self.name}: only layers can be added, got {type(layer).__name__}.",
                    hint="did you forget the ()?"
                    if isinstance(layer, type)
                    else "a function becomes a layer by layers.Lambda(function)",
                )
            )
        if any(known.name == layer.name for known in self._chain):
            raise ValueError(
                layout(
                    f"{self.name}: there is already a layer called {layer.name!r}.",
                    hint="give one of them another name=",
                )
            )
        if isinstance(layer, InputLayer):
            if self._entry is not None or self._chain:
                raise ValueError(f"{self.name}: an Input stands in front of all layers, once.")
            self._entry = layer
            self._steps.clear()
            return
        if not self._chain and self._entry is None and hasattr(layer, "_given_shape"):
            self._entry = InputLayer(batch_shape=layer._given_shape)
        if self._entry is not None:
            tail = self._graph.outputs if self._graph is not None else self._entry.output
            self._connect(tail, [layer])
        else:
            self.built = False
        self._chain.append(layer)
        self._steps.clear()

    def _connect(self, tail: KerasTensor, layers: Iterable[Layer]) -> None:
        """Extend the symbolic chain by these layers."""
        assert self._entry is not None
        for layer in layers:
            tail = layer(tail)
            if not is_keras_tensor(tail):
                raise ShapeError(
                    layout(
                        f"{self.name}: {layer.name} has several outputs.",
                        hint="use the functional form: Model(inputs, outputs)",
                    )
                )
        self._graph = CallGraph(self._entry.output, tail)
        self.built = True

    def pop(self, rebuild: bool = True) -> Layer:
        """Take the last layer off, and give it."""
        del rebuild
        if not self._chain:
            raise ValueError(f"{self.name}: there is no layer to take off.")
        layer = self._chain.pop()
        if self._graph is not None and self._entry is not None:
            node = self._graph.nodes[-1]
            layer._inbound_nodes = [one for one in layer._inbound_nodes if one is not node]
            if self._chain:
                self._graph = CallGraph(self._entry.output, node.input_tensors[0])
            else:
                self._graph = None
                self.built = False
        self._steps.clear()
        return layer

    def build(self, input_shape: Any = None) -> None:
        """Make the weights for inputs of this shape (None for the batch size)."""
        if self._graph is not None or not self._chain:
            return
        if input_shape is None:
            raise ValueError(
                layout(
                    f"{self.name}: the shape of the input is not known.",
                    hint="put Input(shape) in front, call the model on a batch, or pass "
                    "build(input_shape)",
                )
            )
        if not all(size is None or isinstance(size, int) for size in input_shape):
            raise ShapeError(f"{self.name}: a Sequential has one input, got shapes {input_shape}.")
        dtype = self._chain[0].compute_dtype
        self._entry = InputLayer(batch_shape=tuple(input_shape), dtype=dtype)
        self._entry_is_deferred = True
        try:
            self._connect(self._entry.output, self._chain)
        except BaseException:
            self._entry = None
            raise

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """The outputs of the last layer."""
        if self._graph is not None and not self._entry_is_deferred:
            return super().call(inputs, training, mask)
        outputs = inputs
        for layer in self._chain:
            outputs = layer(outputs)
        return outputs

    def _entries(self, inputs: Any) -> list[Any]:
        flat = tree.flatten(inputs)
        if len(flat) != 1:
            raise ShapeError(
                layout(
                    f"{self.name}: a Sequential has one input, got {len(flat)}.",
                    hint="use the functional form: Model(inputs, outputs)",
                )
            )
        return flat

    @property
    def output_names(self) -> list[str] | None:
        return [self._chain[-1].name] if self._chain else None

    def get_config(self) -> dict[str, Any]:
        entry = [self._entry] if self._entry is not None else []
        config: dict[str, Any] = {
            **Layer.get_config(self),
            "layers": [
                serialization.serialize_keras_object(layer) for layer in (*entry, *self._chain)
            ],
        }
        if self._entry is not None:
            config["build_input_shape"] = list(self._entry.batch_shape)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The model that `get_config` describes; weights begin anew."""
        with serialization.custom_object_scope(custom_objects or {}):
            layers = [
                serialization.deserialize_keras_object(data, within="keras.layers")
                for data in config["layers"]
            ]
            model = cls(layers, name=config.get("name"), dtype=config.get("dtype"))
        shape = config.get("build_input_shape")
        if shape and not model.built and model.layers:
            model.build(tuple(shape))
        if not config.get("trainable", True):
            model._trainable = False
        return model

    def get_build_config(self) -> dict[str, Any] | None:
        return {"input_shape": list(self._entry.batch_shape)} if self._entry is not None else None

    def build_from_config(self, config: dict[str, Any]) -> None:
        if not self.built and config.get("input_shape"):
            self.build(tuple(config["input_shape"]))
