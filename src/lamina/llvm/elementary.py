"""The elementary functions in float32 and float64, for any number of lanes and any target.

Each is a straight sequence of additions, multiplications, divisions, square roots, selections and
integer operations on the bits, the same for vectors and for scalars; no library is ever called.
Polynomials interpolate at Chebyshev nodes; they were computed with 60 digits. Argument reductions
follow Cody & Waite 1980 (`Software Manual for the Elementary Functions`); the logarithm of float64
and `log1p` follow Tang 1990 and Kahan.

`ACCURACY` states the largest error in units in the last place for finite results in the normal
range; a test measures it. Subnormal inputs and results may be taken for zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lamina.llvm.emit import DOUBLE, FLOAT, I32, I64, Emit, Value, parts

ACCURACY: dict[str, tuple[float, float]] = {
    # function: (float32, float64)
    "exp": (1.1, 1.1), "expm1": (2, 2), "log": (1, 1), "log1p": (2, 2), "tanh": (2, 2.5),
    "sigmoid": (2, 2.5), "erf": (2, 3), "sin": (1.5, 2.5), "cos": (1.5, 2.5), "tan": (3, 3.5),
    "asin": (2.5, 2.5), "acos": (2.5, 2.5), "atan": (2.5, 2.5), "atan2": (3, 3.5),
    "sinh": (3, 3), "cosh": (3, 3), "asinh": (4, 4), "acosh": (4, 4), "atanh": (3, 3),
    "pow": (1, 512), "sqrt": (0.5, 0.5), "rsqrt": (1.5, 1.5), "reciprocal": (0.5, 0.5),
}  # fmt: skip
"""sin, cos and tan hold for |x| <= 2**20; float64's pow loses a bit for each doubling of
|y * log(x)|, and 512 is where the result leaves the range."""


@dataclass(frozen=True)
class Real:
    """A floating-point format and the coefficients that suffice for it."""

    element: str
    integer: str
    digits: int
    bias: int
    exp: Sequence[float]
    sin: Sequence[float]
    cos: Sequence[float]
    atan: Sequence[float]
    asin: Sequence[float]
    erf: Sequence[float]
    erfc: Sequence[float]
    ln2: tuple[float, float]
    overflow: float  # exp(x) is infinite above
    underflow: float  # exp(x) is below the normal numbers, and taken for zero, below
    largest: float  # tanh(x) is one from here on

    @property
    def magic(self) -> float:
        """Adding and subtracting this rounds to an integer, to nearest even."""
        return 1.5 * 2.0**self.digits


# fmt: off
SINGLE = Real(
    FLOAT, I32, 23, 127,
    exp=(0.5, 0.16666573381900845, 0.04166655011030512, 0.008363773874405574,
         0.0013926926614021907),
    sin=(-0.16666664650292082, 0.008332745936380422, -0.00019587387068464455),
    cos=(0.04166666464745738, -0.00138883006969039, 2.45474372101932e-05),
    atan=(-0.3333333176116852, 0.19999540483648964, -0.1426395559798464, 0.10743731490791084,
          -0.06451928208121749),
    asin=(0.16666666337430908, 0.07500094543497424, 0.04459940152851218, 0.03110066273549457,
          0.017149238357677253, 0.03369084720283012),
    erf=(0.12837916584835093, -0.37612626666720334, 0.11283594715160218, -0.026854212010626412,
         0.005189087423433974, -0.000801686428716587, 7.875875062685488e-05),
    erfc=(-0.00032147102637958833, 1.1302392014174953, 0.6318156995820089, 0.11009019746356287,
          -0.02642704377214418, 0.004761717235814106, -0.0005972644331422529,
          4.611291390623816e-05, -1.639938016480626e-06),
    ln2=(0.693115234375, 3.1946184945309415e-05),
    overflow=88.72283172607422, underflow=-87.33654475055310, largest=9.5,
)
DOUBLE_ = Real(
    DOUBLE, I64, 52, 1023,
    exp=(0.5, 0.1666666666666667, 0.04166666666666667, 0.008333333333325544,
         0.0013888888888883327, 0.00019841269876864356, 2.4801587327007187e-05,
         2.755725283351691e-06, 2.75572718102198e-07, 2.5106274733573296e-08,
         2.0915442297780116e-09),
    sin=(-0.16666666666666666, 0.008333333333330925, -0.00019841269836722418,
         2.755731608381636e-06, -2.5051127944014188e-08, 1.5917848524808262e-10),
    cos=(0.041666666666666664, -0.0013888888888887382, 2.480158729874307e-05,
         -2.7557317260008837e-07, 2.0876143827993133e-09, -1.1382456778061306e-11),
    atan=(-0.3333333333333333, 0.19999999999999804, -0.14285714285659828, 0.11111111105155447,
          -0.09090908753500877, 0.07692296375032143, -0.06666424885738255, 0.05878928997834775,
          -0.05230454270650244, 0.04551593220626549, -0.034570561981427744,
          0.016285756855221028),
    asin=(0.16666666666666666, 0.07500000000000118, 0.044642857142551895, 0.03038194447553234,
          0.02237215744350722, 0.017352816540325496, 0.01396378001220357, 0.011566459612121669,
          0.009621842970100282, 0.009319560794767446, 0.0030448799094556773,
          0.019554513336123378, -0.01924167174674304, 0.02961201126495512),
    erf=(0.1283791670955126, -0.37612638903183754, 0.1128379167095512, -0.02686617064512984,
         0.0052239776254232985, -0.000854832702193483, 0.00012055332902888736,
         -1.4925647567519332e-05, 1.6462045441468418e-06, -1.6364642158167616e-07,
         1.4792401209404813e-08, -1.216456005728345e-09, 8.709045129053106e-11,
         -4.230945824295338e-12),
    erfc=(-1.0809629080334083e-07, 1.128380384017299, 0.6366132718651171, 0.10279454185792739,
          -0.019180988887681678, -0.0001141283238430043, 0.0015611751219370236,
          -0.00043575925249998715, -0.00011846345279383118, 0.0001759214421297156,
          -0.00010093658682917209, 4.0875163602832254e-05, -1.3084582363906485e-05,
          3.449234328745715e-06, -7.618570967656585e-07, 1.4193058549230365e-07,
          -2.2310240670632655e-08, 2.9471011442070257e-09, -3.245237770347883e-10,
          2.9421027115004166e-11, -2.156764073489686e-12, 1.245516848359094e-13,
          -5.448750274819289e-15, 1.695091707456976e-16, -3.3367546175337927e-18,
          3.119230640295116e-20),
    ln2=(0.6931471806019545, -4.2009150726810846e-11),
    overflow=709.782712893384, underflow=-708.3964185322641, largest=20.0,
)
_LOG_SINGLE = (0.33333331180030046, -0.24999996957950882, 0.200007157488921, -0.16667802319501254,
               0.1424905764569748, -0.12425687331451106, 0.1168541992348674,
               -0.11479733846637635, 0.06971611471451178)
_LOG_DOUBLE = (0.6666666666666666, 0.4000000000000088, 0.28571428570803614, 0.22222222391713917,
               0.18181795640132906, 0.15386239702814658, 0.13268773138656886,
               0.13086626147840102)
_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
# fmt: on
_REALS = {FLOAT: SINGLE, DOUBLE: DOUBLE_}
_INF, _NAN = math.inf, math.nan


def real(value: Value) -> Real:
    """The format of a value."""
    return _REALS[parts(value.type)[0]]


def polynomial(e: Emit, x: Value, coefficients: Sequence[float]) -> Value:
    """`c[0] + c[1] x + c[2] x**2 + ...` by Horner's rule."""
    total: Value = e.value(coefficients[-1], x.type)
    for c in reversed(coefficients[:-1]):
        total = e.fma(total, x, c)
    return total


