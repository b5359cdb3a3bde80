"""Loops of unknown length in native code, against the reference executor."""

from __future__ import annotations

import numpy as np
import pytest

import lamina
from lamina import config, ops
from lamina.llvm.executor import compile_llvm
from lamina.reference import compile_reference
from lamina.trace import trace
from lamina.types import Batch, Type

CAPACITY = 7
ROWS = Type((Batch(1), 5))


def doubled(x):
    """The test sums over the batch: all rows go round as often."""
    return ops.while_loop(lambda y: ops.sum(y) < 1000.0, lambda y: y * 2.0, x)


def swapped(x):
    """The carries change places, and the loop counts."""
    return ops.while_loop(lambda a, b, i: i < 5, lambda a, b, i: (b, a + 1.0, i + 1), (x, x * x, 0))


def solved(x):
    """A product with a constant that is transposed, which is laid out once, before the loop."""
    matrix = ops.transpose(ops.reshape(ops.cast(ops.arange(25), "float32"), (5, 5))) / 40.0

    def better(y, change):
        new = 0.5 * ops.matmul(y, matrix) + x
        return new, ops.max(ops.abs(new - y))

    return ops.while_loop(lambda y, change: change > 1e-5, better, (x, 1.0))


def never(x):
    return ops.while_loop(lambda y: ops.sum(y * y) < -1.0, lambda y: y + 1.0, x)


def nested(x):
    """A loop in time in which each step halves until it is small, and one in a loop."""
    small = lambda y: ops.while_loop(lambda z: ops.max(z) > 0.3, lambda z: z / 2.0, y)
    ys = ops.scan(lambda carry, y: (small(carry + y), small(y * y)), x[:, 0], ops.transpose(x))
    outer = ops.while_loop(lambda z, i: i < 3, lambda z, i: (small(z * 7.0), i + 1), (x, 0))
    return ys, outer


def bounded(x):
    return ops.while_loop(lambda y: True, lambda y: y + x, x * 0.0, maximum_iterations=6)


def branching(x):
    """A branch inside; sorting, which wants its own layout; a mean over the batch."""

    def step(y, i):
        y = ops.cond(i % 2 == 0, lambda: ops.sort(y, axis=0), lambda: y - ops.mean(y, axis=0))
        return y, i + 1

    return ops.while_loop(lambda y, i: i < 4, step, (x, 0))


FIXED = [doubled, swapped, solved, never, nested, bounded, branching]
ROWWISE = [doubled, swapped, solved, never, bounded]


def agree(program, inputs, threads=1, **settings):
    with config.override(cache="off", **settings):
        native = compile_llvm(program, CAPACITY)
        with config.override(threads=threads):
            found = native(inputs, [])
    for one, other in zip(found, compile_reference(program, CAPACITY)(inputs, []), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
    return found


@pytest.mark.parametrize("function", FIXED)
def test_loops_over_fixed_shapes(function, rng):
    program = trace(function, Type((6, 5))).program
    agree(program, [rng.random((6, 5)).astype("f4") + 0.1], check="bounds")


@pytest.mark.parametrize("rows", [1, 2, CAPACITY - 1, CAPACITY])
@pytest.mark.parametrize("function", ROWWISE)
def test_loops_over_rows(function, rows, rng, several_threads):
    """One thread goes round, whatever the others do; the bits are the same."""
    several_threads()
    program = trace(function, ROWS).program
    x = rng.random((rows, 5)).astype("f4") + 0.1
    alone = agree(program, [x])
    for threads in (2, 3):
        for one, other in zip(agree(program, [x], threads), alone, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_loop_in_a_step_that_keeps_state(rng):
    steps = lamina.Variable(0, dtype="int32")
    total = lamina.Variable(np.zeros(3, "f4"))

    @lamina.function
    def halve(x):
        y, count = ops.while_loop(
            lambda y, i: ops.max(y) > 1.0, lambda y, i: (y / 2.0, i + 1), (x, steps * 0)
        )
        steps.assign(steps + count)
        total.assign(total + y)
        return y

    expected, count = np.zeros(3, "f4"), 0
    for scale in (0.5, 3.0, 100.0):
        x = (rng.random(3) * scale).astype("f4")
        y = x.copy()
        while y.max() > 1:
            y, count = y / 2, count + 1
        np.testing.assert_allclose(halve(x).numpy(), y)
        expected += y
    assert int(steps.numpy()) == count
    np.testing.assert_allclose(total.numpy(), expected, rtol=1e-6)
