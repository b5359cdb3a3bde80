"""Row groups against the meaning of their specifications."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_oracle import TARGETS, meaning, run

from lamina.llvm import host, kernels
from lamina.llvm.kernel import (
    Constant,
    Convert,
    Core,
    Load,
    Lookup,
    Position,
    RowGroup,
    Scalar,
    Stage,
    Store,
)
from lamina.types import Batch

every_target = pytest.mark.parametrize("target", TARGETS)
WIDTHS = [1, 2, 10, 16, 33, 64, 100, 128, 500, 1000]


def check(kernel, target, arrays, low, high, rows=1, rtol=3e-6, atol=1e-6):
    expected = meaning(kernel, arrays, low, high, rows)
    for got, want in zip(run(kernel, target, arrays, low, high, rows), expected, strict=True):
        if got.dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
        else:
            np.testing.assert_array_equal(got, want)


def softmax(columns: int, out: int = 1) -> RowGroup:
    f = "float32"
    body = (
        Load(0, f, 0, (columns, 1)),
        Core(0, f),
        Scalar("sub", (0, 1), f),
        Scalar("exp", (2,), f),
        Core(1, f),
        Scalar("div", (3, 4), f),
    )
    stores = (Store(5, out, f, 0, (columns, 1)),)
    return RowGroup((Batch(1),), columns, body, (Stage(0, "max"), Stage(3, "sum")), stores, ())


@every_target
@pytest.mark.parametrize("columns", WIDTHS)
def test_softmax(target, columns, rng):
    arrays = [rng.standard_normal((6, columns)).astype("f4") * 5, np.zeros((6, columns), "f4")]
    check(softmax(columns), target, arrays, 1, 5, rows=5)


@every_target
@pytest.mark.parametrize("columns", [10, 300])
def test_softmax_in_place(target, columns, rng):
    source = rng.standard_normal((6, columns)).astype("f4")
    check(softmax(columns, out=0), target, [source], 0, 6, rows=6)


def test_a_long_row_keeps_its_exponentials():
    target = host.target("avx2")
    assert kernels.scratch_bytes(softmax(64), target) == 0
    assert 4 * 1000 <= kernels.scratch_bytes(softmax(1000), target) <= 8 * 1100


@every_target
@pytest.mark.parametrize("columns", WIDTHS)
def test_layer_norm(target, columns, rng):
    f = "float32"
    body = (
        Load(0, f, 0, (4 * columns, columns, 1)),
        Constant(np.float32(1 / columns).tobytes(), f),
        Core(0, f),
        Scalar("mul", (2, 1), f),
        Scalar("sub", (0, 3), f),
        Scalar("square", (4,), f),
        Core(1, f),
        Scalar("mul", (6, 1), f),
        Constant(np.float32(1e-3).tobytes(), f),
        Scalar("add", (7, 8), f),
        Scalar("rsqrt", (9,), f),
        Scalar("mul", (4, 10), f),
        Load(1, f, 0, (0, 0, 1)),
        Scalar("mul", (11, 12), f),
    )
    kernel = RowGroup(
        (Batch(1), 4),
        columns,
        body,
        (Stage(0, "sum"), Stage(5, "sum")),
        (Store(13, 2, f, 0, (4 * columns, columns, 1)),),
        (Store(3, 3, f, 0, (4, 1)), Store(10, 4, f, 0, (4, 1))),
    )
    arrays = [
        rng.standard_normal((3, 4, columns)).astype(f) + 2,
        rng.standard_normal(columns).astype(f),
        np.zeros((3, 4, columns), f),
        np.zeros((3, 4), f),
        np.zeros((3, 4), f),
    ]
    check(kernel, target, arrays, 0, 2, rows=3, rtol=1e-4, atol=1e-4)


@every_target
@pytest.mark.parametrize("columns", WIDTHS)
def test_cross_entropy_on_labels_with_its_gradient_and_its_hit(target, columns, rng):
    f = "float32"
    body = (
        Load(0, f, 0, (columns, 1)),
        Core(0, f),
        Scalar("sub", (0, 1), f),
        Scalar("exp", (2,), f),
        Core(1, f),
        Load(1, "int32", 0, (1, 0)),
        Lookup(0, f, 0, (columns, 0), ((5, 1, columns),)),
        Scalar("sub", (6, 1), f),
        Scalar("log", (4,), f),
        Scalar("sub", (8, 7), f),  # the loss
        Scalar("div", (3, 4), f),
        Position("int32", 0, (0, 1)),
        Scalar("eq", (11, 5), "bool"),
        Convert(12, f),
        Scalar("sub", (10, 13), f),  # the gradient
        Core(2, "int32"),
        Scalar("eq", (15, 5), "bool"),  # the hit
    )
    kernel = RowGroup(
        (Batch(1),),
        columns,
        body,
        (Stage(0, "max"), Stage(3, "sum"), Stage(0, "argmax")),
        (Store(14, 2, f, 0, (columns, 1)),),
        (Store(9, 3, f, 0, (1,)), Store(16, 4, "bool", 0, (1,))),
    )
    arrays = [
        rng.standard_normal((7, columns)).astype(f) * 3,
        rng.integers(0, columns, 7).astype("i4"),
        np.zeros((7, columns), f),
        np.zeros(7, f),
        np.zeros(7, bool),
    ]
    arrays[1][0] = arrays[0][0].argmax()
    check(kernel, target, arrays, 0, 6, rows=7)


@every_target
@pytest.mark.parametrize("columns", [12, 400])
def test_nan_in_a_row_stays_in_that_row(target, columns, rng):
    source = rng.standard_normal((4, columns)).astype("f4")
    source[2, columns // 2] = np.nan
    got = run(softmax(columns), target, [source, np.zeros((4, columns), "f4")], 0, 4, 4)[1]
    assert np.isnan(got[2]).all()
    assert np.isfinite(got[[0, 1, 3]]).all()
