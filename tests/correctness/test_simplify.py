"""Each rewriting rule: what it turns into what, what it leaves alone, and that values stay."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lamina.ir.contractions import dot
from lamina.ir.control import Scan, body_of, cond, scan
from lamina.ir.elementary import broadcast, full, reduce_max, reduce_sum
from lamina.ir.graph import constant, input_node, toposort
from lamina.ir.interpret import interpret
from lamina.ir.movement import Reshape, Transpose, concat, pad, reshape, slice_, transpose
from lamina.ir.program import Program
from lamina.ir.scalar import (
    add,
    cast,
    div,
    eq,
    exp,
    mul,
    neg,
    not_,
    pow_,
    square,
    stop_gradient,
    sub,
    tanh,
    where,
)
from lamina.transform.simplify import local, simplify
from lamina.types import Batch, Type

X = input_node(Type((2, 3)), "x")
N = input_node(Type((2, 3), "int32"), "n")
H = input_node(Type((2, 3), "float16"), "h")
Y = input_node(Type((2, 3)), "other")
C = input_node(Type((2, 3), "bool"), "c")
ONE = input_node(Type((2, 1, 3)), "one")
FLIP = (1, 0)


def of(value, like=X):
    return full(like.shape, value, like.dtype)


RULES = {
    "constants": (mul(of(2), of(3)), of(6)),
    "constants through a chain": (exp(mul(of(0), neg(of(3)))), of(1)),
    "cast of a constant": (cast(of(2.7), "int32"), of(2, N)),
    "comparison of constants": (eq(of(2), of(2)), of(True, C)),
    "transposed constant": (transpose(of(5), FLIP), full((3, 2), 5)),
    "reshaped constant": (reshape(of(5), (6,)), full((6,), 5)),
    "sliced constant": (slice_(of(5), (0, 1), (2, 3)), full((2, 2), 5)),
    "broadcast constant": (broadcast(full((3,), 5), (2, 3), (1,)), of(5)),
    "times one": (mul(X, of(1)), X),
    "one times": (mul(of(1), X), X),
    "over one": (div(X, of(1)), X),
    "plus minus zero": (add(X, of(-0.0)), X),
    "minus zero plus": (add(of(-0.0), X), X),
    "minus zero": (sub(X, of(0.0)), X),
    "integer plus zero": (add(N, of(0, N)), N),
    "power of one": (pow_(X, of(1)), X),
    "power of two": (pow_(X, of(2)), square(X)),
    "over a power of two": (div(X, of(4)), mul(X, of(0.25))),
    "double negation": (neg(neg(X)), X),
    "double not": (not_(not_(C)), C),
    "the same on both sides": (where(C, X, X), X),
    "to a wider float and back": (cast(cast(H, "float32"), "float16"), H),
    "through a wider float": (cast(cast(X, "float64"), "float16"), cast(X, "float16")),
    "stopped gradient": (stop_gradient(X), X),
    "double transpose": (transpose(transpose(X, FLIP), FLIP), X),
    "double reshape": (reshape(reshape(X, (6,)), (3, 2)), reshape(X, (3, 2))),
    "reshape and back": (reshape(reshape(X, (6,)), (2, 3)), X),
    "double broadcast": (
        broadcast(broadcast(X, (4, 2, 3), (1, 2)), (4, 5, 2, 3), (0, 2, 3)),
        broadcast(X, (4, 5, 2, 3), (2, 3)),
    ),
    "maximum of maxima": (reduce_max(reduce_max(X, 0), 0), reduce_max(X)),
    "sum of one": (reduce_sum(ONE, 1), reshape(ONE, (2, 3))),
    "maximum of one row": (reduce_max(reshape(X, (1, 6)), 0), reshape(X, (6,))),
    "slice of one part": (slice_(concat([X, Y], 1), (0, 1), (2, 3)), slice_(X, (0, 1), (2, 3))),
    "slice that is a part": (slice_(concat([X, Y], 1), (0, 3), (2, 6)), Y),
    "parts padded and added": (
        add(
            add(pad(Y, (0, 3), (0, 3)), pad(X, (0, 0), (0, 6))),
            pad(neg(X), (0, 6), (0, 0)),
        ),
        concat([X, Y, neg(X)], 1),
    ),
    "inside a graph": (tanh(mul(neg(neg(X)), of(1))), tanh(X)),
}


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
    before, after = RULES[name]
    assert local([before]) == [after]


KEPT = {
    "plus zero turns minus zero into zero": add(X, of(0.0)),
    "minus minus zero does too": sub(X, of(-0.0)),
    "zero times an infinity is not zero": mul(X, of(0)),
    "over three": div(X, of(3)),
    "over infinity": div(X, of(math.inf)),
    "over zero": div(X, of(0)),
    "to a narrower float and back": cast(cast(X, "float16"), "float32"),
    "to an integer and back": cast(cast(X, "int32"), "float32"),
    "through the other half": cast(cast(H, "bfloat16"), "float16"),
    "a sum of two and of one": reduce_sum(ONE, (0, 1)),
    "a sum of sums": reduce_sum(reduce_sum(X, 0), 0),
    "slice across parts": slice_(concat([X, Y], 1), (0, 2), (2, 4)),
    "padded parts with a gap": add(pad(Y, (0, 4), (0, 0)), pad(X, (0, 0), (0, 4))),
    "padded parts that overlap": add(pad(Y, (0, 2), (0, 0)), pad(X, (0, 0), (0, 2))),
    "padded along two axes": add(pad(Y, (0, 3), (1, 0)), pad(X, (0, 0), (1, 3))),
    "padded with ones": add(pad(Y, (0, 3), (0, 0), 1), pad(X, (0, 0), (0, 3), 1)),
    "padding": pad(X, (1, 0), (0, 0)),
    "where": where(C, X, neg(X)),
}


@pytest.mark.parametrize("name", KEPT)
def test_left_alone(name):
    assert local([KEPT[name]]) == [KEPT[name]]


def test_rules_reach_into_branches_and_loops():
    t = Type((3,))
    x, flag, w = input_node(t), input_node(Type((), "bool")), input_node(Type((4, 3)))
    one = full((3,), 1)
    then, otherwise = body_of(lambda a: neg(neg(a)), [t]), body_of(lambda a: mul(a, one), [t])
    (either,) = cond(flag, then, otherwise, [x])
    step = body_of(lambda h, y: add(neg(neg(h)), mul(y, one)), [t, t])
    (last,) = scan(step, 4, [x], [w])
    (small_either, small_last) = simplify(Program((x, flag, w), (), (either, last), ())).outputs
    assert [b.results for b in (small_either.op.then, small_either.op.otherwise)] == [
        b.parameters for b in (small_either.op.then, small_either.op.otherwise)
    ]
    assert len(small_last.op.body.nodes()) == 3


def test_values_stay(rng):
    """A program full of what the rules look for, before and after."""
    batch = Batch(1)
    x = input_node(Type((batch, 4)))
    w = input_node(Type((4, 4)))
    y = mul(dot(x, transpose(transpose(w, FLIP), FLIP)), full(x.shape, 1))
    y = div(add(y, full(x.shape, 0.0)), full(x.shape, 8))
    y = reshape(reshape(neg(neg(y)), (Batch(4),)), (batch, 2, 2))
    y = reduce_max(reduce_max(stop_gradient(y), 2), 1)
    program = Program((x,), (w,), (y,), (sub(w, full((4, 4), 0.0)),))
    small = simplify(program)
    assert small.updates == (w,)
    kinds = [type(node.op) for node in small.nodes()]
    assert Transpose not in kinds
    assert kinds.count(Reshape) == 1
    feed = {
        x: rng.standard_normal((5, 4)).astype(np.float32),
        w: rng.standard_normal((4, 4)).astype(np.float32),
    }
    for before, after in zip(
        interpret(program.roots, feed, 5), interpret(small.roots, feed, 5), strict=True
    ):
        np.testing.assert_array_equal(before, after)


def test_simplifying_twice_changes_nothing():
    t = Type((2,))
    x, w, e = input_node(t), input_node(Type((2, 2))), input_node(Type((5, 2)))
    body = body_of(lambda h, s, u: (tanh(add(dot(h, u), dot(s, u))), mul(h, h)), [t, t, w.type])
    results = scan(body, 5, [x], [e], [w])
    once = simplify(Program((x, w, e), (), results, ()))
    assert simplify(once) == once
    assert sum(isinstance(n.op, Scan) for n in toposort(once.outputs)) == 1


def test_states_and_inputs_stay_in_place():
    a, b = input_node(Type(())), input_node(Type(()))
    program = Program((b,), (a,), (constant(1.0),), (None,))
    assert simplify(program) == program
