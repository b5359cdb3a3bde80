"""The scalar table: every elementwise function, its NumPy meaning, its gradient and its cost.

`Map(fn)` applies a row of the table; the functions below build such nodes: `add(a, b)`,
`exp(x)`, `where(condition, a, b)`. Names that Python already uses end in an underscore.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.ir.elementary import (
    SCALARS,
    Map,
    Row,
    full,
    lift,
    map_,
    ones_like,
    zeros_like,
)
from lamina.ir.graph import Node, Op, Vjp, apply
from lamina.types import FLOATS, Type, numpy_dtype

__all__ = ["SCALARS", "Map", "Row", "full", "lift", "map_", "ones_like", "zeros_like"]

Unary = Callable[[Node], Node]
Binary = Callable[[Node, Node], Node]


def _row(
    name: str,
    arity: int,
    numpy: Callable[..., Any],
    vjp: Callable[..., Vjp] | None,
    cost: int,
    kinds: str = "float",
    result: str = "same",
) -> None:
    SCALARS[name] = Row(name, arity, numpy, vjp, result, cost, kinds)


def unary(
    name: str,
    numpy: Callable[..., Any],
    vjp: Callable[[Node, Node, Node], Node] | None = None,
    cost: int = 1,
    kinds: str = "float",
    result: str = "same",
) -> Unary:
    """Enter a function of one operand into the table; its gradient is a function (g, y, x)."""
    rule = None if vjp is None else lambda g, y, x: (vjp(g, y, x),)
    _row(name, 1, numpy, rule, cost, kinds, result)
    return lambda x: map_(name, x)


def binary(
    name: str,
    numpy: Callable[..., Any],
    vjp: Callable[[Node, Node, Node, Node], Vjp] | None = None,
    cost: int = 1,
    kinds: str = "number",
    result: str = "same",
) -> Binary:
    """Enter a function of two operands into the table; its gradient is a function (g, y, a, b)."""
    _row(name, 2, numpy, vjp, cost, kinds, result)
    return lambda a, b: map_(name, a, b)


def scale(x: Node, number: float) -> Node:
    """`x * number`."""
    return mul(x, lift(number, x))


def shift(x: Node, number: float) -> Node:
    """`x + number`."""
    return add(x, lift(number, x))


def one_minus(x: Node) -> Node:
    return sub(ones_like(x), x)


# ------------------------------------------------------------------------ NumPy meanings


def _sigmoid(x: Any) -> Any:
    tail = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, tail) / (1 + tail)


def _erf(x: Any) -> Any:
    return np.array([math.erf(v) for v in np.ravel(x).tolist()], x.dtype).reshape(np.shape(x))


def _shift_right(a: Any, b: Any) -> Any:
    """Shift counts from the width on give what shifting bit by bit would."""
    width = 8 * a.dtype.itemsize
    return np.right_shift(a, np.minimum(b, width - 1)) * np.where(
        (b >= width) & (a.dtype.kind == "u"), 0, 1
    ).astype(a.dtype)


def _shift_left(a: Any, b: Any) -> Any:
    width = 8 * a.dtype.itemsize
    shifted = np.left_shift(a, np.minimum(b, width - 1))
    return np.where(b >= width, np.zeros_like(a), shifted)


def _select(*, greater: bool) -> Callable[..., Vjp]:
    """Gradient of maximum and minimum: to the winner, halved where both are equal."""

    def vjp(g: Node, _: Node, a: Node, b: Node) -> Vjp:
        better = gt if greater else lt
        half, none = scale(g, 0.5), zeros_like(g)
        tie = where(eq(a, b), half, none)
        return where(better(a, b), g, tie), where(better(b, a), g, tie)

    return vjp


def _pow_vjp(g: Node, y: Node, a: Node, b: Node) -> Vjp:
    # At b = 0 the derivative is 0 also for a = 0, where a**(b - 1) is infinite; log(0) is never
    # asked for, because y is 0 there (or 1, where b is 0 and the power does not depend on b).
    zero, one = zeros_like(a), ones_like(a)
    slope = where(eq(b, zero), zero, mul(b, pow_(a, where(eq(b, zero), one, shift(b, -1.0)))))
    return mul(g, slope), mul(mul(g, y), log(where(eq(a, zero), one, a)))


def _atan2_vjp(g: Node, _: Node, a: Node, b: Node) -> Vjp:
    length = div(g, add(square(a), square(b)))
    return mul(b, length), neg(mul(a, length))


# ----------------------------------------------------------------------------- arithmetic

add: Binary = binary("add", np.add, lambda g, y, a, b: (g, g))
sub: Binary = binary("sub", np.subtract, lambda g, y, a, b: (g, neg(g)))
mul: Binary = binary("mul", np.multiply, lambda g, y, a, b: (mul(g, b), mul(g, a)))
div: Binary = binary(
    "div", np.divide, lambda g, y, a, b: (div(g, b), neg(div(mul(g, y), b))), cost=8, kinds="float"
)
floordiv: Binary = binary("floordiv", np.floor_divide, cost=12)
mod: Binary = binary("mod", np.mod, lambda g, y, a, b: (g, neg(mul(g, floor(div(a, b))))), cost=14)
pow_: Binary = binary("pow", np.power, _pow_vjp, cost=40, kinds="float")
maximum: Binary = binary("maximum", np.maximum, _select(greater=True))
minimum: Binary = binary("minimum", np.minimum, _select(greater=False))
atan2: Binary = binary("atan2", np.arctan2, _atan2_vjp, cost=30, kinds="float")

neg: Unary = unary("neg", np.negative, lambda g, y, x: neg(g), kinds="number")
abs_: Unary = unary("abs", np.abs, lambda g, y, x: mul(g, sign(x)), kinds="number")
sign: Unary = unary("sign", np.sign, cost=2, kinds="number")
square: Unary = unary("square", np.square, lambda g, y, x: mul(g, scale(x, 2.0)), kinds="number")
reciprocal: Unary = unary(
    "reciprocal", lambda x: 1 / x, lambda g, y, x: neg(mul(g, square(y))), cost=8
)
relu: Unary = unary(
    "relu",
    lambda x: np.where(x < 0, np.zeros_like(x), x),  # NaN stays NaN
    lambda g, y, x: where(gt(y, zeros_like(y)), g, zeros_like(g)),
    kinds="number",
)
floor: Unary = unary("floor", np.floor)
ceil: Unary = unary("ceil", np.ceil)
round_: Unary = unary("round", np.rint)

# ------------------------------------------------------------------------ transcendentals

exp: Unary = unary("exp", np.exp, lambda g, y, x: mul(g, y), cost=12)
expm1: Unary = unary("expm1", np.expm1, lambda g, y, x: mul(g, shift(y, 1.0)), cost=16)
log: Unary = unary("log", np.log, lambda g, y, x: div(g, x), cost=14)
log1p: Unary = unary("log1p", np.log1p, lambda g, y, x: div(g, shift(x, 1.0)), cost=16)
sqrt: Unary = unary("sqrt", np.sqrt, lambda g, y, x: div(scale(g, 0.5), y), cost=8)
rsqrt: Unary = unary(
    "rsqrt", lambda x: 1 / np.sqrt(x), lambda g, y, x: mul(scale(g, -0.5), div(y, x)), cost=12
)
sin: Unary = unary("sin", np.sin, lambda g, y, x: mul(g, cos(x)), cost=16)
cos: Unary = unary("cos", np.cos, lambda g, y, x: neg(mul(g, sin(x))), cost=16)
tan: Unary = unary("tan", np.tan, lambda g, y, x: mul(g, shift(square(y), 1.0)), cost=24)
asin: Unary = unary("asin", np.arcsin, lambda g, y, x: mul(g, rsqrt(one_minus(square(x)))), cost=24)
acos: Unary = unary(
    "acos", np.arccos, lambda g, y, x: neg(mul(g, rsqrt(one_minus(square(x))))), cost=24
)
atan: Unary = unary("atan", np.arctan, lambda g, y, x: div(g, shift(square(x), 1.0)), cost=20)
sinh: Unary = unary("sinh", np.sinh, lambda g, y, x: mul(g, cosh(x)), cost=24)
cosh: Unary = unary("cosh", np.cosh, lambda g, y, x: mul(g, sinh(x)), cost=24)
asinh: Unary = unary(
    "asinh", np.arcsinh, lambda g, y, x: mul(g, rsqrt(shift(square(x), 1.0))), cost=30
)
acosh: Unary = unary(
    "acosh", np.arccosh, lambda g, y, x: mul(g, rsqrt(shift(square(x), -1.0))), cost=30
)
atanh: Unary = unary("atanh", np.arctanh, lambda g, y, x: div(g, one_minus(square(x))), cost=24)
tanh: Unary = unary("tanh", np.tanh, lambda g, y, x: mul(g, one_minus(square(y))), cost=14)
sigmoid: Unary = unary("sigmoid", _sigmoid, lambda g, y, x: mul(g, mul(y, one_minus(y))), cost=16)
erf: Unary = unary(
    "erf",
    _erf,
    lambda g, y, x: mul(scale(g, 2.0 / math.sqrt(math.pi)), exp(neg(square(x)))),
    cost=20,
)

# ------------------------------------------------------------------- comparisons and bits

eq: Binary = binary("eq", np.equal, kinds="any", result="bool")
ne: Binary = binary("ne", np.not_equal, kinds="any", result="bool")
lt: Binary = binary("lt", np.less, kinds="any", result="bool")
le: Binary = binary("le", np.less_equal, kinds="any", result="bool")
gt: Binary = binary("gt", np.greater, kinds="any", result="bool")
ge: Binary = binary("ge", np.greater_equal, kinds="any", result="bool")
isnan: Unary = unary("isnan", np.isnan, result="bool")
isinf: Unary = unary("isinf", np.isinf, result="bool")
isfinite: Unary = unary("isfinite", np.isfinite, result="bool")

and_: Binary = binary("and", np.bitwise_and, kinds="bits")
or_: Binary = binary("or", np.bitwise_or, kinds="bits")
xor: Binary = binary("xor", np.bitwise_xor, kinds="bits")
not_: Unary = unary("not", np.invert, kinds="bits")
shl: Binary = binary("shl", _shift_left, kinds="integer")
shr: Binary = binary("shr", _shift_right, kinds="integer")


def _where_vjp(g: Node, _: Node, condition: Node, a: Node, b: Node) -> Vjp:
    return None, where(condition, g, zeros_like(g)), where(condition, zeros_like(g), g)


_row("where", 3, np.where, _where_vjp, 1, "any")


def where(condition: Node, a: Node, b: Node) -> Node:
    """`a` where the bool condition holds, else `b`; all of one shape."""
    return map_("where", condition, a, b)


# ---------------------------------------------------------------- Cast and StopGradient


@dataclass(frozen=True)
class Cast(Op):
    """The same numbers in another dtype.

    Float to integer drops the fraction; what does not fit becomes the nearest integer that does,
    and NaN becomes 0 (as XLA has it). Integers wrap around. Any number but 0 is True.
    """

    dtype: str

    def infer(self, x: Type) -> Type:
        return Type(x.shape, self.dtype)

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        both = self.dtype in FLOATS and x.type.is_float
        return (cast(gradient, x.dtype) if both else None,)

    def numpy(self, x: Any) -> Any:
        target = numpy_dtype(self.dtype)
        is_float = x.dtype.name in FLOATS
        if is_float and target.kind in "iu":
            # In float64 the largest 64-bit integers round up and out: compare before converting.
            wide = np.trunc(
                np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
            )
            limits = np.iinfo(target)
            inside = np.clip(wide, float(limits.min), np.nextafter(float(limits.max) + 1, 0))
            whole = inside.astype(target)
            return np.where(wide >= float(limits.max), limits.max, whole).astype(target)
        if target.kind == "b":
            return np.asarray(x != 0)
        return np.asarray(x).astype(target)


@dataclass(frozen=True)
class StopGradient(Op):
    """The value itself, through which no gradient flows."""

    def infer(self, x: Type) -> Type:
        return x

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        return (None,)

    def numpy(self, x: Any) -> Any:
        return x


def cast(x: Node, dtype: str) -> Node:
    """`x` in another dtype; `x` itself if it has it already."""
    return x if x.dtype == dtype else apply(Cast(dtype), x)


def stop_gradient(x: Node) -> Node:
    return apply(StopGradient(), x)


_POSITIVE = {"log", "sqrt", "rsqrt", "reciprocal"}
_UNIT = {"asin", "acos", "atanh", "log1p"}


def _samples() -> tuple[tuple[Any, ...], ...]:
    """One or two inputs for each row, inside its domain and away from jumps."""
    found: list[tuple[Any, ...]] = []
    for row in SCALARS.values():
        if row.name == "where":
            found.append((Map("where"), "bool (3, 4)", "float32 (3, 4)", "float32 (3, 4)"))
        elif row.kinds in {"integer", "bits"}:
            found.append((Map(row.name), *["int32 (3, 4)<20"] * row.arity))
            found.append((Map(row.name), *["uint32 (3, 4)<20"] * row.arity))
        elif row.name in {"pow", "atan2", "div", "mod", "floordiv"}:
            found.append((Map(row.name), *["float32 (batch, 4)>0"] * row.arity))
        elif row.name == "acosh":
            found.append((Map(row.name), "float32 (3, 4)>1"))
        else:
            mark = ">0" if row.name in _POSITIVE else "~1" if row.name in _UNIT else ""
            found.append((Map(row.name), *[f"float32 (batch, 4){mark}"] * row.arity))
        if row.kinds == "number" and row.name not in {"mod", "floordiv"}:
            found.append((Map(row.name), *["int32 (3, 4)<20"] * row.arity))
    return tuple(found)


Map.samples = _samples()
Cast.samples = (
    (Cast("float64"), "float32 (3, 4)"),
    (Cast("int32"), "float32 (batch, 4)"),
    (Cast("float32"), "int32 (batch, 4)<9"),
    (Cast("bool"), "float32 (3, 4)"),
    (Cast("uint8"), "int32 (3, 4)<999"),
    (Cast("float32"), "bool (3, 4)"),
)
StopGradient.samples = ((StopGradient(), "float32 (3, 4)"),)
