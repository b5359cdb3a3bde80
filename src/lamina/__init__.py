"""lamina: deep learning in readable Python, compiled to native code by lamina itself.

>>> import lamina
>>> lamina.__version__
'0.1.0'

Names are resolved at first use (PEP 562), so that importing lamina costs milliseconds: rooms
(`lamina.layers`, `lamina.ops` ...) and the names below (`lamina.Sequential`, `lamina.grad` ...).
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

# The rooms that users enter; the others are lamina's own.
ROOMS = (
    "activations",
    "callbacks",
    "config",
    "constraints",
    "data",
    "datasets",
    "errors",
    "initializers",
    "keras",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "ops",
    "optimizers",
    "preprocessing",
    "random",
    "regularizers",
    "saving",
    "utils",
)

# Names at the top, and the room that each comes from.
NAMES = {
    "Tensor": "tensor",
    "Variable": "tensor",
    "convert": "tensor",
    "grad": "trace",
    "value_and_grad": "trace",
    "function": "function",
    "Initializer": "initializers",
    "Regularizer": "regularizers",
    "Layer": "layers",
    "Input": "layers",
    "InputSpec": "layers",
    "KerasTensor": "layers",
    "Loss": "losses",
    "Metric": "metrics",
    "Optimizer": "optimizers",
    "Function": "models",
    "Model": "models",
    "Sequential": "models",
}

__all__ = ["__version__", *ROOMS, *NAMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in NAMES:
        value = getattr(importlib.import_module(f"lamina.{NAMES[name]}"), name)
    elif name in ROOMS:
        value = importlib.import_module(f"lamina.{name}")
    elif name.startswith("__"):
        raise AttributeError(f"module 'lamina' has no attribute {name!r}")
    else:
        # Only a name that is missing pays for the table of TensorFlow's names.
        words = importlib.import_module("lamina.keras.words")
        raise AttributeError(words.missing("lamina", name, __all__), name=name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Root(ModuleType):
    """Keeps `lamina.function` the function: importing the module of that name must not hide it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in NAMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Root
