"""Functional models as plain data and back, in Keras's form."""

from __future__ import annotations

from typing import Any

from lamina import optimizers, serialization, tree
from lamina.errors import FileFormatError
from lamina.layers.symbolic import KerasTensor, Operation, OpOperation, is_keras_tensor
from lamina.models.graph import CallGraph
from lamina.models.operations import (
    call_arguments,
    call_parts,
    is_op_data,
    op_data,
    rebuilt_op,
)


def graph_config(graph: CallGraph) -> dict[str, Any]:
    """The operations, their calls, and which tensors are inputs and outputs."""
    numbers = graph.node_indexes()

    def place(tensor: KerasTensor) -> list[Any]:
        history = tensor._keras_history
        assert history is not None  # the graph was checked when it was made
        number = numbers[id(history.operation), history.node_index]
        return [history.operation.name, number, history.tensor_index]

    def plain(value: Any) -> Any:
        if is_keras_tensor(value):
            config = {
                "shape": list(value.shape),
                "dtype": value.dtype,
                "keras_history": place(value),
            }
            return {"class_name": "__keras_tensor__", "config": config}
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            parts = [plain(part) for part in value]
            return {"class_name": "__tuple__", "config": {"value": parts}}
        if isinstance(value, list):
            return [plain(part) for part in value]
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        return serialization.serialize_keras_object(value)

    def node_data(node: Any) -> dict[str, Any]:
        args, kwargs = node.args, node.kwargs
        if isinstance(node.operation, OpOperation):
            args, kwargs = call_parts(node.operation, args, kwargs)[0], {}
        return {
            "args": [plain(argument) for argument in args],
            "kwargs": {key: plain(value) for key, value in kwargs.items()},
        }

    layers = []
    for operation in graph.operations:
        if isinstance(operation, OpOperation):
            data = op_data(operation)
        else:
            data = serialization.serialize_keras_object(operation)
        data["name"] = operation.name
        data["inbound_nodes"] = [
            node_data(node)
            for index, node in enumerate(operation._inbound_nodes)
            if (id(operation), index) in numbers and not node.is_input
        ]
        layers.append(data)
    return {
        "layers": layers,
        "input_layers": tree.map_structure(place, graph.inputs),
        "output_layers": tree.map_structure(place, graph.outputs),
    }


class _UnknownTensorError(Exception):
    """A call needs a tensor that has not been made yet."""


def rebuilt_graph(config: dict[str, Any]) -> tuple[Any, Any]:
    """Symbolic inputs and outputs, with new operations called as the configuration says.

    raises   FileFormatError if calls refer to tensors that nothing makes
    """
    operations: dict[str, Operation] = {}
    attributes: dict[str, dict[str, Any]] = {}
    waiting: list[tuple[str, list[dict[str, Any]]]] = []
    for data in config["layers"]:
        name = data.get("name") or data["config"]["name"]
        if name in operations:
            raise FileFormatError(f"two layers are called {name!r}.")
        if is_op_data(data):
            operations[name], attributes[name] = rebuilt_op(data)
        else:
            operations[name] = _operation(data, name)
        nodes = list(data.get("inbound_nodes") or [])
        if nodes:
            waiting.append((name, nodes))
    made: dict[tuple[str, int, int], KerasTensor] = {}
    calls = dict.fromkeys(operations, 0)
    for name, operation in operations.items():
        for node in operation._inbound_nodes:
            _keep(made, name, calls[name], node)
            calls[name] += 1
    while waiting:
        left = [
            (name, rest)
            for name, nodes in waiting
            if (rest := _called(operations[name], name, nodes, made, calls, attributes.get(name)))
        ]
        if sum(len(rest) for _, rest in left) == sum(len(nodes) for _, nodes in waiting):
            raise FileFormatError(
                f"the calls of {left[0][0]!r} refer to tensors that no layer makes."
            )
        waiting = left
    try:
        inputs = _tensors(config["input_layers"], made)
        outputs = _tensors(config["output_layers"], made)
    except (_UnknownTensorError, TypeError) as error:
        raise FileFormatError(
            f"an input or output of the model is made by no layer: {error}."
        ) from None
    return inputs, outputs


def _operation(data: dict[str, Any], name: str) -> Operation:
    operation = serialization.deserialize_keras_object(data, within="keras.layers")
    if not isinstance(operation, Operation):
        raise FileFormatError(f"{name!r} is a {type(operation).__name__}, not a layer.")
    return operation


def _keep(made: dict[Any, KerasTensor], name: str, number: int, node: Any) -> None:
    for position, tensor in enumerate(node.outputs):
        made[name, number, position] = tensor


def _called(
    operation: Operation,
    name: str,
    nodes: list[Any],
    made: dict[Any, KerasTensor],
    calls: dict[str, int],
    attributes: dict[str, Any] | None,
) -> list[Any]:
    """Make the calls whose tensors are there, in order; gives those that have to wait."""
    for place, node in enumerate(nodes):
        if not isinstance(node, dict):
            raise FileFormatError(f"the calls of {name!r} are not in the form of Keras 3.")
        try:
            args = [_argument(value, made) for value in node["args"]]
            kwargs = {key: _argument(value, made) for key, value in node["kwargs"].items()}
        except _UnknownTensorError:
            return nodes[place:]
        if isinstance(operation, OpOperation):
            args, kwargs = call_arguments(operation, args, {**(attributes or {}), **kwargs})
        operation(*args, **kwargs)
        _keep(made, name, calls[name], operation._inbound_nodes[-1])
        calls[name] += 1
    return []


def _argument(value: Any, made: dict[Any, KerasTensor]) -> Any:
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return _tensor(value["config"]["keras_history"], made)
    if isinstance(value, dict) and value.get("class_name") == "__tuple__":
        return tuple(_argument(part, made) for part in value["config"]["value"])
    if isinstance(value, list):
        return [_argument(part, made) for part in value]
    if isinstance(value, dict) and not ("class_name" in value and "config" in value):
        return {key: _argument(part, made) for key, part in value.items()}
    return serialization.deserialize_keras_object(value)


def _tensor(place: Any, made: dict[Any, KerasTensor]) -> KerasTensor:
    found = made.get(tuple(place))
    if found is None:
        raise _UnknownTensorError(str(place))
    return found


def _tensors(places: Any, made: dict[Any, KerasTensor]) -> Any:
    if isinstance(places, dict):
        return {key: _tensors(part, made) for key, part in places.items()}
    if len(places) == 3 and isinstance(places[0], str) and isinstance(places[1], int):
        return _tensor(places, made)
    return [_tensors(part, made) for part in places]


def compile_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `compile` from a file; parts are looked up, nothing is run."""
    known = {
        key: config.get(key)
        for key in ("loss_weights", "run_eagerly", "steps_per_execution")
        if config.get(key) is not None
    }
    known["optimizer"] = optimizers.get(_rebuilt(config.get("optimizer"), "keras.optimizers"))
    known["loss"] = _parts(config.get("loss"), "keras.losses")
    for key in ("metrics", "weighted_metrics"):
        known[key] = _parts(config.get(key), "keras.metrics")
    return known


def _parts(value: Any, namespace: str) -> Any:
    """Strings stay, descriptions become objects; the nesting is kept."""
    if isinstance(value, list):
        return [_parts(part, namespace) for part in value]
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _parts(part, namespace) for key, part in value.items()}
    return _rebuilt(value, namespace)


def _rebuilt(value: Any, namespace: str) -> Any:
    return serialization.deserialize_keras_object(value, within=namespace)
