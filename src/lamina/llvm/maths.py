"""The scalar table as instructions: arithmetic of every dtype, conversions, Threefry.

float16 and bfloat16 are computed in float32 and rounded after every operation, so that a fused
kernel gives the bits of separate ones. Integers wrap; their division by zero gives zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina.llvm import elementary
from lamina.llvm.emit import (
    DOUBLE,
    FLOAT,
    I1,
    I16,
    I32,
    I64,
    REGISTER,
    Emit,
    Value,
    element_bytes,
    like,
    parts,
    vector,
)
from lamina.types import FLOATS, UNSIGNED, itemsize

NARROW = ("float16", "bfloat16")
_COMPARISONS = {
    # name: (signed, unsigned, floating point)
    "eq": ("eq", "eq", "oeq"), "ne": ("ne", "ne", "une"), "lt": ("slt", "ult", "olt"),
    "le": ("sle", "ule", "ole"), "gt": ("sgt", "ugt", "ogt"), "ge": ("sge", "uge", "oge"),
}  # fmt: skip
# Computed in float64: LLVM would join the two roundings to one that is a library call.
_WIDE = {"pow", "mod", "floordiv", "sin", "cos", "tan"}
_EXACT = {"neg", "abs", "relu", "maximum", "minimum", "where", "sign", "floor", "ceil", "round"}


def apply(emit: Emit, fn: str, values: Sequence[Value], dtypes: Sequence[str], dtype: str) -> Value:
    """The function of the scalar table on values of `dtypes`, all with equal lanes."""
    result = _apply(emit, fn, values, dtypes[-1])
    if dtype in NARROW and fn not in _EXACT:
        return quantised(emit, result, dtype, native=fn not in _WIDE)
    return result


def _apply(emit: Emit, fn: str, values: Sequence[Value], dtype: str) -> Value:
    signed = dtype not in UNSIGNED and dtype != "bool"
    floating = dtype in FLOATS
    first = values[0]
    if fn == "where":
        return emit.select(first, values[1], values[2])
    if fn in _COMPARISONS:
        integer = _COMPARISONS[fn][0 if signed else 1]
        return first.compare(integer, _COMPARISONS[fn][2], values[1])
    if fn in {"isnan", "isinf", "isfinite"}:
        return _kind_test(emit, fn, first, floating=floating)
    if floating:
        if fn in elementary.FUNCTIONS:
            return elementary.FUNCTIONS[fn](emit, first)
        if fn in elementary.PAIRS:
            return elementary.PAIRS[fn](emit, first, values[1])
        return _REAL[fn](emit, *values)
    if dtype == "bool" and fn in _BOOL:
        return _BOOL[fn](emit, *values)
    if fn in _SIGNED_DIVISIONS:
        return _SIGNED_DIVISIONS[fn](emit, values[0], values[1], signed)
    return _INTEGER[fn](emit, values, signed)


def _kind_test(emit: Emit, fn: str, x: Value, *, floating: bool) -> Value:
    if not floating:
        return emit.value(int(fn == "isfinite"), like(x.type, I1))
    if fn == "isnan":
        return x.is_nan()
    infinity = float("inf")
    size = emit.abs(x)
    return size.equal(infinity) if fn == "isinf" else size < infinity


# ------------------------------------------------------------------------- floating point


def greater(emit: Emit, a: Value, b: Value) -> Value:
    """The larger; NaN if either is."""
    return emit.select(a.is_nan(), a, emit.select(a > b, a, b))


def lesser(emit: Emit, a: Value, b: Value) -> Value:
    """The smaller; NaN if either is."""
    return emit.select(a.is_nan(), a, emit.select(a < b, a, b))


def _sign(emit: Emit, x: Value) -> Value:
    zero = emit.select(x.is_nan(), x, 0.0)
    return emit.select(x > 0.0, 1.0, emit.select(x < 0.0, -1.0, zero))


def _floor_divide(emit: Emit, x: Value, y: Value) -> Value:
    """NumPy's: the quotient that goes with `_modulo`."""
    whole = elementary.floor(emit, (x - _modulo(emit, x, y)) / y + 0.5)
    return emit.select(y.equal(0.0), x / y, whole)


