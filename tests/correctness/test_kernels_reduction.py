"""Reductions against the meaning of their specifications."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_oracle import TARGETS, meaning, run

from lamina.llvm.kernel import (
    Constant,
    Convert,
    Core,
    Count,
    Guard,
    Inside,
    Load,
    Reduction,
    Scalar,
    Store,
)
from lamina.types import Batch, numpy_dtype

every_target = pytest.mark.parametrize("target", TARGETS)


def strides(*shape: int) -> tuple[int, ...]:
    result = [1]
    for size in reversed(shape[1:]):
        result.insert(0, result[0] * size)
    return tuple(result)


def check(kernel, target, arrays, low, high, rows=1, rtol=2e-6, atol=2e-6):
    expected = meaning(kernel, arrays, low, high, rows)
    for got, want in zip(run(kernel, target, arrays, low, high, rows), expected, strict=True):
        if got.dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
        else:
            np.testing.assert_array_equal(got, want)


def simple(space, reduced, source, kind, dtype="float32", result=None, split=0, accumulate=False):
    """Reduce one array with these strides into a contiguous result."""
    result = result or dtype
    static = [size if isinstance(size, int) else 8 * size.factor for size in space]
    return Reduction(
        space,
        reduced,
        (Load(0, dtype, 0, source),),
        ((0, kind),),
        (Core(0, result),),
        (Store(0, 1, result, 0, strides(*static) if static else ()),),
        split,
        accumulate,
    )


@every_target
@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min", "argmax", "argmin"])
@pytest.mark.parametrize("length", [1, 5, 16, 31, 64, 150])
def test_along_the_last_axis(target, kind, length, rng):
    result = "int32" if kind.startswith("arg") else "float32"
    kernel = simple((Batch(1),), (length,), (length, 1), kind, result=result)
    source = rng.uniform(0.5, 1.5, (8, length)).astype("f4")
    check(kernel, target, [source, np.zeros(8, result)], 1, 5, rows=5)


@every_target
@pytest.mark.parametrize("kind", ["sum", "max", "argmax", "argmin"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (9, 16), (40, 37), (5, 200), (130, 70), (4, 28)])
def test_along_the_first_axis(target, kind, shape, rng):
    m, n = shape
    result = "int32" if kind.startswith("arg") else "float32"
    kernel = simple((n,), (m,), (1, n), kind, result=result)
    source = rng.standard_normal(shape).astype("f4")
    check(kernel, target, [source, np.zeros(n, result)], 0, n)
    check(kernel, target, [source, np.zeros(n, result)], n // 3, n // 2)


@every_target
@pytest.mark.parametrize("kind", ["argmax", "argmin", "max", "min"])
@pytest.mark.parametrize("along", [0, 1])
def test_ties_take_the_first_and_nan_wins(target, kind, along, rng):
    source = rng.integers(0, 3, (40, 40)).astype("f4")
    source[3, 7] = source[30, 9] = source[9, 20] = source[9, 33] = np.nan
    source[12] = -np.inf
    source[:, 13] = np.inf
    source[9, 13] = np.nan
    result = "int64" if kind.startswith("arg") else "float32"
    walk = (40, 1) if along else (1, 40)
    kernel = simple((40,), (40,), walk, kind, result=result)
    check(kernel, target, [source, np.zeros(40, result)], 0, 40)


@every_target
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint32", "float64", "bool"])
@pytest.mark.parametrize("kind", ["sum", "max", "min", "argmax"])
@pytest.mark.parametrize("along", [0, 1])
def test_other_dtypes(target, dtype, kind, along, rng):
    if dtype == "bool" and kind == "sum":
        pytest.skip("a sum of bool is a sum of integers")
    source = rng.integers(0, 2 if dtype == "bool" else 100, (35, 35)).astype(dtype)
    result = "int32" if kind == "argmax" else dtype
    walk = (35, 1) if along else (1, 35)
    kernel = simple((35,), (35,), walk, kind, dtype, result)
    arrays = [source, np.zeros(35, result)]
    with np.errstate(all="ignore"):
        check(kernel, target, arrays, 0, 35)


@every_target
def test_all_elements_to_one_number(target, rng):
    kernel = simple((), (Batch(1), 6, 33), (198, 33, 1), "sum", split=0)
    kernel = Reduction(**{**vars(kernel), "stores": (Store(0, 1, "float32", 0, ()),)})
    source = rng.standard_normal((8, 6, 33)).astype("f4")
    for rows in (1, 5, 8):
        check(kernel, target, [source, np.zeros(1, "f4")], 0, rows, rows=rows)


@every_target
@pytest.mark.parametrize("channels", [1, 3, 16, 20])
def test_partial_sums_over_parts_of_the_batch(target, channels, rng):
    """The gradient of a bias: sum over batch, height and width, part by part."""
    source = rng.standard_normal((8, 5, channels)).astype("f4")
    arrays = [source, rng.standard_normal(channels).astype("f4")]
    for accumulate in (False, True):
        kernel = Reduction(
            (channels,),
            (Batch(1), 5),
            (Load(0, "float32", 0, (1, 5 * channels, channels)),),
            ((0, "sum"),),
            (Core(0, "float32"),),
            (Store(0, 1, "float32", 0, (1,)),),
            split=1,
            accumulate=accumulate,
        )
        for low, high in ((0, 8), (2, 5), (4, 4)):
            check(kernel, target, arrays, low, high, rows=8)


@every_target
@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize("channels", [1, 5, 16, 40])
@pytest.mark.parametrize(("size", "stride", "low"), [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_pooling_with_guards(target, kind, channels, size, stride, low, rng):
    height, width = 9, 8
    out = [(n + 2 * low - size) // stride + 1 for n in (height, width)]
    pixel, line, image = channels, width * channels, height * width * channels
    walk = (image, stride * line, stride * pixel, 1, line, pixel)
    guards = (
        Guard((0, stride, 0, 0, 1, 0), -low, 0, height),
        Guard((0, 0, stride, 0, 0, 1), -low, 0, width),
    )
    outside = -np.inf if kind == "max" else 0.0
    body = (
        Load(0, "float32", -low * (line + pixel), walk, guards),
        Inside(guards),
        Constant(np.float32(outside).tobytes(), "float32"),
        Scalar("where", (1, 0, 2), "float32"),
    )
    space = (Batch(1), *out, channels)
    kernel = Reduction(
        space,
        (size, size),
        body,
        ((3, kind),),
        (Core(0, "float32"), Load(2, "float32", 0, (0, 0, 0, 1)), Scalar("add", (0, 1), "float32")),
        (Store(2, 1, "float32", 0, strides(8, *out, channels)),),
    )
    arrays = [
        rng.standard_normal((8, height, width, channels)).astype("f4"),
        np.zeros((8, *out, channels), "f4"),
        rng.standard_normal(channels).astype("f4"),
    ]
    check(kernel, target, arrays, 1, 3, rows=3)


@every_target
@pytest.mark.parametrize("along", [0, 1])
def test_two_results_of_one_pass_with_maps_around(target, along, rng):
    """Mean and mean square, the count being that of the rows present."""
    walk = (50, 1) if along else (1, 50)
    space = (50,) if not along else (Batch(1),)
    reduced = (Batch(1),) if not along else (50,)
    body = (Load(0, "float32", 0, walk), Scalar("square", (0,), "float32"))
    after = (
        Core(0, "float32"),
        Core(1, "float32"),
        Count(1, "float32"),
        Scalar("div", (0, 2), "float32"),
        Scalar("div", (1, 2), "float32"),
    )
    stores = (Store(3, 1, "float32", 0, (1,)), Store(4, 2, "float32", 0, (1,)))
    kernel = Reduction(space, reduced, body, ((0, "sum"), (1, "sum")), after, stores)
    source = rng.standard_normal((50, 50)).astype("f4")
    arrays = [source, np.zeros(50, "f4"), np.zeros(50, "f4")]
    check(kernel, target, arrays, 0, 21 if along else 50, rows=21)


@every_target
@pytest.mark.parametrize("along", [0, 1])
def test_long_float_sums_stay_accurate(target, along):
    """A million terms of 0.1: one running sum would be wrong in the third digit."""
    length = 1_000_003
    source = np.full(length, 0.1, "f4")
    if along:
        kernel = simple((1,), (length,), (0, 1), "sum")
        arrays = [source, np.zeros(1, "f4")]
        got = run(kernel, target, arrays, 0, 1, 1)[1]
    else:
        kernel = simple((3,), (length // 3,), (1, 3), "sum")
        got = run(kernel, target, [source, np.zeros(3, "f4")], 0, 3, 1)[1]
        length = length // 3
    np.testing.assert_allclose(got, np.float64(np.float32(0.1)) * length, rtol=1e-5)


@every_target
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_floats_are_summed_in_float32(target, dtype, rng):
    narrow = numpy_dtype(dtype)
    source = rng.standard_normal((6, 300)).astype(narrow)
    body = (Load(0, dtype, 0, (300, 1)), Convert(0, "float32"), Convert(1, dtype))
    kernel = Reduction(
        (6,),
        (300,),
        body,
        ((2, "sum"),),
        (Core(0, dtype),),
        (Store(0, 1, dtype, 0, (1,)),),
    )
    got = run(kernel, target, [source, np.zeros(6, narrow)], 0, 6, 1)[1]
    want = source.astype("f8").sum(1)
    np.testing.assert_allclose(got.astype("f8"), want, rtol=1e-2, atol=1e-2)


@every_target
def test_a_row_does_not_depend_on_how_many_there_are(target, rng):
    kernel = simple((Batch(1),), (1000,), (1000, 1), "sum")
    source = rng.standard_normal((8, 1000)).astype("f4")
    alone = [run(kernel, target, [source, np.zeros(8, "f4")], i, i + 1, 8)[1][i] for i in range(8)]
    together = run(kernel, target, [source, np.zeros(8, "f4")], 0, 8, 8)[1]
    np.testing.assert_array_equal(np.array(alone), together)


@every_target
def test_an_outer_reduced_axis_and_an_inner_kept_one(target, rng):
    """Sum over axes 0 and 2 of (4, 5, 6, 7), keeping 1 and 3."""
    kernel = Reduction(
        (5, 7),
        (4, 6),
        (Load(0, "float32", 0, (42, 1, 210, 7)),),
        ((0, "sum"),),
        (Core(0, "float32"),),
        (Store(0, 1, "float32", 0, (7, 1)),),
        split=1,
    )
    arrays = [rng.standard_normal((4, 5, 6, 7)).astype("f4"), np.zeros((5, 7), "f4")]
    check(kernel, target, arrays, 2, 6)


@every_target
@pytest.mark.parametrize("along", [0, 1])
def test_a_reduction_over_nothing_is_the_identity(target, along):
    kernel = simple((5,), (0,), (1, 1) if along else (0, 1), "sum")
    got = run(kernel, target, [np.zeros(8, "f4"), np.ones(5, "f4")], 0, 4, 1)[1]
    np.testing.assert_array_equal(got, [0, 0, 0, 0, 1])


@every_target
def test_no_rows_at_all(target):
    kernel = simple((Batch(1),), (40,), (40, 1), "max")
    got = run(kernel, target, [np.zeros((8, 40), "f4"), np.ones(8, "f4")], 0, 0, 0)[1]
    np.testing.assert_array_equal(got, 1)


@every_target
@pytest.mark.parametrize("rows", [1, 4, 5, 8, 11, 12, 16, 23, 24, 31, 33])
def test_rows_in_tiles_of_any_number_of_vectors(target, rows, rng):
    """Pooling windows of rows side by side: three vectors are a tile where four do not fit."""
    kernel = Reduction(
        (Batch(1), 3, 2),
        (2, 2),
        (Load(0, "float32", 0, (35, 10, 2, 5, 1)),),
        ((0, "sum"),),
        (Core(0, "float32"),),
        (Store(0, 1, "float32", 0, (6, 2, 1)),),
    )
    x = rng.standard_normal((rows, 7, 5)).astype("f4")
    check(kernel, target, [x, np.full((rows, 3, 2), 7, "f4")], 0, rows, rows)
    check(kernel, target, [x, np.full((rows, 3, 2), 7, "f4")], rows // 3, rows, rows)
