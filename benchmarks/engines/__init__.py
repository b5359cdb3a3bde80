"""Who is measured: each engine builds a workload's network and trains it as an expert would."""

from __future__ import annotations

import importlib
from typing import Protocol

import numpy as np

from benchmarks.workloads import Workload

# name -> module that builds it, and what it needs installed
ENGINES = {
    "lamina": ("benchmarks.engines.keras_api", ("lamina",)),
    "keras-tensorflow": ("benchmarks.engines.keras_api", ("keras", "tensorflow")),
    "keras-jax": ("benchmarks.engines.keras_api", ("keras", "jax")),
    "keras-torch": ("benchmarks.engines.keras_api", ("keras", "torch")),
    "pytorch": ("benchmarks.engines.pytorch", ("torch",)),
    "jax": ("benchmarks.engines.jax_hand", ("jax",)),
}


class Engine(Protocol):
    """A built network with its data."""

    def epoch(self) -> None:
        """Train one pass over the data, and wait until it is done."""

    def step(self) -> float:
        """Train one batch; returns its loss."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Answer rows in batches of 256."""


def installed(name: str) -> bool:
    """Whether all that this engine needs can be imported here."""
    return all(importlib.util.find_spec(package) for package in ENGINES[name][1])


def build(name: str, workload: Workload, x: np.ndarray, y: np.ndarray) -> Engine:
    """Make the engine in this process; one process holds one engine."""
    module = importlib.import_module(ENGINES[name][0])
    return module.build(name, workload, x, y)
