"""Files: whole models, weights, and the registry of classes that files may name."""

from __future__ import annotations

from lamina.saving.archive import load_archived_weights, load_model, save_model
from lamina.saving.weights import WeightsMismatchError, load_weights, save_weights
from lamina.serialization import (
    UnknownObjectError,
    custom_object_scope,
    deserialize_keras_object,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
    serialize_keras_object,
)

CustomObjectScope = custom_object_scope

__all__ = [
    "CustomObjectScope",
    "UnknownObjectError",
    "WeightsMismatchError",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_archived_weights",
    "load_model",
    "load_weights",
    "register_keras_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]
