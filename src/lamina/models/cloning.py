"""clone_model and models from JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from lamina import serialization, tree
from lamina.errors import FileFormatError
from lamina.layers.core import InputLayer
from lamina.layers.layer import Layer
from lamina.layers.symbolic import is_keras_tensor
from lamina.models.graph import CallGraph
from lamina.models.model import Functional, Model
from lamina.models.sequential import Sequential


def clone_model(
    model: Any,
    input_tensors: Any = None,
    clone_function: Callable[[Layer], Layer] | None = None,
    call_function: Callable[..., Any] | None = None,
    recursive: bool = False,
) -> Any:
    """The same architecture with layers and weights of its own.

    clone_function   makes the copy of a layer, instead of `from_config(get_config())`; it may
                     give another layer
    call_function    calls a copy, `call_function(layer, *args, **kwargs)`
    recursive        clone the models inside in the same way
    """
    make = clone_function or (lambda layer: type(layer).from_config(layer.get_config()))

    def copied(layer: Any) -> Any:
        if recursive and isinstance(layer, Model) and layer._graph is not None:
            return clone_model(layer, None, clone_function, call_function, recursive=True)
        return make(layer)

    call = call_function or (lambda layer, *args, **kwargs: layer(*args, **kwargs))
    if isinstance(model, Sequential):
        entry = _entry_of(input_tensors) if input_tensors is not None else model._entry
        fresh = (
            [] if entry is None else [InputLayer(batch_shape=entry.batch_shape, dtype=entry.dtype)]
        )
        return Sequential([*fresh, *(copied(layer) for layer in model.layers)], name=model.name)
    if model._graph is None:
        if clone_function is not None:
            raise ValueError(
                f"clone_model: {model.name} is not made of inputs and outputs, so its layers "
                "cannot be exchanged one by one."
            )
        return type(model).from_config(model.get_config())
    graph: CallGraph = model._graph
    copies = {
        id(operation): copied(operation)
        for operation in graph.operations
        if not isinstance(operation, InputLayer)
    }
    inputs = [
        InputLayer(batch_shape=tensor.shape, dtype=tensor.dtype, name=name).output
        for tensor, name in zip(graph.flat_inputs, model.input_names, strict=True)
    ]
    if input_tensors is not None:
        given = input_tensors if isinstance(input_tensors, (list, tuple)) else [input_tensors]
        inputs = list(given)
    outputs = graph.run(
        inputs,
        lambda node, args, kwargs: call(copies[id(node.operation)], *args, **kwargs),
    )
    kind = type(model) if type(model) is not Model else Functional
    return kind(tree.pack(graph.inputs, inputs), outputs, name=model.name)


def _entry_of(tensors: Any) -> InputLayer:
    tensor = tensors[0] if isinstance(tensors, (list, tuple)) else tensors
    if is_keras_tensor(tensor) and isinstance(tensor._keras_history.operation, InputLayer):
        return tensor._keras_history.operation
    raise ValueError("clone_model: input_tensors are symbolic tensors made by Input().")


def model_from_json(text: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model that `to_json` described; weights begin anew."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise FileFormatError(f"model_from_json: this is no JSON: {error}") from None
    return serialization.deserialize_keras_object(data, custom_objects)
