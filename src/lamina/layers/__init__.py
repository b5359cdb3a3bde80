"""Layers, by the names of `keras.layers`; each is imported at its first use."""

from __future__ import annotations

import importlib
from typing import Any

from lamina.errors import near_matches

# module -> the public names that it holds
_MODULES: dict[str, tuple[str, ...]] = {
    "layer": ("Layer",),
    "policy": ("DTypePolicy",),
    "spec": ("InputSpec",),
    "symbolic": ("KerasTensor",),
    "core": (
        "Activation",
        "ActivityRegularization",
        "Identity",
        "Input",
        "InputLayer",
        "Lambda",
        "Masking",
    ),
    "dense": ("Dense",),
    "activation": ("ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax"),
    "shape": (
        "Cropping1D",
        "Cropping2D",
        "Cropping3D",
        "Flatten",
        "Permute",
        "RepeatVector",
        "Reshape",
        "UpSampling1D",
        "UpSampling2D",
        "UpSampling3D",
        "ZeroPadding1D",
        "ZeroPadding2D",
        "ZeroPadding3D",
    ),
    "merge": (
        "Add",
        "Average",
        "Concatenate",
        "Dot",
        "Maximum",
        "Minimum",
        "Multiply",
        "Subtract",
        "add",
        "average",
        "concatenate",
        "dot",
        "maximum",
        "minimum",
        "multiply",
        "subtract",
    ),
    "regularization": (
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
    ),
}

_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module 'lamina.layers' has no attribute {name!r}.{near_matches(name, _HOME)}",
            name=name,
        )
    value = getattr(importlib.import_module(f"lamina.layers.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
