"""Optimisers: `Model.compile(optimizer="adam")`, or by hand with `apply(gradients, weights)`."""

from __future__ import annotations

from typing import Any

from lamina.naming import resolve
from lamina.optimizers import schedules
from lamina.optimizers.adam import Adam, Adamax, AdamW, Lamb, Nadam
from lamina.optimizers.adaptive import Adadelta, Adafactor, Adagrad, RMSprop
from lamina.optimizers.leaders import Ftrl, Lion
from lamina.optimizers.loss_scale import LossScaleOptimizer
from lamina.optimizers.muon import Muon
from lamina.optimizers.optimizer import Optimizer
from lamina.optimizers.sgd import SGD
from lamina.serialization import deserialize_keras_object, serialize_keras_object

CLASSES: tuple[type[Optimizer], ...] = (
    *(SGD, Adam, AdamW, Adamax, Nadam, Lamb, RMSprop, Adagrad, Adadelta, Adafactor),
    *(Lion, Ftrl, Muon, LossScaleOptimizer),
)
OBJECTS: dict[str, Any] = {
    **{kind.__name__.lower(): kind for kind in CLASSES},
    **{kind.__name__: kind for kind in CLASSES},
}


def get(identifier: Any) -> Any:
    """An optimiser from a string ("adam", in any case), a configuration, a class, or itself.

    >>> get("rmsprop").rho
    0.9
    """
    if isinstance(identifier, str) and identifier.lower() in OBJECTS:
        identifier = identifier.lower()
    return resolve(identifier, OBJECTS, "optimizer", "keras.optimizers")


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """The optimiser as plain data, without its state."""
    data: dict[str, Any] = serialize_keras_object(optimizer)
    return data


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
    """The optimiser that `serialize` wrote."""
    kind = OBJECTS.get(str(config.get("class_name", "")).lower())
    if kind is not None:
        config = {**config, "class_name": kind.__name__}
    return deserialize_keras_object(config, custom_objects, within="keras.optimizers")


__all__ = [
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lamb",
    "Lion",
    "LossScaleOptimizer",
    "Muon",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "deserialize",
    "get",
    "schedules",
    "serialize",
]