def _modulo(emit: Emit, x: Value, y: Value) -> Value:
    """The remainder with the sign of the divisor; exact for quotients below 2**24 (2**52)."""
    narrow = parts(x.type)[0] == FLOAT
    a, b = (emit.cast("fpext", v, DOUBLE) if narrow else v for v in (x, y))
    q = elementary.truncated(emit, a / b)
    r = emit.fma(-q, b, a)
    # The quotient may have been rounded up to the next integer.
    r = emit.select(
        (r.compare("", "one", 0.0)) & ((r < 0.0) ^ (a < 0.0)),
        r + emit.abs(b) * (elementary.with_sign(emit, emit.value(1.0, a.type), a)),
        r,
    )
    r = emit.select((r.compare("", "one", 0.0)) & ((r < 0.0) ^ (b < 0.0)), r + b, r)
    r = emit.select(
        emit.abs(b).equal(float("inf")) & (emit.abs(a) < float("inf")),
        emit.select(((a < 0.0) ^ (b < 0.0)) & a.differs(0.0), b, a),
        r,
    )
    r = elementary.with_sign(emit, r, emit.select(r.equal(0.0), b, r))
    return emit.cast("fptrunc", r, FLOAT) if narrow else r


_REAL: dict[str, Callable[..., Value]] = {
    "add": lambda _, a, b: a + b,
    "sub": lambda _, a, b: a - b,
    "mul": lambda _, a, b: a * b,
    "div": lambda _, a, b: a / b,
    "mod": _modulo,
    "floordiv": _floor_divide,
    "maximum": greater,
    "minimum": lesser,
    "neg": lambda _, a: -a,
    "abs": lambda e, a: e.abs(a),
    "sign": _sign,
    "square": lambda _, a: a * a,
    "relu": lambda e, a: e.select(a < 0.0, 0.0, a),  # NaN stays NaN
}


# ------------------------------------------------------------------------- integers and bool


def _divide(emit: Emit, x: Value, y: Value, signed: bool) -> Value:
    """The quotient rounded towards zero; 0 where y is 0."""
    element = parts(x.type)[0]
    if element_bytes(x.type) <= 4:  # exact in float64, and there are vectors of it
        names = ("sitofp", "fptosi") if signed else ("uitofp", "fptoui")
        a = emit.cast(names[0], x, DOUBLE)
        b = emit.cast(names[0], emit.select(y.equal(0), 1, y), DOUBLE)
        wide = emit.cast("fptosi", elementary.truncated(emit, a / b), I64)
        quotient = emit.resize(wide, element)
    else:
        bad = y.equal(0) | y.equal(-1) if signed else y.equal(0)
        safe = emit.select(bad, 1, y)
        quotient = x / safe if signed else x // safe
        if signed:
            quotient = emit.select(y.equal(-1), 0 - x, quotient)
    return emit.select(y.equal(0), 0, quotient)


def _floor_quotient(emit: Emit, x: Value, y: Value, signed: bool) -> Value:
    q = _divide(emit, x, y, signed)
    if not signed:
        return q
    r = x - q * y
    return q - emit.select(y.differs(0) & r.differs(0) & ((r ^ y) < 0), 1, 0, q.type)


def _remainder(emit: Emit, x: Value, y: Value, signed: bool) -> Value:
    r = x - _floor_quotient(emit, x, y, signed) * y
    return emit.select(y.equal(0), 0, r)


def _integer_power(emit: Emit, x: Value, y: Value) -> Value:
    """By squaring, modulo 2**bits; a negative exponent leaves 1, -1 or 0 as it should be."""
    bits = element_bytes(x.type) * 8
    result: Value = emit.value(1, x.type)
    base, rest = x, y
    for _ in range(bits - 1):
        result = emit.select((rest & 1).differs(0), result * base, result)
        base = base * base
        rest = rest.logical_shift(1)
    unit = x.equal(1) | x.equal(-1)
    return emit.select((y < 0), emit.select(unit, emit.select((y & 1).equal(0), 1, x), 0), result)


