"""Pooling gradients, scatters, running sums and sorts against direct NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernel_oracle import TARGETS, run

from lamina.llvm.kernel import Cumulative, Scatter, Sort, WindowGradient
from lamina.types import Batch, numpy_dtype

every_target = pytest.mark.parametrize("target", TARGETS)

# image, size, strides, low
WINDOWS = [
    ((6, 8), (2, 2), (2, 2), (0, 0)),
    ((7, 9), (2, 2), (2, 2), (0, 0)),
    ((7, 6), (3, 3), (2, 2), (1, 1)),
    ((5, 5), (3, 2), (1, 1), (1, 0)),
    ((9,), (2,), (3,), (0,)),
    ((4, 4, 6), (2, 2, 2), (2, 2, 2), (0, 0, 0)),
]


def pooled_gradient(kind, x, g, size, strides, low):
    """Cell by cell, from the definition."""
    result = np.zeros_like(x, dtype="f8")
    image = x.shape[1:-1]
    for n, c in itertools.product(range(x.shape[0]), range(x.shape[-1])):
        for window in itertools.product(*(range(k) for k in g.shape[1:-1])):
            cells = []
            for offset in itertools.product(*(range(k) for k in size)):
                cell = tuple(
                    w * s - p + o for w, s, p, o in zip(window, strides, low, offset, strict=True)
                )
                if all(0 <= i < extent for i, extent in zip(cell, image, strict=True)):
                    cells.append((n, *cell, c))
            given = g[(n, *window, c)]
            if kind == "max":
                result[cells[int(np.argmax([x[cell] for cell in cells]))]] += given
            else:
                for cell in cells:
                    result[cell] += given / (len(cells) if kind == "mean" else 1)
    return result


@every_target
@pytest.mark.parametrize("kind", ["max", "mean", "sum"])
@pytest.mark.parametrize("channels", [1, 5, 16, 19])
@pytest.mark.parametrize("case", WINDOWS, ids=str)
def test_pooling_gradients(target, kind, channels, case, rng):
    image, size, strides, low = case
    windows = tuple(
        (extent + 2 * pad - width) // step + 1
        for extent, width, step, pad in zip(image, size, strides, low, strict=True)
    )
    kernel = WindowGradient(kind, Batch(1), image, windows, size, strides, low, channels)
    x = rng.integers(-2, 3, (3, *image, channels)).astype("f4")  # many ties
    x[1, 0] = -np.inf
    x[2, 1, ..., 0] = np.nan
    g = rng.standard_normal((3, *windows, channels)).astype("f4")
    stale = np.full_like(x, 7)
    got = run(kernel, target, [x, g, stale], 1, 3, 3)[2]
    want = pooled_gradient(kind, x, g, size, strides, low)
    np.testing.assert_allclose(got[1:], want[1:], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got[0], stale[0])


@every_target
@pytest.mark.parametrize("kind", ["add", "set", "max"])
@pytest.mark.parametrize("inner", [1, 3, 16, 70])
def test_scatter_into_a_table_split_by_destination(target, kind, inner, rng):
    kernel = Scatter(1, 20, inner, Batch(2), kind, "float32", "int32")
    base = rng.standard_normal((20, inner)).astype("f4")
    index = rng.integers(0, 20, 30).astype("i4")
    index[:3] = -4, 25, 7
    rows = rng.standard_normal((30, inner)).astype("f4")
    want = base.copy()
    for i in range(24):
        where = min(max(index[i], 0), 19)
        if kind == "add":
            want[where] += rows[i]
        elif kind == "set":
            want[where] = rows[i]
        else:
            want[where] = np.maximum(want[where], rows[i])
    current = base
    for low, high in ((0, 6), (6, 20)):
        current = run(kernel, target, [current, index, rows], low, high, 12)[0]
    np.testing.assert_array_equal(current, want)


@every_target
@pytest.mark.parametrize("inner", [3, 70])
@pytest.mark.parametrize("split", [1, 2])
def test_scatter_of_several_steps_into_a_cleared_table(target, split, inner, rng):
    """Time stands before the batch, of which 5 rows of 8 are there."""
    kernel = Scatter(
        1, 9, inner, Batch(1), "add", "float32", "int32", split, clear=True, steps=3, pitch=8
    )
    index = rng.integers(-1, 11, (3, 8)).astype("i4")
    rows = rng.standard_normal((3, 8, inner)).astype("f4")
    rows[:, 5:] = np.nan
    want = np.zeros((9, inner), "f4")
    np.add.at(want, np.clip(index[:, :5], 0, 8), rows[:, :5])
    extent = (9, inner)[split - 1]
    current = np.full((9, inner), np.nan, "f4")
    for low, high in ((0, 2), (2, extent)):
        current = run(kernel, target, [current, index, rows], low, high, 5)[0]
    np.testing.assert_array_equal(current, want)


@every_target
def test_scatter_of_independent_problems(target, rng):
    kernel = Scatter(Batch(1), 5, 4, 7, "add", "float32", "int64", split=0)
    base = rng.standard_normal((6, 5, 4)).astype("f4")
    index = rng.integers(0, 5, (6, 7))
    rows = rng.standard_normal((6, 7, 4)).astype("f4")
    want = base.astype("f8")
    for n in range(1, 4):
        np.add.at(want[n], index[n], rows[n])
    got = run(kernel, target, [base, index, rows], 1, 4, 6)[0]
    np.testing.assert_allclose(got[1:4], want[1:4], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got[[0, 4, 5]], base[[0, 4, 5]])


@every_target
@pytest.mark.parametrize("dtype", ["float16", "int8", "uint32", "bool", "float64"])
def test_scatter_of_other_dtypes(target, dtype, rng):
    kernel = Scatter(1, 6, 5, 9, "max", dtype, "int32")
    draw = lambda *shape: rng.integers(0, 2 if dtype == "bool" else 50, shape).astype(
        numpy_dtype(dtype)
    )
    base, rows, index = draw(6, 5), draw(9, 5), rng.integers(0, 6, 9).astype("i4")
    want = base.copy()
    np.maximum.at(want, index, rows)
    got = run(kernel, target, [base, index, rows], 0, 6, 1)[0]
    np.testing.assert_array_equal(got, want)


@every_target
@pytest.mark.parametrize("kind", ["sum", "prod", "max"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("length", "inner"), [(1, 1), (9, 1), (6, 16), (5, 21)])
def test_running_reductions(target, kind, reverse, length, inner, rng):
    kernel = Cumulative(Batch(1), length, inner, kind, reverse, "float32")
    source = rng.standard_normal((4, length, inner)).astype("f4")
    function = {"sum": np.cumsum, "prod": np.cumprod, "max": np.maximum.accumulate}[kind]
    flipped = source[:, ::-1] if reverse else source
    want = function(flipped.astype("f8"), axis=1)
    want = want[:, ::-1] if reverse else want
    got = run(kernel, target, [source, np.zeros_like(source)], 0, 3, 4)[1]
    np.testing.assert_allclose(got[:3], want[:3], rtol=1e-5, atol=1e-6)
    assert not got[3].any()


@every_target
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "int64", "float16"])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("length", [1, 2, 3, 16, 37, 100])
@pytest.mark.parametrize("top", [None, 3])
def test_stable_sorting(target, dtype, descending, length, top, rng):
    if top is not None and top > length:
        pytest.skip("fewer elements than asked for")
    kernel = Sort(Batch(1), length, dtype, ("int32", "float64"), descending, top)
    keys = rng.integers(0, 20, (5, length)).astype(numpy_dtype(dtype))
    if dtype.startswith("float") and length > 3:
        keys[1, 2] = keys[1, 0] = np.nan
    numbers = np.tile(np.arange(length, dtype="i4"), (5, 1))
    carried = rng.standard_normal((5, length))
    count = top or length
    outs = [np.zeros((5, count), a.dtype) for a in (keys, numbers, carried)]
    got = run(kernel, target, [keys, numbers, carried, *outs], 0, 4, 5)[3:]
    ranks = keys.astype("f8")
    ranks = np.where(np.isnan(ranks), np.inf, -ranks if descending else ranks)
    order = np.argsort(ranks, axis=1, kind="stable")[:, :count]
    for have, source in zip(got, (keys, numbers, carried), strict=True):
        np.testing.assert_array_equal(have[:4], np.take_along_axis(source, order, 1)[:4])
        assert not have[4].any()
