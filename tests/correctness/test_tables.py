"""Products with rows of a small table: the same values and gradients from fewer products."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import config
from lamina.ir.contractions import Dot, dot
from lamina.ir.control import Body, Scan, scan
from lamina.ir.elementary import broadcast, reduce_sum
from lamina.ir.graph import constant, input_node, toposort
from lamina.ir.indexing import Gather, gather
from lamina.ir.movement import transpose
from lamina.ir.program import Program
from lamina.ir.scalar import add, square, tanh
from lamina.llvm import choices
from lamina.llvm.executor import compile_llvm
from lamina.reference import compile_reference
from lamina.transform.gradient import gradients
from lamina.transform.simplify import simplify
from lamina.transform.tables import use_tables
from lamina.types import Batch, Type

B = Batch(1)
SYMBOLS, WIDTH, TIME, CAPACITY = 7, 18, 11, 6


def dense(units, order=(1, 0, 2)):
    """Value and gradients of a product of an embedding, its axes in the given order."""
    index = input_node(Type((B, TIME), "int32"), "index")
    table = input_node(Type((SYMBOLS, WIDTH)), "table")
    w = input_node(Type((WIDTH, units)), "w")
    y = square(dot(transpose(gather(table, index), order), w, [(2, 0)]))
    loss = reduce_sum(y, (0, 1, 2))
    found = gradients([loss], [constant(1.0)], [table, w])
    return Program((index,), (table, w), (loss, y, *found), (None, None))


def recurrent(units, reverse):
    """The same of a loop h = tanh(x[t] @ w + h @ u + b) over an embedding x."""
    index = input_node(Type((B, TIME), "int32"), "index")
    shapes = [(SYMBOLS, WIDTH), (WIDTH, units), (units, units), (units,)]
    table, w, u, b = weights = [input_node(Type(shape), "weight") for shape in shapes]
    carry, now = input_node(Type((B, units))), input_node(Type((B, WIDTH)))
    inner = [input_node(node.type) for node in (w, u, b)]
    total = add(dot(now, inner[0]), dot(carry, inner[1]))
    new = tanh(add(total, broadcast(inner[2], (B, units), (1,))))
    first = broadcast(constant(0.0), (B, units), ())
    x = transpose(gather(table, index), (1, 0, 2))
    body = Body((carry, now, *inner), (new, new))
    last, every = scan(body, TIME, [first], [x], [w, u, b], reverse=reverse)
    loss = add(reduce_sum(square(every), (0, 1, 2)), reduce_sum(last, (0, 1)))
    found = gradients([loss], [constant(1.0)], weights)
    return Program((index,), tuple(weights), (last, *found), (None,) * 4)


def arrays(program, rows, rng):
    index = rng.integers(0, SYMBOLS, (rows, TIME)).astype("i4")
    shapes = [state.shape for state in program.states]
    return [index], [rng.standard_normal(s).astype("f4") / s[0] ** 0.5 for s in shapes]


def close(one, other):
    """Equal but for the order of sums, whose terms may be larger than they are."""
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * (1 + np.abs(other).max()))


def products(program):
    """The number of products over all symbols of the batch, and in all."""
    dots = [node for node in toposort(program.roots) if isinstance(node.op, Dot)]
    batched = [n for n in dots if any(p.type.batch_axis is not None for p in n.inputs)]
    return len(batched), len(dots)


PROGRAMS = [
    *(dense(units, order) for units in (1, 20, 300) for order in ((0, 1, 2), (1, 0, 2))),
    *(recurrent(units, reverse) for units in (5, 70) for reverse in (False, True)),
]


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_values_and_gradients_stay(program, rng):
    simple = simplify(program)
    rewritten = simple.with_roots(use_tables(simple.roots, CAPACITY, choices.tables_pay))
    assert products(simple)[1] == products(rewritten)[1]
    assert products(rewritten)[0] == products(simple)[0] - 3
    inputs, states = arrays(program, 3, rng)
    expected = compile_reference(simple, 3)(inputs, states)
    found = compile_reference(rewritten, 3)(inputs, states)
    for one, other in zip(found, expected, strict=True):
        close(one, other)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_native_code_agrees_for_any_rows_and_threads(program, rng, several_threads):
    several_threads()
    with config.override(cache="off"):
        compiled = compile_llvm(program, CAPACITY)
    for rows in (1, 2, CAPACITY - 1, CAPACITY):
        inputs, states = arrays(program, rows, rng)
        expected = compile_reference(program, CAPACITY)(inputs, states)
        several = []
        for threads in (1, 2, 3):
            with config.override(threads=threads):
                assert compiled.threads(1) == threads
                several.append(compiled(inputs, states))
        for one, *others, reference in zip(*several, expected, strict=True):
            close(one, reference)
            for other in others:
                np.testing.assert_array_equal(one, other)


def test_rows_are_looked_up_inside_the_loop():
    simple = simplify(recurrent(70, False))
    roots = use_tables(simple.roots, CAPACITY, choices.tables_pay)
    loops = [node for node in toposort(roots) if isinstance(node.op, Scan)]
    inner = [node for loop in loops for node in toposort(loop.op.body.results)]
    assert any(isinstance(node.op, Gather) for node in inner)
    assert not any(isinstance(node.op, Gather) for node in toposort(roots))


def test_a_large_table_is_left_alone():
    simple = simplify(dense(20))
    assert use_tables(simple.roots, 1, choices.tables_pay) == list(simple.roots)
