"""A thin writer of LLVM assembly: typed values with operators, loops, memory, shuffles.

The generators write plain text, which is many times faster than building LLVM's own objects, and
the writer does by construction what LLVM's passes would do: loops are tested at the bottom, pure
operations are shared, and each is placed in the outermost loop in which its arguments exist. So
no LLVM pass has to run before code generation.

Signedness is not part of a type: comparisons, `>>` and conversions of integers are signed unless
their name says otherwise. No fast-math flag is ever written, and nothing that could become a call
of a mathematical library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina.llvm.blocks import Loop, Repeat, When
from lamina.llvm.host import Target
from lamina.llvm.values import (
    BITS,
    DOUBLE,
    FLOAT,
    I1,
    I8,
    I16,
    I32,
    I64,
    MEMORY,
    POINTER,
    REGISTER,
    Index,
    Integer,
    Operand,
    Place,
    Value,
    element_bytes,
    index,
    like,
    literal,
    mangled,
    parts,
    vector,
)

__all__ = [
    "BITS",
    "DOUBLE",
    "FLOAT",
    "I1",
    "I8",
    "I16",
    "I32",
    "I64",
    "MEMORY",
    "POINTER",
    "REGISTER",
    "ZEROS",
    "Emit",
    "Index",
    "Integer",
    "Module",
    "Operand",
    "Place",
    "Target",
    "Value",
    "element_bytes",
    "index",
    "like",
    "literal",
    "mangled",
    "parts",
    "vector",
]

ZEROS = 256  # bytes of the shared block of zeros that loads outside of a guard are sent to


# ------------------------------------------------------------------------- modules


class Module:
    """Declarations, constants and functions, as one LLVM text."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.declarations: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.functions: dict[str, Emit] = {}

    def function(
        self,
        name: str,
        parameters: Sequence[tuple[str, str]],
        result: str = "void",
        *,
        internal: bool = False,
        outermost: bool = False,
    ) -> Emit:
        """Start a function; `parameters` are (type, name) pairs.

        An `outermost` function is called from outside, or by one that is; a module with checked
        accesses adds no parameters to it.
        """
        del outermost
        emit = Emit(self, name, parameters, result, internal=internal)
        self.functions[name] = emit
        return emit

    def declare(self, name: str, result: str, arguments: Sequence[str]) -> None:
        if name not in self.declarations:
            self.declarations[name] = f"declare {result} @{name}({', '.join(arguments)})"

    def table(self, data: bytes, align: int = 64) -> str:
        """The name of a read-only block that holds `data`."""
        body = "".join(f"\\{byte:02X}" for byte in data) if any(data) else ""
        initial = f'c"{body}"' if body else "zeroinitializer"
        text = f"internal unnamed_addr constant [{len(data)} x i8] {initial}, align {align}"
        return self.constants.setdefault(text, f"table{len(self.constants)}")

    def text(self) -> str:
        constants = [f"@{name} = {text}" for text, name in self.constants.items()]
        functions = [function.text() for function in self.functions.values()]
        return "\n".join([*constants, *self.declarations.values(), *functions, ""])


class _Scope:
    """A loop body or a branch: where to put what does not depend on it, and what is known in it."""

    __slots__ = ("known", "slot")

    def __init__(self, slot: list[str]) -> None:
        self.slot = slot
        self.known: dict[str, Value] = {}


