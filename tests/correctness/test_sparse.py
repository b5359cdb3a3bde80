"""Gradients behind a maximum over all positions, by their values but zero: as the dense ones."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import config
from lamina.ir.contractions import ConvFilterGrad, ConvInputGrad, conv
from lamina.ir.elementary import broadcast, reduce_max, reduce_sum
from lamina.ir.graph import apply, constant, input_node, toposort
from lamina.ir.program import Program
from lamina.ir.scalar import add, relu, square
from lamina.ir.winners import SparseFilterGrad, SparseInputGrad
from lamina.llvm import choices, host
from lamina.llvm.executor import compile_llvm
from lamina.llvm.generate import generate
from lamina.llvm.kernel import WinnerFilterGradient, WinnerInputGradient
from lamina.reference import compile_reference
from lamina.transform.absorb import absorb
from lamina.transform.gradient import gradients
from lamina.transform.sparse import use_sparse
from lamina.types import Batch, Type

B = Batch(1)


def network(image, kernel, channels, filters, *, axes=None, padding=None):
    """Gradients of a convolution, relu and a maximum for input, filter and bias."""
    x = input_node(Type((B, *image, channels)), "x")
    w = input_node(Type((*kernel, channels, filters)), "w")
    b = input_node(Type((filters,)), "b")
    h = conv(x, w, padding=padding or ((0, 0),) * len(image))
    h = relu(add(h, broadcast(b, h.shape, (len(image) + 1,))))
    h = reduce_max(h, axes or tuple(range(1, len(image) + 1)))
    loss = reduce_sum(square(h), tuple(range(len(h.shape))))
    found = gradients([loss], [constant(1.0)], [x, w, b])
    return Program((x,), (w, b), tuple(found), (None, None))


def rewritten(program):
    roots = use_sparse(absorb(program.roots), choices.WINNER_CHANNELS, choices.SPARSE_POSITIONS)
    return program.with_roots(roots)


def arrays(program, rows, rng):
    x = rng.standard_normal((rows, *program.inputs[0].shape[1:])).astype("f4")
    return [x], [rng.standard_normal(node.shape).astype("f4") for node in program.states]


def ops_of(program):
    return {type(node.op) for node in toposort(program.roots)}


CASES = {
    "text": network((40,), (3,), 16, 20),
    "words of one": network((33,), (1,), 9, 131),
    "odd channels": network((25,), (5,), 37, 3),
    "images": network((9, 11), (3, 2), 12, 66),
}
every_case = pytest.mark.parametrize("program", CASES.values(), ids=CASES)


@every_case
def test_the_rewrite_changes_no_gradient(program, rng):
    small = rewritten(program)
    found = ops_of(small)
    assert {SparseFilterGrad, SparseInputGrad} <= found
    assert not found & {ConvFilterGrad, ConvInputGrad}
    inputs, states = arrays(program, 3, rng)
    dense = compile_reference(program, 3)(inputs, states)
    sparse = compile_reference(small, 3)(inputs, states)
    for one, other in zip(dense, sparse, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


@every_case
@pytest.mark.parametrize("cpu", [target.name for target in host.runnable_targets()])
def test_native_code_agrees_with_the_dense_reference(program, cpu, rng, several_threads):
    several_threads()
    with config.override(cpu=cpu, cache="off"):
        compiled = compile_llvm(program, 5)
    reference = compile_reference(program, 5)
    for rows in (1, 4, 5):
        inputs, states = arrays(program, rows, rng)
        several = []
        for threads in (1, 2, 3):
            with config.override(threads=threads):
                several.append(compiled(inputs, states))
        for alone, *others, wanted in zip(*several, reference(inputs, states), strict=True):
            np.testing.assert_allclose(alone, wanted, rtol=1e-4, atol=1e-3)
            for other in others:
                np.testing.assert_array_equal(alone, other)


@every_case
def test_no_access_leaves_its_buffer(program, rng):
    inputs, states = arrays(program, 3, rng)
    plain = compile_llvm(program, 4)(inputs, states)
    with config.override(check="bounds", cache="off"):
        checked = compile_llvm(program, 4)
        for one, other in zip(checked(inputs, states), plain, strict=True):
            np.testing.assert_array_equal(one, other)


@every_case
def test_equal_maxima_share_the_gradient(program, rng):
    """Whole numbers, whose sums are exact: what is equal here is equal in the reference."""
    inputs, states = arrays(program, 3, rng)
    inputs[0] = rng.integers(-2, 3, inputs[0].shape).astype("f4")
    inputs[0][1] = 1
    states = [rng.integers(-2, 3, state.shape).astype("f4") for state in states]
    found = compile_llvm(program, 3)(inputs, states)
    expected = compile_reference(program, 3)(inputs, states)
    assert np.count_nonzero(expected[0][1]) > np.count_nonzero(expected[0][0])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


def test_the_compiler_takes_them_without_places():
    kernels = [task.kernel for task, _, _ in generate(CASES["text"], 8, host.detect()).tasks]
    chosen = [k for k in kernels if isinstance(k, (WinnerFilterGradient, WinnerInputGradient))]
    assert len(chosen) == 2
    assert not any(kernel.placed for kernel in chosen)


def test_a_gradient_of_nan_is_no_zero(rng):
    x, g = input_node(Type((B, 6, 6, 8)), "x"), input_node(Type((B, 4, 4, 3)), "g")
    w = input_node(Type((3, 3, 3, 8)), "w")
    found = apply(SparseFilterGrad((3, 3)), x, g), apply(SparseInputGrad((6, 6)), g, w)
    program = Program((x, g), (w,), found, (None,))
    slopes = np.zeros((2, 4, 4, 3), np.float32)
    slopes[1, 1, 3, 2] = np.nan
    inputs = [rng.standard_normal((2, 6, 6, 8)).astype("f4"), slopes]
    filters, image = compile_llvm(program, 2)(inputs, [rng.standard_normal(w.shape).astype("f4")])
    assert np.isnan(filters[2]).all()
    assert not filters[:2].any()
    assert np.isnan(image[1, 1:4, 3:6]).all()
    assert np.isnan(image).sum() == 9 * 8


DENSE = {
    "few channels": network((40,), (3,), 3, 20),
    "few positions": network((9,), (3,), 16, 20),
    "a maximum over one of two axes": network((9, 11), (3, 2), 12, 66, axes=(1,)),
    "padding": network((40,), (3,), 16, 20, padding=((1, 1),)),
}


@pytest.mark.parametrize("program", DENSE.values(), ids=DENSE)
def test_left_dense(program):
    assert not ops_of(rewritten(program)) & {SparseFilterGrad, SparseInputGrad}