def _shift(emit: Emit, x: Value, y: Value, kind: str) -> Value:
    """A shift; by the width or more, all bits have left."""
    bits = element_bytes(x.type) * 8
    if kind == "ashr":
        return x >> emit.select(y.below(bits), y, bits - 1)
    safe = emit.select(y.below(bits), y, 0)
    moved = x << safe if kind == "shl" else x.logical_shift(safe)
    return emit.select(y.below(bits), moved, 0)


def _extreme(emit: Emit, a: Value, b: Value, names: tuple[str, str], signed: bool) -> Value:
    return emit.select(a.compare(names[0 if signed else 1], "", b), a, b)


_SIGNED_DIVISIONS: dict[str, Callable[[Emit, Value, Value, bool], Value]] = {
    "floordiv": _floor_quotient,
    "mod": _remainder,
    "div": _divide,
}
_INTEGER: dict[str, Callable[[Emit, Sequence[Value], bool], Value]] = {
    "add": lambda _, v, __: v[0] + v[1],
    "sub": lambda _, v, __: v[0] - v[1],
    "mul": lambda _, v, __: v[0] * v[1],
    "pow": lambda e, v, _: _integer_power(e, v[0], v[1]),
    "maximum": lambda e, v, s: _extreme(e, v[0], v[1], ("sgt", "ugt"), s),
    "minimum": lambda e, v, s: _extreme(e, v[0], v[1], ("slt", "ult"), s),
    "neg": lambda _, v, __: 0 - v[0],
    "abs": lambda e, v, s: e.abs(v[0]) if s else v[0],
    "sign": lambda e, v, s: e.select(
        v[0].equal(0), 0, e.select(v[0] < 0, -1, 1, v[0].type) if s else 1, v[0].type
    ),
    "relu": lambda e, v, s: e.select(v[0] < 0, 0, v[0]) if s else v[0],
    "floor": lambda _, v, __: v[0],
    "ceil": lambda _, v, __: v[0],
    "round": lambda _, v, __: v[0],
    "square": lambda _, v, __: v[0] * v[0],
    "and": lambda _, v, __: v[0] & v[1],
    "or": lambda _, v, __: v[0] | v[1],
    "xor": lambda _, v, __: v[0] ^ v[1],
    "not": lambda _, v, __: ~v[0],
    "shl": lambda e, v, _: _shift(e, v[0], v[1], "shl"),
    "shr": lambda e, v, s: _shift(e, v[0], v[1], "ashr" if s else "lshr"),
}
_BOOL: dict[str, Callable[..., Value]] = {
    "add": lambda _, a, b: a | b,
    "mul": lambda _, a, b: a & b,
    "sub": lambda _, a, b: a ^ b,
    "neg": lambda _, a: a,
    "abs": lambda _, a: a,
    "sign": lambda _, a: a,
    "square": lambda _, a: a,
    "maximum": lambda _, a, b: a | b,
    "minimum": lambda _, a, b: a & b,
    "pow": lambda _, a, b: a | ~b,
}


# ------------------------------------------------------------------------- conversions


def convert(emit: Emit, value: Value, source: str, dtype: str) -> Value:
    """A cast between dtypes, both in their register form."""
    if source == dtype:
        return value
    element = REGISTER[dtype]
    if dtype == "bool":
        return value.differs(0)
    if source in FLOATS:
        if dtype in FLOATS:
            return _between_floats(emit, value, dtype)
        if dtype == "uint64":
            # Negative numbers wrap, as they do for the narrower unsigned types.
            signed = emit.cast("fptosi", value, I64)
            return emit.select(value < 2.0**63, signed, emit.cast("fptoui", value, I64))
        wide = itemsize(dtype) == 8 or dtype == "uint32"
        return emit.resize(emit.cast("fptosi", value, I64 if wide else I32), element)
    unsigned = source in UNSIGNED or source == "bool"
    if dtype in FLOATS:
        name = "uitofp" if unsigned else "sitofp"
        result = emit.cast(name, value, DOUBLE if dtype == "float64" else FLOAT)
        return quantised(emit, result, dtype) if dtype in NARROW else result
    return emit.resize(value, element, signed=not unsigned)


