"""Random programs on the reference executor: precision, rewriting, gradients, rows."""

from __future__ import annotations

import os

import numpy as np
import pytest
from random_programs import RARE, permuted, random_feed, random_program

from lamina.ir.control import Scan
from lamina.ir.elementary import reduce_sum
from lamina.ir.graph import constant, input_node
from lamina.ir.interpret import interpret
from lamina.ir.scalar import mul
from lamina.reference import compile_reference
from lamina.transform.gradient import gradients
from lamina.transform.simplify import simplify

CAPACITY = 7
ROWS = (1, 2, CAPACITY - 1, CAPACITY)
# LAMINA_FUZZ=1000 tries that many programs.
SEEDS = range(int(os.environ.get("LAMINA_FUZZ", "40")))


def run(program, rows, seed=0):
    inputs, states = random_feed(program, rows, seed)
    outputs = compile_reference(program, CAPACITY)(inputs, states)
    return [*outputs, *states]


def close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", SEEDS)
def test_single_precision_is_near_double(seed):
    single, double = random_program(seed), random_program(seed, dtype="float64")
    for rows in ROWS:
        found, expected = run(single, rows), run(double, rows)
        assert all(array.dtype != np.float64 for array in found)
        close(found, expected, 2e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_simplifying_keeps_every_value(seed):
    program = random_program(seed, dtype="float64")
    small = simplify(program)
    assert len(small.nodes()) <= len(program.nodes()) + 40 * count_scans(program)
    for rows in ROWS:
        close(run(small, rows), run(program, rows), 1e-9)


def count_scans(program):
    return sum(isinstance(node.op, Scan) for node in program.nodes())


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_match_central_differences(seed):
    program = random_program(seed, dtype="float64", kinds=SMOOTH)
    loss, rows = program.outputs[0], 3
    inputs, states = random_feed(program, rows, 1)
    feed = dict(zip([*program.inputs, *program.states], [*inputs, *states], strict=True))
    wrt = [node for node in feed if node.type.is_float]
    found = gradients([loss], [constant(1.0, "float64")], wrt)
    rng = np.random.default_rng(seed)
    directions = {x: rng.standard_normal(feed[x].shape) for x in wrt}
    there = [(x, g) for x, g in zip(wrt, found, strict=True) if g is not None]
    values = interpret([g for _, g in there], feed, rows)
    exact = sum(np.vdot(v, directions[x]) for (x, _), v in zip(there, values, strict=True))

    def moved(step):
        shifted = {x: feed[x] + step * directions[x] for x in wrt}
        return interpret([loss], {**feed, **shifted}, rows)[0]

    numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6
    np.testing.assert_allclose(exact, numeric, rtol=1e-4, atol=1e-6)


# Rounding and counting jump; maxima and relu have kinks, which a random point does not meet.
SMOOTH = (
    "unary", "positive", "binary", "bias", "relu", "dense", "softmax", "layer_norm", "batch_norm",
    "reduction", "transposed", "reshaped", "sliced", "padded", "joined", "convolved", "pooled",
    "embedded", "picked", "counted", "attention", "largest", "recurrent", "named", "dropped",
)  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS[::2])
def test_hessian_products_match_differences_of_gradients(seed):
    program = random_program(seed, dtype="float64", steps=6, kinds=SMOOTH)
    loss, rows = program.outputs[0], 2
    inputs, states = random_feed(program, rows, 1)
    feed = dict(zip([*program.inputs, *program.states], [*inputs, *states], strict=True))
    x = program.inputs[0]
    (slope,) = gradients([loss], [constant(1.0, "float64")], [x])
    if slope is None:
        return
    direction = input_node(x.type)
    along = reduce_sum(mul(slope, direction))
    (product,) = gradients([along], [constant(1.0, "float64")], [x])
    v = np.random.default_rng(seed).standard_normal(feed[x].shape)
    exact = np.zeros_like(v)
    if product is not None:
        (exact,) = interpret([product], {**feed, direction: v}, rows)
    ahead, behind = (
        interpret([slope], {**feed, x: feed[x] + s * 1e-6 * v}, rows)[0] for s in (1, -1)
    )
    np.testing.assert_allclose(exact, (ahead - behind) / 2e-6, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS[::2])
def test_the_order_of_rows_does_not_matter(seed):
    kinds = [kind for kind in SMOOTH if kind != "dropped"]
    program = random_program(seed, dtype="float64", kinds=[*kinds, *RARE])
    inputs, states = random_feed(program, 5, 0)
    order = np.random.default_rng(seed).permutation(5)
    run_it = compile_reference(program, 5)
    first, second = [s.copy() for s in states], [s.copy() for s in states]
    plain = run_it(inputs, first)
    mixed = run_it(permuted(inputs, program, order), second)
    close(second, first, 1e-8)
    for node, one, other in zip(program.outputs, plain, mixed, strict=True):
        axis = node.type.batch_axis
        factor = 1 if axis is None else node.shape[axis].factor
        if factor == 1:
            expected = one if axis is None else np.take(one, order, axis)
            np.testing.assert_allclose(other, expected, rtol=1e-8, atol=1e-10)


def test_the_programs_meet_every_op():
    met = {type(n.op).__name__ for seed in range(150) for n in random_program(seed).nodes()}
    assert met >= {
        "Broadcast", "Cast", "Composite", "Concat", "Cond", "Conv", "ConvFilterGrad",
        "ConvInputGrad", "Cumulative", "Dot", "DynamicSlice", "DynamicUpdate", "Gather", "Map",
        "Pad", "RandomBits", "Reduce", "Reshape", "Rows", "Scan", "Scatter", "Slice", "Sort",
        "TopK", "Transpose", "Window", "WindowGrad",
    }  # fmt: skip
