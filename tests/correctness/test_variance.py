"""Variances, whose gradient leaves out the mean, and factors that are taken out of sums."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.ir.elementary import Reduce, broadcast, reduce_sum
from lamina.ir.graph import constant, input_node, toposort
from lamina.ir.program import Program
from lamina.ir.reductions import mean, variance
from lamina.ir.scalar import add, mul, neg, rsqrt, sub
from lamina.llvm.executor import compile_llvm
from lamina.reference import compile_reference
from lamina.transform.absorb import factor_sums
from lamina.transform.gradient import gradients
from lamina.types import Batch, Type

B = Batch(1)


def test_the_gradient_of_the_gradient_flows_through_the_mean(rng):
    """d2 var / dx_i dx_j = 2 / n (delta_ij - 1 / n), where the mean's share is -1 / n."""
    x = input_node(Type((5,)), "x")
    v = input_node(Type((5,)), "v")
    (slope,) = gradients([variance(x)], [constant(1.0)], [x])
    (found,) = gradients([reduce_sum(mul(slope, v))], [constant(1.0)], [x])
    program = Program((x, v), (), (found,), ())
    inputs = [rng.standard_normal(5).astype("f4") for _ in range(2)]
    for compiled in (compile_reference(program, 1), compile_llvm(program, 1)):
        wanted = 2 / 5 * (inputs[1] - inputs[1].mean())
        np.testing.assert_allclose(compiled(inputs, [])[0], wanted, rtol=1e-5, atol=1e-6)


def normalised(channels):
    """Batch normalisation: the gradients of its input, factor and offset, and those of a residual
    path around it.
    """
    x = input_node(Type((B, 4, 3, channels)), "x")
    slope = input_node(Type((B, 4, 3, channels)), "slope")
    gamma, beta = (input_node(Type((channels,)), name) for name in ("gamma", "beta"))
    axes, kept = (0, 1, 2), (3,)

    def spread(value):
        return broadcast(value, x.shape, kept)

    factor = mul(rsqrt(add(variance(x, axes), broadcast(constant(1e-3), (channels,), ()))), gamma)
    y = add(mul(sub(x, spread(mean(x, axes))), spread(factor)), spread(beta))
    loss = reduce_sum(mul(y, slope))
    found = gradients([loss], [constant(1.0)], [x, gamma, beta])
    return Program((x, slope), (gamma, beta), (y, *found), (None, None))


@pytest.mark.parametrize("channels", [1, 5, 32])
def test_batch_normalisation_and_its_gradient(channels, rng):
    program = normalised(channels)
    compiled, reference = compile_llvm(program, 9), compile_reference(program, 9)
    for rows in (1, 2, 8, 9):
        # A mean far from zero: squares of it would drown the variance.
        x = (rng.standard_normal((rows, 4, 3, channels)) + 300).astype("f4")
        slope = rng.standard_normal(x.shape).astype("f4")
        states = [rng.standard_normal(channels).astype("f4") for _ in range(2)]
        wide = x.astype("f8")
        deviation = wide - wide.mean((0, 1, 2))
        factor = states[0] / np.sqrt((deviation**2).mean((0, 1, 2)) + 1e-3)
        wanted = deviation * factor + states[1]
        for executable in (compiled, reference):
            y, *found = executable([x, slope], states)
            np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-3)
        for one, other in zip(found, compiled([x, slope], states)[1:], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-3)


def test_a_backward_pass_sums_the_batch_twice_and_no_more():
    program = normalised(8)
    (x, *_) = program.outputs[1:]
    kept = factor_sums([x, *program.outputs[2:]])
    sums = [
        node for node in toposort(kept) if isinstance(node.op, Reduce) and node.op.axes == (0, 1, 2)
    ]
    # The mean, and in the gradient the sums of g and of g times the deviation.
    assert len(sums) == 3


@pytest.mark.parametrize("sign", [False, True])
def test_factors_leave_a_sum_and_the_value_stays(sign, rng):
    x = input_node(Type((B, 3, 4)), "x")
    f, g = input_node(Type((4,)), "f"), input_node(Type((3,)), "g")
    term = mul(broadcast(f, x.shape, (2,)), neg(x) if sign else x)
    moving = mul(term, broadcast(g, x.shape, (1,)))
    roots = [reduce_sum(term, (0, 1)), reduce_sum(moving, (0, 2)), reduce_sum(term, (1,))]
    factored = factor_sums(roots)
    assert factored[0].op != roots[0].op and factored[1].op != roots[1].op
    assert factored[2] is roots[2]
    inputs = [rng.standard_normal((6, 3, 4)).astype("f4")]
    states = [rng.standard_normal(n).astype("f4") for n in (4, 3)]
    results = [
        compile_reference(Program((x,), (f, g), tuple(some), (None, None)), 6)(inputs, states)
        for some in (roots, factored)
    ]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
