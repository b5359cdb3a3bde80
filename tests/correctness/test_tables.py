"""Products with rows of a table: the same values and gradients from fewer products."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import config
from lamina.errors import DtypeError, ShapeError
from lamina.ir.contractions import Conv, ConvFilterGrad, ConvInputGrad, Dot, conv, dot
from lamina.ir.control import Body, Scan, scan
from lamina.ir.distinct import Distinct, distinct
from lamina.ir.elementary import broadcast, full, reduce_sum
from lamina.ir.graph import apply, constant, input_node, toposort
from lamina.ir.graph import rows as rows_present
from lamina.ir.indexing import Gather, Scatter, gather, scatter
from lamina.ir.movement import transpose
from lamina.ir.program import Program
from lamina.ir.scalar import add, div, square, tanh
from lamina.llvm import choices
from lamina.llvm.executor import compile_llvm
from lamina.llvm.profile import profile
from lamina.reference import compile_reference
from lamina.transform.gradient import gradients
from lamina.transform.lookups import Rule
from lamina.transform.simplify import simplify
from lamina.transform.sums import use_sums
from lamina.transform.tables import use_tables
from lamina.types import Batch, Type

B = Batch(1)
SYMBOLS, WORDS, WIDTH, TIME, CAPACITY = 7, 50, 18, 11, 6


def dense(units, order=(1, 0, 2), symbols=SYMBOLS, less=None):
    """Value and gradients of a product of an embedding, its axes in the given order.

    less   is subtracted from the index, which then is a computed one
    """
    given = index = input_node(Type((B, TIME), "int32"), "index")
    if less is not None:
        index = add(index, full((B, TIME), -less, "int32"))
    table = input_node(Type((symbols, WIDTH)), "table")
    w = input_node(Type((WIDTH, units)), "w")
    y = square(dot(transpose(gather(table, index), order), w, [(2, 0)]))
    loss = reduce_sum(y, (0, 1, 2))
    found = gradients([loss], [constant(1.0)], [table, w])
    return Program((given,), (table, w), (loss, y, *found), (None, None))


def recurrent(units, reverse, symbols=SYMBOLS):
    """The same of a loop h = tanh(x[t] @ w + h @ u + b) over an embedding x."""
    index = input_node(Type((B, TIME), "int32"), "index")
    shapes = [(symbols, WIDTH), (WIDTH, units), (units, units), (units,)]
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


def positioned(symbols, heads=3):
    """The same of two products of an embedding with positions, and of what goes past them.

    One product has two axes more, as queries for some heads have, and one has time before batch.
    """
    index = input_node(Type((B, TIME), "int32"), "index")
    shapes = [(symbols, WIDTH), (TIME, WIDTH), (WIDTH, heads, 4), (WIDTH, 20)]
    table, positions, w, u = weights = [input_node(Type(shape), "weight") for shape in shapes]
    x = add(gather(table, index), broadcast(positions, (B, TIME, WIDTH), (1, 2)))
    y = tanh(dot(x, w, [(2, 0)]))
    z = tanh(dot(transpose(x, (1, 0, 2)), u, [(2, 0)]))
    loss = reduce_sum(square(y), range(4))
    for term in (square(z), tanh(x)):
        loss = add(loss, reduce_sum(term, range(3)))
    found = gradients([loss], [constant(1.0)], weights)
    return Program((index,), tuple(weights), (loss, y, z, *found), (None,) * 4)


def both_ways(symbols):
    """The same of two products of an embedding, one of them with time before the batch."""
    index = input_node(Type((B, TIME), "int32"), "index")
    shapes = [(symbols, WIDTH), (WIDTH, 5), (WIDTH, 20)]
    table, w, u = weights = [input_node(Type(shape), "weight") for shape in shapes]
    x = gather(table, index)
    loss = reduce_sum(square(dot(x, w, [(2, 0)])), range(3))
    z = tanh(dot(transpose(x, (1, 0, 2)), u, [(2, 0)]))
    loss = add(loss, reduce_sum(z, range(3)))
    found = gradients([loss], [constant(1.0)], weights)
    return Program((index,), tuple(weights), (loss, *found), (None,) * 3)


def convolved(size, symbols, **options):
    """The same of a convolution over an embedding, of texts or of images of TIME x 5."""
    image = (TIME, 5)[: len(size)]
    index = input_node(Type((B, *image), "int32"), "index")
    table = input_node(Type((symbols, WIDTH)), "table")
    w = input_node(Type((*size, WIDTH, 12)), "w")
    y = square(conv(gather(table, index), w, **options))
    loss = reduce_sum(y, tuple(range(y.type.rank)))
    found = gradients([loss], [constant(1.0)], [table, w])
    return Program((index,), (table, w), (loss, y, *found), (None, None))


def arrays(program, rows, rng):
    shape = (rows, *program.inputs[0].shape[1:])
    index = rng.integers(0, program.states[0].shape[0], shape).astype("i4")
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
    *(dense(units, order, WORDS) for units in (1, 20, 300) for order in ((0, 1, 2), (1, 0, 2))),
    *(recurrent(units, reverse, WORDS) for units in (5, 70) for reverse in (False, True)),
]


CONVOLUTIONS = [
    convolved((3,), SYMBOLS),
    convolved((3,), WORDS),
    convolved((4,), WORDS, padding=[(1, 2)], strides=[2]),
    convolved((2,), WORDS, padding=[(2, 0)], dilation=[3]),
    convolved((2, 3), WORDS, padding=[(0, 1), (1, 1)], strides=[1, 2]),
    convolved((2,), WORDS, padding=[(12, 0)], dilation=[12]),  # a tap that meets nothing else
]
SUMS = [make(symbols) for make in (positioned, both_ways) for symbols in (SYMBOLS, WORDS)]


@pytest.fixture(autouse=True)
def _few_lookups(monkeypatch):
    """The different ones of a few words are found, too."""
    monkeypatch.setattr(choices, "DISTINCT_LOOKUPS", CAPACITY * TIME)


def rewritten(program, capacity=CAPACITY):
    pay = choices.tables_pay, choices.distinct_pay, choices.LOOKED_UP_TAPS
    return program.with_roots(use_tables(program.roots, Rule(capacity, *pay)))


def agree(simple, other, rng):
    """Both programs compute the same."""
    inputs, states = arrays(simple, 3, rng)
    expected = compile_reference(simple, 3)(inputs, states)
    found = compile_reference(other, 3)(inputs, states)
    for one, another in zip(found, expected, strict=True):
        close(one, another)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_values_and_gradients_stay(program, rng):
    simple = simplify(program)
    other = rewritten(simple)
    assert products(simple)[1] == products(other)[1]
    assert products(other)[0] == products(simple)[0] - 3
    agree(simple, other, rng)


@pytest.mark.parametrize("program", CONVOLUTIONS, ids=range(len(CONVOLUTIONS)))
def test_convolutions_add_products_of_their_taps(program, rng):
    simple = simplify(program)
    other = rewritten(simple)
    kinds = (Conv, ConvFilterGrad, ConvInputGrad)
    assert sum(isinstance(node.op, kinds) for node in toposort(simple.roots)) == 3
    assert not any(isinstance(node.op, kinds) for node in toposort(other.roots))
    agree(simple, other, rng)


@pytest.mark.parametrize("program", SUMS, ids=range(len(SUMS)))
def test_products_are_taken_apart_where_their_sums_are(program, rng):
    simple = simplify(program)
    other = rewritten(simple)
    assert products(simple)[0] == 6
    assert products(other)[0] == 0
    agree(simple, other, rng)


def test_a_sum_that_something_else_reads_is_left_whole():
    """The gradient of a look-up is asked for itself: its product must be taken all the same."""
    index = input_node(Type((B, TIME), "int32"), "index")
    table, w = input_node(Type((WORDS, WIDTH))), input_node(Type((WIDTH, 20)))
    x = gather(table, index)
    loss = reduce_sum(square(dot(x, w, [(2, 0)])), range(3))
    found = gradients([loss], [constant(1.0)], [x, table])
    simple = simplify(Program((index,), (table, w), tuple(found), (None, None)))
    kept = [n for n in toposort(rewritten(simple).roots) if isinstance(n.op, Scatter)]
    assert [node.op.counted for node in kept] == [""]


def test_a_product_that_something_else_reads_is_taken_once(rng):
    """Of two products in the gradient of a look-up, one is asked for: only the other gives way."""
    index = input_node(Type((B, TIME), "int32"), "index")
    shapes = [(WORDS, WIDTH), (20, WIDTH), (20, WIDTH), (WORDS, 20)]
    table, w, u, values = states = [input_node(Type(shape), "state") for shape in shapes]
    one, other = (dot(gather(v, index), m) for v, m in ((values, w), (tanh(values), u)))
    total = scatter("add", full((WORDS, WIDTH), 0), index, add(one, other))
    simple = simplify(
        Program((index,), tuple(states), (total, one, add(total, table)), (None,) * 4)
    )
    roots = use_sums(simple.roots, Rule(CAPACITY, choices.tables_pay, choices.distinct_pay, 16))
    taken = [n for n in toposort(roots) if isinstance(n.op, Dot)]
    assert sorted(len(node.inputs) for node in taken) == [2, 3]
    agree(simple, simple.with_roots(roots), rng)


def test_convolutions_of_many_taps_are_left_alone():
    simple = simplify(convolved((5, 4), WORDS))
    assert rewritten(simple).roots == simple.roots


EVERY = [*PROGRAMS, *CONVOLUTIONS, *SUMS]


@pytest.mark.parametrize("program", EVERY, ids=range(len(EVERY)))
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


@pytest.mark.parametrize("symbols", [SYMBOLS, WORDS])
def test_rows_are_looked_up_inside_the_loop(symbols):
    roots = rewritten(simplify(recurrent(70, False, symbols))).roots
    loops = [node for node in toposort(roots) if isinstance(node.op, Scan)]
    inner = [node for loop in loops for node in toposort(loop.op.body.results)]
    batched = [node for node in toposort(roots) if node.types[0].batch_axis is not None]
    assert any(isinstance(node.op, Gather) for node in inner)
    assert not any(isinstance(node.op, Gather) for node in batched)


def test_few_words_of_a_large_table_are_left_alone():
    simple = simplify(dense(20))
    assert rewritten(simple, 1).roots == simple.roots


def test_one_search_for_different_words_serves_all_products():
    nodes = toposort(rewritten(simplify(dense(20, symbols=WORDS))).roots)
    assert sum(isinstance(node.op, Distinct) for node in nodes) == 1


def test_rows_of_the_batch_are_not_those_that_are_counted(rng):
    """A gradient that is divided by the rows of the batch, in the kernel that counts words."""
    program = dense(20, symbols=WORDS)
    slope = program.outputs[-1]
    mean = div(slope, broadcast(rows_present(), slope.shape, ()))
    program = Program(program.inputs, program.states, (mean,), (None, None))
    with config.override(cache="off"):
        compiled = compile_llvm(program, CAPACITY)
    inputs, states = arrays(program, 3, rng)
    (expected,) = compile_reference(program, CAPACITY)(inputs, states)
    close(compiled(inputs, states)[0], expected)


def test_what_cannot_be_counted_is_refused():
    index, values = input_node(Type((B, TIME), "int32")), input_node(Type((9, 4)))
    number, half = input_node(Type((), "int32")), input_node(Type(()))
    with pytest.raises(DtypeError, match="takes integers"):
        distinct(input_node(Type((B, TIME))), 7, 7)
    with pytest.raises(ShapeError, match="the batch must be the first axis"):
        distinct(input_node(Type((TIME, B), "int32")), 7, 7)
    with pytest.raises(DtypeError, match="counted by one int32"):
        dot(values, values, [(0, 0)], count=half)
    added = input_node(Type((B, TIME, 4)))
    with pytest.raises(DtypeError, match="counted by one int32"):
        apply(Scatter("add", counted="base"), values, index, added)
    for counted in (
        dot(values, values, [(0, 0)], count=number),
        apply(Scatter("add", counted="base"), values, index, added, number),
    ):
        with pytest.raises(ShapeError, match="no gradient"):
            gradients([counted], [counted], [values])
    with pytest.raises(ShapeError, match="more than 5 rows"):
        compile_llvm(Program((index,), (), tuple(distinct(index, 100, 5)), ()), CAPACITY)


@pytest.mark.parametrize("words", ["one", "all", "outside"])
def test_any_words_will_do(words, rng):
    """All alike; as many different ones as there is room for; numbers outside of the table."""
    program = dense(20, symbols=200, less=300 if words == "outside" else None)
    with config.override(cache="off", check="bounds"):
        compiled = compile_llvm(program, CAPACITY)
    _, states = arrays(program, CAPACITY, rng)
    index = {
        "one": np.full((CAPACITY, TIME), 199),
        "all": rng.permutation(200)[: CAPACITY * TIME].reshape(CAPACITY, TIME),
        "outside": rng.integers(0, 900, (CAPACITY, TIME)),
    }[words].astype("i4")
    found = compiled([index], states)
    expected = compile_reference(program, CAPACITY)([index], states)
    for one, other in zip(found, expected, strict=True):
        close(one, other)


def test_a_row_that_nobody_looks_up_reaches_no_gradient(rng):
    """Products take counted rows in units, and fill up the last one: not with what is not asked."""
    program = dense(20, symbols=200)
    with config.override(cache="off"):
        compiled = compile_llvm(program, CAPACITY)
    (index,), states = arrays(program, CAPACITY, rng)
    index = 3 + index % 5
    states[0][:3] = np.nan
    loss, _, *found = compiled([index], states)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in found)


def test_the_profile_counts_the_words_that_it_finds(rng):
    program = simplify(dense(20, symbols=200))
    inputs, states = arrays(program, CAPACITY, rng)
    inputs[0] %= 5  # of which a product takes 32 at a time
    found = profile(program, CAPACITY, inputs, states, batch_size=CAPACITY, steps=2)
    flops = {task.shape: task.flops for task in found.tasks if "found" in task.shape}
    assert flops == {
        f"32*foundx20 over {WIDTH}": 2 * 32 * 20 * WIDTH,
        f"32*foundx{WIDTH} over 20": 2 * 32 * 20 * WIDTH,
        f"{WIDTH}x20 over 32*found": 2 * 32 * 20 * WIDTH,
    }
