"""The three arguments that layers take for each kind of weight: first value, penalty, projection.

A layer with a weight "kernel" has the attributes `kernel_initializer`, `kernel_regularizer` and
`kernel_constraint`; these functions set them, use them and write them into configurations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina import constraints, initializers, regularizers
from lamina.tensor import Variable


def set_rules(layer: Any, weight: str, initializer: Any, regularizer: Any, constraint: Any) -> None:
    """Keep the three arguments of a kind of weight as attributes of the layer."""
    setattr(layer, f"{weight}_initializer", initializers.get(initializer))
    setattr(layer, f"{weight}_regularizer", regularizers.get(regularizer))
    setattr(layer, f"{weight}_constraint", constraints.get(constraint))


def add_ruled(layer: Any, weight: str, shape: Sequence[int], name: str | None = None) -> Variable:
    """A weight of this kind."""
    variable: Variable = layer.add_weight(
        shape=tuple(shape),
        initializer=getattr(layer, f"{weight}_initializer"),
        regularizer=getattr(layer, f"{weight}_regularizer"),
        constraint=getattr(layer, f"{weight}_constraint"),
        name=name or weight,
    )
    return variable


def rules_config(layer: Any, *weights: str) -> dict[str, Any]:
    """The arguments of these kinds of weights as plain data, in Keras's order."""
    parts = (("initializer", initializers), ("regularizer", regularizers))
    known: dict[str, Any] = {}
    for part, module in (*parts, ("constraint", constraints)):
        for weight in weights:
            value = getattr(layer, f"{weight}_{part}")
            known[f"{weight}_{part}"] = None if value is None else module.serialize(value)
    return known