def with_sign(e: Emit, magnitude: Value, sign: Value) -> Value:
    """|magnitude| with the sign of `sign`, of zeros too."""
    return e.intrinsic("copysign", magnitude.type, magnitude, sign)


# ------------------------------------------------------------------------- rounding


def rounded(e: Emit, x: Value) -> Value:
    """The nearest integer, to even on a tie."""
    if e.target.has_fma:
        return e.intrinsic("roundeven", x.type, x)
    f = real(x)
    limit = 2.0**f.digits
    shift = with_sign(e, e.value(limit, x.type), x)
    return with_sign(e, e.select(e.abs(x) < limit, (x + shift) - shift, x), x)


def floor(e: Emit, x: Value) -> Value:
    if e.target.has_fma:
        return e.intrinsic("floor", x.type, x)
    near = rounded(e, x)
    return with_sign(e, near - e.select(near > x, 1.0, 0.0, x.type), x)


def ceil(e: Emit, x: Value) -> Value:
    if e.target.has_fma:
        return e.intrinsic("ceil", x.type, x)
    near = rounded(e, x)
    return with_sign(e, near + e.select(near < x, 1.0, 0.0, x.type), x)


def truncated(e: Emit, x: Value) -> Value:
    """The integer next to it towards zero."""
    if e.target.has_fma:
        return e.intrinsic("trunc", x.type, x)
    return with_sign(e, floor(e, e.abs(x)), x)


