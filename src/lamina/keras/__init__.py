"""The public names of Keras 3, so that a Keras script runs after one word is replaced.

`from tensorflow.keras import layers` becomes `from lamina.keras import layers`, and `import keras`
becomes `from lamina import keras`. A room here *is* lamina's room: `lamina.keras.layers` and
`lamina.layers` are one module. `lamina run script.py` does the replacing for you.
"""

from __future__ import annotations

import importlib
from typing import Any

from lamina.keras.alias import Alias, install
from lamina.keras.words import missing

# The version of Keras whose names, defaults and numbers lamina follows.
__version__ = "3.15.1"

# Keras's rooms, and lamina's room for each.
ROOMS = {
    "activations": "lamina.activations",
    "backend": "lamina.keras.backend",
    "callbacks": "lamina.callbacks",
    "config": "lamina.config",
    "constraints": "lamina.constraints",
    "datasets": "lamina.datasets",
    "initializers": "lamina.initializers",
    "layers": "lamina.layers",
    "losses": "lamina.losses",
    "metrics": "lamina.metrics",
    "mixed_precision": "lamina.mixed_precision",
    "models": "lamina.models",
    "ops": "lamina.ops",
    "optimizers": "lamina.optimizers",
    "preprocessing": "lamina.preprocessing",
    "random": "lamina.random",
    "regularizers": "lamina.regularizers",
    "saving": "lamina.saving",
    "tree": "lamina.tree",
    "utils": "lamina.utils",
}

# The names at the top of Keras, and lamina's room for each.
NAMES = {
    "DTypePolicy": "lamina.layers",
    "Function": "lamina.models",
    "Initializer": "lamina.initializers",
    "Input": "lamina.layers",
    "InputSpec": "lamina.layers",
    "KerasTensor": "lamina.layers",
    "Layer": "lamina.layers",
    "Loss": "lamina.losses",
    "Metric": "lamina.metrics",
    "Model": "lamina.models",
    "Optimizer": "lamina.optimizers",
    "Regularizer": "lamina.regularizers",
    "Sequential": "lamina.models",
    "Variable": "lamina.tensor",
}

__all__ = ["__version__", *ROOMS, *NAMES]  # noqa: PLE0604

_PREFIX = f"{__name__}."
_OWN = {f"{_PREFIX}{name}" for name in ("alias", "backend", "words")}


def _real(fullname: str) -> str | None:
    """`lamina.keras.optimizers.schedules` -> `lamina.optimizers.schedules`.

    >>> _real("lamina.keras.optimizers.schedules")
    'lamina.optimizers.schedules'
    """
    if not fullname.startswith(_PREFIX) or fullname in _OWN:
        return None
    room, dot, rest = fullname.removeprefix(_PREFIX).partition(".")
    return ROOMS[room] + dot + rest if room in ROOMS else None


install(Alias(_real))


def __getattr__(name: str) -> Any:
    if name in NAMES:
        value = getattr(importlib.import_module(NAMES[name]), name)
    elif name in ROOMS:
        value = importlib.import_module(ROOMS[name])
    elif name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        raise AttributeError(missing(__name__, name, __all__), name=name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
