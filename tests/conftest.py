"""What all tests share: no cache of compiled steps, where real data lies, and real Keras."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lamina.llvm import choices

# What an experiment, or a test that changes a heuristic, left in the cache must not be what another
# test finds there. Tests of the cache have folders of their own; scripts inherit this.
os.environ.setdefault("LAMINA_CACHE", "off")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same numbers in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def several_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`several_threads()`: small steps run on as many threads as larger ones, and sum as those do.

    sums   "parts": over the batch, part by part; "products": but products whole; "whole": all whole
    """

    def have(sums: str = "parts") -> None:
        smallest = {"parts": 0.0, "products": 0.0, "whole": math.inf}[sums]
        operands = {"parts": 0.0, "products": math.inf, "whole": math.inf}[sums]
        monkeypatch.setattr(choices, "threads_wanted", lambda *_: 64)
        monkeypatch.setattr(choices, "SMALLEST_STEP_IN_PARTS", smallest)
        monkeypatch.setattr(choices, "OPERANDS_A_PARTIAL_BYTE", operands)

    return have


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of larger real data sets; the test is skipped where there is none."""
    folder = os.environ.get("LAMINA_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("LAMINA_DATA names no folder with the larger data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def keras() -> ModuleType:
    """Real Keras 3.15 on JAX; `make oracle` demands it, elsewhere the test is skipped."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        return importlib.import_module("keras")
    except ImportError:
        if os.environ.get("LAMINA_ORACLE") == "required":
            raise
        pytest.skip("real Keras is not installed; `make oracle` installs it")


# Scripts as other people write them: run by test_scripts.py, not imported.
collect_ignore = ["training/scripts"]