class Emit:
    """One function under construction."""

    def __init__(
        self,
        module: Module,
        name: str,
        parameters: Sequence[tuple[str, str]],
        result: str,
        *,
        internal: bool,
    ) -> None:
        self.module = module
        self.target = module.target
        self.lanes = module.target.lanes
        self.name = name
        self.result = result
        self.linkage = "internal " if internal else ""
        self.parameters = [Value(self, kind, f"%{label}", 0) for kind, label in parameters]
        self.block = "entry"
        self._count = 0
        self._entry: list[str] = []
        self._lines: list[str | list[str]] = ["entry:", self._entry]
        self._scopes = [_Scope(self._entry)]

    # --------------------------------------------------------------- instructions

    def fresh(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def op(self, kind: str, text: str, depth: int) -> Value:
        """A pure instruction whose arguments exist at loop depth `depth`: shared and hoisted."""
        scope = self._scopes[depth]
        found = scope.known.get(text)
        if found is None:
            found = Value(self, kind, self.fresh(), depth)
            scope.known[text] = found
            line = f"{found.text} = {text}"
            if depth == len(self._scopes) - 1:
                self._lines.append(line)
            else:
                self._scopes[depth + 1].slot.append(line)
        return found

    def effect(self, kind: str, text: str) -> Value:
        """An instruction that stays where it is written."""
        if kind == "void":
            self._lines.append(text)
            return Value(self, kind, "", self.depth)
        result = Value(self, kind, self.fresh(), self.depth)
        self._lines.append(f"{result.text} = {text}")
        return result

    @property
    def depth(self) -> int:
        return len(self._scopes) - 1

    def pure(self, kind: str, name: str, *arguments: Value) -> Value:
        """A pure instruction from typed arguments, each written with its type."""
        text = ", ".join([f"{a.type} {a.text}" for a in arguments])
        return self.op(kind, f"{name} {text}", max(a.depth for a in arguments))

    def intrinsic(self, name: str, kind: str, *arguments: Value, overload: str = "") -> Value:
        """A pure intrinsic, `llvm.name.overload`; the overload defaults to the result's type."""
        full = f"llvm.{name}.{mangled(overload or kind)}"
        self.module.declare(full, kind, [a.type for a in arguments])
        text = ", ".join([f"{a.type} {a.text}" for a in arguments])
        return self.op(kind, f"call {kind} @{full}({text})", max(a.depth for a in arguments))

    def call(self, name: str, result: str, *arguments: Value) -> Value:
        """Call a function of this module, or one that was declared."""
        text = ", ".join([f"{a.type} {a.text}" for a in arguments])
        return self.effect(result, f"call {result} @{name}({text})")

    def finish(self, result: Value | None = None) -> None:
        """Return from the function."""
        self._lines.append(f"ret {result.type} {result.text}" if result else "ret void")

    def signature(self) -> list[Value]:
        """The parameters as they stand in the text."""
        return self.parameters

    def text(self) -> str:
        lines: list[str] = []
        for line in self._lines:
            if isinstance(line, str):
                lines.append(line)
            else:
                lines.extend(line)
        body = "\n".join(lines)
        signature = ", ".join([f"{p.type} {p.text}" for p in self.signature()])
        head = f"define {self.linkage}{self.result} @{self.name}({signature}) noinline nounwind"
        return f"{head} {{\n{body}\n}}"

    # --------------------------------------------------------------- values

    def value(self, operand: Operand | Index, kind: str) -> Value:
        """The operand itself, or a number as a constant of that type; a scalar is broadcast."""
        if isinstance(operand, Value):
            lanes = parts(kind)[1]
            if lanes > 1 and operand.type[0] != "<":
                return self.splat(operand, lanes)
            return operand
        if isinstance(operand, Index):
            return operand.on(self)
        element, lanes = parts(kind)
        text = literal(operand, element)
        if lanes > 1:
            text = f"splat ({element} {text})"
        return Value(self, kind, text, 0)

    def zeros(self, kind: str) -> Value:
        return Value(self, kind, literal(0, kind) if kind[0] != "<" else "zeroinitializer", 0)

    def row(self, numbers: Sequence[float], element: str) -> Value:
        """A constant vector."""
        text = ", ".join([f"{element} {literal(number, element)}" for number in numbers])
        if len(numbers) == 1:
            return Value(self, element, literal(numbers[0], element), 0)
        return Value(self, vector(element, len(numbers)), f"<{text}>", 0)

    def lane_numbers(self, lanes: int, element: str = I32, stride: int = 1) -> Value:
        """<0, stride, 2 * stride, ...>."""
        return self.row([lane * stride for lane in range(lanes)], element)

    def splat(self, scalar: Value, lanes: int) -> Value:
        """The scalar in every lane."""
        if lanes == 1:
            return scalar
        kind = vector(scalar.type, lanes)
        text = f"insertelement {kind} poison, {scalar.type} {scalar.text}, i64 0"
        first = self.op(kind, text, scalar.depth)
        text = f"shufflevector {kind} {first.text}, {kind} poison, <{lanes} x i32> zeroinitializer"
        return self.op(kind, text, scalar.depth)

    def select(self, condition: Value, yes: Operand, no: Operand, kind: str = "") -> Value:
        """`yes` where the condition holds, else `no`; numbers take the other's type, or `kind`."""
        for side in (yes, no):
            if not kind and isinstance(side, Value):
                kind = side.type
        if condition.lanes > 1:
            kind = vector(parts(kind)[0], condition.lanes)
        return self.pure(kind, "select", condition, self.value(yes, kind), self.value(no, kind))

    def cast(self, name: str, value: Value, element: str) -> Value:
        """A conversion by its LLVM name (`zext`, `sitofp`, ...), lane by lane."""
        kind = like(value.type, element)
        if kind == value.type:
            return value
        text = f"{name} {value.type} {value.text} to {kind}"
        return self.op(kind, text, value.depth)

    def bits(self, value: Value, element: str) -> Value:
        """The same bits as another type of the same width."""
        return self.cast("bitcast", value, element)

    def resize(self, value: Value, element: str, *, signed: bool = True) -> Value:
        """An integer in another width."""
        have, want = BITS[parts(value.type)[0]], BITS[element]
        if have == want:
            return value
        return self.cast("trunc" if want < have else "sext" if signed else "zext", value, element)

    def fma(self, a: Operand, b: Operand, c: Operand) -> Value:
        """a * b + c, rounded once where the CPU can, else twice."""
        kind = next((x.type for x in (a, b, c) if isinstance(x, Value) and x.lanes > 1), "")
        kind = kind or next(x.type for x in (a, b, c) if isinstance(x, Value))
        left, right, third = self.value(a, kind), self.value(b, kind), self.value(c, kind)
        if self.target.has_fma:
            return self.intrinsic("fma", kind, left, right, third)
        return left * right + third

    def sqrt(self, x: Value) -> Value:
        return self.intrinsic("sqrt", x.type, x)

    def abs(self, x: Value) -> Value:
        if x.is_float:
            return self.intrinsic("fabs", x.type, x)
        return self.select(x < 0, 0 - x, x)

    # --------------------------------------------------------------- lanes

    def extract(self, value: Value, lane: int) -> Value:
        element, lanes = parts(value.type)
        if lanes == 1:
            return value
        return self.op(
            element, f"extractelement {value.type} {value.text}, i64 {lane}", value.depth
        )

    def insert(self, value: Value, scalar: Value, lane: int) -> Value:
        text = f"insertelement {value.type} {value.text}, {scalar.type} {scalar.text}, i64 {lane}"
        return self.op(value.type, text, max(value.depth, scalar.depth))

    def gathered(self, scalars: Sequence[Value]) -> Value:
        """A vector from its lanes."""
        if len(scalars) == 1:
            return scalars[0]
        result = Value(self, vector(scalars[0].type, len(scalars)), "poison", 0)
        for lane, scalar in enumerate(scalars):
            result = self.insert(result, scalar, lane)
        return result

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes of `a` followed by `b`, by number; one lane gives a scalar."""
        if len(lanes) == 1:
            lane, count = lanes[0], a.lanes
            return self.extract(a, lane) if lane < count else self.extract(b, lane - count)
        kind = vector(parts(a.type)[0], len(lanes))
        numbers = ", ".join([f"i32 {lane}" for lane in lanes])
        mask = f"<{len(lanes)} x i32> <{numbers}>"
        text = f"shufflevector {a.type} {a.text}, {b.type} {b.text}, {mask}"
        return self.op(kind, text, max(a.depth, b.depth))

    def across(self, value: Value, combine: Callable[[Value, Value], Value]) -> Value:
        """Combine all lanes to a scalar in a fixed tree: the lower half with the upper half."""
        while value.lanes > 1:
            half = value.lanes // 2
            low = self.shuffle(value, value, range(half))
            high = self.shuffle(value, value, range(half, 2 * half))
            value = combine(low, high)
        return value

    def transpose(self, rows: Sequence[Value]) -> list[Value]:
        """n vectors of n lanes (4, 8 or 16), transposed; each shuffle is one x86 instruction."""
        count = len(rows)
        blocks = [self.transpose_blocks(rows[first : first + 4]) for first in range(0, count, 4)]
        columns = [self.transpose_quarters(list(block)) for block in zip(*blocks, strict=True)]
        return [columns[k][quarter] for quarter in range(count // 4) for k in range(4)]

    def transpose_blocks(self, rows: Sequence[Value]) -> list[Value]:
        """4 vectors, transposed inside of each group of 4 lanes."""
        count = rows[0].lanes

        def mix(a: Value, b: Value, lanes: Sequence[int]) -> Value:
            """Four lanes of each group, 0 to 3 of `a` and 4 to 7 of `b`."""
            own = [lane if lane < 4 else lane - 4 + count for lane in lanes]
            return self.shuffle(
                a, b, [first + lane for first in range(0, count, 4) for lane in own]
            )

        a, b, c, d = rows
        found = []
        for half in ((0, 4, 1, 5), (2, 6, 3, 7)):
            one, two = mix(a, b, half), mix(c, d, half)
            found += [mix(one, two, (0, 1, 4, 5)), mix(one, two, (2, 3, 6, 7))]
        return found

    def transpose_quarters(self, rows: Sequence[Value]) -> list[Value]:
        """n / 4 vectors of n lanes, transposed as if each 4 lanes were one element."""

        def take(a: Value, b: Value, quarters: Sequence[int]) -> Value:
            return self.shuffle(a, b, [4 * q + lane for q in quarters for lane in range(4)])

        if len(rows) == 1:
            return list(rows)
        if len(rows) == 2:
            return [take(rows[0], rows[1], (0, 2)), take(rows[0], rows[1], (1, 3))]
        found = []
        for half in ((0, 1, 4, 5), (2, 3, 6, 7)):
            one, two = take(rows[0], rows[1], half), take(rows[2], rows[3], half)
            found += [take(one, two, (0, 2, 4, 6)), take(one, two, (1, 3, 5, 7))]
        return found

    def first_lanes(self, count: Value, lanes: int) -> Value:
        """A mask of the first `count` (i64, at least 0) lanes."""
        numbers = self.lane_numbers(lanes)
        return numbers.compare("slt", "", self.splat(self.resize(count, I32), lanes))

    def any_lane(self, mask: Value) -> Value:
        """Whether a mask holds in any lane."""
        if mask.lanes == 1:
            return mask
        whole = f"i{mask.lanes}"
        number = self.op(whole, f"bitcast {mask.type} {mask.text} to {whole}", mask.depth)
        return number.differs(0)

    def lane_bits(self, mask: Value) -> Value:
        """The lanes of a mask as the lowest bits of an i64."""
        whole = f"i{mask.lanes}"
        number = mask
        if mask.lanes > 1:
            number = self.op(whole, f"bitcast {mask.type} {mask.text} to {whole}", mask.depth)
        return self.op(I64, f"zext {whole} {number.text} to i64", mask.depth)

    # --------------------------------------------------------------- memory

    def zero_block(self) -> Place:
        """`ZEROS` bytes of zeros, read where a guard forbids an address."""
        return Place(self.symbol(self.module.table(bytes(ZEROS))))

    def symbol(self, name: str) -> Value:
        """The address of a constant or a function of the module."""
        return Value(self, POINTER, f"@{name}", 0)

    # Where addresses are made and used: a writer of checked accesses (`checked`) overrides these.

    def moved(self, kind: str, text: str, base: Value, depth: int) -> Value:
        """An address computed from `base`: it points into the same buffer."""
        del base
        return self.op(kind, text, depth)

    def akin(self, value: Value, other: Value) -> Value:
        """The value, which points (if it is an address) into the buffer that `other` points to."""
        del other
        return value

    def reached(
        self, place: Place, kind: str, mask: Value | None, *, writes: bool, invariant: bool = False
    ) -> Value:
        """The address where a value of a type is read or written, in the lanes of the mask."""
        del kind, mask, writes, invariant
        return place.pointer

    def reached_each(self, pointers: Value, element: str, mask: Value, *, writes: bool) -> Value:
        """The addresses where one element each is read or written, in the lanes of the mask."""
        del element, mask, writes
        return pointers

    def reached_bytes(self, place: Place, count: Value, *, writes: bool) -> tuple[Value, Value]:
        """Where bytes are read or written, and how many."""
        del writes
        return place.pointer, count

    def load(
        self,
        place: Place,
        kind: str,
        *,
        mask: Value | None = None,
        align: int = 0,
        invariant: bool = False,
    ) -> Value:
        """Read a scalar or a vector of consecutive elements; lanes outside the mask give zero.

        An `invariant` load may move out of every loop that its address does not depend on: only
        for memory that the function does not write, and only where it is always allowed to read.
        """
        pointer = self.reached(place, kind, mask, writes=False, invariant=invariant)
        align = align or element_bytes(kind)
        if mask is None:
            text = f"load {kind}, ptr {pointer.text}, align {align}"
            return self.op(kind, text, pointer.depth) if invariant else self.effect(kind, text)
        name = f"llvm.masked.load.{mangled(kind)}.p0"
        self.module.declare(name, kind, [POINTER, I32, mask.type, kind])
        return self.effect(
            kind,
            f"call {kind} @{name}(ptr {pointer.text}, i32 {align}, "
            f"{mask.type} {mask.text}, {kind} zeroinitializer)",
        )

    def store(
        self, value: Value, place: Place, *, mask: Value | None = None, align: int = 0
    ) -> None:
        """Write a scalar or consecutive lanes; lanes outside the mask leave memory untouched."""
        align = align or element_bytes(value.type)
        if mask is None:
            pointer = self.reached(place, value.type, None, writes=True)
            text = f"store {value.type} {value.text}, ptr {pointer.text}, align {align}"
            self.effect("void", text)
            return
        lane = _only_lane(mask.text)
        if lane is not None:
            # LLVM 20 makes one store of such a call, and of a narrowed value a store that is too
            # wide (masked.store of a trunc to <16 x i16> writes four bytes).
            here = place + lane * element_bytes(value.type)
            self.store(self.extract(value, lane), here, align=element_bytes(value.type))
            return
        pointer = self.reached(place, value.type, mask, writes=True)
        name = f"llvm.masked.store.{mangled(value.type)}.p0"
        self.module.declare(name, "void", [value.type, POINTER, I32, mask.type])
        text = (
            f"{value.type} {value.text}, ptr {pointer.text}, i32 {align}, {mask.type} {mask.text}"
        )
        self.effect("void", f"call void @{name}({text})")

    def pointers(self, place: Place, offsets: Value, stride: int) -> Value:
        """A vector of addresses, `place + offsets * stride` bytes; offsets are i32 or i64 lanes."""
        base = place.pointer
        text = f"getelementptr [{stride} x i8], ptr {base.text}, {offsets.type} {offsets.text}"
        kind = like(offsets.type, POINTER)
        return self.moved(kind, text, base, max(base.depth, offsets.depth))

    def gather(self, pointers: Value, element: str, mask: Value | None = None) -> Value:
        """Read one element per address; lanes outside the mask give zero."""
        kind = like(pointers.type, element)
        mask = mask or self.value(1, like(pointers.type, I1))
        pointers = self.reached_each(pointers, element, mask, writes=False)
        name = f"llvm.masked.gather.{mangled(kind)}.{mangled(pointers.type)}"
        self.module.declare(name, kind, [pointers.type, I32, mask.type, kind])
        return self.effect(
            kind,
            f"call {kind} @{name}({pointers.type} {pointers.text}, i32 {element_bytes(element)}, "
            f"{mask.type} {mask.text}, {kind} zeroinitializer)",
        )

    def scatter(self, value: Value, pointers: Value, mask: Value | None = None) -> None:
        """Write one element per address."""
        mask = mask or self.value(1, like(pointers.type, I1))
        pointers = self.reached_each(pointers, parts(value.type)[0], mask, writes=True)
        name = f"llvm.masked.scatter.{mangled(value.type)}.{mangled(pointers.type)}"
        self.module.declare(name, "void", [value.type, pointers.type, I32, mask.type])
        self.effect(
            "void",
            f"call void @{name}({value.type} {value.text}, {pointers.type} {pointers.text}, "
            f"i32 {element_bytes(value.type)}, {mask.type} {mask.text})",
        )

    def stack(self, count: int, align: int = 64) -> Place:
        """`count` bytes that live as long as the call."""
        name = self.fresh()
        self._entry.append(f"{name} = alloca [{count} x i8], align {align}")
        return Place(Value(self, POINTER, name, 0))

    def copy(self, to: Place, source: Place, count: Integer) -> None:
        """memcpy of `count` bytes."""
        target, size = self.reached_bytes(to, index(count).on(self), writes=True)
        origin, size = self.reached_bytes(source, size, writes=False)
        name = "llvm.memcpy.p0.p0.i64"
        self.module.declare(name, "void", [POINTER, POINTER, I64, I1])
        text = f"ptr {target.text}, ptr {origin.text}, i64 {size.text}, i1 false"
        self.effect("void", f"call void @{name}({text})")

    def clear(self, to: Place, count: Integer) -> None:
        """Set `count` bytes to zero."""
        target, size = self.reached_bytes(to, index(count).on(self), writes=True)
        self.module.declare("llvm.memset.p0.i64", "void", [POINTER, I8, I64, I1])
        text = f"ptr {target.text}, i8 0, i64 {size.text}, i1 false"
        self.effect("void", f"call void @llvm.memset.p0.i64({text})")

    def prefetch(self, place: Place, *, write: bool = False, locality: int = 2) -> None:
        """Ask for a cache line; locality 3 is the nearest level."""
        self.module.declare("llvm.prefetch.p0", "void", [POINTER, I32, I32, I32])
        text = f"ptr {place.pointer.text}, i32 {int(write)}, i32 {locality}, i32 1"
        self.effect("void", f"call void @llvm.prefetch.p0({text})")

    # --------------------------------------------------------------- control

    def begin(self, label: str) -> None:
        self._lines.append(f"{label}:")
        self.block = label

    def label(self) -> str:
        self._count += 1
        return f"b{self._count}"

    def open_scope(self) -> None:
        slot: list[str] = []
        self._lines.append(slot)
        self._scopes.append(_Scope(slot))

    def close_scope(self) -> None:
        self._scopes.pop()

    def reserve(self) -> list[str]:
        """An empty stretch of lines here, to be filled in later."""
        lines: list[str] = []
        self._lines.append(lines)
        return lines

    def loop(
        self,
        start: Integer,
        stop: Integer,
        step: int = 1,
        carry: Sequence[Value] = (),
        *,
        nonempty: bool = False,
    ) -> Loop:
        """`for index in range(start, stop, step)`, step > 0, with values carried round.

            with emit.loop(0, count, carry=[zero]) as k:
                k.next = [k.carry[0] + emit.load(place.step(k.index, 4), "float")]
            total, = k.result

        A loop known to run exactly once becomes straight code. `nonempty` promises that it runs.
        """
        return Loop(self, index(start), index(stop), step, list(carry), nonempty=nonempty)

    def repeat(self) -> Repeat:
        """Run the block again and again, until a condition that it states fails.

        with emit.repeat() as again:
            again.only_if(emit.load(place, "i8").differs(0))
            ...
        """
        return Repeat(self)

    def when(self, condition: Value) -> When:
        """Run the block only if the condition (i1) holds."""
        return When(self, condition)

    def choose(
        self,
        condition: Value,
        yes: Callable[[], Sequence[Value]],
        no: Callable[[], Sequence[Value]],
    ) -> list[Value]:
        """The values of the branch that is taken; only that branch is run."""
        labels = self.label(), self.label(), self.label()
        branch = f"br i1 {condition.text}, label %{labels[0]}, label %{labels[1]}"
        results: list[list[Value]] = []
        ends: list[str] = []
        slot = self.reserve()
        self._lines.append(branch)
        for label, side in zip(labels, (yes, no), strict=False):
            self._scopes.append(_Scope(slot))
            self.begin(label)
            results.append(list(side()))
            ends.append(self.block)
            self._lines.append(f"br label %{labels[2]}")
            self.close_scope()
        self.begin(labels[2])
        return [
            self.effect(a.type, f"phi {a.type} [{a.text}, %{ends[0]}], [{b.text}, %{ends[1]}]")
            for a, b in zip(*results, strict=True)
        ]


def _only_lane(mask: str) -> int | None:
    """The one lane that a constant mask lets through; None if there are others, or none."""
    lanes = mask.removeprefix("<").removesuffix(">").split(", ")
    if lanes.count("i1 true") != 1 or lanes.count("i1 false") != len(lanes) - 1:
        return None
    return lanes.index("i1 true")
