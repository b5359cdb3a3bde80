"""Random training steps compiled to native code, against the reference executor."""

from __future__ import annotations

import os
import platform

import numpy as np
import pytest
from random_programs import random_feed, random_program

from lamina import config
from lamina.llvm.executor import compile_llvm
from lamina.reference import compile_reference

CAPACITY = 7
ROWS = (1, 2, CAPACITY - 1, CAPACITY)
# LAMINA_FUZZ=1000 tries that many programs.
SEEDS = range(int(os.environ.get("LAMINA_FUZZ", "16")))


@pytest.fixture(autouse=True)
def _no_cache():
    with config.override(cache="off"):
        yield


def results(program, seed, rows=CAPACITY - 1, **settings):
    """Outputs and new states of a freshly compiled program under these settings."""
    with config.override(**settings):
        native = compile_llvm(program, CAPACITY)
        inputs, states = random_feed(program, rows, seed)
        return [*native(inputs, states), *states]


def same_bits(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def check(program, seed, tolerance):
    native = compile_llvm(program, CAPACITY)
    reference = compile_reference(program, CAPACITY)
    for rows in ROWS:
        inputs, states = random_feed(program, rows, seed)
        expected_states = [array.copy() for array in states]
        found = [*native(inputs, states), *states]
        expected = [*reference(inputs, expected_states), *expected_states]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(
                np.asarray(one, np.float64),
                np.asarray(other, np.float64),
                rtol=tolerance,
                atol=tolerance,
                err_msg=f"{rows} rows",
            )


@pytest.mark.parametrize("seed", SEEDS)
def test_native_code_computes_what_the_reference_does(seed):
    check(random_program(seed), seed, 3e-4)


@pytest.mark.parametrize("seed", SEEDS[::2])
def test_in_double_precision_little_but_the_order_of_sums_differs(seed):
    check(random_program(seed, dtype="float64"), seed, 1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.05), ("bfloat16", 0.3)])
@pytest.mark.parametrize("seed", SEEDS[1::4])
def test_half_precision_is_as_near_as_its_digits_allow(seed, dtype, tolerance):
    check(random_program(seed, dtype=dtype), seed, tolerance)


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
        same_bits(run(2), alone)


@pytest.mark.parametrize("seed", SEEDS[::3])
def test_buffers_of_their_own_give_the_same_bits(seed):
    """Each value in a buffer full of NaN: nothing is read before it is written."""
    program = random_program(seed)
    same_bits(results(program, seed, arena="apart"), results(program, seed))


@pytest.mark.parametrize("seed", SEEDS[1::3])
def test_any_number_of_threads_gives_the_same_bits(seed, several_threads):
    several_threads(("parts", "products", "whole")[seed // 3 % 3])
    program = random_program(seed)
    alone = results(program, seed, threads=1)
    for threads in (2, 3):
        same_bits(results(program, seed, threads=threads), alone)


@pytest.mark.parametrize("seed", SEEDS[2::5])
def test_no_access_leaves_its_buffer(seed):
    program = random_program(seed)
    for rows in ROWS:
        same_bits(results(program, seed, rows, check="bounds"), results(program, seed, rows))


@pytest.mark.parametrize("cpu", ["avx2", "sse2"])
@pytest.mark.parametrize("seed", SEEDS[2::6])
def test_narrower_vectors_compute_the_same(seed, cpu):
    if platform.machine() not in {"x86_64", "AMD64"}:
        pytest.skip("this machine has other vectors")
    program = random_program(seed)
    for one, other in zip(results(program, seed, cpu=cpu), results(program, seed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
