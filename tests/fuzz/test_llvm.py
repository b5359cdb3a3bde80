"""Random training steps compiled to native code, against the reference executor."""

from __future__ import annotations

import os

import numpy as np
import pytest
from random_programs import random_feed, random_program

from lamina.llvm.executor import compile_llvm
from lamina.reference import compile_reference

CAPACITY = 7
ROWS = (1, 2, CAPACITY - 1, CAPACITY)
# LAMINA_FUZZ=1000 tries that many programs.
SEEDS = range(int(os.environ.get("LAMINA_FUZZ", "24")))


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch):
    monkeypatch.setenv("LAMINA_CACHE", "off")


@pytest.mark.parametrize("seed", SEEDS)
def test_native_code_computes_what_the_reference_does(seed):
    program = random_program(seed)
    native = compile_llvm(program, CAPACITY)
    reference = compile_reference(program, CAPACITY)
    for rows in ROWS:
        inputs, states = random_feed(program, rows, seed)
        expected_states = [array.copy() for array in states]
        found = [*native(inputs, states), *states]
        expected = [*reference(inputs, expected_states), *expected_states]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4, err_msg=f"{rows} rows")


@pytest.mark.parametrize("seed", SEEDS[::4])
def test_a_row_does_not_depend_on_what_lay_in_memory_before(seed):
    """A short batch after a full one, and after one of NaN, gives the bits of a short one alone."""
    program = random_program(seed)
    native = compile_llvm(program, CAPACITY)

    def run(rows, *, spoil=False):
        inputs, states = random_feed(program, rows, seed)
        if spoil:
            inputs = [a * np.nan if a.dtype.kind == "f" else a for a in inputs]
        return [*native(inputs, states), *states]

    alone = run(2)
    for spoil in (False, True):
        run(CAPACITY, spoil=spoil)
        for one, other in zip(run(2), alone, strict=True):
            np.testing.assert_array_equal(one, other)
