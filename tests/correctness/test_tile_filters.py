"""The gradient of a 3 x 3 filter by tiles: the same as the direct sum, whatever the geometry."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import config
from lamina.ir.contractions import conv
from lamina.ir.elementary import reduce_sum
from lamina.ir.graph import constant, input_node
from lamina.ir.program import Program
from lamina.ir.scalar import mul
from lamina.llvm import choices, engine, host
from lamina.llvm.choices import parts
from lamina.llvm.executor import compile_llvm
from lamina.llvm.generate import generate
from lamina.llvm.kernel import TileFilterGradient
from lamina.llvm.lower import lower
from lamina.transform.gradient import gradients
from lamina.types import Batch, Type

B = Batch(1)
SAME = ((1, 1), (1, 1))
CASES = [
    # image, padding, channels, filters
    ((8, 8), SAME, 16, 16),
    ((7, 9), SAME, 16, 24),
    ((6, 5), ((0, 0), (0, 0)), 24, 40),
    ((10, 6), ((0, 0), (0, 0)), 16, 40),
    ((5, 4), ((2, 1), (0, 3)), 24, 32),
    ((4, 26), ((2, 2), (1, 1)), 32, 8),
    ((34, 34), SAME, 32, 32),
    ((4, 4), ((0, 0), (0, 0)), 32, 96),
]


def network(image, padding, channels, filters, **more):
    """The gradient for the filter, of a loss that meets every output with its own weight."""
    x = input_node(Type((B, *image, channels)), "x")
    w = input_node(Type((3, 3, channels, filters)), "w")
    y = conv(x, w, padding=padding, **more)
    slope = input_node(Type(y.shape), "slope")
    loss = reduce_sum(mul(y, slope), (0, 1, 2, 3))
    found = gradients([loss], [constant(1.0)], [w])
    return Program((x, slope), (w,), tuple(found), (None,))


def arrays(program, rows, rng):
    inputs = [rng.standard_normal((rows, *node.shape[1:])).astype("f4") for node in program.inputs]
    return inputs, [rng.standard_normal(node.shape).astype("f4") for node in program.states]


def exact(program, inputs, padding):
    """The gradient in float64, tap by tap."""
    x, slope = (array.astype("f8") for array in inputs)
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    high, wide = slope.shape[1:3]
    return np.stack(
        [
            np.stack(
                [np.einsum("nyxc,nyxf->cf", x[:, i : i + high, j : j + wide], slope)
                 for j in range(3)]
            )
            for i in range(3)
        ]
    )  # fmt: skip


def kernels(program, capacity=8):
    steps = lower(program, capacity, parts(capacity, 64)).steps
    return {type(step.kernel) for step in steps}


@pytest.mark.parametrize("cpu", [t.name for t in host.runnable_targets()])
@pytest.mark.parametrize(("image", "padding", "channels", "filters"), CASES)
def test_it_agrees_with_the_direct_sum(image, padding, channels, filters, cpu, rng):
    program = network(image, padding, channels, filters)
    capacity = 40 if image == (4, 4) else 9
    assert TileFilterGradient in kernels(program, capacity)
    with config.override(cpu=cpu):
        compiled = compile_llvm(program, capacity)
    for rows in (1, 2, capacity - 1, capacity):
        inputs, states = arrays(program, rows, rng)
        (found,) = compiled(inputs, states)
        wanted = exact(program, inputs, padding)
        # As exact as single precision lets a sum of so many terms be.
        close = 4e-7 * np.sqrt(rows * inputs[1][0, ..., 0].size) + 2e-6
        np.testing.assert_allclose(found, wanted, rtol=0, atol=close * np.sqrt(rows) * 8)


@pytest.mark.parametrize("image", [(8, 8), (7, 9)])
def test_bits_depend_neither_on_threads_nor_on_groups(image, rng, several_threads, monkeypatch):
    several_threads()
    program = network(image, SAME, 16, 24)
    inputs, states = arrays(program, 13, rng)
    results = []
    for threads, arena in ((1, "planned"), (2, "planned"), (3, "planned"), (2, "apart")):
        with config.override(threads=threads, arena=arena, cache="off"):
            compiled = compile_llvm(program, 16)
            assert compiled.threads(1) == threads
            results.append(compiled(inputs, states)[0].tobytes())
    for room in (1, 4000):
        monkeypatch.setattr(choices, "TILES_BYTES", room)
        with config.override(cache="off"):
            results.append(compile_llvm(program, 16)(inputs, states)[0].tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("cpu", ["avx512", "avx2", "sse2", "neon"])
def test_every_target_compiles_it(cpu):
    target = host.target(cpu)
    text = generate(network((9, 8), SAME, 24, 48), 8, target).text
    assert engine.compile_text(text, target)


def test_what_does_not_fit_is_summed_directly():
    fits = network((8, 8), SAME, 16, 16)
    assert TileFilterGradient in kernels(fits)
    for other in (
        network((8, 8), SAME, 12, 16),
        network((8, 8), SAME, 16, 3),
        network((8, 8), SAME, 16, 16, strides=(2, 2)),
        network((8, 8), ((2, 2), (2, 2)), 16, 16, dilation=(2, 2)),
    ):
        assert TileFilterGradient not in kernels(other)
    assert TileFilterGradient not in kernels(fits, capacity=1)