# ------------------------------------------------------------------------- exp and log


def _reduce_exp(e: Emit, f: Real, x: Value) -> tuple[Value, Value]:
    """(n, r): x = n * ln 2 + r with |r| <= ln 2 / 2; the integer n stands in the low bits."""
    shifted = e.fma(x, 1 / math.log(2), f.magic)
    whole = shifted - f.magic
    r = e.fma(whole, -f.ln2[0], x)
    r = e.fma(whole, -f.ln2[1], r)
    return e.bits(shifted, f.integer), r


def _scaled(e: Emit, f: Real, x: Value, n: Value) -> Value:
    """x * 2**n, where neither is out of the range of normal numbers."""
    return e.bits(e.bits(x, f.integer) + (n << f.digits), f.element)


def exp(e: Emit, x: Value) -> Value:
    """The exponential function."""
    f = real(x)
    result = e.select(x < f.underflow, 0.0, _exp(e, x))
    return e.select(x <= f.overflow, result, x + _INF)  # a NaN stays one


def _exp(e: Emit, x: Value) -> Value:
    """The same between underflow and overflow."""
    f = real(x)
    n, r = _reduce_exp(e, f, x)
    return _scaled(e, f, polynomial(e, r, (1.0, 1.0, *f.exp)), n)


def expm1(e: Emit, x: Value) -> Value:
    """exp(x) - 1, exact to the last places near zero."""
    f = real(x)
    low = -(f.digits + 3) * math.log(2)
    result = e.select(x <= f.overflow, _expm1(e, e.select(x < low, low, x)), x + _INF)
    return e.select(e.abs(x) < 2.0 ** (-f.digits - 1), x, result)


def _expm1(e: Emit, x: Value) -> Value:
    """The same between -(digits + 3) * ln 2 and the overflow."""
    f = real(x)
    n, r = _reduce_exp(e, f, x)
    p = e.fma(polynomial(e, r, f.exp), r * r, r)
    # Half of the result, because 2**n may be out of range where the result is not.
    scale = _scaled(e, f, e.value(0.5, x.type), n)
    half = e.fma(scale, p, scale - 0.5)
    return half + half


