"""The elementary functions: their stated accuracy, their edges, and equal bits for every width."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from kernel_oracle import FUNCTIONS, TARGETS, run

from lamina.llvm.elementary import ACCURACY
from lamina.llvm.kernel import Elementwise, Load, Scalar, Store

every_target = pytest.mark.parametrize("target", TARGETS)
PAIRS = ("atan2", "pow")

# Where each function is measured: (low, high) for float32 and float64, on a linear or (for
# functions with interesting small and large arguments) logarithmic scale of both signs.
RANGES = {
    "exp": [(-87, 88.5), (-707, 709.5)],
    "expm1": [(-20, 88), (-40, 709)],
    "log": "positive",
    "log1p": "above -1",
    "tanh": [(-10, 10), (-21, 21)],
    "sigmoid": [(-80, 80), (-700, 700)],
    "erf": [(-4.5, 4.5), (-6.5, 6.5)],
    "sin": [(-1e6, 1e6)] * 2,
    "cos": [(-1e6, 1e6)] * 2,
    "tan": [(-1e5, 1e5)] * 2,
    "asin": [(-1, 1)] * 2,
    "acos": [(-1, 1)] * 2,
    "atan": [(-30, 30)] * 2,
    "sinh": [(-89, 89), (-709, 709)],
    "cosh": [(-89, 89), (-709, 709)],
    "asinh": "all",
    "acosh": "above 1",
    "atanh": [(-1, 1)] * 2,
    "sqrt": "positive",
    "rsqrt": "positive",
    "reciprocal": [(-1e6, 1e6)] * 2,
}


def kernel(fn: str, dtype: str, size: int) -> Elementwise:
    count = 2 if fn in PAIRS else 1
    body = tuple(Load(i, dtype, 0, (1,)) for i in range(count))
    body = (*body, Scalar(fn, tuple(range(count)), dtype))
    return Elementwise((size,), body, (Store(count, count, dtype, 0, (1,)),))


def compute(fn: str, target: str, *arguments: np.ndarray) -> np.ndarray:
    size, dtype = len(arguments[0]), arguments[0].dtype
    arrays = [*arguments, np.zeros(size, dtype)]
    return run(kernel(fn, dtype.name, size), target, arrays, 0, size, 1)[-1]


@cache
def samples(fn: str, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    reach = RANGES[fn]
    count = 20_000
    exponents = 37 if dtype == "float32" else 300
    wild = 10.0 ** rng.uniform(-exponents, exponents, count)
    near = rng.uniform(0.25, 4, count)
    if reach == "positive":
        values = np.concatenate([wild, near, rng.uniform(0.9, 1.1, count)])
    elif reach == "above -1":
        values = np.concatenate(
            [wild, rng.uniform(-0.999, 3, count), rng.uniform(-0.1, 0.1, count)]
        )
    elif reach == "above 1":
        values = np.concatenate([1 + wild[wild < 1e9], near + 0.75, wild[wild > 1], 1 + near / 1e3])
    elif reach == "all":
        values = np.concatenate([wild, -wild, near, -near])
    else:
        low, high = reach[dtype == "float64"]
        small = 10.0 ** rng.uniform(-12, 0, count) * rng.choice([-1, 1], count)
        values = np.concatenate([rng.uniform(low, high, count), small * min(1, high)])
    return values.astype(dtype)


def exact(fn: str, *arguments: np.ndarray) -> np.ndarray:
    """The function in extended precision (float64 is exact enough for float32)."""
    wide = np.longdouble if arguments[0].dtype == np.float64 else np.float64
    arguments = tuple(argument.astype(wide) for argument in arguments)
    with np.errstate(all="ignore"):
        if fn == "erf":
            return np.array([math.erf(x) for x in arguments[0]], wide)
        if fn == "sigmoid":
            return 1 / (1 + np.exp(-arguments[0]))
        return FUNCTIONS[fn](*arguments)


def units(got: np.ndarray, want: np.ndarray) -> float:
    """The largest error in units in the last place, over results in the normal range."""
    info = np.finfo(got.dtype)
    keep = (np.abs(want) >= info.tiny) & (np.abs(want) <= info.max)
    spacing = np.spacing(np.abs(want[keep]).astype(got.dtype)).astype(want.dtype)
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(got[keep].astype(want.dtype) - want[keep]) / spacing))


@every_target
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fn", RANGES)
def test_the_stated_accuracy_holds(target, dtype, fn):
    values = samples(fn, dtype)
    error = units(compute(fn, target, values), exact(fn, values))
    assert error <= ACCURACY[fn][dtype == "float64"], f"{fn} {dtype}: {error:.2f} ulp"


@every_target
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers(target, dtype, rng):
    size = 20_000
    base = 10.0 ** rng.uniform(-3, 3, size)
    exponent = rng.uniform(-6, 6, size)
    x, y = base.astype(dtype), exponent.astype(dtype)
    error = units(compute("pow", target, x, y), exact("pow", x, y))
    assert error <= (ACCURACY["pow"][0] if dtype == "float32" else 64)
    x, y = -x[:500], np.rint(y[:500])
    np.testing.assert_allclose(compute("pow", target, x, y), np.power(x, y), rtol=1e-5)


EDGES = np.array(
    [0.0, -0.0, 1, -1, 2, 0.5, -0.5, 3, -3, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 30, -200, 200]
)


@every_target
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_at_the_edges_are_those_of_c99(target, dtype):
    x, y = (part.ravel().astype(dtype) for part in np.meshgrid(EDGES, EDGES))
    with np.errstate(all="ignore"):
        want = np.power(x, y)
    np.testing.assert_allclose(compute("pow", target, x, y), want, rtol=1e-5)


@every_target
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_angles(target, dtype, rng):
    y, x = rng.standard_normal((2, 20_000)).astype(dtype)
    error = units(compute("atan2", target, y, x), exact("atan2", y, x))
    assert error <= ACCURACY["atan2"][dtype == "float64"]
    y, x = (part.ravel().astype(dtype) for part in np.meshgrid(EDGES, EDGES))
    got = compute("atan2", target, y, x)
    np.testing.assert_allclose(got, np.arctan2(y, x), rtol=1e-6)
    np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(np.arctan2(y, x)[got == 0]))


@every_target
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fn", [*RANGES, "floor", "ceil", "round", "sign", "abs", "neg"])
def test_zeros_infinities_and_nan(target, dtype, fn):
    extra = [0.49999997, 1.5, 2.5, -1.5, -2.5, 1e9, -1e9, 8388609.0, -4503599627370497.0]
    # Where exp leaves the range, in both formats.
    extra += [88.722836, 88.72284, 88.73, -88.722836, -88.73, -87.33, 709.7827, -708.39]
    values = np.concatenate([EDGES, extra]).astype(dtype)
    if fn in {"sin", "cos", "tan"}:
        values = values[~(np.abs(values) > 1e6) | ~np.isfinite(values)]
    with np.errstate(all="ignore"):
        want = exact(fn, values).astype(dtype)
    got = compute(fn, target, values)
    rtol, tiny = (1e-6, 1e-38) if dtype == "float32" else (1e-14, 1e-307)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=tiny)
    if fn not in {"acos", "log", "acosh"}:
        zero = (got == 0) & (values == 0)
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(want[zero]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fn", RANGES)
def test_vectors_of_every_width_and_scalars_give_the_same_bits(dtype, fn):
    """Where the CPU has fused multiply-add; without one, sums are rounded twice."""
    fused = [name for name in TARGETS if name != "sse2"]
    if not fused:
        pytest.skip("this machine has no fused multiply-add")
    values = samples(fn, dtype)[::97][:201]
    whole = compute(fn, fused[0], values)
    for name in fused:
        np.testing.assert_array_equal(compute(fn, name, values), whole)
    single = [compute(fn, fused[0], values[i : i + 1])[0] for i in range(0, 201, 40)]
    np.testing.assert_array_equal(single, whole[::40])


@every_target
def test_the_sine_of_a_huge_number_stays_a_sine(target):
    values = np.array([1e10, 3e20, 1e38, -1e38], "f4")
    for fn in ("sin", "cos"):
        assert (np.abs(compute(fn, target, values)) <= 1).all()
