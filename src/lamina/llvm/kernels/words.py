"""Words of narrow numbers: several neighbouring terms of a sum in 32 bits, multiplied at once.

    dtype      a word            one instruction for every lane     where
    int8       4 terms, 8 bits   vpdpbusd (unsigned times signed)   AVX-512 VNNI, AVX-VNNI
    int8       4 terms, 8 bits   sdot                               Arm with dotprod
    int8       2 terms, 16 bits  vpmaddwd, and an addition          any x86
    bfloat16   2 terms           vdpbf16ps, bfdot                   AVX-512 BF16, Arm with bf16
    halves     1 term, float32   fused multiply-add                 elsewhere

Sums of int8 are exact in int32 whichever way. `vdpbf16ps` and `bfdot` take denormals as zero and
round a pair of products their own way, so sums of bfloat16 may differ in their last bits from one
target to another.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina.llvm import maths
from lamina.llvm.emit import FLOAT, I8, I16, I32, Emit, Value, vector
from lamina.llvm.host import Target

# Added to an int8, 128 makes it unsigned: the bits are those of -128 as an int8, and four times in
# a word.
_SPLIT_SIGN, _SPLIT_SIGNS = -0x80, 0x80808080 - (1 << 32)


@dataclass(frozen=True)
class Words:
    """How a target multiplies words of a dtype.

    terms      of the sum in a word
    element    the type of a term inside of a word
    function   the intrinsic's name, and the elements of its operands as LLVM declares them
    adds       whether the instruction adds to its first argument
    unsigned   whether it takes the left side as unsigned numbers, 128 more than they are
    """

    dtype: str
    terms: int
    element: str
    function: str = ""
    declared: str = I32
    adds: bool = True
    unsigned: bool = False

    @property
    def register(self) -> str:
        """The type of a word in a vector."""
        return FLOAT if self.terms == 1 else I32

    @property
    def sums(self) -> str:
        """The type of a sum."""
        return I32 if self.dtype == "int8" else FLOAT

    def left(self, emit: Emit, value: Value) -> Value:
        """Terms of the left side, as they came from memory, as elements of words."""
        if self.dtype != "int8":
            return value if self.terms > 1 else maths.widen(emit, value, self.dtype)
        if self.unsigned:
            return value ^ _SPLIT_SIGN
        return emit.resize(value, self.element)

    def zero(self, emit: Emit, lanes: int) -> Value:
        """Elements of the left side that count nothing."""
        number = _SPLIT_SIGN if self.unsigned else 0
        return emit.value(number, vector(self.element, lanes))

    def right(self, emit: Emit, terms: list[Value]) -> Value:
        """Words of the right side: a vector for each term, as it came from memory."""
        if self.terms == 1:
            return maths.widen(emit, terms[0], self.dtype)
        width = 32 // self.terms
        wide = [emit.resize(emit.resize(one, self.element), I32, signed=False) for one in terms]
        word = wide[0]
        for number, one in enumerate(wide[1:], 1):
            word |= one << (width * number)
        return word

    def multiply(self, emit: Emit, a: Value, b: Value, total: Value) -> Value:
        """The total and the products of all terms in the words of both sides."""
        if self.terms == 1:
            return emit.fma(a, b, total)
        ratio = {I32: 1, I16: 2, "bfloat": 2, I8: 4}[self.declared]
        kind = vector(self.declared, a.lanes * ratio)
        sides = [_as(emit, side, kind) for side in (a, b)]
        arguments = [total, *sides] if self.adds else sides
        emit.module.declare(self.function, total.type, [one.type for one in arguments])
        text = ", ".join(f"{one.type} {one.text}" for one in arguments)
        depth = max(one.depth for one in arguments)
        found = emit.op(total.type, f"call {total.type} @{self.function}({text})", depth)
        return found if self.adds else total + found

    def surplus(self, emit: Emit, b: Value, total: Value) -> Value:
        """The total and what 128 too many on the left side would add to it."""
        return self.multiply(emit, emit.value(_SPLIT_SIGNS, b.type), b, total)


def words(dtype: str, target: Target) -> Words | None:
    """The best words of a dtype on a target; None where the target has no use for them."""
    bits = target.vector_bytes * 8
    if dtype == "int8":
        if target.has("avx512vnni") if target.has_masks else target.has("avxvnni"):
            return Words(dtype, 4, I8, f"llvm.x86.avx512.vpdpbusd.{bits}", unsigned=True)
        if target.architecture == "x86_64":
            name = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}
            return Words(dtype, 2, I16, f"llvm.x86.{name[target.lanes]}", I16, adds=False)
        if target.has("dotprod"):
            return Words(dtype, 4, I8, "llvm.aarch64.neon.sdot.v4i32.v16i8", I8)
        return None
    if dtype == "bfloat16" and target.has("avx512bf16"):
        return Words(dtype, 2, I16, f"llvm.x86.avx512bf16.dpbf16ps.{bits}", "bfloat")
    if dtype == "bfloat16" and target.has("bf16") and target.architecture == "aarch64":
        return Words(dtype, 2, I16, "llvm.aarch64.neon.bfdot.v4f32.v8bf16", "bfloat")
    return Words(dtype, 1, FLOAT) if dtype in maths.NARROW else None


def _as(emit: Emit, value: Value, kind: str) -> Value:
    """The same bits as a vector of another type."""
    if value.type == kind:
        return value
    return emit.op(kind, f"bitcast {value.type} {value.text} to {kind}", value.depth)