def _logarithm(e: Emit, x: Value, *, small: bool) -> Value:
    """The logarithm of a positive, finite number; `small` says that it may be subnormal."""
    f = real(x)
    shift: Value | None = None
    if small:
        tiny = x < 2.0 ** (1 - f.bias)
        x = e.select(tiny, x * 2.0 ** (f.digits + 2), x)
        shift = e.select(tiny, float(f.digits + 2), 0.0, x.type)
    start = 0x3F3504F3 if f is SINGLE else 0x3FE6A09E667F3BCD  # sqrt(1/2)
    bits = e.bits(x, f.integer)
    n = (bits - start) >> f.digits
    m = e.bits(bits - (n << f.digits), f.element) - 1.0
    k = e.cast("sitofp", n, f.element) if f is SINGLE else _whole(e, n)
    if shift is not None:
        k = k - shift
    half = m * m * 0.5
    if f is SINGLE:
        tail = polynomial(e, m, _LOG_SINGLE) * m * (m * m)
        return e.fma(k, f.ln2[0], m - (half - e.fma(k, f.ln2[1], tail)))
    s = m / (m + 2.0)
    z = s * s
    tail = s * e.fma(polynomial(e, z, _LOG_DOUBLE), z, half)
    return e.fma(k, f.ln2[0], m - (half - e.fma(k, f.ln2[1], tail)))


def _whole(e: Emit, n: Value) -> Value:
    """A small i64 as a double, without an instruction for it: by the bits of 1.5 * 2**52."""
    return e.bits(n + 0x4338000000000000, DOUBLE) - DOUBLE_.magic


def _log_edges(e: Emit, x: Value, result: Value) -> Value:
    result = e.select(x.equal(_INF), _INF, result)
    result = e.select(x.equal(0.0), -_INF, result)
    return e.select(x.compare("", "ult", 0.0), _NAN, result)


def log(e: Emit, x: Value) -> Value:
    return _log_edges(e, x, _logarithm(e, x, small=True))


def log1p(e: Emit, x: Value) -> Value:
    u = x + 1.0
    lost = e.select(u > 2.0, 1.0 - (u - x), x - (u - 1.0))
    result = _logarithm(e, u, small=False) + lost / u
    result = _log_edges(e, u, result)
    result = e.select(x.equal(_INF), _INF, result)
    return e.select(u.equal(1.0), x, result)


# ------------------------------------------------------------------------- sigmoids


def tanh(e: Emit, x: Value) -> Value:
    f = real(x)
    size = e.abs(x)
    size = e.select(size > f.largest, f.largest, size)
    t = _expm1(e, size + size)
    return with_sign(e, t / (t + 2.0), x)


def sigmoid(e: Emit, x: Value) -> Value:
    """1 / (1 + exp(-x)); where that is below the normal numbers, the smallest that it reaches."""
    f = real(x)
    y = -x
    y = e.select(y > f.overflow, f.overflow, y)
    y = e.select(y < f.underflow, f.underflow, y)
    return 1.0 / (_exp(e, y) + 1.0)


def erf(e: Emit, x: Value) -> Value:
    f = real(x)
    size = e.abs(x)
    small = e.fma(polynomial(e, x * x, f.erf), x, x)
    limit = 4.0 if f is SINGLE else 6.0
    clamped = e.select(size > limit, limit, size)
    large = 1.0 - exp(e, -polynomial(e, clamped, f.erfc))
    return e.select(size < 1.0, small, with_sign(e, large, x))


# ------------------------------------------------------------------------- circle


def _reduce_circle(e: Emit, x: Value) -> tuple[Value, Value]:
    """(quadrant, r): x = quadrant * pi / 2 + r; float32 is reduced in float64."""
    single = real(x) is SINGLE
    wide = e.cast("fpext", x, DOUBLE) if single else x
    shifted = e.fma(wide, 2 / math.pi, DOUBLE_.magic)
    whole = shifted - DOUBLE_.magic
    r = e.fma(whole, -_HALF_PI[0], wide)
    r = e.fma(whole, -_HALF_PI[1], r)
    if not single:
        r = e.fma(whole, -_HALF_PI[2], r)
    # Beyond the range that the reduction holds for, stay at least between -1 and 1.
    r = e.select(r > 0.8, 0.8, r)
    r = e.select(r < -0.8, -0.8, r)
    quadrant = e.bits(shifted, I64)
    if single:
        return e.cast("trunc", quadrant, I32), e.cast("fptrunc", r, FLOAT)
    return quadrant, r


