"""Every op compiled to native code, against its NumPy meaning in float64."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import config
from lamina.ir.graph import apply, input_node, picks
from lamina.ir.program import Program
from lamina.ir.samples import draw, every_sample, parse
from lamina.ir.scalar import maximum
from lamina.llvm import host
from lamina.llvm.executor import compile_llvm
from lamina.reference import compile_reference
from lamina.types import numpy_dtype

CAPACITY = 5
SAMPLES = [
    pytest.param(op, specifications, id=f"{number}-{op}"[:70])
    for number, (op, specifications) in enumerate(every_sample())
]


def program_of(op, specifications):
    """The op alone. Integers pass through a map, so that no check sees that they are indexes."""
    inputs = tuple(input_node(parse(s)[0], f"x{i}") for i, s in enumerate(specifications))
    given = [maximum(x, x) if x.dtype == "int32" else x for x in inputs]
    return Program(inputs, (), picks(apply(op, *given)), ())


def run(compiler, program, arrays, capacity=CAPACITY):
    return compiler(program, capacity)(arrays, [])


def agree(found, expected, dtype, scale=64):
    """Equal up to a few units in the last place of the largest element involved."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if not np.issubdtype(numpy_dtype(dtype), np.floating) and dtype != "bfloat16":
        np.testing.assert_array_equal(found, expected)
        return
    precision = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}.get(dtype, 2.0**-52)
    size = np.abs(np.nan_to_num(np.asarray(expected, np.float64))).max(initial=1.0)
    np.testing.assert_allclose(
        np.asarray(found, np.float64),
        np.asarray(expected, np.float64),
        rtol=scale * precision,
        atol=scale * precision * size,
    )


@pytest.mark.parametrize(("op", "specifications"), SAMPLES)
def test_native_code_means_what_numpy_means(op, specifications, rng):
    program = program_of(op, specifications)
    compiled = compile_llvm(program, CAPACITY)
    reference = compile_reference(program, CAPACITY)
    batched = any(node.type.batch_axis is not None for node in program.inputs)
    for rows in (1, 2, CAPACITY - 1, CAPACITY) if batched else (1,):
        arrays = [draw(s, rng, rows) for s in specifications]
        for found, expected, node in zip(
            compiled(arrays, []), reference(arrays, []), program.outputs, strict=True
        ):
            agree(found, expected, node.dtype)


NARROW = [name for name in ("avx2", "sse2") if host.can_run(host.target(name))]


@pytest.mark.parametrize("cpu", NARROW)
@pytest.mark.parametrize(("op", "specifications"), SAMPLES[::7])
def test_every_vector_width_gives_the_same_values(op, specifications, cpu, rng):
    program = program_of(op, specifications)
    arrays = [draw(s, rng, 3) for s in specifications]
    with config.override(cpu=cpu):
        found = run(compile_llvm, program, arrays)
    expected = run(compile_reference, program, arrays)
    for value, wanted, node in zip(found, expected, program.outputs, strict=True):
        agree(value, wanted, node.dtype)