def _between_floats(emit: Emit, value: Value, dtype: str) -> Value:
    have = parts(value.type)[0]
    if dtype == "float64":
        return emit.cast("fpext", value, DOUBLE)
    if have != DOUBLE:
        return quantised(emit, value, dtype) if dtype in NARROW else value
    result = emit.cast("fptrunc", value, FLOAT)
    return quantised(emit, result, dtype, native=False) if dtype in NARROW else result


def quantised(emit: Emit, value: Value, dtype: str, *, native: bool = True) -> Value:
    """A float32 rounded to a narrow float, as a float32 again."""
    return widen(emit, narrow(emit, value, dtype, native=native), dtype)


def narrow(emit: Emit, value: Value, dtype: str, *, native: bool = True) -> Value:
    """The bits (i16) of a float32 rounded to nearest even, by an instruction if `native`."""
    if dtype == "float16" and emit.target.has_fma and native:
        return emit.bits(emit.cast("fptrunc", value, "half"), I16)
    bits = emit.bits(value, I32)
    if dtype == "bfloat16":
        odd = bits.logical_shift(16) & 1
        up = (bits + (odd + 0x7FFF)).logical_shift(16)
        quiet = bits.logical_shift(16) | 0x40
        return emit.cast("trunc", emit.select(value.is_nan(), quiet, up), I16)
    sign = bits.logical_shift(16) & 0x8000
    size = bits & 0x7FFFFFFF
    odd = size.logical_shift(13) & 1
    normal = (size + (odd + (0xFFF - (112 << 23)))).logical_shift(13)
    # A subnormal result: adding 1/2 moves the bits to where they belong, rounded.
    small = emit.bits(emit.bits(size, FLOAT) + 0.5, I32) - 0x3F000000
    result = emit.select(size < 0x38800000, small, normal)
    result = emit.select(size >= 0x477FF000, 0x7C00, result)
    result = emit.select(size > 0x7F800000, 0x7E00, result)
    return emit.cast("trunc", result | sign, I16)


def widen(emit: Emit, bits: Value, dtype: str) -> Value:
    """The float32 with the value of a narrow float's bits."""
    if dtype == "float16" and emit.target.has_fma:
        return emit.cast("fpext", emit.bits(bits, "half"), FLOAT)
    wide = emit.cast("zext", bits, I32)
    if dtype == "bfloat16":
        return emit.bits(wide << 16, FLOAT)
    sign = (wide & 0x8000) << 16
    size = (wide & 0x7FFF) << 13
    exponent = size & 0x0F800000
    normal = emit.bits(size + (112 << 23), FLOAT)
    special = emit.bits(size + (224 << 23), FLOAT)
    small = emit.bits(size + (113 << 23), FLOAT) - 2.0**-14
    result = emit.select(exponent.equal(0x0F800000), special, normal)
    result = emit.select(exponent.equal(0), small, result)
    return emit.bits(emit.bits(result, I32) | sign, FLOAT)


def spread(emit: Emit, bits: Value, lanes: int) -> Value:
    """The float32 with the value of a bfloat16 in every lane, without a detour over a scalar."""
    halves = emit.splat(bits, 2 * lanes)
    kind = vector(I32, lanes)
    words = emit.op(kind, f"bitcast {halves.type} {halves.text} to {kind}", halves.depth)
    return emit.bits(words << 16, FLOAT)


# ------------------------------------------------------------------------- random bits


def threefry(emit: Emit, key_0: Value, key_1: Value, word_0: Value, word_1: Value) -> Value:
    """The first word of Threefry-2x32-20 (Salmon et al. 2011): key and counter are i32."""
    keys = (key_0, key_1, key_0 ^ key_1 ^ 0x1BD11BDA)
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    lanes = word_0.lanes

    def key(number: int) -> Value:
        return emit.splat(keys[number % 3], lanes)

    x, y = word_0 + key(0), word_1 + key(1)
    for group in range(5):
        for rotation in rotations[group % 2]:
            x = x + y
            y = ((y << rotation) | y.logical_shift(32 - rotation)) ^ x
        x = x + key(group + 1)
        y = y + (key(group + 2) + (group + 1))
    return x
