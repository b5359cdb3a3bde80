"""What the ops mean, against values computed in another way: loops, SciPy, published vectors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.signal
import scipy.special

from lamina.ir import scalar
from lamina.ir.contractions import (
    Conv,
    ConvFilterGrad,
    ConvInputGrad,
    Dot,
    Window,
    WindowGrad,
    padding_for,
)
from lamina.ir.control import body_of, composite, cond, while_
from lamina.ir.elementary import SCALARS, Map
from lamina.ir.graph import constant, input_node, rows
from lamina.ir.indexing import DynamicSlice, DynamicUpdate, Gather, Scatter
from lamina.ir.interpret import interpret
from lamina.ir.movement import Concat, Iota, Pad, Slice
from lamina.ir.order import Sort, TopK, arg_sort
from lamina.ir.random import RandomBits, random_bits, threefry, uniform
from lamina.ir.reductions import ArgReduce, Cumulative, Reduce, mean
from lamina.ir.scalar import Cast, add, gt, lift, lt, mul, shift
from lamina.types import Batch, Type

F = np.float32
nan, inf = math.nan, math.inf


def equal(found, expected):
    np.testing.assert_array_equal(found, expected)


# ---------------------------------------------------------------------------------- scalar


SPECIAL = {
    "sigmoid": scipy.special.expit,
    "erf": scipy.special.erf,
    "reciprocal": lambda x: x**-1.0,
    "rsqrt": lambda x: x**-0.5,
    "square": lambda x: x * x,
    "mod": lambda a, b: a - np.floor(a / b) * b,
    "floordiv": lambda a, b: np.floor(a / b),
}


@pytest.mark.parametrize("name", sorted(SPECIAL))
def test_functions_that_numpy_does_not_have(name, rng):
    arity = SCALARS[name].arity
    arrays = [rng.uniform(0.1, 3, (50,)) for _ in range(arity)]
    np.testing.assert_allclose(SCALARS[name].numpy(*arrays), SPECIAL[name](*arrays), rtol=1e-13)


def test_sigmoid_does_not_overflow():
    x = np.array([-1e4, -100, 0, 100, 1e4], F)
    with np.errstate(over="raise"):
        np.testing.assert_allclose(
            Map("sigmoid").numpy(x), [0, np.exp(F(-100)), 0.5, 1, 1], rtol=1e-6
        )


def test_a_comparison_with_nan_is_false_and_selection_keeps_nan():
    a, b = np.array([nan, 1, nan], F), np.array([1, nan, nan], F)
    for name in ("eq", "lt", "le", "gt", "ge"):
        assert not Map(name).numpy(a, b).any()
    assert Map("ne").numpy(a, b).all()
    assert np.isnan(Map("maximum").numpy(a, b)).all()
    assert np.isnan(Map("minimum").numpy(a, b)).all()


def test_round_is_half_to_even():
    equal(Map("round").numpy(np.array([0.5, 1.5, 2.5, -0.5, -1.5], F)), [0, 2, 2, -0.0, -2])


def test_mod_and_floordiv_have_the_sign_of_the_divisor():
    a, b = np.array([7, -7, 7, -7], np.int32), np.array([3, 3, -3, -3], np.int32)
    equal(Map("mod").numpy(a, b), [1, 2, -2, -1])
    equal(Map("floordiv").numpy(a, b), [2, -3, -3, 2])


def test_shifts_are_logical_on_unsigned_and_arithmetic_on_signed():
    equal(Map("shr").numpy(np.array([-8], np.int32), np.array([1], np.int32)), [-4])
    equal(Map("shr").numpy(np.array([2**32 - 8], np.uint32), np.array([1], np.uint32)), [2**31 - 4])
    equal(Map("shl").numpy(np.array([1, 1], np.uint8), np.array([7, 8], np.uint8)), [128, 0])
    equal(Map("shr").numpy(np.array([-8], np.int8), np.array([99], np.int8)), [-1])
    equal(Map("shr").numpy(np.array([200], np.uint8), np.array([9], np.uint8)), [0])


def test_ties_share_the_gradient_and_a_zero_exponent_has_none():
    from lamina.transform.gradient import gradients

    a, b = input_node(Type(())), input_node(Type(()))
    for build, expected in (
        (scalar.maximum, (0.5, 0.5)),
        (scalar.minimum, (0.5, 0.5)),
        (scalar.pow_, (1.0, 0.0)),
    ):
        found = gradients([build(a, b)], [constant(1.0)], [a, b])
        values = interpret(found, {a: np.array(1, F), b: np.array(1, F)})
        equal(values, expected)
    (slope,) = gradients([scalar.pow_(a, b)], [constant(1.0)], [a])
    equal(interpret([slope], {a: np.array(0, F), b: np.array(0, F)}), [0])


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (2.9, "int32", 2),
        (-2.9, "int32", -2),
        (300.0, "uint8", 255),
        (-1.0, "uint8", 0),
        (nan, "int32", 0),
        (inf, "int32", 2**31 - 1),
        (-inf, "int64", -(2**63)),
        (3e20, "int64", 2**63 - 1),
        (3e20, "uint64", 2**64 - 1),
        (nan, "bool", True),
        (0.25, "bool", True),
        (-0.0, "bool", False),
    ],
)
def test_cast_from_float(value, dtype, expected):
    found = Cast(dtype).numpy(np.array([value], F))
    assert found.dtype == dtype
    assert found[0] == expected


def test_cast_between_integers_wraps():
    equal(Cast("uint8").numpy(np.array([-1, 256, 511], np.int32)), [255, 0, 255])


# -------------------------------------------------------------------------------- movement


def test_slice_is_a_range_and_never_wraps():
    x = np.arange(6)
    equal(Slice((4,), (-1,), (-2,)).numpy(x), [4, 2, 0])
    equal(Slice((5,), (0,), (-1,)).numpy(x), [5, 4, 3, 2, 1])
    equal(Slice((0,), (None,), (1,)).numpy(x), x)
    equal(Slice((1,), (1,), (1,)).numpy(x), [])


def test_pad_puts_its_value_around_and_between():
    seven = np.int32(7).tobytes()
    x = np.array([1, 2, 3], np.int32)
    equal(Pad((1,), (2,), (1,), seven).numpy(x), [7, 1, 7, 2, 7, 3, 7, 7])
    equal(Pad((1,), (0,), (5,), seven).numpy(x[:0]), [7])


def test_concat_and_iota():
    equal(Concat(1).numpy(np.ones((2, 1)), np.zeros((2, 2))), [[1, 0, 0], [1, 0, 0]])
    equal(Iota((2, 3), 1).numpy(), [[0, 1, 2], [0, 1, 2]])


# ------------------------------------------------------------------------------ reductions


def test_extremes_keep_nan_and_arguments_find_it():
    x = np.array([[1, nan, 3], [5, 2, 5]], F)
    equal(Reduce("max", (1,)).numpy(x), [nan, 5])
    equal(Reduce("min", (1,)).numpy(x), [nan, 2])
    equal(ArgReduce("max", 1).numpy(x), [1, 0])
    equal(ArgReduce("min", 1).numpy(x), [1, 1])


def test_cumulative_runs_both_ways():
    x = np.array([2, 1, 3], np.int32)
    equal(Cumulative("sum", 0).numpy(x), [2, 3, 6])
    equal(Cumulative("sum", 0, reverse=True).numpy(x), [6, 4, 3])
    equal(Cumulative("prod", 0, reverse=True).numpy(x), [6, 3, 3])
    equal(Cumulative("max", 0).numpy(x), [2, 2, 3])


def test_half_precision_is_summed_in_single():
    x = np.full(5000, 1, np.float16)
    assert Reduce("sum", (0,)).numpy(x) == 5000
    node = input_node(Type((70000,), "float16"))
    (found,) = interpret([mean(node)], {node: np.full(70000, 0.5, np.float16)})
    assert found == 0.5
    assert found.dtype == np.float16


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_mean_divides_by_the_rows_that_are_there(count):
    x = input_node(Type((Batch(1), 3)))
    array = np.arange(3.0 * count, dtype=F).reshape(count, 3)
    both, columns, own = interpret([mean(x), mean(x, 0), rows(3)], {x: array}, count)
    np.testing.assert_allclose(both, array.mean(), rtol=1e-6)
    np.testing.assert_allclose(columns, array.mean(0), rtol=1e-6)
    assert own == 3 * count


def test_a_product_with_zeros_has_an_exact_gradient():
    from lamina.ir.reductions import cumulative, reduce_prod
    from lamina.transform.gradient import gradients

    x = input_node(Type((4,), "float64"))
    for array, expected in (
        ([2, 3, 0, 5], [0, 0, 30, 0]),
        ([0, 3, 0, 5], [0, 0, 0, 0]),
        ([2, 3, 1, 5], [15, 10, 30, 6]),
    ):
        (slope,) = gradients([reduce_prod(x)], [constant(1.0, "float64")], [x])
        equal(interpret([slope], {x: np.array(array, float)})[0], expected)
    # d/dx_i of sum_j of (product of x_0 to x_j), by hand for x = (2, 0, 3, 4)
    ones = lift(constant(1.0, "float64"), x)
    (slope,) = gradients([cumulative(x, "prod")], [ones], [x])
    equal(interpret([slope], {x: np.array([2.0, 0, 3, 4])})[0], [1, 2 + 6 + 24, 0, 0])


# ---------------------------------------------------------------------------- contractions


DOTS = [
    ("bk,kn->bn", (), ((1, 0),), (2, 3), (3, 4)),
    ("hbik,hbjk->hbij", ((0, 0), (1, 1)), ((3, 3),), (2, 3, 4, 5), (2, 3, 6, 5)),
    ("tbd,tbh->dh", (), ((0, 0), (1, 1)), (3, 2, 4), (3, 2, 5)),
    ("abc,dca->bd", (), ((0, 2), (2, 1)), (2, 3, 4), (5, 4, 2)),
    ("abc,cxb->bax", ((1, 2),), ((2, 0),), (2, 3, 4), (4, 5, 3)),
    ("a,b->ab", (), (), (2,), (3,)),
    ("ab,ab->", (), ((0, 0), (1, 1)), (2, 3), (2, 3)),
]


@pytest.mark.parametrize(("formula", "batch", "contract", "left", "right"), DOTS)
def test_dot_is_this_einsum(formula, batch, contract, left, right, rng):
    a, b = rng.standard_normal(left), rng.standard_normal(right)
    found = Dot(batch, contract, "float64").numpy(a, b)
    np.testing.assert_allclose(found, np.einsum(formula, a, b), rtol=1e-12, atol=1e-14)


def test_dot_of_small_integers_does_not_overflow():
    a = np.full((1, 1000), 127, np.int8)
    equal(Dot((), ((1, 0),), "int32").numpy(a, a.T), [[127 * 127 * 1000]])


def test_dot_of_half_precision_is_summed_in_single():
    a = np.full((1, 4096), 1, np.float16)
    assert Dot((), ((1, 0),), "float16").numpy(a, a.T) == 4096
    assert Dot((), ((1, 0),), "float32").numpy(a, a.T).dtype == F


def convolution(x, w, strides, padding, dilation, groups):
    """The definition, one output element after the other."""
    padded = np.pad(x, [(0, 0), *padding, (0, 0)])
    size, per_group, filters = w.shape[:-2], w.shape[-2], w.shape[-1]
    counts = [
        (n + lo + hi - (k - 1) * d - 1) // s + 1
        for n, (lo, hi), k, d, s in zip(
            x.shape[1:-1], padding, size, dilation, strides, strict=True
        )
    ]
    out = np.zeros((len(x), *counts, filters))
    for place in itertools.product(*map(range, counts)):
        for tap in itertools.product(*map(range, size)):
            at = tuple(
                p * s + t * d for p, s, t, d in zip(place, strides, tap, dilation, strict=True)
            )
            for f in range(filters):
                group = f // (filters // groups)
                channels = padded[(slice(None), *at)][
                    :, group * per_group : (group + 1) * per_group
                ]
                out[(slice(None), *place, f)] += channels @ w[tap][:, f]
    return out


@pytest.mark.parametrize("op", [sample[0] for sample in Conv.samples], ids=str)
def test_convolution_by_its_definition(op, rng):
    (_, x_specification, w_specification) = next(s for s in Conv.samples if s[0] == op)
    from lamina.ir.samples import draw

    x = draw(x_specification, rng, 2, "float64")
    w = draw(w_specification, rng, 2, "float64")
    expected = convolution(x, w, op.strides, op.padding, op.dilation, op.groups)
    np.testing.assert_allclose(op.numpy(x, w), expected, rtol=1e-12, atol=1e-13)
    # The two gradients are the transposes of the same linear map.
    dy = rng.standard_normal(expected.shape)
    fields = (op.strides, op.padding, op.dilation, op.groups)
    dx = ConvInputGrad(x.shape[1:-1], *fields).numpy(dy, w)
    dw = ConvFilterGrad(w.shape[:-2], *fields).numpy(x, dy)
    np.testing.assert_allclose(np.vdot(dx, x), np.vdot(dy, expected), rtol=1e-12)
    np.testing.assert_allclose(np.vdot(dw, w), np.vdot(dy, expected), rtol=1e-12)


def test_convolution_agrees_with_scipy(rng):
    x, w = rng.standard_normal((1, 7, 8, 1)), rng.standard_normal((3, 2, 1, 1))
    found = Conv((1, 1), ((0, 0), (0, 0)), (1, 1)).numpy(x, w)[0, ..., 0]
    expected = scipy.signal.correlate(x[0, ..., 0], w[..., 0, 0], "valid")
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_same_padding_puts_the_odd_element_behind():
    assert padding_for("same", (5, 6), (3, 2), (1, 1)) == ((1, 1), (0, 1))
    assert padding_for("same", (5, 7), (3, 3), (2, 3)) == ((1, 1), (1, 1))
    assert padding_for("same", (4,), (1,), (2,)) == ((0, 0),)
    assert padding_for("valid", (5, 6), (3, 2), (1, 1)) == ((0, 0), (0, 0))


def test_pooling_of_padded_borders():
    x = np.array([[[-1.0], [-2.0], [-3.0]]], F)
    pads = ((1, 1),)
    equal(Window("max", (2,), (1,), pads).numpy(x)[0, :, 0], [-1, -1, -2, -3])
    equal(Window("sum", (2,), (1,), pads).numpy(x)[0, :, 0], [-1, -3, -5, -3])
    equal(Window("mean", (2,), (1,), pads).numpy(x)[0, :, 0], [-1, -1.5, -2.5, -3])


def test_the_first_winner_of_a_window_gets_the_gradient():
    x = np.array([5, 5, 1, nan, 2, nan], F).reshape(1, 3, 2, 1)
    op = WindowGrad("max", (3, 2), (3, 2), ((0, 0), (0, 0)))
    equal(op.numpy(x, np.full((1, 1, 1, 1), 7, F)).ravel(), [0, 0, 0, 7, 0, 0])
    op = WindowGrad("max", (1, 2), (1, 2), ((0, 0), (0, 0)))
    found = op.numpy(x, np.arange(1, 4, dtype=F).reshape(1, 3, 1, 1)).ravel()
    equal(found, [1, 0, 0, 2, 0, 3])


def test_a_window_maximum_keeps_nan():
    x = np.array([1, nan, 3, 4], F).reshape(1, 4, 1)
    equal(Window("max", (2,), (2,), ((0, 0),)).numpy(x).ravel(), [nan, 4])


# -------------------------------------------------------------------------------- indexing


def test_gather_clamps_and_does_not_wrap():
    table = np.arange(4.0)
    equal(Gather().numpy(table, np.array([-3, 0, 9, 3])), [0, 0, 3, 3])
    rows_of = np.arange(6.0).reshape(2, 3)
    equal(Gather(1, 1).numpy(rows_of, np.array([-1, 7])), [0, 5])


@pytest.mark.parametrize(
    ("axis", "batch", "table", "index"),
    [
        (0, 0, (5, 2), (3, 4)),
        (1, 0, (2, 5, 3), (4,)),
        (2, 0, (2, 3, 5), (2, 2)),
        (1, 1, (2, 5, 3), (2, 4)),
        (2, 1, (2, 3, 5, 4), (2, 6)),
        (2, 2, (2, 3, 5), (2, 3, 4)),
        (1, 1, (3, 5), (3,)),
    ],
)
def test_gather_and_scatter_by_their_definition(axis, batch, table, index, rng):
    values = rng.standard_normal(table)
    places = rng.integers(0, table[axis], index)
    found = Gather(axis, batch).numpy(values, places)
    own = index[batch:]
    assert found.shape == table[:axis] + own + table[axis + 1 :]
    base = rng.standard_normal(table)
    rows_in = rng.standard_normal(found.shape)
    added, put, high = base.copy(), base.copy(), base.copy()
    for outer in itertools.product(*map(range, table[:axis])):
        for inner in itertools.product(*map(range, own)):
            for rest in itertools.product(*map(range, table[axis + 1 :])):
                at = (*outer, places[(*outer[:batch], *inner)], *rest)
                here = (*outer, *inner, *rest)
                assert found[here] == values[at]
                added[at] += rows_in[here]
                put[at] = rows_in[here]
                high[at] = max(high[at], rows_in[here])
    before = base.copy()
    np.testing.assert_allclose(
        Scatter("add", axis, batch).numpy(base, places, rows_in), added, rtol=1e-12
    )
    equal(Scatter("set", axis, batch).numpy(base, places, rows_in), put)
    equal(Scatter("max", axis, batch).numpy(base, places, rows_in), high)
    equal(base, before)


def test_dynamic_slices_stay_inside():
    x = np.arange(12.0).reshape(3, 4)
    two, three, nine = (np.array(v, np.int32) for v in (2, 3, 9))
    equal(DynamicSlice((2, 2)).numpy(x, two, nine), x[1:, 2:])
    equal(DynamicSlice((2, 2)).numpy(x, -nine, two), x[:2, 2:])
    found = DynamicUpdate().numpy(x, np.full((1, 2), -1.0), nine, three)
    equal(found[2, 2:], [-1, -1])
    assert (x >= 0).all(), "the input is left alone"


# ----------------------------------------------------------------------------------- order


def test_sorting_is_stable_with_nan_last():
    keys = np.array([2, nan, 1, 2, 3, 1], F)
    places = np.arange(6)
    found, order = Sort(0).numpy(keys, places)
    equal(found, [1, 1, 2, 2, 3, nan])
    equal(order, [2, 5, 0, 3, 4, 1])
    found, order = Sort(0, descending=True).numpy(keys, places)
    equal(found, [3, 2, 2, 1, 1, nan])
    equal(order, [4, 0, 3, 2, 5, 1])
    lowest = np.array([0, -(2**31), 5], np.int32)
    equal(Sort(0, descending=True).numpy(lowest), [5, 0, -(2**31)])
    equal(Sort(0, descending=True).numpy(np.array([0, 3, 2**32 - 1], np.uint32))[0], 2**32 - 1)


def test_the_largest_k_and_their_places():
    values, places = TopK(3).numpy(np.array([[1, 5, 5, 2]], F))
    equal(values, [[5, 5, 2]])
    equal(places, [[1, 2, 3]])
    x = input_node(Type((4,)))
    equal(interpret([arg_sort(x)], {x: np.array([3, 1, 2, 1], F)})[0], [1, 3, 2, 0])


# ---------------------------------------------------------------------------------- random


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [  # the known answers of Random123's kat_vectors for threefry2x32, 20 rounds
        ((0, 0), (0, 0), 0x6B200159),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), 0x1CB996FC),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), 0xC4923A9C),
    ],
)
def test_threefry_gives_the_published_answers(key, counter, expected):
    first, second = (np.array([word], np.uint32) for word in counter)
    assert threefry(key, first, second)[0] == expected


def test_bits_of_a_row_depend_neither_on_the_rows_beside_it_nor_on_the_axis_order():
    key = input_node(Type((2,), "uint32"))
    feed = {key: np.array([3, 4], np.uint32)}
    many, few = (
        interpret([random_bits(key, (Batch(1), 4), 7)], feed, count)[0] for count in (9, 2)
    )
    equal(many[:2], few)
    (turned,) = interpret([random_bits(key, (4, Batch(1)), 7)], feed, 9)
    equal(turned.T, many)
    (other,) = interpret([random_bits(key, (Batch(1), 4), 8)], feed, 9)
    assert not np.any(other == many)
    (plain,) = interpret([random_bits(key, (3, 4), 7)], feed)
    equal(plain.ravel()[:4], many[0])
    assert RandomBits((3, 4), 7).counted is None


def test_uniform_numbers_are_uniform():
    key = input_node(Type((2,), "uint32"))
    feed = {key: np.array([1, 2], np.uint32)}
    (found,) = interpret([uniform(key, (100, 1000))], feed)
    assert found.dtype == F
    assert found.min() >= 0 and found.max() < 1
    counts, _ = np.histogram(found, 20, (0, 1))
    assert np.sum((counts - 5000.0) ** 2 / 5000) < 44  # chi squared, 19 degrees: p = 0.001
    assert abs(np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]) < 0.01


# --------------------------------------------------------------------------------- control


def test_while_doubles_until_it_is_large_enough():
    x, limit = input_node(Type(())), input_node(Type(()))
    types = [x.type, Type((), "int32"), limit.type]
    test = body_of(lambda value, _, bound: lt(value, bound), types)
    body = body_of(lambda value, n, _: (add(value, value), shift(n, 1)), types)
    results = while_(test, body, [x, constant(0, "int32")], [limit])
    found = interpret(list(results), {x: np.array(3, F), limit: np.array(100, F)})
    equal(found, [192, 6])
    equal(interpret(list(results), {x: np.array(3, F), limit: np.array(1, F)}), [3, 0])


@pytest.mark.parametrize("value", [2.0, -2.0])
def test_cond_takes_one_side_in_both_directions(value):
    from lamina.transform.gradient import gradients

    x, y = input_node(Type(())), input_node(Type(()))
    types = [x.type, y.type]
    then = body_of(mul, types)
    otherwise = body_of(lambda a, b: mul(a, mul(a, a)), types)
    (out,) = cond(gt(x, constant(0.0)), then, otherwise, [x, y])
    slopes = gradients([out], [constant(1.0)], [x, y])
    found = interpret([out, *slopes], {x: np.array(value, F), y: np.array(5, F)})
    equal(found, [10, 5, 2] if value > 0 else [-8, 12, 0])


def test_a_composite_equals_its_body_and_has_its_gradient(rng):
    from lamina.ir.control import inline
    from lamina.transform.gradient import gradients

    types = [Type((Batch(1), 3), "float64")] * 2
    body = body_of(lambda a, b: (scalar.tanh(mul(a, b)), scalar.exp(b)), types)
    a = input_node(types[0])
    doubled = add(a, a)  # one input is made from the other: each gradient must arrive once
    named, plain = composite("pair", body, [a, doubled]), inline(body, [a, doubled])
    ones = [lift(1.0, node) for node in named]
    sides = [[*side, *gradients(side, ones, [a])] for side in (named, plain)]
    feed = {a: rng.standard_normal((4, 3))}
    for one, other in zip(interpret(sides[0], feed, 4), interpret(sides[1], feed, 4), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
