"""Types, values and addresses of LLVM assembly, as the writer of `emit` hands them out.

A type is its LLVM name. A `Value` is a typed result with Python's operators; an `Index` keeps a
constant apart from a value; a `Place` is a pointer and a constant number of bytes.
"""

from __future__ import annotations

import functools
import struct
from typing import Protocol, TypeAlias

FLOAT, DOUBLE, I1, I8, I16, I32, I64, POINTER = (
    "float", "double", "i1", "i8", "i16", "i32", "i64", "ptr",
)  # fmt: skip
MEMORY = {
    "float32": FLOAT, "float64": DOUBLE, "float16": I16, "bfloat16": I16, "bool": I8,
    "int8": I8, "int16": I16, "int32": I32, "int64": I64,
    "uint8": I8, "uint16": I16, "uint32": I32, "uint64": I64,
}  # fmt: skip
"""The LLVM type of an element in memory; the narrow floats travel as their bits."""

REGISTER = {**MEMORY, "float16": FLOAT, "bfloat16": FLOAT, "bool": I1}
"""The LLVM type of an element in a register."""

BITS = {"half": 16, FLOAT: 32, DOUBLE: 64, I1: 1, I8: 8, I16: 16, I32: 32, I64: 64, POINTER: 64}
_MANGLED = {FLOAT: "f32", DOUBLE: "f64", POINTER: "p0"}


# ------------------------------------------------------------------------- types


