"""The reference executor: states, rows, many steps, and what it refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lamina import executor as executor_module
from lamina.errors import IndexRangeError, ShapeError
from lamina.ir.contractions import conv, dot, window
from lamina.ir.elementary import broadcast, full, reduce_max, reduce_sum
from lamina.ir.graph import constant, input_node, rows
from lamina.ir.indexing import gather
from lamina.ir.interpret import interpret
from lamina.ir.movement import grow_last, reshape, transpose
from lamina.ir.program import Program
from lamina.ir.random import uniform
from lamina.ir.reductions import mean
from lamina.ir.scalar import add, cast, div, exp, gt, lift, log, mul, shift, sub, where, zeros_like
from lamina.reference import KEPT, compile_reference
from lamina.transform.gradient import gradients
from lamina.transform.limits import index_limits
from lamina.types import Batch, Type

B = Batch(1)
F = np.float32


def relu(x):
    return where(gt(x, zeros_like(x)), x, zeros_like(x))


def cross_entropy(logits, labels):
    """The mean over the rows that are there."""
    shifted = sub(logits, broadcast(reduce_max(logits, -1), logits.shape, (0,)))
    total = log(reduce_sum(exp(shifted), -1))
    return mean(sub(total, gather(shifted, labels, axis=1, batch=1)))


def classifier():
    """A small convolutional network and its training step with plain gradient descent."""
    image = input_node(Type((B, 6, 6, 1)), "image")
    label = input_node(Type((B,), "int32"), "label")
    shapes = ((3, 3, 1, 4), (4,), (36, 3), (3,))
    weights = [input_node(Type(shape), f"weight {i}") for i, shape in enumerate(shapes)]
    rate = input_node(Type(()), "rate")
    kernel, shift_1, matrix, shift_2 = weights
    y = conv(image, kernel, padding=((1, 1), (1, 1)))
    y = relu(add(y, grow_last(shift_1, y.shape)))
    y = window(y, "max", (2, 2))
    y = dot(reshape(y, (B, 36)), matrix)
    logits = add(y, grow_last(shift_2, y.shape))
    loss = cross_entropy(logits, label)
    slopes = gradients([loss], [constant(1.0)], weights)
    updates = [sub(w, mul(g, lift(rate, g))) for w, g in zip(weights, slopes, strict=True)]
    program = Program((image, label), (*weights, rate), (loss, logits), (*updates, None))
    rng = np.random.default_rng(1)
    states = [(0.3 * rng.standard_normal(shape)).astype(F) for shape in shapes]
    return program, [*states, np.array(0.5, F)]


def bars(count):
    """Images of a vertical, a horizontal or no bar, with noise."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, count).astype(np.int32)
    images = 0.1 * rng.standard_normal((count, 6, 6, 1))
    for image, label, place in zip(images, labels, rng.integers(0, 6, count), strict=True):
        if label == 0:
            image[:, place] += 1
        elif label == 1:
            image[place] += 1
    return images.astype(F), labels


def test_a_small_network_learns():
    program, states = classifier()
    run = compile_reference(program, 32)
    images, labels = bars(100)
    order = np.random.default_rng(0).permutation(100)
    first = run([images[:32], labels[:32]], [s.copy() for s in states])[0]
    for _ in range(40):
        done = 0
        while done < 4:
            done += run.steps([images, labels], states, batch_size=32, order=order, first=done)
    logits = np.zeros((100, 3), F)
    for begin in range(0, 100, 32):
        logits[begin : begin + 32] = run(
            [images[begin : begin + 32], labels[begin : begin + 32]], [s.copy() for s in states]
        )[1]
    assert first > 0.9
    assert np.mean(logits.argmax(1) == labels) > 0.97


