"""Lets the tests of this folder share modules of cases and oracles that stand beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lamina.llvm import choices
from lamina.llvm.kernels import contraction

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def always(monkeypatch):
    """Winograd's method wherever it can compute the convolution."""
    monkeypatch.setattr(choices, "winograd_pays", lambda *_, **__: True)
    contraction.plan.cache_clear()
    yield
    contraction.plan.cache_clear()
