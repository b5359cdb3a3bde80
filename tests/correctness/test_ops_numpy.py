"""Ops against NumPy: one table of calls, each compared with a function of arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ops_cases import CASES, M, X, Y

from lamina import config, ops
from lamina.errors import DtypeError, ShapeError
from lamina.reference import compile_reference
from lamina.tensor import convert
from lamina.trace import grad, trace
from lamina.types import Batch, Type


def leaves(result):
    if isinstance(result, (list, tuple)):
        return [leaf for part in result for leaf in leaves(part)]
    return [np.asarray(result)]


@pytest.mark.parametrize(("name", "reference", "args", "kwargs"), CASES)
def test_op_means_what_numpys_means(name, reference, args, kwargs):
    with np.errstate(all="ignore"):
        expected = leaves(reference(*args, **kwargs))
    found = leaves(getattr(ops, name)(*args, **kwargs))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=3e-5, atol=3e-6)


def test_every_public_op_is_documented_and_named():
    for name in ops.__all__:
        function = getattr(ops, name)
        if callable(function):
            assert function.__doc__, name
            assert function.__module__.startswith("lamina.ops."), name


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("abc,abd->acd", [(3, 4, 5), (3, 4, 2)]),
        ("abc,abc->a", [(3, 4, 5), (3, 4, 5)]),
        ("abc->cba", [(3, 4, 5)]),
        ("abc->b", [(3, 4, 5)]),
        ("ii->i", [(4, 4)]),
        ("ii", [(4, 4)]),
        ("iij->ij", [(4, 4, 2)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("...c,cd->...d", [(3, 4, 5), (5, 2)]),
        ("a...,b...->ab...", [(2, 3, 4), (5, 3, 4)]),
        ("ij,kl->ijkl", [(2, 3), (4, 5)]),
        ("ij,ij", [(2, 3), (2, 3)]),
        ("bthd,bshd->bhts", [(2, 3, 4, 5), (2, 6, 4, 5)]),
        ("bnqk,bknh->bqnh", [(2, 3, 4, 5), (2, 5, 3, 2)]),
        ("i,j,k->", [(2,), (3,), (4,)]),
        ("ab,ab,b->a", [(2, 3), (2, 3), (3,)]),
    ],
)
def test_einsum(subscripts, shapes, rng):
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    expected = np.einsum(subscripts, *arrays)
    found = ops.einsum(subscripts, *arrays).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("subscripts", "text"),
    [
        ("ab,bc->ac", "axis 'b' of 'ab,bc->ac' has sizes 3 and 4"),
        ("ab->a", "names 1 operands, got 2"),
        ("a,bc->ac", "does not fit"),
        ("ab,cd->ax", "an axis that no operand has"),
    ],
)
def test_einsum_says_what_does_not_fit(subscripts, text):
    with pytest.raises(ShapeError, match=text):
        ops.einsum(subscripts, np.ones((2, 3)), np.ones((4, 5)))


def test_sums_of_small_integers_do_not_overflow():
    assert int(ops.sum(np.full(1000, 100, np.int8))) == 100000
    assert ops.sum(np.ones(3, bool)).dtype == "int32"
    assert ops.sum(np.ones(3, np.uint8)).dtype == "uint32"


def test_erfinv_undoes_erf():
    x = np.concatenate([np.linspace(-0.999999, 0.999999, 999), [-1, 1]]).astype(np.float32)
    y = ops.erfinv(x).numpy()
    np.testing.assert_allclose([math.erf(v) for v in y], x, atol=2e-7)
    assert y[-1] == np.inf
    assert y[-2] == -np.inf


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_convolutions_and_their_transposes(side, size, stride, padding, rng):
    x = rng.standard_normal((2, side, 3)).astype(np.float32)
    w = rng.standard_normal((size, 3, 4)).astype(np.float32)
    total = max((-(-side // stride) - 1) * stride + size - side, 0) if padding == "same" else 0
    padded = np.pad(x, ((0, 0), (total // 2, total - total // 2), (0, 0)))
    count = (padded.shape[1] - size) // stride + 1
    expected = np.stack(
        [
            np.einsum("bkc,kcf->bf", padded[:, i * stride : i * stride + size], w)
            for i in range(count)
        ],
        1,
    )
    found = ops.conv(x, w, stride, padding)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    # <conv(x), y> = <x, conv_transpose(y)> where the sizes fit.
    y = rng.standard_normal(expected.shape).astype(np.float32)
    back = ops.conv_transpose(y, w, stride, padding).numpy()
    if back.shape == x.shape:
        np.testing.assert_allclose(np.vdot(expected, y), np.vdot(x, back), rtol=1e-3, atol=1e-3)


def test_channels_first_is_a_transpose(rng):
    x = rng.standard_normal((2, 6, 5, 3)).astype(np.float32)
    w = rng.standard_normal((3, 2, 3, 4)).astype(np.float32)
    first = np.transpose(x, (0, 3, 1, 2))
    for op, args in ((ops.conv, (w, 2, "same")), (ops.max_pool, (2, 1)), (ops.average_pool, (3,))):
        expected = np.transpose(op(x, *args).numpy(), (0, 3, 1, 2))
        found = op(first, *args, data_format="channels_first").numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_grouped_and_depthwise_convolutions(rng):
    x = rng.standard_normal((2, 6, 4)).astype(np.float32)
    w = rng.standard_normal((3, 2, 6)).astype(np.float32)
    halves = [ops.conv(x[..., 2 * g : 2 * g + 2], w[..., 3 * g : 3 * g + 3]) for g in range(2)]
    expected = ops.concatenate(halves, -1).numpy()
    np.testing.assert_allclose(ops.conv(x, w).numpy(), expected, rtol=1e-4, atol=1e-5)
    depth = rng.standard_normal((3, 4, 2)).astype(np.float32)
    alone = [ops.conv(x[..., c : c + 1], depth[:, c : c + 1]) for c in range(4)]
    expected = ops.concatenate(alone, -1).numpy()
    np.testing.assert_allclose(ops.depthwise_conv(x, depth).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_fold_undoes_unfold_and_windows_overlap(rng):
    x = rng.standard_normal((2, 3, 6, 7)).astype(np.float32)
    columns = ops.unfold(x, 2, stride=1)
    assert columns.shape == (2, 12, 30)
    counts = ops.fold(ops.unfold(np.ones_like(x), 2), (6, 7), 2)
    np.testing.assert_allclose((ops.fold(columns, (6, 7), 2) / counts).numpy(), x, rtol=1e-5)


def test_stft_and_back(rng):
    wave = rng.standard_normal((2, 400)).astype(np.float32)
    spectrum = ops.stft(wave, 64, 16, 64)
    assert spectrum[0].shape == (2, 26, 33)
    back = ops.istft(spectrum, 64, 16, 64, length=400)
    np.testing.assert_allclose(back.numpy(), wave, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["cholesky", "inv", "det", "slogdet", "eigh", "solve"])
def test_gradients_of_linear_algebra(name, rng):
    a = rng.standard_normal((3, 3))
    a = a @ a.T + 3 * np.eye(3)
    weight = rng.standard_normal((3, 3))

    def loss(x):
        x = (x + ops.transpose(x)) / 2
        found = ops.solve(x, weight) if name == "solve" else getattr(ops, name)(x)
        if name == "slogdet":
            return found[1]
        if name == "eigh":
            return ops.sum(found[0] * np.array([1.0, 2.0, 3.0]))
        return ops.sum(found * weight) if found.ndim else found

    direction, h = rng.standard_normal((3, 3)), 1e-6
    numeric = (
        float(loss(convert(a + h * direction))) - float(loss(convert(a - h * direction)))
    ) / (2 * h)
    exact = np.vdot(grad(loss)(a).numpy(), direction)
    np.testing.assert_allclose(exact, numeric, rtol=1e-5)


# --------------------------------------------------------------------------- control flow


def run(function, *arrays, rows=None):
    types = [Type(array.shape, str(array.dtype)) for array in arrays]
    if rows is not None:
        types = [Type((Batch(1), *type.shape[1:]), type.dtype) for type in types]
    traced = trace(function, *types)
    with config.override(executor="reference"):
        found = compile_reference(traced.program, rows or 1)(list(arrays), traced.states())
    return traced.unflatten(found)


def test_cond_takes_one_branch():
    function = lambda x: ops.cond(ops.sum(x) > 0, lambda: x * 2.0, lambda: x - 1.0)
    for sign in (1, -1):
        x = np.full(3, sign, np.float32)
        expected = x * 2 if sign > 0 else x - 1
        assert run(function, x).tolist() == expected.tolist()
        assert function(convert(x)).tolist() == expected.tolist()
        slope = run(grad(lambda y: ops.sum(function(y))), x)
        assert slope.tolist() == ([2.0] * 3 if sign > 0 else [1.0] * 3)


def test_switch_takes_the_nearest_branch():
    branches = [lambda x: x, lambda x: x * 10, lambda x: x * 100]
    for index, factor in ((-3, 1), (0, 1), (1, 10), (2, 100), (9, 100)):
        function = lambda i, x: ops.switch(i, branches, x)
        found = run(function, np.int32(index), np.float32([1]))
        assert found.tolist() == [factor]
        assert ops.switch(index, branches, convert([1.0])).tolist() == [factor]


def test_while_loop_with_structures_and_a_limit():
    function = lambda n: ops.while_loop(
        lambda i, total: i < n, lambda i, total: (i + 1, total + i), (0, 0)
    )
    assert [int(v) for v in run(function, np.int32(5))] == [5, 10]
    assert [int(v) for v in function(convert(5))] == [5, 10]
    limited = ops.while_loop(lambda i: i < 100, lambda i: i + 1, 0, maximum_iterations=7)
    assert int(limited) == 7


def test_scan_is_its_unrolled_twin(rng):
    w = rng.standard_normal((3, 3)).astype(np.float32) * 0.5
    xs = rng.standard_normal((6, 2, 3)).astype(np.float32)

    def cell(h, x):
        new = ops.tanh(ops.matmul(h, w) + x)
        return new, {"h": new * 2.0, "none": None}

    for reverse in (False, True):
        carry, ys = ops.scan(cell, np.zeros((2, 3), np.float32), xs, reverse=reverse)
        h, outs = np.zeros((2, 3), np.float32), [None] * 6
        for t in reversed(range(6)) if reverse else range(6):
            h = np.tanh(h @ w + xs[t])
            outs[t] = h * 2
        np.testing.assert_allclose(carry.numpy(), h, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ys["h"].numpy(), np.stack(outs), rtol=1e-5, atol=1e-6)
        assert ys["none"] is None


def test_gradients_flow_through_scan_to_everything_it_reads(rng):
    xs = rng.standard_normal((5, 2, 3))

    def loss(w, h):
        carry, ys = ops.scan(lambda c, x: (ops.tanh(c @ w + x),) * 2, h, xs)
        return ops.sum(carry) + ops.sum(ys * ys)

    w, h = rng.standard_normal((3, 3)) * 0.5, rng.standard_normal((2, 3))
    slopes = grad(loss, argnums=(0, 1))(w, h)
    for position, (value, slope) in enumerate(zip((w, h), slopes, strict=True)):
        direction, step = rng.standard_normal(value.shape), 1e-6
        ends = []
        for sign in (1, -1):
            moved = [w, h]
            moved[position] = value + sign * step * direction
            ends.append(float(loss(*map(convert, moved))))
        numeric = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(np.vdot(slope.numpy(), direction), numeric, rtol=1e-6)


def test_fori_loop_map_and_vectorized_map():
    assert float(ops.fori_loop(1, 5, lambda i, v: v * ops.cast(i, "float32"), 1.0)) == 24.0
    assert ops.fori_loop(3, 3, lambda i, v: v + 1, 7) == 7
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    for mapped in (ops.map, ops.vectorized_map):
        assert mapped(lambda row: ops.sum(row) * 2, x).tolist() == [2.0, 10.0, 18.0]
    double = ops.vectorize(lambda a, b: a * 2 + b)
    assert double(x, 1.0).tolist() == (x * 2 + 1).tolist()


@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan(reverse):
    x = np.arange(1, 8, dtype=np.float32)
    found = ops.associative_scan(lambda a, b: a + b, x, reverse=reverse)
    expected = np.cumsum(x[::-1])[::-1] if reverse else np.cumsum(x)
    assert found.tolist() == expected.tolist()


def test_custom_gradients():
    @ops.custom_gradient
    def straight(x):
        return ops.round(x), lambda upstream: upstream * 3.0

    assert straight(convert([1.4])).tolist() == [1.0]
    assert float(grad(lambda x: straight(x) * 2.0)(1.4)) == 6.0
    found = run(grad(lambda y: ops.sum(straight(y))), np.float32([0.3, 0.9]))
    assert found.tolist() == [3.0, 3.0]


def test_stop_gradient_and_jvp():
    assert float(grad(lambda x: x * ops.stop_gradient(x))(3.0)) == 3.0
    value, slope = ops.jvp(
        lambda x: ops.sin(x) * x, (np.array([1.0, 2.0]),), (np.array([1.0, 3.0]),)
    )
    x = np.array([1.0, 2.0])
    np.testing.assert_allclose(value.numpy(), np.sin(x) * x)
    np.testing.assert_allclose(slope.numpy(), (np.cos(x) * x + np.sin(x)) * [1.0, 3.0])


def test_rearrange():
    x = np.arange(24).reshape(2, 3, 4)
    assert (
        ops.rearrange(x, "a b c -> c (a b)").numpy() == x.transpose(2, 0, 1).reshape(4, 6)
    ).all()
    back = ops.rearrange(x.reshape(6, 4), "(a b) c -> b a c", a=2)
    assert (back.numpy() == x.transpose(1, 0, 2)).all()
    with pytest.raises(ShapeError, match="must name the same axes"):
        ops.rearrange(x, "a b c -> a b")


# --------------------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: ops.sum(X, axis=3), ShapeError, "axis 3 is out of range for a value with 3 axes"),
        (lambda: ops.reshape(X, (7, -1)), ShapeError, r"cannot be reshaped to \(7, -1\)"),
        (lambda: ops.reshape(X, (-1, -1)), ShapeError, "can infer one dimension"),
        (lambda: ops.transpose(X, (0, 0, 1)), ShapeError, "does not order the axes"),
        (lambda: ops.squeeze(X, 1), ShapeError, "has size 4, not 1"),
        (lambda: ops.split(X, 3, axis=1), ShapeError, "cannot be cut into 3 equal parts"),
        (lambda: ops.matmul(X, M[:3]), ShapeError, "matmul: 5 columns do not match 3 rows"),
        (lambda: ops.concatenate([]), ShapeError, "at least one tensor"),
        (lambda: ops.one_hot(X, 3), DtypeError, "positions must be integers"),
        (lambda: ops.take(X, [0.5]), DtypeError, "positions must be integers"),
        (lambda: ops.bitwise_and(X, Y), DtypeError, "integers and truth values"),
        (
            lambda: ops.conv(X, np.ones((2, 4, 3), "f")),
            ShapeError,
            "takes 4 channels a group, got 5",
        ),
        (lambda: ops.conv(M, np.ones((2, 4, 3), "f")), ShapeError, "inputs must have 3 axes"),
        (lambda: ops.max_pool(X, 0), ShapeError, "pool_size must be a positive integer"),
        (lambda: ops.conv(X, np.ones((2, 5, 3), "f"), padding="half"), ShapeError, "padding is"),
        (lambda: ops.einsum("ij", M, M), ShapeError, "names 1 operands"),
        (lambda: ops.sparse_categorical_crossentropy(M, M), ShapeError, "one class number"),
        (lambda: ops.categorical_crossentropy(M[:2], M), ShapeError, "must have the same shape"),
        (lambda: ops.image.resize(X, (2, 2), "cubic"), ShapeError, "unknown interpolation"),
        (lambda: ops.cast(X, "float8"), DtypeError, "unknown dtype 'float8'"),
    ],
)
def test_wrong_arguments_are_explained(call, error, text):
    with pytest.raises(error, match=text):
        call()
