"""Every loop against its unrolled twin, with asymmetric weights and in both directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from lamina.ir.contractions import Conv, Dot, conv, dot
from lamina.ir.control import Body, Scan, body_of, inline, scan
from lamina.ir.elementary import Map, broadcast, reduce_sum
from lamina.ir.graph import input_node, toposort
from lamina.ir.indexing import gather
from lamina.ir.interpret import interpret
from lamina.ir.movement import concat, expand, grow_last, squeeze, take_range
from lamina.ir.program import Program
from lamina.ir.scalar import (
    add,
    cast,
    exp,
    gt,
    lift,
    mul,
    one_minus,
    shift,
    sigmoid,
    stop_gradient,
    sub,
    tanh,
    where,
)
from lamina.transform.gradient import gradients
from lamina.transform.simplify import simplify
from lamina.types import Batch, Type

T, D, H = 5, 4, 3
B = Batch(1)


def f(*shape):
    return Type(shape, "float64")


@dataclass(frozen=True)
class Cell:
    """A body and the types of what it takes: carries, elements (of one step), constants."""

    build: object
    carries: tuple
    elements: tuple
    constants: tuple

    def body(self):
        return body_of(self.build, [*self.carries, *self.elements, *self.constants])


def dense(x, w, b):
    y = dot(x, w)
    return add(y, grow_last(b, y.shape))


def rnn(h, x, wx, wh, b):
    new = tanh(add(dense(x, wx, b), dot(h, wh)))
    return new, new


def lstm(h, c, x, wx, wh, b):
    z = add(add(dot(x, wx), dot(h, wh)), grow_last(b, (B, 4 * H)))
    i, forget, g, o = (take_range(z, 1, k * H, (k + 1) * H) for k in range(4))
    new_c = add(mul(sigmoid(forget), c), mul(sigmoid(i), tanh(g)))
    new_h = mul(sigmoid(o), tanh(new_c))
    return new_h, new_c, new_h


def masked_gru(h, x, mask, wx, wh, wc):
    gates = sigmoid(add(dot(x, wx), dot(h, wh)))
    r, z = take_range(gates, 1, 0, H), take_range(gates, 1, H, 2 * H)
    candidate = tanh(dot(concat([x, mul(r, h)], 1), wc))
    new = add(mul(z, h), mul(one_minus(z), candidate))
    new = where(broadcast(mask, new.shape, (0,)), new, h)
    return new, new


def with_head(h, x, wx, wh, wo, bo):
    new = tanh(add(dot(x, wx), dot(h, wh)))
    return new, exp(dense(tanh(new), wo, bo))


def attention(h, x, memory, wx):
    """The carry looks at a constant with one row a sample: a product with a batch axis."""
    scores = dot(add(h, dot(x, wx)), memory, contract=((1, 2),), batch=((0, 0),))
    weights = exp(tanh(scores))
    read = dot(weights, memory, contract=((1, 1),), batch=((0, 0),))
    return tanh(read), scores


def counter(n, h, x, w):
    """An integer carry beside a float one; the input is scaled by the step number."""
    scaled = mul(x, broadcast(cast(n, "float64"), x.shape, ()))
    new = tanh(add(h, dot(scaled, w)))
    return shift(n, 1), new, new


def product(h, x):
    return mul(h, x), add(h, x)


def embedding(h, token, table, wx, wh):
    new = tanh(add(dot(gather(table, token), wx), dot(h, wh)))
    return new, new


def conv_rnn(h, x, w, u):
    new = tanh(add(conv(x, w, padding=[(1, 1)]), conv(h, u, padding=[(1, 1)])))
    return new, new


def stopped(h, x, w):
    new = tanh(add(mul(stop_gradient(h), h), dot(x, w)))
    return new, sub(new, stop_gradient(new))


def two_ways(h, g, x, w, v):
    """Carries that cross over, and a weight that is used twice and also elementwise."""
    a = tanh(add(dot(h, w), dot(dot(x, v), w)))
    b = mul(sigmoid(add(g, h)), lift(reduce_sum(w), g))
    return b, a, add(a, b)


def nested(h, x, w):
    """A loop inside the loop: three steps of a small recurrence."""
    inner = body_of(lambda s, u, y: tanh(add(mul(s, y), dot(s, u))), [f(B, H), f(H, H), f(B, H)])
    (last,) = scan(inner, 3, [h], [], [w, x])
    new = tanh(add(last, x))
    return new, new


CELLS = {
    "rnn": Cell(rnn, (f(B, H),), (f(B, D),), (f(D, H), f(H, H), f(H))),
    "lstm": Cell(lstm, (f(B, H), f(B, H)), (f(B, D),), (f(D, 4 * H), f(H, 4 * H), f(4 * H))),
    "masked gru": Cell(
        masked_gru,
        (f(B, H),),
        (f(B, D), Type((B,), "bool")),
        (f(D, 2 * H), f(H, 2 * H), f(D + H, H)),
    ),
    "head": Cell(with_head, (f(B, H),), (f(B, D),), (f(D, H), f(H, H), f(H, 2), f(2))),
    "attention": Cell(attention, (f(B, H),), (f(B, D),), (f(B, 6, H), f(D, H))),
    "counter": Cell(counter, (Type((), "int32"), f(B, H)), (f(B, D),), (f(D, H),)),
    "product": Cell(product, (f(B, H),), (f(B, H),), ()),
    "embedding": Cell(embedding, (f(B, H),), (Type((B,), "int32"),), (f(9, D), f(D, H), f(H, H))),
    "conv": Cell(conv_rnn, (f(B, 6, 2),), (f(B, 6, 3),), (f(3, 3, 2), f(3, 2, 2))),
    "stopped": Cell(stopped, (f(B, H),), (f(B, D),), (f(D, H),)),
    "two ways": Cell(two_ways, (f(B, H), f(B, H)), (f(B, D),), (f(H, H), f(D, H))),
    "nested": Cell(nested, (f(B, H),), (f(B, H),), (f(H, H),)),
}


def drawn(type, rows, rng):
    shape = type.at(rows).shape
    if type.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if type.dtype == "int32":
        return rng.integers(0, 9, shape).astype(np.int32)
    return 0.6 * rng.standard_normal(shape)


def unrolled(body, length, carry, elements, constants, *, reverse):
    """The same without a loop: the body, pasted `length` times."""
    stacks = {}
    for t in reversed(range(length)) if reverse else range(length):
        steps = [squeeze(take_range(x, 0, t, t + 1), 0) for x in elements]
        results = inline(body, [*carry, *steps, *constants])
        carry = results[: len(carry)]
        stacks[t] = results[len(carry) :]
    columns = zip(*(stacks[t] for t in range(length)), strict=True)
    return [*carry, *(concat([expand(y, 0) for y in column], 0) for column in columns)]


class Twins:
    """A scan and its unrolled twin over the same inputs, with random weights on all results."""

    def __init__(self, cell, *, reverse, rng, rows=2):
        body = cell.body()
        stacked = [Type((T, *t.shape), t.dtype) for t in cell.elements]
        types = [*cell.carries, *stacked, *cell.constants]
        self.inputs = [input_node(type) for type in types]
        self.floats = [x for x in self.inputs if x.type.is_float]
        first, last = len(cell.carries), len(cell.carries) + len(cell.elements)
        parts = self.inputs[:first], self.inputs[first:last], self.inputs[last:]
        self.loop = list(scan(body, T, *parts, reverse=reverse))
        self.flat = unrolled(body, T, *parts, reverse=reverse)
        self.rows = rows
        self.feed = {x: drawn(x.type, rows, rng) for x in self.inputs}
        self.cotangents = [input_node(y.type) if y.type.is_float else None for y in self.loop]
        for node in self.cotangents:
            if node is not None:
                self.feed[node] = rng.standard_normal(node.type.at(rows).shape)

    def run(self, roots):
        there = [root for root in roots if root is not None]
        values = iter(interpret(there, self.feed, self.rows))
        return [None if root is None else next(values) for root in roots]

    def simplified(self, roots):
        there = tuple(root for root in roots if root is not None)
        program = Program(tuple(self.feed), (), there, ())
        values = iter(simplify(program).outputs)
        return [None if root is None else next(values) for root in roots]


def close(found, expected):
    for one, other in zip(found, expected, strict=True):
        if other is None or one is None:
            assert one is None or not np.any(one)
            assert other is None or not np.any(other)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("name", CELLS)
class TestTwins:
    def test_values(self, name, reverse, rng):
        twins = Twins(CELLS[name], reverse=reverse, rng=rng)
        expected = twins.run(twins.flat)
        close(twins.run(twins.loop), expected)
        close(twins.run(twins.simplified(twins.loop)), expected)

    def test_gradients(self, name, reverse, rng):
        twins = Twins(CELLS[name], reverse=reverse, rng=rng)
        found, expected = (
            gradients(side, twins.cotangents, twins.floats) for side in (twins.loop, twins.flat)
        )
        expected = twins.run(expected)
        close(twins.run(found), expected)
        close(twins.run(twins.simplified(found)), expected)

    def test_forward_and_gradients_in_one_program(self, name, reverse, rng):
        twins = Twins(CELLS[name], reverse=reverse, rng=rng)
        found, expected = (
            [*side, *gradients(side, twins.cotangents, twins.floats)]
            for side in (twins.loop, twins.flat)
        )
        small = twins.simplified(found)
        close(twins.run(small), twins.run(expected))
        there = [node for node in small if node is not None]
        outer = [node for node in toposort(there) if isinstance(node.op, Scan)]
        assert len(outer) <= 2, "the forward loop runs once, the backward loop runs once"

    def test_gradient_of_some_results_for_some_inputs(self, name, reverse, rng):
        twins = Twins(CELLS[name], reverse=reverse, rng=rng)
        for chosen in range(len(twins.loop)):
            if twins.cotangents[chosen] is None:
                continue
            wrt = twins.floats[-1:]
            found, expected = (
                gradients([side[chosen]], [twins.cotangents[chosen]], wrt)
                for side in (twins.loop, twins.flat)
            )
            close(twins.run(twins.simplified(found)), twins.run(expected))

    def test_second_derivatives(self, name, reverse, rng):
        twins = Twins(CELLS[name], reverse=reverse, rng=rng)
        wrt = twins.floats
        sides = []
        for side in (twins.loop, twins.flat):
            first = gradients(side, twins.cotangents, wrt)
            total = [reduce_sum(mul(g, g)) for g in first if g is not None]
            ones = [lift(1.0, t) for t in total]
            sides.append(gradients(total, ones, wrt))
        found, expected = sides
        expected = twins.run(expected)
        close(twins.run(found), expected)
        close(twins.run(twins.simplified(found)), expected)


def scans_of(roots):
    return [n for n in toposort([r for r in roots if r is not None]) if isinstance(n.op, Scan)]


def contractions_in(scan_node):
    return [n for n in scan_node.op.body.nodes() if isinstance(n.op, (Dot, Conv))]


@pytest.mark.parametrize("name", ["rnn", "lstm", "embedding", "head"])
def test_only_the_cycle_of_the_carry_stays_in_the_loop(name, rng):
    """One product with the recurrent weight in each direction, and nothing else."""
    twins = Twins(CELLS[name], reverse=False, rng=rng)
    roots = [*twins.loop, *gradients(twins.loop, twins.cotangents, twins.floats)]
    forward, backward = scans_of(twins.simplified(roots))
    assert len(contractions_in(forward)) == 1
    assert len(contractions_in(backward)) == 1
    assert forward.op.reverse is False
    assert backward.op.reverse is True


def test_a_weights_gradient_is_one_product_over_time_and_batch(rng):
    twins = Twins(CELLS["lstm"], reverse=False, rng=rng)
    (gradient,) = gradients(twins.loop, twins.cotangents, [twins.inputs[4]])
    (small,) = twins.simplified([gradient])
    assert isinstance(small.op, Dot)
    assert small.op.contract == ((0, 0), (1, 1))


def test_the_backward_loop_of_an_lstm_reads_the_gates(rng):
    """Saved are the cell, the four gates and what arrives; no gate is computed again."""
    twins = Twins(CELLS["lstm"], reverse=False, rng=rng)
    roots = [*twins.loop, *gradients(twins.loop, twins.cotangents, twins.floats)]
    _, backward = scans_of(twins.simplified(roots))
    assert backward.op.elements == 6
    maps = [node.op.fn for node in backward.op.body.nodes() if isinstance(node.op, Map)]
    assert "sigmoid" not in maps
    assert maps.count("tanh") == 1


def test_what_no_carry_needs_leaves_the_loop_altogether(rng):
    twins = Twins(CELLS["head"], reverse=False, rng=rng)
    (small,) = twins.simplified(twins.loop[1:])
    (loop,) = scans_of([small])
    assert len(contractions_in(loop)) == 1
    assert small.type == twins.loop[1].type


def test_unused_results_and_carries_are_dropped(rng):
    body = body_of(
        lambda h, g, x, w: (tanh(add(h, x)), add(g, dot(x, w)), mul(x, x), exp(h)),
        [f(B, H), f(B, H), f(B, H), f(H, H)],
    )
    inputs = [input_node(t) for t in (f(B, H), f(B, H), f(T, B, H), f(H, H))]
    results = scan(body, T, inputs[:2], inputs[2:3], inputs[3:])
    program = simplify(Program(tuple(inputs), (), (results[3],), ()))
    (loop,) = scans_of(program.outputs)
    assert loop.op.carries == 1
    assert len(loop.inputs) == 2
    assert len(loop.types) == 2


def test_a_value_that_is_the_same_in_every_step_is_computed_once(rng):
    def cell(h, x, w):
        new = tanh(add(dot(h, exp(w)), x))
        return new, gt(new, x)

    body = body_of(cell, [f(B, H), f(B, H), f(H, H)])
    inputs = [input_node(t) for t in (f(B, H), f(T, B, H), f(H, H))]
    results = scan(body, T, inputs[:1], inputs[1:2], inputs[2:])
    feed = {x: drawn(x.type, 2, rng) for x in inputs}
    program = simplify(Program(tuple(inputs), (), results, ()))
    (loop,) = scans_of(program.outputs)
    assert exp(inputs[2]) in loop.inputs
    close(interpret(program.outputs, feed, 2), interpret(results, feed, 2))


def test_a_body_reads_only_its_parameters():
    x, y = input_node(f(2)), input_node(f(2), "y")
    with pytest.raises(ValueError, match="a body reads y, which is none of its parameters"):
        Body((x,), (add(x, y),))
