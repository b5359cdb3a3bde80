"""Ops that work element by element, with NumPy's broadcasting and Keras's promotion."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lamina import config
from lamina.errors import DtypeError
from lamina.ir import scalar
from lamina.ops.dispatch import operation
from lamina.tensor import Tensor, as_dtype, binary, convert, operands, unary
from lamina.tensor import cast as cast_tensor
from lamina.tensor.broadcasting import elementwise
from lamina.types import FLOATS, itemsize, numpy_dtype


def _named(function: Callable[..., Tensor], name: str, meaning: str) -> Callable[..., Tensor]:
    function.__name__ = function.__qualname__ = name
    function.__module__ = __name__
    function.__doc__ = meaning
    return operation(function)


def _one(row: str, name: str, meaning: str, *, floating: bool = True) -> Callable[..., Tensor]:
    """An op of one argument; `floating`: integers are brought to `config.floatx()` first."""

    def apply_row(x: Any) -> Tensor:
        return unary(row, x, floating=floating)

    return _named(apply_row, name, f"{meaning}, element by element; x any shape.")


def _two(row: str, name: str, meaning: str) -> Callable[..., Tensor]:
    """An op of two arguments that broadcast and promote."""

    def apply_row(x1: Any, x2: Any) -> Tensor:
        return binary(row, x1, x2)

    return _named(apply_row, name, f"{meaning}, element by element; x1 and x2 broadcast.")


add = _two("add", "add", "`x1 + x2`")
subtract = _two("sub", "subtract", "`x1 - x2`")
multiply = _two("mul", "multiply", "`x1 * x2`")
divide = _two("div", "divide", "`x1 / x2` (integers become floats)")
true_divide = _two("div", "true_divide", "`x1 / x2` (integers become floats)")
floor_divide = _two("floordiv", "floor_divide", "`floor(x1 / x2)`")
mod = _two("mod", "mod", "the remainder of `x1 / x2`, with the sign of x2")
power = _two("pow", "power", "`x1 ** x2`")
maximum = _two("maximum", "maximum", "the larger of two; NaN where either is NaN")
minimum = _two("minimum", "minimum", "the smaller of two; NaN where either is NaN")
arctan2 = _two("atan2", "arctan2", "the angle of the point (x2, x1), in (-pi, pi]")
equal = _two("eq", "equal", "whether `x1 == x2`")
not_equal = _two("ne", "not_equal", "whether `x1 != x2`")
less = _two("lt", "less", "whether `x1 < x2`")
less_equal = _two("le", "less_equal", "whether `x1 <= x2`")
greater = _two("gt", "greater", "whether `x1 > x2`")
greater_equal = _two("ge", "greater_equal", "whether `x1 >= x2`")
bitwise_and = _two("and", "bitwise_and", "the bits set in both")
bitwise_or = _two("or", "bitwise_or", "the bits set in either")
bitwise_xor = _two("xor", "bitwise_xor", "the bits set in exactly one")
bitwise_left_shift = _two("shl", "bitwise_left_shift", "`x1 << x2`")
bitwise_right_shift = _two("shr", "bitwise_right_shift", "`x1 >> x2` (keeps the sign)")
left_shift = _two("shl", "left_shift", "`x1 << x2`")
right_shift = _two("shr", "right_shift", "`x1 >> x2` (keeps the sign)")

negative = _one("neg", "negative", "`-x`", floating=False)
abs = _one("abs", "abs", "`|x|`", floating=False)
absolute = _one("abs", "absolute", "`|x|`", floating=False)
sign = _one("sign", "sign", "-1, 0 or 1", floating=False)
square = _one("square", "square", "`x * x`", floating=False)
bitwise_not = _one("not", "bitwise_not", "every bit turned over", floating=False)
bitwise_invert = _one("not", "bitwise_invert", "every bit turned over", floating=False)
exp = _one("exp", "exp", "e to the power x")
expm1 = _one("expm1", "expm1", "`exp(x) - 1`, exact near 0")
log = _one("log", "log", "the natural logarithm")
log1p = _one("log1p", "log1p", "`log(1 + x)`, exact near 0")
sqrt = _one("sqrt", "sqrt", "the square root")
rsqrt = _one("rsqrt", "rsqrt", "`1 / sqrt(x)`")
reciprocal = _one("reciprocal", "reciprocal", "`1 / x`")
sin = _one("sin", "sin", "the sine; x in radians")
cos = _one("cos", "cos", "the cosine; x in radians")
tan = _one("tan", "tan", "the tangent; x in radians")
arcsin = _one("asin", "arcsin", "the inverse sine, in radians")
arccos = _one("acos", "arccos", "the inverse cosine, in radians")
arctan = _one("atan", "arctan", "the inverse tangent, in radians")
sinh = _one("sinh", "sinh", "the hyperbolic sine")
cosh = _one("cosh", "cosh", "the hyperbolic cosine")
tanh = _one("tanh", "tanh", "the hyperbolic tangent")
arcsinh = _one("asinh", "arcsinh", "the inverse hyperbolic sine")
arccosh = _one("acosh", "arccosh", "the inverse hyperbolic cosine")
arctanh = _one("atanh", "arctanh", "the inverse hyperbolic tangent")
erf = _one("erf", "erf", "the error function")
sigmoid = _one("sigmoid", "sigmoid", "`1 / (1 + exp(-x))`")


floor = _one("floor", "floor", "the next integer below, as a float")
ceil = _one("ceil", "ceil", "the next integer above, as a float")


@operation
def round(x: Any, decimals: int = 0) -> Tensor:
    """To the nearest multiple of `10 ** -decimals`, halves to even."""
    tensor = convert(x)
    if tensor.dtype not in FLOATS:
        return tensor
    if not decimals:
        return unary("round", tensor)
    scale = 10.0**decimals
    return unary("round", tensor * scale) / scale


@operation
def trunc(x: Any) -> Tensor:
    """The integer part, towards zero."""
    tensor = convert(x)
    if tensor.dtype not in FLOATS:
        return tensor
    return where(tensor < 0, ceil(tensor), floor(tensor))


def _finite_test(row: str, of_integers: bool) -> Callable[[Any], Tensor]:
    def test(x: Any) -> Tensor:
        tensor = convert(x)
        if tensor.dtype in FLOATS:
            return unary(row, tensor)
        same = tensor == tensor  # noqa: PLR0124  # true everywhere: the shape is what is wanted
        return same if of_integers else logical_not(same)

    return test


isnan = _named(_finite_test("isnan", False), "isnan", "Whether an element is NaN.")
isinf = _named(_finite_test("isinf", False), "isinf", "Whether an element is infinite.")
isfinite = _named(_finite_test("isfinite", True), "isfinite", "Whether it is a finite number.")


@operation
def isposinf(x: Any) -> Tensor:
    """Whether an element is +infinity."""
    return logical_and(isinf(x), convert(x) > 0)


@operation
def isneginf(x: Any) -> Tensor:
    """Whether an element is -infinity."""
    return logical_and(isinf(x), convert(x) < 0)


@operation
def cast(x: Any, dtype: Any) -> Tensor:
    """The same values in another dtype; floats are cut to integers towards zero."""
    return cast_tensor(x, dtype)


@operation
def where(condition: Any, x1: Any = None, x2: Any = None) -> Tensor:
    """`x1` where the condition holds, `x2` elsewhere; all three broadcast.

    With the condition alone: the positions where it holds, one int32 tensor for each axis. Their
    number depends on the values, so this works outside a trace only.
    """
    flag = _truth(condition)
    if x1 is None and x2 is None:
        places = np.nonzero(flag.numpy())
        # Only without x1 and x2, as in NumPy, is the result a tuple.
        return tuple(convert(part.astype(np.int32)) for part in places)  # type: ignore[return-value]
    a, b = operands(x1, x2)
    return Tensor(elementwise("where", flag.node, a, b))


def _truth(x: Any) -> Tensor:
    tensor = convert(x)
    return tensor if tensor.dtype == "bool" else tensor != 0


@operation
def nonzero(x: Any) -> Any:
    """The positions of elements that are not zero, one int32 tensor an axis; not in a trace."""
    return where(x)


@operation
def argwhere(x: Any) -> Tensor:
    """The positions of elements that are not zero, one row each (n, rank); not in a trace."""
    return convert(np.argwhere(_truth(x).numpy()).astype(np.int32))


@operation
def logical_and(x1: Any, x2: Any) -> Tensor:
    """Whether both are true (not zero)."""
    return binary("and", _truth(x1), _truth(x2))


@operation
def logical_or(x1: Any, x2: Any) -> Tensor:
    """Whether either is true (not zero)."""
    return binary("or", _truth(x1), _truth(x2))


@operation
def logical_xor(x1: Any, x2: Any) -> Tensor:
    """Whether exactly one is true (not zero)."""
    return binary("xor", _truth(x1), _truth(x2))


@operation
def logical_not(x: Any) -> Tensor:
    """Whether x is false (zero)."""
    return unary("not", _truth(x))


@operation
def clip(x: Any, x_min: Any, x_max: Any) -> Tensor:
    """x, or the nearer bound where it lies outside `[x_min, x_max]`; NaN stays NaN."""
    tensor = convert(x)
    if x_min is not None:
        tensor = binary("maximum", tensor, x_min)
    if x_max is not None:
        tensor = binary("minimum", tensor, x_max)
    return tensor


@operation
def log2(x: Any) -> Tensor:
    """The logarithm to base 2."""
    return log(x) * (1.0 / math.log(2.0))


@operation
def log10(x: Any) -> Tensor:
    """The logarithm to base 10."""
    return log(x) * (1.0 / math.log(10.0))


@operation
def exp2(x: Any) -> Tensor:
    """2 to the power x."""
    return power(2.0, _floating(x))


@operation
def cbrt(x: Any) -> Tensor:
    """The real cube root."""
    tensor = _floating(x)
    return sign(tensor) * power(abs(tensor), 1.0 / 3.0)


def _floating(x: Any) -> Tensor:
    tensor = convert(x)
    return tensor if tensor.dtype in FLOATS else cast_tensor(tensor, config.floatx())


@operation
def logaddexp(x1: Any, x2: Any) -> Tensor:
    """`log(exp(x1) + exp(x2))` without overflow."""
    a, b = (Tensor(node) for node in operands(x1, x2, floating=True))
    larger = maximum(a, b)
    result = larger + log1p(exp(-abs(a - b)))
    return where(isinf(larger), larger, result)


@operation
def logaddexp2(x1: Any, x2: Any) -> Tensor:
    """`log2(2 ** x1 + 2 ** x2)` without overflow."""
    scale = math.log(2.0)
    return logaddexp(convert(x1) * scale, convert(x2) * scale) / scale


@operation
def erfc(x: Any) -> Tensor:
    """`1 - erf(x)`."""
    return 1.0 - erf(x)


# Coefficients of Giles 2010, "Approximating the erfinv function", for single precision.
_NEAR = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_FAR = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


@operation
def erfinv(x: Any) -> Tensor:
    """The inverse of the error function on [-1, 1]; relative error about 1e-6.

    source   Giles 2010, "Approximating the erfinv function" (single precision)
    """
    tensor = _floating(x)
    w = -log1p(-tensor * tensor)
    near, far = w - 2.5, sqrt(maximum(w, 0.0)) - 3.0
    central, tail = _horner(_NEAR, near), _horner(_FAR, far)
    value = where(w < 5.0, central, tail) * tensor
    return where(abs(tensor) == 1.0, tensor * math.inf, value)


def _horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value: Any = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value  # type: ignore[no-any-return]


@operation
def hypot(x1: Any, x2: Any) -> Tensor:
    """`sqrt(x1 ** 2 + x2 ** 2)` without overflow."""
    a, b = (abs(Tensor(node)) for node in operands(x1, x2, floating=True))
    larger, smaller = maximum(a, b), minimum(a, b)
    ratio = where(larger > 0, smaller / where(larger > 0, larger, 1.0), 0.0)
    return larger * sqrt(1.0 + ratio * ratio)


@operation
def deg2rad(x: Any) -> Tensor:
    """Degrees as radians."""
    return _floating(x) * (math.pi / 180.0)


@operation
def rad2deg(x: Any) -> Tensor:
    """Radians as degrees."""
    return _floating(x) * (180.0 / math.pi)


@operation
def sinc(x: Any) -> Tensor:
    """`sin(pi x) / (pi x)`, 1 at 0."""
    angle = _floating(x) * math.pi
    zero = angle == 0
    return where(zero, 1.0, sin(angle) / where(zero, 1.0, angle))


@operation
def heaviside(x1: Any, x2: Any) -> Tensor:
    """0 where x1 < 0, x2 where x1 = 0, 1 where x1 > 0."""
    a, b = (Tensor(node) for node in operands(x1, x2, floating=True))
    return where(a == 0, b, where(isnan(a), a, cast_tensor(a > 0, a.dtype)))


@operation
def ldexp(x1: Any, x2: Any) -> Tensor:
    """`x1 * 2 ** x2`."""
    a = _floating(x1)
    return a * power(2.0, cast_tensor(x2, a.dtype))


@operation
def nan_to_num(x: Any, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Tensor:
    """x with NaN and infinities replaced (by default, 0 and the largest finite numbers)."""
    tensor = convert(x)
    if tensor.dtype not in FLOATS:
        return tensor
    most = _largest(tensor.dtype)
    tensor = where(isnan(tensor), nan, tensor)
    tensor = where(isposinf(tensor), most if posinf is None else posinf, tensor)
    return where(isneginf(tensor), -most if neginf is None else neginf, tensor)


def _largest(dtype: str) -> float:
    if dtype == "bfloat16":
        return 3.3895313892515355e38
    return float(np.finfo(numpy_dtype(dtype)).max)


@operation
def divide_no_nan(x1: Any, x2: Any) -> Tensor:
    """`x1 / x2`, and 0 where x2 is 0."""
    a, b = (Tensor(node) for node in operands(x1, x2, floating=True))
    zero = b == 0
    return where(zero, 0.0, a / where(zero, 1.0, b))


@operation
def fmod(x1: Any, x2: Any) -> Tensor:
    """The remainder of `x1 / x2`, with the sign of x1."""
    a, b = (Tensor(node) for node in operands(x1, x2))
    return a - b * trunc(a / b) if a.dtype in FLOATS else sign(a) * (abs(a) % abs(b))


@operation
def signbit(x: Any) -> Tensor:
    """Whether the sign bit is set (true for -0.0)."""
    tensor = convert(x)
    if tensor.dtype not in FLOATS:
        return tensor < 0
    return logical_or(tensor < 0, logical_and(tensor == 0, reciprocal(tensor) < 0))


@operation
def copysign(x1: Any, x2: Any) -> Tensor:
    """The size of x1 with the sign of x2."""
    a, b = (Tensor(node) for node in operands(x1, x2, floating=True))
    return where(signbit(b), -abs(a), abs(a))


@operation
def angle(x: Any) -> Tensor:
    """The angle of a real number in the complex plane: 0, or pi where it is negative."""
    tensor = _floating(x)
    return where(isnan(tensor), tensor, where(signbit(tensor), math.pi, 0.0))


@operation
def conj(x: Any) -> Tensor:
    """The complex conjugate, which for real numbers is x."""
    return convert(x)


conjugate = conj


@operation
def real(x: Any) -> Tensor:
    """The real part, which for real numbers is x."""
    return convert(x)


@operation
def imag(x: Any) -> Tensor:
    """The imaginary part, which for real numbers is 0."""
    return convert(x) * 0


@operation
def gcd(x1: Any, x2: Any) -> Tensor:
    """The greatest common divisor of integers (Euclid; enough rounds for their width)."""
    a, b = _integers("gcd", x1, x2)
    # Lamé 1844: n rounds suffice below the n-th Fibonacci number; 1.45 rounds a bit.
    for _ in range(int(itemsize(a.dtype) * 8 * 1.45) + 1):
        safe = where(b == 0, 1, b)
        a, b = where(b == 0, a, b), where(b == 0, 0, a % safe)
    return a


@operation
def lcm(x1: Any, x2: Any) -> Tensor:
    """The least common multiple of integers."""
    a, b = _integers("lcm", x1, x2)
    divisor = gcd(a, b)
    return where(divisor == 0, 0, (a // where(divisor == 0, 1, divisor)) * b)


def _integers(name: str, x1: Any, x2: Any) -> tuple[Tensor, Tensor]:
    a, b = (Tensor(node) for node in operands(x1, x2))
    if a.dtype in FLOATS or a.dtype == "bool":
        raise DtypeError(f"{name} needs integers, got {a.node.type} and {b.node.type}")
    return abs(a), abs(b)


@operation
def stop_gradient(variable: Any) -> Tensor:
    """The same value, through which no gradient flows."""
    return Tensor(scalar.stop_gradient(convert(variable).node))


fabs = _one("abs", "fabs", "`|x|` as a float")


@operation
def fmax(x1: Any, x2: Any) -> Tensor:
    """The larger of two; where one is NaN, the other."""
    a, b = (Tensor(node) for node in operands(x1, x2))
    return where(isnan(a), b, where(isnan(b), a, maximum(a, b)))


@operation
def fmin(x1: Any, x2: Any) -> Tensor:
    """The smaller of two; where one is NaN, the other."""
    a, b = (Tensor(node) for node in operands(x1, x2))
    return where(isnan(a), b, where(isnan(b), a, minimum(a, b)))


@operation
def isreal(x: Any) -> Tensor:
    """Whether an element is a real number: true everywhere."""
    tensor = convert(x)
    return logical_or(tensor == tensor, isnan(tensor))  # noqa: PLR0124  # true everywhere


@operation
def isclose(
    x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether `|x1 - x2| <= atol + rtol * |x2|`; infinities are close to themselves."""
    a, b = (Tensor(node) for node in operands(x1, x2, floating=True))
    close = logical_or(a == b, logical_and(abs(a - b) <= atol + rtol * abs(b), isfinite(b)))
    return logical_or(close, logical_and(isnan(a), isnan(b))) if equal_nan else close


