"""What belongs to a layer: the variables and layers among its attributes, also inside containers.

Attributes are looked through when somebody asks, so a layer appended to a list is found as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lamina.tensor import Variable

# Attributes that refer to other objects without owning them.
NOT_OWNED = frozenset(
    {
        "_inbound_nodes",
        "_losses",
        "_init_args",
        "_build_shapes",
        "input_spec",
        "_compile_config",
        "optimizer",
        "history",
    }
)


def leaves(value: Any) -> Iterator[Any]:
    """Everything inside nested lists, tuples, sets and dicts, or the value itself."""
    stack = [value]
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            inner: list[Any] = list(item.values())
        elif isinstance(item, (list, tuple)):
            inner = list(item)
        else:
            yield item
            continue
        if id(item) not in seen:
            seen.add(id(item))
            stack.extend(reversed(inner))


def owned(layer: Any, kind: type | tuple[type, ...]) -> list[Any]:
    """The objects of a kind among a layer's attributes, in the order of assignment, each once."""
    found: dict[int, Any] = {}
    for name, value in list(vars(layer).items()):
        if isinstance(value, (dict, list, tuple)):
            if value and name not in NOT_OWNED:
                found.update((id(item), item) for item in leaves(value) if isinstance(item, kind))
        elif isinstance(value, kind) and name not in NOT_OWNED:
            found[id(value)] = value
    found.pop(id(layer), None)
    return list(found.values())


def own_variables(layer: Any) -> list[Variable]:
    """Variables of the layer itself: those born trainable first, as Keras orders them."""
    found = owned(layer, Variable)
    return [v for v in found if v.born_trainable] + [v for v in found if not v.born_trainable]
