"""Convolutions behind which a pooling leaves something alone: the rest is not computed."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.ir.contractions import Conv, conv, window
from lamina.ir.elementary import broadcast, reduce_sum
from lamina.ir.graph import constant, input_node, toposort
from lamina.ir.program import Program
from lamina.ir.scalar import add, relu, square
from lamina.llvm import choices
from lamina.llvm.executor import compile_llvm
from lamina.reference import compile_reference
from lamina.transform.absorb import absorb
from lamina.transform.crop import crop
from lamina.transform.gradient import gradients
from lamina.transform.winners import use_winners
from lamina.types import Batch, Type

B = Batch(1)

# channels, filters, image, kernel, (strides, padding, dilation) of the convolution;
# kind, size, strides of the pooling; extents that are computed
CASES = [
    (16, 16, (9, 11), (3, 3), (1, ((0, 0), (0, 0)), 1), ("max", (2, 2), (2, 2)), (6, 8)),
    (3, 5, (10, 12), (3, 3), (2, ((0, 1), (0, 1)), 1), ("max", (3, 3), (3, 3)), (3, 6)),
    (4, 7, (8, 8), (5, 5), (1, ((2, 2), (2, 2)), 1), ("max", (3, 3), (2, 2)), (7, 7)),
    (8, 8, (9, 10), (2, 2), (1, ((1, 1), (0, 0)), 2), ("mean", (2, 4), (2, 4)), (8, 8)),
    (8, 6, (24,), (4,), (1, ((0, 0),), 1), ("max", (5,), (5,)), (20,)),
]


def pooled(channels, filters, image, kernel, convolution, pooling):
    """The pooled values, and gradients for the convolution's inputs."""
    strides, padding, dilation = convolution
    kind, size, steps = pooling
    x = input_node(Type((B, *image, channels)), "x")
    w = input_node(Type((*kernel, channels, filters)), "w")
    b = input_node(Type((filters,)), "b")
    rank = len(image)
    h = conv(x, w, strides=(strides,) * rank, padding=padding, dilation=(dilation,) * rank)
    h = relu(add(h, broadcast(b, h.shape, (rank + 1,))))
    p = window(h, kind, size, steps)
    loss = reduce_sum(square(p), tuple(range(rank + 2)))
    return h, p, gradients([loss], [constant(1.0)], [x, w, b]), (x, w, b)


def arrays(program, rows, rng):
    x = rng.standard_normal((rows, *program.inputs[0].shape[1:])).astype("f4")
    return [x], [rng.standard_normal(node.shape).astype("f4") for node in program.states]


def computed(roots):
    """The extents of the first convolution's result."""
    return next(node.shape[1:-1] for node in toposort(roots) if isinstance(node.op, Conv))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_only_what_windows_reach_is_computed_and_is_the_same(case, rng):
    *network, extents = case
    _, p, slopes, (x, w, b) = pooled(*network)
    for roots in ([p], [p, *slopes]):
        program = Program((x,), (w, b), tuple(roots), (None, None))
        cropped = program.with_roots(
            crop(use_winners(absorb(program.roots), choices.WINNER_CHANNELS))
        )
        if roots == [p]:
            assert computed(cropped.roots) == extents
        reference, small = compile_reference(program, 5), compile_reference(cropped, 5)
        native = compile_llvm(program, 5)
        for rows in (1, 2, 4, 5):
            inputs, states = arrays(program, rows, rng)
            whole = reference(inputs, states)
            for one, other in zip(small(inputs, states), whole, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
            for one, other in zip(native(inputs, states), whole, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-3)


def test_a_training_step_behind_relu_and_max_pooling_is_cut_down():
    _, p, slopes, _ = pooled(*CASES[0][:-1])
    assert (
        computed(crop(use_winners(absorb([p, *slopes]), choices.WINNER_CHANNELS))) == CASES[0][-1]
    )


def test_what_is_read_elsewhere_stays_whole():
    h, p, _, _ = pooled(*CASES[0][:-1])
    whole = tuple(h.shape[1:-1])
    assert computed(crop([p, reduce_sum(h, (1, 2))])) == whole
    assert computed(crop([p, h])) == whole
    linear = h.inputs[0]
    assert computed(crop([p, linear])) == whole