def _sine_cosine(e: Emit, r: Value) -> tuple[Value, Value]:
    f = real(r)
    z = r * r
    sine = e.fma(polynomial(e, z, f.sin) * z, r, r)
    cosine = e.fma(polynomial(e, z, f.cos) * z, z, e.fma(z, -0.5, 1.0))
    return sine, cosine


def _turned(e: Emit, x: Value, turn: int) -> Value:
    quadrant, r = _reduce_circle(e, x)
    quadrant = quadrant + turn
    sine, cosine = _sine_cosine(e, r)
    result = e.select((quadrant & 1).equal(0), sine, cosine)
    return e.select((quadrant & 2).equal(0), result, -result)


def sin(e: Emit, x: Value) -> Value:
    return e.select(x.equal(0.0), x, _turned(e, x, 0))


def cos(e: Emit, x: Value) -> Value:
    return _turned(e, x, 1)


def tan(e: Emit, x: Value) -> Value:
    quadrant, r = _reduce_circle(e, x)
    sine, cosine = _sine_cosine(e, r)
    even = (quadrant & 1).equal(0)
    result = e.select(even, sine, -cosine) / e.select(even, cosine, sine)
    return e.select(x.equal(0.0), x, result)


def _arc_tangent(e: Emit, numerator: Value, denominator: Value) -> Value:
    """atan(numerator / denominator) in [0, pi/2] for magnitudes that are not negative."""
    f = real(numerator)
    steep = numerator > denominator * math.tan(3 * math.pi / 8)
    middle = numerator > denominator * math.tan(math.pi / 8)
    above = e.select(middle, numerator - denominator, numerator)
    below = e.select(middle, numerator + denominator, denominator)
    above = e.select(steep, -denominator, above)
    below = e.select(steep, numerator, below)
    base = e.select(middle, math.pi / 4, 0.0, numerator.type)
    base = e.select(steep, math.pi / 2, base)
    t = above / below
    z = t * t
    return base + e.fma(polynomial(e, z, f.atan) * z, t, t)


def atan(e: Emit, x: Value) -> Value:
    result = _arc_tangent(e, e.abs(x), e.value(1.0, x.type))
    return with_sign(e, result, x)


def atan2(e: Emit, y: Value, x: Value) -> Value:
    over, under = e.abs(y), e.abs(x)
    infinite = over.equal(_INF) & under.equal(_INF)
    over = e.select(infinite, 1.0, over)
    under = e.select(infinite, 1.0, under)
    angle = _arc_tangent(e, over, under)
    angle = e.select(over.equal(0.0), 0.0, angle)  # 0 / 0
    negative = e.bits(x, real(x).integer) < 0
    angle = e.select(negative, math.pi - angle, angle)
    angle = e.select(x.compare("", "uno", y), _NAN, angle)
    return with_sign(e, angle, y)


def _arc_sine_core(e: Emit, t: Value) -> Value:
    """asin on [-1/2, 1/2]."""
    z = t * t
    return e.fma(polynomial(e, z, real(t).asin) * z, t, t)


def asin(e: Emit, x: Value) -> Value:
    size = e.abs(x)
    large = size > 0.5
    root = e.sqrt(e.fma(size, -0.5, 0.5))
    core = _arc_sine_core(e, e.select(large, root, size))
    result = e.select(large, math.pi / 2 - (core + core), core)
    return with_sign(e, e.select(size > 1.0, _NAN, result), x)