@operation
def saturate_cast(x: Any, dtype: Any) -> Tensor:
    """Cast, after values that the dtype cannot hold have been moved to its limits."""
    tensor, name = convert(x), as_dtype(dtype)
    if name in FLOATS or name == "bool":
        return cast_tensor(tensor, name)
    limits = np.iinfo(name)
    low, high = float(limits.min), float(limits.max)
    if tensor.dtype not in FLOATS:
        own = np.iinfo(tensor.dtype) if tensor.dtype != "bool" else np.iinfo("uint8")
        return cast_tensor(clip(tensor, max(limits.min, own.min), min(limits.max, own.max)), name)
    return cast_tensor(clip(tensor, low, high), name)


@operation
def i0(x: Any) -> Tensor:
    """The modified Bessel function of order 0 (Abramowitz & Stegun 1964, 9.8.1 and 9.8.2)."""
    size = abs(_floating(x))
    t = square(minimum(size, 3.75) / 3.75)
    near = _horner(_BESSEL_NEAR, t)
    inverse = 3.75 / maximum(size, 3.75)
    far = exp(size) / sqrt(maximum(size, 3.75)) * _horner(_BESSEL_FAR, inverse)
    return where(size <= 3.75, near, far)


_BESSEL_NEAR = (0.0045813, 0.0360768, 0.2659732, 1.2067492, 3.0899424, 3.5156229, 1.0)
_BESSEL_FAR = (
    0.00392377,
    -0.01647633,
    0.02635537,
    -0.02057706,
    0.00916281,
    -0.00157565,
    0.00225319,
    0.01328592,
    0.39894228,
)


def nextafter(x1: Any, x2: Any) -> Tensor:
    """The next floating-point number after x1 towards x2; outside a trace only."""
    a, b = (Tensor(node).numpy() for node in operands(x1, x2, floating=True))
    return convert(np.nextafter(a, b))


def select(condlist: Any, choicelist: Any, default: Any = 0) -> Tensor:
    """The choice of the first condition that holds, element by element; `default` elsewhere."""
    result: Any = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = where(condition, choice, result)
    return convert(result)


def is_tensor(x: Any) -> bool:
    """Whether x is a tensor."""
    return isinstance(x, Tensor)


def dtype(x: Any) -> str:
    """The dtype of x by name."""
    return str(x.dtype) if hasattr(x, "dtype") else convert(x).dtype


@operation
def copy(x: Any) -> Tensor:
    """The same tensor: tensors never change."""
    return convert(x)