@functools.cache
def vector(element: str, lanes: int) -> str:
    """The type of `lanes` elements; one lane is the plain scalar."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


@functools.cache
def parts(kind: str) -> tuple[str, int]:
    """(element, lanes) of a type."""
    if kind[0] != "<":
        return kind, 1
    lanes, element = kind[1:-1].split(" x ")
    return element, int(lanes)


def element_bytes(kind: str) -> int:
    """The size of one element of a type in memory."""
    return max(1, BITS[parts(kind)[0]] // 8)


@functools.cache
def like(kind: str, element: str) -> str:
    """The type with the lanes of `kind` and another element."""
    return vector(element, parts(kind)[1])


@functools.cache
def mangled(kind: str) -> str:
    """The suffix of an overloaded intrinsic."""
    element, lanes = parts(kind)
    name = _MANGLED.get(element, element)
    return name if lanes == 1 else f"v{lanes}{name}"


def literal(number: float, element: str) -> str:
    """A number as LLVM writes it: floats by their bits, so that nothing is rounded on the way."""
    if element == FLOAT:
        number = struct.unpack("f", struct.pack("f", number))[0]
    if element in (FLOAT, DOUBLE):
        return f"0x{struct.unpack('Q', struct.pack('d', number))[0]:016X}"
    if element == I1:
        return "true" if number else "false"
    return str(int(number))


# ------------------------------------------------------------------------- values


class Writer(Protocol):
    """What values need of the function that they belong to."""

    def op(self, kind: str, text: str, depth: int) -> Value:
        """A pure instruction."""

    def effect(self, kind: str, text: str) -> Value:
        """An instruction that stays where it is written."""

    def value(self, operand: Operand | Index, kind: str) -> Value:
        """The operand as a value of this type."""

    def moved(self, kind: str, text: str, base: Value, depth: int) -> Value:
        """An address computed from another."""


class Value:
    """A typed result. Numbers beside it take its type; operators emit one instruction."""

    __slots__ = ("depth", "emit", "text", "type")

    def __init__(self, emit: Writer, kind: str, text: str, depth: int) -> None:
        self.emit = emit
        self.type = kind
        self.text = text
        self.depth = depth

    def __repr__(self) -> str:
        return f"{self.type} {self.text}"

    __hash__ = None  # type: ignore[assignment]  # a value compares by emitting code

    @property
    def is_float(self) -> bool:
        return parts(self.type)[0] in (FLOAT, DOUBLE)

    @property
    def lanes(self) -> int:
        return parts(self.type)[1]

    def _binary(self, other: Operand, integer: str, real: str, *, swap: bool = False) -> Value:
        emit = self.emit
        right = emit.value(other, self.type)
        left = self
        if swap:
            left, right = right, left
        name = real if self.is_float else integer
        pure = integer not in ("udiv", "urem", "sdiv", "srem") or self.is_float
        depth = max(left.depth, right.depth)
        text = f"{name} {self.type} {left.text}, {right.text}"
        return emit.op(self.type, text, depth) if pure else emit.effect(self.type, text)

    def __add__(self, other: Operand) -> Value:
        if type(other) is int and other == 0 and not self.is_float:
            return self
        return self._binary(other, "add", "fadd")

    def __radd__(self, other: Operand) -> Value:
        return self.__add__(other)

    def __sub__(self, other: Operand) -> Value:
        return self._binary(other, "sub", "fsub")

    def __rsub__(self, other: Operand) -> Value:
        return self._binary(other, "sub", "fsub", swap=True)

    def __mul__(self, other: Operand) -> Value:
        if type(other) is int and other == 1:
            return self
        return self._binary(other, "mul", "fmul")

    def __rmul__(self, other: Operand) -> Value:
        return self._binary(other, "mul", "fmul", swap=True)

    def __truediv__(self, other: Operand) -> Value:
        return self._binary(other, "sdiv", "fdiv")

    def __rtruediv__(self, other: Operand) -> Value:
        return self._binary(other, "sdiv", "fdiv", swap=True)

    def __floordiv__(self, other: Operand) -> Value:
        """Unsigned division, as indexes need it."""
        return self._binary(other, "udiv", "fdiv")

    def __mod__(self, other: Operand) -> Value:
        """Unsigned remainder, as indexes need it."""
        return self._binary(other, "urem", "frem")

    def __and__(self, other: Operand) -> Value:
        return self._binary(other, "and", "and")

    def __or__(self, other: Operand) -> Value:
        return self._binary(other, "or", "or")

    def __xor__(self, other: Operand) -> Value:
        return self._binary(other, "xor", "xor")

    def __invert__(self) -> Value:
        return self._binary(-1 if parts(self.type)[0] != I1 else 1, "xor", "xor")

    def __neg__(self) -> Value:
        if self.is_float:
            return self.emit.op(self.type, f"fneg {self.type} {self.text}", self.depth)
        return 0 - self

    def __lshift__(self, other: Operand) -> Value:
        return self._binary(other, "shl", "shl")

    def __rshift__(self, other: Operand) -> Value:
        """Arithmetic shift to the right."""
        return self._binary(other, "ashr", "ashr")

    def logical_shift(self, other: Operand) -> Value:
        """Shift to the right, zeros coming in."""
        return self._binary(other, "lshr", "lshr")

    def compare(self, integer: str, real: str, other: Operand) -> Value:
        """`icmp integer` or `fcmp real`: a value of i1 lanes."""
        right = self.emit.value(other, self.type)
        name = f"fcmp {real}" if self.is_float else f"icmp {integer}"
        text = f"{name} {self.type} {self.text}, {right.text}"
        return self.emit.op(like(self.type, I1), text, max(self.depth, right.depth))

    def __lt__(self, other: Operand) -> Value:
        return self.compare("slt", "olt", other)

    def __le__(self, other: Operand) -> Value:
        return self.compare("sle", "ole", other)

    def __gt__(self, other: Operand) -> Value:
        return self.compare("sgt", "ogt", other)

    def __ge__(self, other: Operand) -> Value:
        return self.compare("sge", "oge", other)

    def below(self, other: Operand) -> Value:
        """Unsigned `<`."""
        return self.compare("ult", "olt", other)

    def equal(self, other: Operand) -> Value:
        return self.compare("eq", "oeq", other)

    def differs(self, other: Operand) -> Value:
        """`!=`; true where either side is NaN."""
        return self.compare("ne", "une", other)

    def is_nan(self) -> Value:
        return self.compare("ne", "uno", self)


class Index:
    """An i64 that is a value plus a constant, kept apart so that addresses share their base."""

    __slots__ = ("constant", "value")

    def __init__(self, value: Value | None, constant: int = 0) -> None:
        self.value = value
        self.constant = constant

    def __repr__(self) -> str:
        return f"Index({self.value}, {self.constant})"

    def __add__(self, other: Integer) -> Index:
        if isinstance(other, int):
            return Index(self.value, self.constant + other)
        other = index(other)
        if self.value is None or other.value is None:
            value = self.value if other.value is None else other.value
        else:
            value = self.value + other.value
        return Index(value, self.constant + other.constant)

    __radd__ = __add__

    def __mul__(self, factor: int) -> Index:
        if factor == 1:
            return self
        if factor == 0 or self.value is None:
            return Index(None, self.constant * factor)
        return Index(self.value * factor, self.constant * factor)

    __rmul__ = __mul__

    @property
    def number(self) -> int | None:
        """The index as a Python number, if it is known."""
        return self.constant if self.value is None else None

    def on(self, emit: Writer) -> Value:
        """The index as one i64 value."""
        if self.value is None:
            return emit.value(self.constant, I64)
        return self.value + self.constant if self.constant else self.value


Operand: TypeAlias = Value | float
Integer: TypeAlias = int | Value | Index


def index(number: Integer) -> Index:
    """Any integer as an Index."""
    if isinstance(number, Index):
        return number
    return Index(None, number) if isinstance(number, int) else Index(number)


class Place:
    """An address: a pointer and a constant number of bytes."""

    __slots__ = ("base", "offset")

    def __init__(self, base: Value, offset: int = 0) -> None:
        self.base = base
        self.offset = offset

    def __add__(self, count: int) -> Place:
        """The place `count` bytes further on; emits nothing."""
        return Place(self.base, self.offset + count)

    def step(self, number: Integer, stride: int = 1) -> Place:
        """The place `number * stride` bytes further on; what is not constant is one instruction."""
        number = index(number)
        offset = self.offset + number.constant * stride
        if number.value is None or stride == 0:
            return Place(self.base, offset)
        emit, value = self.base.emit, number.value
        text = f"getelementptr [{abs(stride)} x i8], ptr {self.base.text}, i64 "
        if stride < 0:
            value = 0 - value
        depth = max(self.base.depth, value.depth)
        return Place(emit.moved(POINTER, text + value.text, self.base, depth), offset)

    @property
    def pointer(self) -> Value:
        if self.offset == 0:
            return self.base
        text = f"getelementptr i8, ptr {self.base.text}, i64 {self.offset}"
        return self.base.emit.moved(POINTER, text, self.base, self.base.depth)
