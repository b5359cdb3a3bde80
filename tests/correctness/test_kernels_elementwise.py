"""Elementwise kernels against the meaning of their specifications."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_oracle import TARGETS, meaning, run

from lamina.llvm.kernel import (
    Constant,
    Convert,
    Count,
    Elementwise,
    Guard,
    Inside,
    Load,
    Lookup,
    Position,
    Random,
    Scalar,
    Store,
)
from lamina.llvm.kernels.elementwise import vector_axis
from lamina.llvm.kernels.nest import Axis
from lamina.types import Batch, numpy_dtype

every_target = pytest.mark.parametrize("target", TARGETS)


def strides(*shape: int) -> tuple[int, ...]:
    result = [1]
    for size in reversed(shape[1:]):
        result.insert(0, result[0] * size)
    return tuple(result)


def constant(value: float, dtype: str = "float32") -> Constant:
    return Constant(np.array(value, numpy_dtype(dtype)).tobytes(), dtype)


def check(kernel, target, arrays, low, high, rows=1, rtol=3e-7, atol=1e-7):
    expected = meaning(kernel, arrays, low, high, rows)
    for got, want in zip(run(kernel, target, arrays, low, high, rows), expected, strict=True):
        assert got.dtype == want.dtype
        if got.dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
        else:
            np.testing.assert_array_equal(got, want)


@every_target
@pytest.mark.parametrize("size", [1, 3, 15, 16, 17, 64, 257])
def test_a_map_over_a_vector(target, size, rng):
    body = (
        Load(0, "float32", 0, (1,)),
        Load(1, "float32", 0, (1,)),
        Scalar("mul", (0, 1), "float32"),
        constant(0.5),
        Scalar("add", (2, 3), "float32"),
    )
    kernel = Elementwise((size,), body, (Store(4, 2, "float32", 0, (1,)),))
    arrays = [rng.standard_normal(size).astype("f4") for _ in range(3)]
    check(kernel, target, arrays, 0, size)


@every_target
@pytest.mark.parametrize("part", [(0, 5), (2, 5), (3, 3), (4, 5)])
def test_a_split_batch_writes_only_its_rows(target, part, rng):
    body = (Load(0, "float32", 0, (7, 1)), Scalar("square", (0,), "float32"))
    kernel = Elementwise((Batch(1), 7), body, (Store(1, 1, "float32", 0, (7, 1)),))
    arrays = [rng.standard_normal((5, 7)).astype("f4"), np.full((5, 7), 9, "f4")]
    check(kernel, target, arrays, *part, rows=5)


@every_target
def test_a_broadcast_row_and_a_broadcast_column(target, rng):
    body = (
        Load(0, "float32", 0, (0, 1)),
        Load(1, "float32", 0, (1, 0)),
        Scalar("add", (0, 1), "float32"),
    )
    kernel = Elementwise((6, 19), body, (Store(2, 2, "float32", 0, (19, 1)),))
    arrays = [rng.standard_normal(n).astype("f4") for n in (19, 6, 6 * 19)]
    check(kernel, target, arrays, 1, 6)


@every_target
@pytest.mark.parametrize("shape", [(5, 3), (16, 16), (33, 50), (40, 7), (64, 48)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_a_transposing_copy(target, shape, dtype, rng):
    m, n = shape
    kernel = Elementwise((n, m), (Load(0, dtype, 0, (1, n)),), (Store(0, 1, dtype, 0, (m, 1)),))
    source = rng.integers(-100, 100, shape).astype(dtype)
    arrays = [source, np.zeros((n, m), dtype)]
    got = run(kernel, target, arrays, 0, n, 1)[1]
    np.testing.assert_array_equal(got, source.T)


@every_target
@pytest.mark.parametrize("stride", [-1, 2, 3, -2])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bool", "int64"])
def test_strided_loads_and_stores(target, stride, dtype, rng):
    count, span = 37, 37 * abs(stride)
    offset = 0 if stride > 0 else (count - 1) * -stride
    kernel = Elementwise(
        (count,),
        (Load(0, dtype, offset, (stride,)), Load(1, dtype, 0, (1,))),
        (Store(0, 2, dtype, 0, (1,)), Store(1, 3, dtype, offset, (stride,))),
    )
    draw = lambda n: rng.integers(0, 2, n).astype(numpy_dtype(dtype))
    check(kernel, target, [draw(span), draw(count), draw(count), draw(span)], 0, count)


@every_target
def test_guards_on_outer_and_inner_axes_keep_out_of_memory(target, rng):
    """Padding by 2 and 3 around an image of 5 x 9."""
    guards = (Guard((1, 0), -2, 0, 5), Guard((0, 1), -3, 0, 9))
    body = (
        Load(0, "float32", -2 * 9 - 3, (9, 1), guards),
        Inside(guards),
        constant(-1.0),
        Scalar("where", (1, 0, 2), "float32"),
    )
    kernel = Elementwise((10, 14), body, (Store(3, 1, "float32", 0, (14, 1)),))
    arrays = [rng.standard_normal((5, 9)).astype("f4"), np.zeros((10, 14), "f4")]
    check(kernel, target, arrays, 0, 10)


@every_target
@pytest.mark.parametrize("axis", [0, 1])
def test_concatenation_of_a_broadcast_and_a_block(target, axis, rng):
    shape = (7, 21)
    cut = (3, 10)[axis]
    along = tuple(int(a == axis) for a in range(2))
    first = Guard(along, 0, 0, cut)
    second = Guard(along, -cut, 0, shape[axis] - cut)
    other = list(shape)
    other[axis] -= cut
    table = strides(*other)
    body = (
        Load(0, "float32", 0, tuple(int(a != axis) for a in range(2)), (first,)),
        Load(1, "float32", -cut * table[axis], table, (second,)),
        Inside((first,)),
        Scalar("where", (2, 0, 1), "float32"),
    )
    kernel = Elementwise(shape, body, (Store(3, 2, "float32", 0, strides(*shape)),))
    arrays = [
        rng.standard_normal(shape[1 - axis]).astype("f4"),
        rng.standard_normal(other).astype("f4"),
        np.zeros(shape, "f4"),
    ]
    check(kernel, target, arrays, 0, shape[0])


@every_target
@pytest.mark.parametrize("index_dtype", ["int32", "int64", "uint8"])
def test_lookups_of_rows_clamp(target, index_dtype, rng):
    body = (Load(0, index_dtype, 0, (1, 0)), Lookup(1, "float32", 0, (0, 1), ((0, 13, 6),)))
    kernel = Elementwise((Batch(1), 13), body, (Store(1, 2, "float32", 0, (13, 1)),))
    index = np.array([3, 200, 0, 5, 6], "u1").astype(index_dtype)
    if index_dtype != "uint8":
        index[0] = -4
    arrays = [index, rng.standard_normal((6, 13)).astype("f4"), np.zeros((5, 13), "f4")]
    check(kernel, target, arrays, 0, 5, rows=5)


def test_vectors_run_along_the_rows_that_are_looked_up():
    """Along the other axis, 12 whole vectors, every lane would look at another row."""
    loads = [Load(0, "int32", tap, (1, 0)) for tap in range(5)]
    rows = [Lookup(1, "float32", 0, (0, 1), ((tap, 100, 6),)) for tap in range(5)]
    stores = (Store(9, 2, "float32", 0, (100, 1)),)
    assert vector_axis((Axis(96), Axis(100)), range(2), (*loads, *rows), stores, 8) == 1


@every_target
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_lookups_of_elements(target, dtype, rng):
    body = (
        Load(0, "int32", 0, (1,)),
        Lookup(1, dtype, 0, (4,), ((0, 1, 4),), (Guard((1,), 0, 3, 30),)),
    )
    kernel = Elementwise((33,), body, (Store(1, 2, dtype, 0, (1,)),))
    arrays = [
        rng.integers(-2, 6, 33).astype("i4"),
        rng.integers(-9, 9, (33, 4)).astype(dtype),
        np.zeros(33, dtype),
    ]
    check(kernel, target, arrays, 0, 33)


@every_target
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float16", "uint8"])
def test_positions_and_counts(target, dtype):
    body = (
        Position(dtype, 3, (20, 2)),
        Count(2, dtype),
        Scalar("add", (0, 1), dtype),
    )
    kernel = Elementwise((Batch(2), 10), body, (Store(2, 0, dtype, 0, (10, 1)),), split=0)
    check(kernel, target, [np.zeros((4, 10), dtype)], 0, 4, rows=2)


@every_target
def test_random_bits_are_threefry(target):
    body = (Random(0, 77, (1, 0), (0, 1), 5, 2),)
    kernel = Elementwise((Batch(1), 23), body, (Store(0, 1, "uint32", 0, (23, 1)),))
    key = np.array([0xDEADBEEF, 0x12345678], "u4")
    check(kernel, target, [key, np.zeros((6, 23), "u4")], 1, 6, rows=6)


def test_threefry_has_the_published_vectors(rng):
    """Known answers of Random123 for Threefry-2x32-20."""
    from kernel_oracle import _threefry

    zero = np.zeros(1, np.uint32)
    ones = np.full(1, 0xFFFFFFFF, np.uint32)
    assert _threefry(0, 0, zero, zero)[0] == 0x6B200159
    assert _threefry(0xFFFFFFFF, 0xFFFFFFFF, ones, ones)[0] == 0x1CB996FC


@every_target
def test_an_update_in_place(target, rng):
    body = (
        Load(0, "float32", 0, (1,)),
        Load(1, "float32", 0, (1,)),
        Scalar("add", (0, 1), "float32"),
        Scalar("sub", (0, 1), "float32"),
    )
    stores = (Store(2, 0, "float32", 0, (1,)), Store(3, 1, "float32", 0, (1,)))
    kernel = Elementwise((150,), body, stores)
    arrays = [rng.standard_normal(150).astype("f4") for _ in range(2)]
    check(kernel, target, arrays, 0, 150)


@every_target
@pytest.mark.parametrize(
    "source",
    ["float32", "float64", "float16", "bfloat16", "int8", "int64", "uint8", "uint32", "bool"],
)
@pytest.mark.parametrize(
    "dtype",
    [
        "float32",
        "float64",
        "float16",
        "bfloat16",
        "int8",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "bool",
    ],
)
def test_conversions(target, source, dtype, rng):
    body = (Load(0, source, 0, (1,)), Convert(0, dtype))
    kernel = Elementwise((41,), body, (Store(1, 1, dtype, 0, (1,)),))
    low = -100 if dtype[0] != "u" and source[0] not in "ub" else 0
    low = -100 if source == "bfloat16" and dtype[0] != "u" else low
    values = rng.uniform(low, 100, 41).astype(numpy_dtype(source))
    values[:3] = 0
    arrays = [values, np.zeros(41, numpy_dtype(dtype))]
    got = run(kernel, target, arrays, 0, 41, 1)[1]
    want = values != 0 if dtype == "bool" else values.astype(numpy_dtype(dtype))
    np.testing.assert_array_equal(got.view("u1"), want.view("u1"))


@every_target
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_floats_convert_like_numpy_over_the_whole_range(target, dtype, rng):
    bits = rng.integers(0, 2**32, 4000, dtype=np.uint32)
    values = np.concatenate(
        [
            bits.view("f4"),
            np.float32(
                [0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519, 65520, 6e-8, 2.9e-8, 3e-8, 6.1e-5]
            ),
            rng.standard_normal(500).astype("f4") * np.float32(1e-4),
        ]
    )
    body = (Load(0, "float32", 0, (1,)), Convert(0, dtype), Convert(1, "float32"))
    stores = (Store(1, 1, dtype, 0, (1,)), Store(2, 2, "float32", 0, (1,)))
    kernel = Elementwise((len(values),), body, stores)
    narrow = numpy_dtype(dtype)
    _, got, back = run(
        kernel,
        target,
        [values, np.zeros(len(values), narrow), np.zeros_like(values)],
        0,
        len(values),
        1,
    )
    with np.errstate(all="ignore"):
        want = values.astype(narrow)
    keep = ~np.isnan(values)
    np.testing.assert_array_equal(got[keep].view("u2"), want[keep].view("u2"))
    np.testing.assert_array_equal(back, want.astype("f4"))


@every_target
@pytest.mark.parametrize(
    "fn",
    [
        "add",
        "mul",
        "sub",
        "floordiv",
        "mod",
        "maximum",
        "minimum",
        "and",
        "or",
        "xor",
        "shl",
        "shr",
        "lt",
        "ge",
        "eq",
        "pow",
    ],
)
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint32", "uint64"])
def test_integer_arithmetic(target, fn, dtype, rng):
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, 60, dtype=dtype, endpoint=True)
    y = rng.integers(info.min, info.max, 60, dtype=dtype, endpoint=True)
    x[:6] = [info.min, info.max, 0, 1, 5, info.min]
    y[:6] = [info.max, info.max, 0, 0, 3, 1]
    if info.min < 0:
        y[6], x[6] = -1, info.min
    if fn in {"shl", "shr"}:
        y = (y % info.bits).astype(dtype)
    if fn == "pow":
        y = np.abs(y // 2).astype(dtype)
    result = "bool" if fn in {"lt", "ge", "eq"} else dtype
    body = (
        Load(0, dtype, 0, (1,)),
        Load(1, dtype, 0, (1,)),
        Scalar(fn, (0, 1), result),
    )
    kernel = Elementwise((60,), body, (Store(2, 2, result, 0, (1,)),))
    check(kernel, target, [x, y, np.zeros(60, result)], 0, 60)


@every_target
@pytest.mark.parametrize("fn", ["mod", "floordiv"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_remainders(target, fn, dtype, rng):
    x = np.concatenate([rng.uniform(-50, 50, 200), [6, -6, 0, -0.0, 5.5, np.inf, 3, np.nan, 7]])
    y = np.concatenate([rng.uniform(-9, 9, 200), [3, 3, 4, 4, 0.5, 2, np.inf, 1, 0]])
    x, y = x.astype(dtype), y.astype(dtype)
    body = (Load(0, dtype, 0, (1,)), Load(1, dtype, 0, (1,)), Scalar(fn, (0, 1), dtype))
    kernel = Elementwise((len(x),), body, (Store(2, 2, dtype, 0, (1,)),))
    got = run(kernel, target, [x, y, np.zeros_like(x)], 0, len(x), 1)[2]
    with np.errstate(all="ignore"):
        want = (np.mod if fn == "mod" else np.floor_divide)(x, y)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@every_target
def test_nan_survives_the_extremes_and_comparisons_do_not_hold(target):
    x = np.array([np.nan, 1, np.nan, -0.0, 2] * 5, "f4")
    y = np.array([1, np.nan, np.nan, 0.0, 3] * 5, "f4")
    names = ["maximum", "minimum", "lt", "ge", "ne", "eq"]
    body = [Load(0, "float32", 0, (1,)), Load(1, "float32", 0, (1,))]
    stores = []
    for number, name in enumerate(names):
        dtype = "float32" if number < 2 else "bool"
        body.append(Scalar(name, (0, 1), dtype))
        stores.append(Store(number + 2, number + 2, dtype, 0, (1,)))
    kernel = Elementwise((25,), tuple(body), tuple(stores))
    check(
        kernel,
        target,
        [x, y, np.zeros_like(x), np.zeros_like(x), *(np.zeros(25, bool) for _ in range(4))],
        0,
        25,
    )


@every_target
@pytest.mark.parametrize("shape", [(), (1,), (0, 5), (5, 0), (1, 1, 3)])
def test_scalars_and_empty_arrays(target, shape):
    size = int(np.prod(shape))
    body = (Load(0, "float32", 0, strides(*shape) if shape else ()),)
    store = Store(0, 1, "float32", 0, body[0].strides)
    kernel = Elementwise(shape, body, (store,))
    source = np.arange(size, dtype="f4") + 1
    got = run(kernel, target, [source, np.zeros(size, "f4")], 0, shape[0] if shape else 1, 1)[1]
    np.testing.assert_array_equal(got, source)
