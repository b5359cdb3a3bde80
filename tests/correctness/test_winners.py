"""Gradients behind max pooling, taken at the winners: the same as the dense gradients."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import config
from lamina.ir.contractions import ConvFilterGrad, ConvInputGrad, WindowGrad, conv, window
from lamina.ir.elementary import broadcast, reduce_sum
from lamina.ir.graph import apply, constant, input_node, toposort
from lamina.ir.program import Program
from lamina.ir.scalar import add, relu, square
from lamina.ir.winners import WindowArgMax, WinnerFilterGrad, WinnerInputGrad
from lamina.llvm import choices, host
from lamina.llvm.executor import compile_llvm
from lamina.llvm.generate import generate
from lamina.reference import compile_reference
from lamina.transform.absorb import absorb
from lamina.transform.gradient import gradients
from lamina.transform.winners import use_winners
from lamina.types import Batch, Type

B = Batch(1)


def network(channels, filters, kernel=(3, 3), size=(2, 2)):
    """Gradients of a convolution, relu and pooling for input, filter and bias."""
    x = input_node(Type((B, 9, 11, channels)), "x")
    w = input_node(Type((*kernel, channels, filters)), "w")
    b = input_node(Type((filters,)), "b")
    h = conv(x, w)
    h = window(relu(add(h, broadcast(b, h.shape, (3,)))), "max", size)
    loss = reduce_sum(square(h), (0, 1, 2, 3))
    found = gradients([loss], [constant(1.0)], [x, w, b])
    return Program((x,), (w, b), tuple(found), (None, None))


def arrays(program, rows, rng):
    x = rng.standard_normal((rows, *program.inputs[0].shape[1:])).astype("f4")
    return [x], [rng.standard_normal(node.shape).astype("f4") for node in program.states]


def ops_of(program):
    return {type(node.op) for node in toposort(program.roots)}


CASES = [
    (16, 5, (3, 3), (2, 2)),
    (8, 20, (2, 3), (3, 2)),
    (37, 4, (1, 1), (2, 2)),
    (9, 131, (3, 3), (2, 2)),
]


@pytest.mark.parametrize(("channels", "filters", "kernel", "size"), CASES)
def test_the_rewrite_changes_no_gradient(channels, filters, kernel, size, rng):
    program = network(channels, filters, kernel, size)
    rewritten = program.with_roots(use_winners(absorb(program.roots), choices.WINNER_CHANNELS))
    found = ops_of(rewritten)
    assert {WindowArgMax, WinnerFilterGrad, WinnerInputGrad} <= found
    assert not found & {WindowGrad, ConvFilterGrad, ConvInputGrad}
    inputs, states = arrays(program, 3, rng)
    dense = compile_reference(program, 3)(inputs, states)
    sparse = compile_reference(rewritten, 3)(inputs, states)
    for one, other in zip(dense, sparse, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("cpu", [t.name for t in host.runnable_targets()])
@pytest.mark.parametrize(("channels", "filters", "kernel", "size"), CASES)
def test_native_code_agrees_with_the_dense_reference(channels, filters, kernel, size, cpu, rng):
    program = network(channels, filters, kernel, size)
    with config.override(cpu=cpu):
        compiled = compile_llvm(program, 5)
    reference = compile_reference(program, 5)
    for rows in (1, 4, 5):
        inputs, states = arrays(program, rows, rng)
        for one, other in zip(compiled(inputs, states), reference(inputs, states), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("room", [1, 3000])
def test_bands_of_windows_change_no_bit(room, rng, monkeypatch):
    program = network(12, 70)
    inputs, states = arrays(program, 5, rng)
    text = generate(program, 5, host.detect()).text
    with config.override(cache="off"):
        whole = compile_llvm(program, 5)
        monkeypatch.setattr(choices, "WINNER_BYTES", room)
        banded = compile_llvm(program, 5)
    assert generate(program, 5, host.detect()).text != text
    for one, other in zip(whole(inputs, states), banded(inputs, states), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_number_of_threads_changes_no_bit(rng, several_threads):
    """What is cut down to the windows, winners of all filters, and partial sums of samples."""
    several_threads()
    program = network(16, 70)
    inputs, states = arrays(program, 7, rng)
    found = []
    for threads in (1, 2, 3):
        with config.override(threads=threads, cache="off"):
            executable = compile_llvm(program, 8)
            assert executable.threads(1) == threads
            found.append(executable(inputs, states))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_gradients_of_nan_are_not_left_out(rng):
    """A gradient of NaN is no zero: it reaches the filter and the cells around the winner."""
    places = input_node(Type((B, 2, 2, 3), "int32"), "places")
    g = input_node(Type((B, 2, 2, 3)), "g")
    x = input_node(Type((B, 6, 6, 8)), "x")
    w = input_node(Type((3, 3, 3, 8)), "w")
    found = (
        apply(WinnerFilterGrad((3, 3), (2, 2)), x, places, g),
        apply(WinnerInputGrad((6, 6), (2, 2)), places, g, w),
    )
    program = Program((x, places, g), (w,), found, (None,))
    slopes = np.zeros((2, 2, 2, 3), np.float32)
    slopes[1, 0, 1, 2] = np.nan
    inputs = [
        rng.standard_normal((2, 6, 6, 8)).astype("f4"),
        np.full(slopes.shape, 3, np.int32),
        slopes,
    ]
    filters, image = compile_llvm(program, 2)(inputs, [rng.standard_normal(w.shape).astype("f4")])
    assert np.isnan(filters[2]).all()
    assert np.isfinite(filters[:2]).all()
    assert np.isnan(image[1, 1:4, 3:6]).all()
    assert np.isnan(image).sum() == 9 * 8


def test_the_first_of_equal_cells_wins(rng):
    """As in `Window`, whose gradient goes to one cell only."""
    op = WindowArgMax((2, 2))
    x = np.zeros((1, 4, 5, 1), np.float32)
    np.testing.assert_array_equal(op.numpy(x)[0, ..., 0], np.zeros((2, 2)))
    x[0, 1, 1] = 1
    assert op.numpy(x)[0, 0, 0, 0] == 3


def test_few_channels_overlaps_and_padding_stay_dense():
    narrow = network(3, 5)
    assert ops_of(
        narrow.with_roots(use_winners(absorb(narrow.roots), choices.WINNER_CHANNELS))
    ) >= {ConvFilterGrad}