def acos(e: Emit, x: Value) -> Value:
    size = e.abs(x)
    large = size > 0.5
    root = e.sqrt(e.fma(size, -0.5, 0.5))
    core = _arc_sine_core(e, e.select(large, root, x))
    double = core + core
    edge = e.select(x < 0.0, math.pi - double, double)
    result = e.select(large, edge, math.pi / 2 - core)
    return e.select(size > 1.0, _NAN, result)


# ------------------------------------------------------------------------- hyperbola


def sinh(e: Emit, x: Value) -> Value:
    size = e.abs(x)
    t = expm1(e, size)
    near = (t + t / (t + 1.0)) * 0.5
    half = exp(e, size * 0.5)
    return with_sign(e, e.select(size > 20.0, (half * 0.5) * half, near), x)


def cosh(e: Emit, x: Value) -> Value:
    half = exp(e, e.abs(x) * 0.5)
    full = exp(e, e.abs(x))
    near = e.fma(full, 0.5, 0.5 / full)
    return e.select(e.abs(x) > 20.0, (half * 0.5) * half, near)


def asinh(e: Emit, x: Value) -> Value:
    f = real(x)
    size = e.abs(x)
    huge = size > 2.0 ** (f.digits // 2 + 6)
    t = e.select(huge, 1.0, size)
    near = log1p(e, t + t * t / (e.sqrt(e.fma(t, t, 1.0)) + 1.0))
    return with_sign(e, e.select(huge, log(e, size) + math.log(2), near), x)


def acosh(e: Emit, x: Value) -> Value:
    f = real(x)
    huge = x > 2.0 ** (f.digits // 2 + 6)
    t = e.select(huge, 1.0, x) - 1.0
    near = log1p(e, t + e.sqrt(e.fma(t, t, t + t)))
    result = e.select(huge, log(e, x) + math.log(2), near)
    return e.select(x < 1.0, _NAN, result)


def atanh(e: Emit, x: Value) -> Value:
    size = e.abs(x)
    return with_sign(e, log1p(e, (size + size) / (1.0 - size)) * 0.5, x)


# ------------------------------------------------------------------------- powers


def rsqrt(e: Emit, x: Value) -> Value:
    return 1.0 / e.sqrt(x)


def power(e: Emit, x: Value, y: Value) -> Value:
    """x ** y as C99 has it; float32 is computed in float64."""
    single = real(x) is SINGLE
    a = e.cast("fpext", x, DOUBLE) if single else x
    b = e.cast("fpext", y, DOUBLE) if single else y
    size = e.abs(a)
    result = exp(e, b * log(e, size))
    whole = rounded(e, b).equal(b)
    half = b * 0.5
    odd = whole & rounded(e, half).differs(half)
    negative = e.bits(a, I64) < 0
    result = e.select(negative & odd, -result, result)
    result = e.select((a < 0.0) & ~whole & size.differs(_INF), _NAN, result)
    result = e.select(a.equal(-1.0) & e.abs(b).equal(_INF), 1.0, result)
    result = e.select(a.equal(1.0) | b.equal(0.0), 1.0, result)
    return e.cast("fptrunc", result, FLOAT) if single else result


FUNCTIONS: dict[str, Callable[[Emit, Value], Value]] = {
    "exp": exp, "expm1": expm1, "log": log, "log1p": log1p, "tanh": tanh, "sigmoid": sigmoid,
    "erf": erf, "sin": sin, "cos": cos, "tan": tan, "asin": asin, "acos": acos, "atan": atan,
    "sinh": sinh, "cosh": cosh, "asinh": asinh, "acosh": acosh, "atanh": atanh, "rsqrt": rsqrt,
    "floor": floor, "ceil": ceil, "round": rounded, "sqrt": lambda e, x: e.sqrt(x),
    "reciprocal": lambda e, x: 1.0 / x,
}  # fmt: skip
PAIRS: dict[str, Callable[[Emit, Value, Value], Value]] = {"atan2": atan2, "pow": power}
