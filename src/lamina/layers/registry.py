"""Layers as plain data and back."""

from __future__ import annotations

from typing import Any

from lamina.layers.layer import Layer
from lamina.serialization import deserialize_keras_object, serialize_keras_object


def serialize(layer: Layer) -> dict[str, Any]:
    """The layer's class and configuration, without its weights."""
    data: dict[str, Any] = serialize_keras_object(layer)
    return data


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
    """The layer that `serialize` wrote, with new weights.

    raises   UnknownObjectError for a class that is not known
    """
    return deserialize_keras_object(config, custom_objects, within="keras.layers")
