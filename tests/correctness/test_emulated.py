"""NEON code computes what the reference computes: run on `qemu-aarch64` where that is installed."""

from __future__ import annotations

import numpy as np
import pytest
from contraction_cases import oracle
from emulation import Emulated, Emulator, missing
from test_contraction import CASES as ALL_CASES
from test_contraction import compare
from test_llvm_ops import CAPACITY, SAMPLES, agree, program_of
from test_llvm_steps import PROGRAMS, same_bits, trained
from test_tables import CONVOLUTIONS as TABLED_CONVOLUTIONS
from test_tables import SUMS, WORDS, close, recurrent
from test_tables import arrays as table_arrays
from test_winograd import CASES as FAST_CASES

from lamina.ir.samples import draw
from lamina.llvm import choices
from lamina.reference import compile_reference

# What takes the emulator long is no new code.
CASES = [case for case in ALL_CASES if case.flops < 10_000_000]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    if missing():
        pytest.skip(
            f"{', '.join(missing())} not found: install qemu-user and gcc-aarch64-linux-gnu"
        )
    return Emulator(tmp_path_factory.mktemp("aarch64"))


@pytest.fixture(scope="module")
def library(emulator):
    return emulator.library([case.kernel for case in CASES])


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_a_contraction_computes_its_specification(emulator, library, number):
    case = CASES[number]
    given = case.arrays()
    expected, scales = oracle(case.kernel, given, case.low, case.high, case.rows)
    bounds = case.low, case.high, case.rows
    found = emulator.run_kernel(library, f"k{number}", case.kernel, given, *bounds)
    compare(case, found, expected, scales)


def test_convolutions_by_fewer_multiplications_compute_their_specification(emulator, always):
    library = emulator.library([case.kernel for case in FAST_CASES])
    for number, case in enumerate(FAST_CASES):
        given = case.arrays()
        expected, scales = oracle(case.kernel, given, case.low, case.high, case.rows)
        bounds = case.low, case.high, case.rows
        found = emulator.run_kernel(library, f"k{number}", case.kernel, given, *bounds)
        compare(case, found, expected, scales)


@pytest.mark.parametrize(("op", "specifications"), SAMPLES)
def test_an_op_means_what_numpy_means(emulator, op, specifications, rng):
    program = program_of(op, specifications)
    compiled, reference = (
        Emulated(emulator, program, CAPACITY),
        compile_reference(program, CAPACITY),
    )
    arrays = [draw(specification, rng, 3) for specification in specifications]
    for found, expected, node in zip(
        compiled(arrays, []), reference(arrays, []), program.outputs, strict=True
    ):
        agree(found, expected, node.dtype)


@PROGRAMS
def test_a_step_is_the_references_step_with_any_number_of_threads(
    build, emulator, several_threads, monkeypatch
):
    several_threads()
    monkeypatch.setattr(choices, "SMALLEST_SHARED_WORK", 1)
    program = build()
    expected = trained(compile_reference(program, 12), program)
    results = [trained(Emulated(emulator, program, 12, threads), program) for threads in (1, 2, 3)]
    for value, wanted in zip(results[0], expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


TABLED = [*TABLED_CONVOLUTIONS[1:], SUMS[1], recurrent(70, False, WORDS)]


@pytest.mark.parametrize("program", TABLED, ids=range(len(TABLED)))
def test_products_with_the_different_words_are_those_of_all(program, emulator, rng, monkeypatch):
    monkeypatch.setattr(choices, "DISTINCT_LOOKUPS", 1)
    inputs, states = table_arrays(program, CAPACITY - 1, rng)
    expected = compile_reference(program, CAPACITY)(inputs, states)
    for found, wanted in zip(
        Emulated(emulator, program, CAPACITY)(inputs, states), expected, strict=True
    ):
        close(found, wanted)
