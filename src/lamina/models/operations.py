"""Ops in functional models, as Keras writes them: a class by its name, with attributes and tensors.

`x + 1` is `{"module": "keras.src.ops.numpy", "class_name": "Add", ...}` with the call's arguments
apart; what is no tensor (`axis`, `keepdims`) is the configuration of the class.
"""

from __future__ import annotations

import inspect
from typing import Any

from lamina import ops
from lamina.errors import near_matches
from lamina.layers.symbolic import OpOperation
from lamina.naming import to_snake_case
from lamina.serialization import UnknownObjectError

# Parameters that Keras passes to the call of an op; all others belong to its configuration.
CALL_PARAMETERS = frozenset(
    {
        *("array", "bias", "condition", "constant_values", "data", "depthwise_kernel"),
        *("fill_value", "indices", "inputs", "kernel", "key", "mask", "output"),
        *("pointwise_kernel", "predictions", "q", "query", "scale", "segment_ids", "start"),
        *("start_indices", "stop", "target", "targets", "updates", "value", "values", "variable"),
        *("x", "x1", "x2", "xs", "y"),
    }
)
CORE = frozenset(
    {
        *("scatter", "scatter_update", "slice", "slice_update", "stop_gradient", "unstack"),
        *("cast", "convert_to_tensor"),
    }
)
MATHS = frozenset(
    {
        *("segment_sum", "segment_max", "segment_min", "top_k", "in_top_k", "logsumexp", "rsqrt"),
        *("erf", "erfc", "erfinv"),
    }
)
OF_NN = frozenset({"one_hot", "multi_hot", "sigmoid", "silu"})


def class_name(function_name: str) -> str:
    """Keras's class for a function.

    >>> class_name("divide_no_nan"), class_name("relu6")
    ('DivideNoNan', 'Relu6')
    """
    if function_name == "psnr":
        return "PSNR"
    return "".join(part[:1].upper() + part[1:] for part in function_name.split("_"))


def keras_module(function: Any) -> str:
    """The module in which Keras keeps the class of an op."""
    name = function.__name__
    if name in CORE:
        return "keras.src.ops.core"
    if name in MATHS:
        return "keras.src.ops.math"
    if name == "norm":
        return "keras.src.ops.linalg"
    home = function.__module__.rsplit(".", maxsplit=1)[-1]
    return "keras.src.ops.nn" if home in ("nn", "conv") or name in OF_NN else "keras.src.ops.numpy"


def op_data(operation: OpOperation) -> dict[str, Any]:
    """The operation as data; its attributes are those of its one call."""
    name = class_name(operation.function.__name__)
    attributes: dict[str, Any] = {}
    for node in operation._inbound_nodes:
        attributes = call_parts(operation, node.args, node.kwargs)[1]
    return {
        "module": keras_module(operation.function),
        "class_name": name,
        "config": {"name": operation.name, **attributes},
        "registered_name": name,
    }


def call_parts(
    operation: OpOperation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call as (tensors and their like by position, attributes by name)."""
    if operation.function.__name__ == "einsum":
        return list(args[1:]), {"subscripts": args[0]}
    signature = inspect.signature(operation.function)
    bound = signature.bind(*args, **kwargs)
    tensors: list[Any] = []
    attributes: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            tensors.extend(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            attributes.update(value)
        elif name in CALL_PARAMETERS:
            tensors.append(value)
        else:
            attributes[name] = value
    return tensors, attributes


def is_op_data(data: Any) -> bool:
    """Whether the data describes an op rather than a layer."""
    module = data.get("module") if isinstance(data, dict) else None
    return isinstance(module, str) and module.startswith(("keras.src.ops", "keras.ops"))


def rebuilt_op(data: dict[str, Any]) -> tuple[OpOperation, dict[str, Any]]:
    """The operation, and the attributes that each of its calls gets by name.

    raises   UnknownObjectError for an op that lamina does not have
    """
    config = dict(data["config"])
    name = config.pop("name", None)
    wanted = to_snake_case(str(data["class_name"]))
    function = ops.dispatch.OPERATIONS.get(wanted)
    if function is None:
        raise UnknownObjectError(
            f"unknown op {data['class_name']!r}.{near_matches(wanted, ops.dispatch.OPERATIONS)}"
        )
    known = inspect.signature(function).parameters
    attributes = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in config.items()
        if key in known
    }
    return OpOperation(function, name), attributes


def call_arguments(
    operation: OpOperation, args: list[Any], attributes: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments as the function of the op takes them."""
    if operation.function.__name__ == "einsum":
        return [attributes["subscripts"], *args], {}
    return args, attributes
