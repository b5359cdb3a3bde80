"""Whole compiled training steps: equal to the reference, and the same bits however they run."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import config
from lamina.errors import IndexRangeError, ShapeError
from lamina.ir.contractions import conv, dot, window
from lamina.ir.elementary import broadcast, reduce_max, reduce_sum
from lamina.ir.graph import constant, input_node, rows
from lamina.ir.indexing import gather
from lamina.ir.movement import iota, reshape
from lamina.ir.program import Program
from lamina.ir.random import uniform
from lamina.ir.scalar import add, cast, div, eq, exp, gt, log, mul, relu, scale, sub, where
from lamina.llvm import choices, engine, host
from lamina.llvm.executor import compile_llvm
from lamina.llvm.generate import generate
from lamina.llvm.kernel import Contraction, Elementwise
from lamina.reference import compile_reference
from lamina.transform.gradient import gradients
from lamina.types import Batch, Type, numpy_dtype

B = Batch(1)
CAPACITY = 12


def weight(*shape):
    return input_node(Type(shape), "w" + "x".join(map(str, shape)))


def biased(h, b):
    return add(h, broadcast(b, h.shape, (len(h.shape) - 1,)))


def cross_entropy(z, y):
    """The mean over the rows that are there."""
    classes = z.shape[1]
    shifted = sub(z, broadcast(reduce_max(z, (1,)), z.shape, (0,)))
    total = log(reduce_sum(exp(shifted), (1,)))
    hot = cast(eq(broadcast(y, z.shape, (0,)), iota((B, classes), 1)), "float32")
    each = sub(total, reduce_sum(mul(shifted, hot), (1,)))
    return div(reduce_sum(each, (0,)), rows())


def descent(loss, weights, rate):
    slopes = gradients([loss], [constant(1.0)], weights)
    return [
        sub(w, mul(broadcast(rate, w.shape, ()), g)) for w, g in zip(weights, slopes, strict=True)
    ]


def convolutional():
    """Convolution, pooling, dense, dropout; gradient descent."""
    x, y = input_node(Type((B, 11, 10, 3)), "x"), input_node(Type((B,), "int32"), "y")
    key = input_node(Type((2,), "uint32"), "key")
    weights = [weight(3, 3, 3, 18), weight(18), weight(3, 2, 18, 7), weight(7), weight(42, 5)]
    rate = input_node(Type(()), "rate")
    h = relu(biased(conv(x, weights[0], padding=((1, 1), (1, 1))), weights[1]))
    h = window(h, "max", (2, 2))
    h = relu(biased(conv(h, weights[2], strides=(1, 2)), weights[3]))
    h = reshape(h, (B, 42))
    kept = gt(uniform(key, h.shape), broadcast(constant(0.25), h.shape, ()))
    h = where(kept, scale(h, 1 / 0.75), broadcast(constant(0.0), h.shape, ()))
    loss = cross_entropy(dot(h, weights[4]), y)
    new = descent(loss, weights, rate)
    key_next = add(key, broadcast(constant(1, "uint32"), (2,), ()))
    return Program((x, y), (*weights, rate, key), (loss,), (*new, None, key_next))


def embedded():
    """An embedding, a mean over time, dense."""
    x, y = input_node(Type((B, 9), "int32"), "x"), input_node(Type((B,), "int32"), "y")
    weights = [weight(30, 20), weight(20, 5)]
    rate = input_node(Type(()), "rate")
    h = scale(reduce_sum(gather(weights[0], x), (1,)), 1 / 9)
    loss = cross_entropy(dot(relu(h), weights[1]), y)
    return Program((x, y), (*weights, rate), (loss,), (*descent(loss, weights, rate), None))


def dense():
    """Two dense layers with momentum: three weights and a slot for each."""
    x, y = input_node(Type((B, 11)), "x"), input_node(Type((B,), "int32"), "y")
    weights = [weight(11, 18), weight(18), weight(18, 5)]
    slots = [weight(*one.shape) for one in weights]
    rate = input_node(Type(()), "rate")
    h = relu(biased(dot(x, weights[0]), weights[1]))
    loss = cross_entropy(dot(h, weights[2]), y)
    slopes = gradients([loss], [constant(1.0)], weights)
    moved = [add(scale(slot, 0.9), slope) for slot, slope in zip(slots, slopes, strict=True)]
    new = [
        sub(w, mul(broadcast(rate, w.shape, ()), m)) for w, m in zip(weights, moved, strict=True)
    ]
    return Program((x, y), (*weights, *slots, rate), (loss,), (*new, *moved, None))


def states_of(program, rng):
    states = []
    for node in program.states:
        if node.dtype == "uint32":
            states.append(np.array([3, 5], np.uint32))
        elif node.op.label == "rate":
            states.append(np.array(0.1, np.float32))
        else:
            states.append(rng.standard_normal(node.shape).astype(np.float32) * 0.3)
    return states


def rows_of(program, count, rng):
    x, _ = program.inputs
    if x.dtype == "int32":
        data = rng.integers(0, 30, (count, 9)).astype(np.int32)
    else:
        data = rng.standard_normal((count, *x.shape[1:])).astype(np.float32)
    return [data, rng.integers(0, 5, count).astype(np.int32)]


PROGRAMS = pytest.mark.parametrize("build", [convolutional, embedded, dense])


def trained(executable, program, seed=0, count=31, batch=CAPACITY, steps=None):
    """States after an epoch in a shuffled order with a short last batch."""
    rng = np.random.default_rng(seed)
    states, data = states_of(program, rng), rows_of(program, count, rng)
    order = rng.permutation(count)
    last = -(-count // batch) if steps is None else steps
    first = 0
    while first < last:
        first += executable.steps(
            data, states, batch_size=batch, order=order, first=first, last=last
        )
    return states


def same_bits(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


@PROGRAMS
def test_a_step_is_the_references_step(build):
    program = build()
    compiled, reference = (make(program, CAPACITY) for make in (compile_llvm, compile_reference))
    for seed in range(3):
        found = trained(compiled, program, seed)
        expected = trained(reference, program, seed)
        for value, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


@PROGRAMS
def test_rows_that_are_not_there_do_not_count(build, rng):
    """Any number of rows up to the capacity, the memory behind them full of NaN."""
    program = build()
    compiled, reference = (make(program, CAPACITY) for make in (compile_llvm, compile_reference))
    for count in (1, 2, CAPACITY - 1, CAPACITY):
        states = states_of(program, rng)
        copies = [state.copy() for state in states]
        data = rows_of(program, count, rng)
        padded = []
        for array in data:
            room = np.full((CAPACITY, *array.shape[1:]), 7, array.dtype)
            if array.dtype == np.float32:
                room[:] = np.nan
            room[:count] = array
            padded.append(room[:count])
        (loss,), (wanted,) = compiled(padded, states), reference(data, copies)
        np.testing.assert_allclose(loss, wanted, rtol=1e-5)
        for value, expected in zip(states, copies, strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


@PROGRAMS
@pytest.mark.parametrize("sums", ["parts", "products", "whole"])
def test_the_number_of_threads_changes_no_bit(build, sums, several_threads, monkeypatch):
    several_threads(sums)
    monkeypatch.setattr(choices, "SMALLEST_SHARED_WORK", 1)
    program = build()
    results = []
    for threads in (1, 2, 3):
        with config.override(threads=threads, cache="off"):
            executable = compile_llvm(program, CAPACITY)
            assert executable.threads(1) == threads
            results.append(trained(executable, program))
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


def test_an_update_is_the_epilogue_of_a_gradient_that_is_summed_whole(several_threads):
    program = dense()

    def updates(sums):
        several_threads(sums)
        tasks = [task for task, _, _ in generate(program, CAPACITY, host.detect()).tasks]
        written = {
            buffer.label: task
            for task in tasks
            for buffer in task.written_buffers()
            if buffer.place == "state"
        }
        return [type(written[label].kernel) for label in ("w11x18", "w18x5")]

    assert updates("whole") == updates("products") == [Contraction] * 2
    assert updates("parts") == [Elementwise] * 2


@PROGRAMS
def test_memory_of_its_own_for_every_value_changes_no_bit(build):
    program = build()
    usual = trained(compile_llvm(program, CAPACITY), program)
    with config.override(arena="apart"):
        assert same_bits(usual, trained(compile_llvm(program, CAPACITY), program))


@PROGRAMS
def test_fusion_changes_no_bit(build, monkeypatch):
    program = build()
    with config.override(cache="off"):
        usual = trained(compile_llvm(program, CAPACITY), program)
        monkeypatch.setattr(choices, "LARGEST_GROUP", 0)
        monkeypatch.setattr(choices, "INLINE_COST", -1)
        assert same_bits(usual, trained(compile_llvm(program, CAPACITY), program))


@PROGRAMS
def test_blocks_of_rows_change_values_by_rounding_only(build, monkeypatch):
    program = build()
    with config.override(cache="off"):
        usual = trained(compile_llvm(program, CAPACITY), program)
        monkeypatch.setattr(choices, "BLOCK_BYTES", 1)
        monkeypatch.setattr(choices, "SMALLEST_BLOCK", 2)
        small = trained(compile_llvm(program, CAPACITY), program)
    for value, wanted in zip(small, usual, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


@PROGRAMS
def test_many_steps_in_a_call_are_single_steps(build, rng):
    program = build()
    with config.override(check="off"):  # a checked call is one step
        executable = compile_llvm(program, CAPACITY)
    states, data = states_of(program, rng), rows_of(program, 3 * CAPACITY, rng)
    singles = [state.copy() for state in states]
    done = executable.steps(data, states, batch_size=CAPACITY)
    assert done == 3
    for first in range(0, 3 * CAPACITY, CAPACITY):
        executable([array[first : first + CAPACITY] for array in data], singles)
    assert same_bits(states, singles)


def test_a_step_that_loses_the_watched_value_is_the_last(rng):
    x = input_node(Type((B,)), "x")
    total = input_node(Type(()), "total")
    program = Program((x,), (total,), (), (add(total, log(reduce_sum(x, (0,)))),))
    with config.override(check="off"):
        executable = compile_llvm(program, 2)
    data = np.array([1, 1, 1, 1, -1, 0, 1, 1], np.float32)
    states = [np.zeros((), np.float32)]
    assert executable.steps([data], states, batch_size=2, stop_on=0) == 3
    assert np.isnan(states[0])


def test_nothing_compiles_twice_for_other_batch_sizes_or_rates(rng, tmp_path):
    program = convolutional()
    with config.override(cache=str(tmp_path / "cache")):
        executable = compile_llvm(program, CAPACITY)
        before = engine.counters.parses, engine.counters.loads
        states = states_of(program, rng)
        for count, rate in ((CAPACITY, 0.1), (5, 0.1), (1, 0.5)):
            states[-2][...] = rate
            executable(rows_of(program, count, rng), states)
        assert (engine.counters.parses, engine.counters.loads) == before
        compile_llvm(convolutional(), CAPACITY)
        assert engine.counters.parses == before[0], "an equal program comes from the disk"
        assert engine.counters.loads == before[1] + 1


def test_a_label_outside_its_table_ends_the_call_before_it_starts(rng):
    program = embedded()
    executable = compile_llvm(program, CAPACITY)
    states = states_of(program, rng)
    copies = [state.copy() for state in states]
    data = rows_of(program, 20, rng)
    data[0][17, 3] = 30
    with pytest.raises(IndexRangeError, match="row 17 holds the index 30, outside its table of 30"):
        executable.steps(data, states, batch_size=5)
    assert same_bits(states, copies)


def test_more_rows_than_the_capacity_are_refused(rng):
    program = embedded()
    executable = compile_llvm(program, CAPACITY)
    with pytest.raises(ShapeError, match="compiled for 12"):
        executable(rows_of(program, 13, rng), states_of(program, rng))


@pytest.mark.parametrize("kind", ["plain", "read-only", "empty", "bfloat16"])
def test_arrays_are_handed_over_whatever_they_allow(kind):
    """An array may refuse a writable buffer, or have none: it lies somewhere all the same."""
    dtype = "bfloat16" if kind == "bfloat16" else "float32"
    x = input_node(Type((Batch(1), 3), dtype), "x")
    program = Program((x,), (), (add(x, x),), ())
    data = np.arange(0 if kind == "empty" else 6).reshape(-1, 3).astype(numpy_dtype(dtype))
    data.flags.writeable = kind != "read-only"
    with config.override(cache="off"):
        (found,) = compile_llvm(program, 4)([data], [])
    np.testing.assert_array_equal(found, data + data)
