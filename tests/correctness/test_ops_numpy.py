"""Ops against NumPy: one table of calls, each compared with a function of arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lamina import config, ops
from lamina.errors import DtypeError, ShapeError
from lamina.reference import compile_reference
from lamina.tensor import convert
from lamina.trace import grad, trace
from lamina.types import Batch, Type

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 5)).astype(np.float32)
Y = RNG.standard_normal((3, 4, 5)).astype(np.float32)
POSITIVE = np.abs(X) + 0.1
UNIT = np.tanh(X) * 0.99
V = RNG.standard_normal(7).astype(np.float32)
W = RNG.standard_normal(3).astype(np.float32)
M = RNG.standard_normal((4, 4)).astype(np.float32)
K = RNG.integers(-9, 9, (3, 4)).astype(np.int32)
J = RNG.integers(1, 9, (3, 4)).astype(np.int32)
HOLES = X.copy()
HOLES[0, 0, 0] = np.nan
HOLES[1, 2] = np.nan
ODD = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.5], np.float32)


def same(name, *args, **kwargs):
    """The case that NumPy has the same function under the same name."""
    return pytest.param(name, getattr(np, name), args, kwargs, id=f"{name}-{len(args)}-{kwargs}")


def case(name, reference, *args, **kwargs):
    return pytest.param(name, reference, args, kwargs, id=f"{name}-{kwargs}")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def scattered(indices, values, shape):
    out = np.zeros(shape, values.dtype)
    np.add.at(out, tuple(indices.T), values)
    return out


CASES = [
    *(same(n, X) for n in "negative abs absolute sign square exp expm1 sin cos tan sinh".split()),
    *(same(n, X) for n in "cosh tanh arcsinh arctan floor ceil round trunc isnan isinf".split()),
    *(same(n, X) for n in "isfinite exp2 cbrt deg2rad rad2deg sinc signbit ravel".split()),
    *(same(n, ODD) for n in "isnan isinf isfinite isposinf isneginf signbit sign floor".split()),
    *(same(n, POSITIVE) for n in "log log1p sqrt log2 log10 reciprocal".split()),
    *(same(n, UNIT) for n in "arcsin arccos arctanh".split()),
    same("arccosh", POSITIVE + 1),
    *(same(n, X, Y) for n in "add subtract multiply divide maximum minimum arctan2".split()),
    *(same(n, X, Y) for n in "equal less greater_equal logaddexp logaddexp2 hypot".split()),
    *(same(n, X, Y) for n in "copysign fmod floor_divide heaviside logical_and".split()),
    *(same(n, X[:, :1], Y[0]) for n in "add maximum mod".split()),
    *(same(n, K, J) for n in "add mod floor_divide gcd lcm bitwise_and bitwise_or".split()),
    *(same(n, HOLES, Y) for n in "fmax fmin maximum minimum".split()),
    same("power", POSITIVE, Y),
    same("power", J, 3),
    same("left_shift", J, 2),
    same("right_shift", K, 1),
    same("round", X, 1),
    same("clip", X, -0.5, 0.5),
    same("nan_to_num", ODD, posinf=9.0),
    same("where", X > 0, X, Y),
    case("rsqrt", lambda x: 1 / np.sqrt(x), POSITIVE),
    case("sigmoid", sigmoid, X),
    case("erf", np.vectorize(math.erf), X),
    case("erfc", np.vectorize(math.erfc), X),
    case("erf", lambda x: x, np.float32([0.0, -0.0])),
    case("divide_no_nan", lambda a, b: np.array([0.5, 0]), np.float32([1, 1]), np.float32([2, 0])),
    case("i0", np.i0, X * 4),
    *(same(n, X, axis=a) for n in "sum mean max min prod var std".split() for a in (None, 0, -1)),
    *(same(n, X, axis=(0, 2), keepdims=True) for n in "sum mean max min var".split()),
    *(same(n, K > 0, axis=1) for n in "any all".split()),
    *(same(n, X, axis=a) for n in "argmax argmin".split() for a in (None, 1)),
    *(same(n, X, axis=a) for n in "cumsum cumprod".split() for a in (None, 0, 2)),
    *(same(n, HOLES, axis=1) for n in "nansum nanmean nanmax nanmin nanstd nanvar".split()),
    *(same(n, HOLES) for n in "nansum nanprod nanmedian nanmax".split()),
    same("sum", HOLES, axis=1),
    same("max", HOLES, axis=2),
    same("average", X, axis=1, weights=POSITIVE[0, :, 0]),
    same("count_nonzero", K, axis=1),
    same("ptp", X, axis=1),
    same("median", X, axis=1),
    same("quantile", X, 0.3, axis=2),
    same("quantile", X, [0.1, 0.9], axis=(0, 1), keepdims=True),
    same("percentile", X, 30),
    case("logsumexp", lambda x, axis: np.log(np.exp(x).sum(axis)), X, axis=1),
    case("logsumexp", lambda x: 1000 + np.log(2), np.float32([1000, 1000])),
    case("logsumexp", lambda x: -np.inf, np.float32([-np.inf, -np.inf])),
    same("reshape", X, (4, -1)),
    same("transpose", X, (2, 0, 1)),
    same("swapaxes", X, 0, 2),
    same("moveaxis", X, (0, 1), (-1, 0)),
    same("expand_dims", X, (0, -1)),
    same("squeeze", X[:1]),
    same("broadcast_to", W, (2, 3)),
    same("concatenate", [X, Y], axis=1),
    same("append", X, Y),
    same("stack", [X, Y], axis=-1),
    same("split", X, [1, 3], axis=1),
    same("array_split", V, 3),
    same("hstack", [X, Y]),
    same("vstack", [V, V]),
    same("dstack", [M, M]),
    same("tile", M, (2, 1, 3)),
    same("repeat", M, 2, axis=0),
    same("repeat", W, np.array([1, 2, 0])),
    same("pad", M, ((1, 2), (0, 1))),
    *(same("pad", M, ((1, 2), (0, 1)), mode=m) for m in ("reflect", "symmetric", "edge", "wrap")),
    same("flip", X, axis=(0, 2)),
    same("roll", X, -1, axis=1),
    same("roll", M, (1, 2), axis=(0, 1)),
    same("rot90", M, k=3),
    same("diff", X, n=2, axis=1),
    same("atleast_3d", M),
    same("full", (2, 3), 7.0),
    same("eye", 3, 4, k=1),
    same("arange", 1, 9, 2),
    same("arange", 5.0),
    same("arange", 3, 0, -1),
    same("linspace", 0.0, 1.0, 7),
    same("linspace", V, V + 1, 4, axis=-1),
    same("geomspace", 1.0, 100.0, 5),
    same("tri", 3, 4, k=1),
    same("tril", X),
    same("triu", X, k=1),
    same("diag", V, k=-2),
    same("diag", M, k=1),
    same("diagonal", X, offset=1, axis1=1, axis2=2),
    same("trace", M),
    same("meshgrid", V, W),
    same("vander", V, N=3, increasing=True),
    same("hanning", 6),
    same("take", X, np.array([0, -1, 2]), axis=1),
    same("take", X, np.array([[0, 5], [2, 1]])),
    same("take_along_axis", X, np.argsort(X, 1), axis=1),
    same("take_along_axis", X, RNG.integers(0, 4, (3, 2, 5)), axis=1),
    same("sort", X, axis=1),
    same("argsort", X, axis=0),
    same("searchsorted", np.sort(V), X),
    same("searchsorted", np.sort(V), V, side="right"),
    same("digitize", X, np.sort(V)),
    same("isin", J, np.array([1, 2])),
    same("unique", J),
    same("bincount", J[0], minlength=12),
    same("unravel_index", np.array([3, 7]), (3, 4)),
    same("nonzero", K),
    same("matmul", X, M.repeat(2, 0)[:5]),
    same("matmul", X, np.swapaxes(Y, 1, 2)),
    same("matmul", V, V),
    same("matmul", V[:4], X),
    same("dot", X, np.swapaxes(Y, 1, 2)),
    same("inner", X, Y),
    same("outer", V, W),
    same("vdot", X, Y),
    same("tensordot", X, Y, axes=[[0, 1], [0, 1]]),
    same("kron", M, M[:2]),
    same("cross", X[..., :3], Y[..., :3]),
    same("corrcoef", X[0]),
    case("trapezoid", lambda x: ((x[..., 1:] + x[..., :-1]) / 2).sum(-1), X),
    *(same("correlate", V, W, mode=m) for m in ("valid", "full", "same")),
    case("one_hot", lambda x, n: np.eye(n)[x], J, 10),
    case("scatter", scattered, np.array([[0, 1], [2, 0], [0, 1]]), W, (3, 4)),
    case("segment_sum", lambda x, i, n: np.stack([x[0] + x[2], 0 * x[0], x[1]]), X, [0, 2, 0], 3),
    case("top_k", lambda x, k: (-np.sort(-x)[..., :k], np.argsort(-x)[..., :k]), X, 3),
    case("slice", lambda x, s, n: x[1:3, :3, 2:4], X, (1, 0, 2), (2, 3, 2)),
    case("slice_update", lambda x, s, u: np.pad(u, ((1, 0),)), np.zeros(3, "f"), (1,), W[:2]),
    case("relu", lambda x: np.maximum(x, 0), X),
    case("leaky_relu", lambda x: np.where(x < 0, 0.2 * x, x), X),
    case("softplus", lambda x: np.log1p(np.exp(x)), X),
    case("softplus", lambda x: np.float32([0, 100]), np.float32([-200, 100])),
    case("silu", lambda x: x * sigmoid(x), X),
    case("elu", lambda x: np.where(x > 0, x, np.expm1(x)), X),
    case("softmax", softmax, X),
    case("softmax", softmax, X * 1000, axis=1),
    case("log_softmax", lambda x: np.log(softmax(x)), X),
    case("sparsemax", lambda x: np.float32([[0, 0, 1], [0.25, 0.75, 0]]),
         np.float32([[0, 0, 5], [0.5, 1, -3]])),
    case("normalize", lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True), X),
    case("norm", lambda x, axis: np.linalg.norm(x, axis=axis), X, axis=1),
    *(case("norm", np.linalg.norm, M, ord=o) for o in (1, -1, 2, -2, np.inf, "fro", "nuc")),
    *(case("norm", np.linalg.norm, V, ord=o) for o in (0, 1, 3, np.inf, -np.inf)),
    case("fft", lambda z: (np.fft.fft(z[0] + 1j * z[1]).real, np.fft.fft(z[0] + 1j * z[1]).imag),
         (X, Y)),
    case("rfft", lambda x: (np.fft.rfft(x).real, np.fft.rfft(x).imag),
         RNG.standard_normal((2, 96)).astype("f")),
    case("cholesky", np.linalg.cholesky, M @ M.T + 4 * np.eye(4, dtype="f")),
    case("inv", np.linalg.inv, M),
    case("det", np.linalg.det, np.stack([M, M.T + 1])),
    case("solve", np.linalg.solve, M, M[:, :2]),
]  # fmt: skip


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
        (lambda: ops.matmul(X, M[:3]), ShapeError, "does not match axis -2"),
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