def test_steps_equal_single_calls(monkeypatch):
    monkeypatch.setattr(executor_module, "SLICE", 1e9)
    program, states = classifier()
    run = compile_reference(program, 16)
    images, labels = bars(40)
    order = np.random.default_rng(0).permutation(40)
    expected, losses, outputs = [s.copy() for s in states], [], []
    for begin in (0, 16, 32):
        chosen = order[begin : begin + 16]
        loss, logits = run([images[chosen], labels[chosen]], expected)
        losses.append(loss)
        outputs.append(logits)
    collected = [np.zeros((), F), np.zeros((40, 3), F)]
    done = run.steps([images, labels], states, batch_size=16, order=order, outputs=collected)
    assert done == 3
    for one, other in zip(states, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(collected[0], losses[-1])
    np.testing.assert_array_equal(collected[1], np.concatenate(outputs))


def test_steps_may_return_early_and_go_on(monkeypatch):
    monkeypatch.setattr(executor_module, "SLICE", 0.0)
    program, states = classifier()
    run = compile_reference(program, 16)
    images, labels = bars(40)
    done = 0
    for expected in (1, 2, 3):
        done += run.steps([images, labels], states, batch_size=16, first=done)
        assert done == expected
    assert run.steps([images, labels], states, batch_size=16, first=done) == 0
    assert run.steps([images, labels], states, batch_size=16, first=1, last=2) == 1


def test_steps_stop_on_a_state_that_is_not_finite():
    x, total = input_node(Type((B,))), input_node(Type(()))
    program = Program((x,), (total,), (), (add(total, reduce_sum(x)),))
    run = compile_reference(program, 4)
    data, state = np.array([1, 2, 3, np.nan, 5, 6], F), np.zeros((), F)
    assert run.steps([data], [state], batch_size=2, stop_on=0) == 2
    assert np.isnan(state)


def test_rows_on_another_axis_and_folded_rows():
    x = input_node(Type((3, B)))
    y = input_node(Type((Batch(2), 2)))
    program = Program((x, y), (), (transpose(x), reshape(y, (B, 4)), y), ())
    run = compile_reference(program, 8)
    a = np.arange(15, dtype=F).reshape(3, 5)
    b = np.arange(20, dtype=F).reshape(10, 2)
    order = np.array([4, 0, 3, 1, 2])
    outputs = [np.zeros((5, 3), F), np.zeros((5, 4), F), np.zeros((10, 2), F)]
    assert run.steps([a, b], [], batch_size=2, order=order, outputs=outputs) == 3
    np.testing.assert_array_equal(outputs[0], a.T[order])
    np.testing.assert_array_equal(outputs[1], b.reshape(5, 4)[order])
    np.testing.assert_array_equal(outputs[2], b.reshape(5, 2, 2)[order].reshape(10, 2))


def test_inputs_without_a_batch_axis_are_passed_whole():
    x, scale = input_node(Type((B,))), input_node(Type(()))
    program = Program((x, scale), (), (mul(x, lift(scale, x)),), ())
    out = [np.zeros(5, F)]
    data = [np.arange(5, dtype=F), np.array(3, F)]
    compile_reference(program, 2).steps(data, [], batch_size=2, outputs=out)
    np.testing.assert_array_equal(out[0], 3 * data[0])


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_every_number_of_rows_up_to_the_capacity(count):
    x = input_node(Type((B, 3)))
    program = Program((x,), (), (mean(x, 0), rows(2, "int32"), uniform_of(x)), ())
    array = np.random.default_rng(0).standard_normal((count, 3)).astype(F)
    found = compile_reference(program, 8)([array], [])
    np.testing.assert_allclose(found[0], array.mean(0), rtol=1e-5)
    assert found[1] == 2 * count
    assert found[2].shape == (count, 3)


def uniform_of(x):
    return uniform(full((2,), 1, "uint32"), x.shape)


def test_states_swap_without_reading_what_was_just_written():
    a, b = input_node(Type((2,))), input_node(Type((2,)))
    program = Program((), (a, b), (a, b), (b, a))
    states = [np.array([1, 2], F), np.array([3, 4], F)]
    outputs = compile_reference(program, 1)([], states)
    np.testing.assert_array_equal(states, [[3, 4], [1, 2]])
    np.testing.assert_array_equal(outputs, [[1, 2], [3, 4]])


def test_outputs_are_copies():
    a = input_node(Type((2,)))
    run = compile_reference(Program((a,), (), (a, broadcast(a, (3, 2), (1,))), ()), 1)
    given = np.array([1, 2], F)
    first, second = run([given], [])
    first += 1
    second += 1
    np.testing.assert_array_equal(given, [1, 2])


def test_dtypes_stay_narrow():
    x = input_node(Type((B,)))
    found = compile_reference(Program((x,), (), (exp(div(x, lift(3.0, x))),), ()), 4)(
        [np.arange(3, dtype=F)], []
    )
    assert found[0].dtype == F


def test_resolved_programs_are_kept_for_a_few_row_counts():
    x = input_node(Type((B,)))
    run = compile_reference(Program((x,), (), (shift(x, 1.0),), ()), 100)
    for count in range(1, 3 * KEPT):
        run([np.zeros(count, F)], [])
    assert len(run._schedules) == KEPT


# ----------------------------------------------------------------------------------- errors


def refused(program, inputs, states=(), capacity=4):
    with pytest.raises((ShapeError, IndexRangeError)) as caught:
        compile_reference(program, capacity)(inputs, list(states))
    return str(caught.value)


def test_a_wrong_shape_is_named():
    x = input_node(Type((B, 3)), "pixels")
    text = refused(Program((x,), (), (x,), ()), [np.zeros((2, 4), F)])
    assert text == (
        "pixels: does not fit what the program was traced for.\n"
        "  expected float32 (batch, 3)\n"
        "  given    float32 (2, 4)"
    )


def test_too_many_rows_too_few_arrays_and_rows_that_differ():
    x, y = input_node(Type((B,)), "left"), input_node(Type((B,)), "right")
    program = Program((x, y), (), (x,), ())
    five = np.zeros(5, F)
    assert refused(program, [five, five]) == "5 rows were given to a program compiled for 4."
    assert refused(program, [five]) == "the program takes 2 inputs, got 1."
    assert refused(program, [five, five], [five]) == "the program takes 0 states, got 1."
    assert refused(program, [five[:2], five[:3]]) == (
        "the inputs hold different numbers of rows.\n  left     2 rows\n  right    3 rows"
    )


@pytest.mark.parametrize("bad", [-1, 7])
def test_an_index_outside_its_table_is_named_before_anything_runs(bad):
    tokens = input_node(Type((B, 2), "int32"), "tokens")
    table, count = input_node(Type((7, 3))), input_node(Type(()))
    looked_up = gather(table, cast(transpose(tokens), "int64"))
    program = Program((tokens,), (table, count), (looked_up,), (None, shift(count, 1.0)))
    assert index_limits(program) == {tokens: 7}
    states = [np.zeros((7, 3), F), np.zeros((), F)]
    text = refused(program, [np.array([[0, 6], [bad, 3]], np.int32)], states)
    assert text == (
        f"tokens: row 1 holds the index {bad}, outside its table of 7.\n"
        "  input    int32 (batch, 2)\n"
        "  allowed  0 to 6\n"
        "  hint     check the vocabulary size, or the number of classes"
    )
    assert states[1] == 0, "the state is untouched"


def test_computed_indexes_are_clamped_not_refused():
    tokens = input_node(Type((B,), "int32"))
    table = input_node(Type((7,)))
    program = Program((tokens, table), (), (gather(table, shift(tokens, 5)),), ())
    assert index_limits(program) == {}
    found = compile_reference(program, 4)([np.array([0, 4], np.int32), np.arange(7, dtype=F)], [])
    np.testing.assert_array_equal(found[0], [5, 6])


def test_the_smallest_of_several_tables_counts():
    index = input_node(Type((B,), "int32"))
    small, large = input_node(Type((3,))), input_node(Type((9,)))
    program = Program((index, small, large), (), (gather(large, index), gather(small, index)), ())
    assert index_limits(program) == {index: 3}


def test_a_missing_feed_is_named():
    x, y = input_node(Type(()), "left"), input_node(Type(()), "right")
    with pytest.raises(ShapeError, match=re.escape("nothing feeds the input right")):
        interpret([add(x, y)], {x: np.zeros((), F)})
