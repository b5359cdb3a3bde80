"""Calls of ops and the functions of arrays that they must equal."""

from __future__ import annotations

import math

import numpy as np
import pytest

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
