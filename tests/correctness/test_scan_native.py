"""The loops of `test_scan` in native code: forward and backward in one program."""

from __future__ import annotations

import numpy as np
import pytest
from test_scan import CELLS, Twins

from lamina import config
from lamina.ir.program import Program
from lamina.llvm.executor import compile_llvm
from lamina.transform.gradient import gradients


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("name", CELLS)
def test_loops_and_their_gradients(name, reverse, rng):
    twins = Twins(CELLS[name], reverse=reverse, rng=rng)
    loop, flat = (
        [*side, *gradients(side, twins.cotangents, twins.floats)]
        for side in (twins.loop, twins.flat)
    )
    there = [(a, b) for a, b in zip(loop, flat, strict=True) if a is not None and b is not None]
    program = Program(tuple(twins.feed), (), tuple(a for a, _ in there), ())
    with config.override(cache="off"):
        found = compile_llvm(program, 5)(list(twins.feed.values()), [])
    expected = twins.run([b for _, b in there])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9)
