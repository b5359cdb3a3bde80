"""The same kernels with every access of memory checked: `LAMINA_CHECK=bounds`.

A pointer of a checked module knows its *extent*: where the buffer begins that it points into, how
long it is, and which operand it is. Extents follow pointers through address arithmetic, selects,
loops and calls; each load, store, gather, scatter, copy and clear asks `lamina_checked` first, with
its number of bytes (under a mask, with the lanes that are on). What lies outside is written down
in the fault area of the call (`faults`), once, and goes to blank bytes there.

Generators know nothing of this: `Emit` offers the places where an address is made and used, and
the writer here fills them in. Hoisted loads are checked where they are hoisted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina.errors import LaminaError
from lamina.llvm import faults
from lamina.llvm.emit import (
    I1,
    I64,
    POINTER,
    Emit,
    Integer,
    Module,
    Operand,
    Place,
    Value,
    element_bytes,
    index,
    parts,
)
from lamina.llvm.host import Target


class UncheckedError(LaminaError, RuntimeError):
    """A kernel accesses memory of unknown extent: an error of lamina's generators."""


@dataclass(frozen=True)
class Extent:
    """The buffer that a pointer points into: its begin, its bytes (i64), its operand (i64)."""

    begin: Value
    size: Value
    operand: Value

    def values(self) -> tuple[Value, Value, Value]:
        return self.begin, self.size, self.operand


class Pointer(Value):
    """An address, or a vector of addresses, with its extent."""

    __slots__ = ("extent",)

    def __init__(self, value: Value, extent: Extent) -> None:
        super().__init__(value.emit, value.type, value.text, value.depth)
        self.extent = extent


class CheckedModule(Module):
    """A module whose functions are `CheckedEmit`s."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.sizes: dict[str, int] = {}
        for name in ("llvm.cttz.i64", "llvm.ctlz.i64"):
            self.declare(name, I64, [I64, I1])

    def function(
        self,
        name: str,
        parameters: Sequence[tuple[str, str]],
        result: str = "void",
        *,
        internal: bool = False,
        outermost: bool = False,
    ) -> CheckedEmit:
        emit = CheckedEmit(self, name, parameters, result, internal=internal, outermost=outermost)
        self.functions[name] = emit
        return emit

    def table(self, data: bytes, align: int = 64) -> str:
        name = super().table(data, align)
        self.sizes[name] = len(data)
        return name

    def text(self) -> str:
        return f"{super().text()}\n{_CHECKS}"


class CheckedEmit(Emit):
    """One function under construction; behind its own parameters it gets those of the checks.

    An `outermost` function is called from outside and has no more parameters than it says: in it
    memory of unknown extent may be accessed, and `report` names the fault area and the task.
    """

    def __init__(
        self,
        module: CheckedModule,
        name: str,
        parameters: Sequence[tuple[str, str]],
        result: str,
        *,
        internal: bool,
        outermost: bool,
    ) -> None:
        super().__init__(module, name, parameters, result, internal=internal)
        self.sizes = module.sizes
        self.outermost = outermost
        self.fault = Value(self, POINTER, "%fault", 0)
        self.task = Value(self, I64, "%task", 0)
        self.hidden: list[Value] = []
        if outermost:
            return
        for position, parameter in enumerate(self.parameters):
            if parameter.type == POINTER:
                label = parameter.text
                extent = Extent(
                    Value(self, POINTER, f"{label}.begin", 0),
                    Value(self, I64, f"{label}.size", 0),
                    Value(self, I64, f"{label}.operand", 0),
                )
                self.hidden += extent.values()
                self.parameters[position] = Pointer(parameter, extent)
        self.hidden += [self.fault, self.task]

    def signature(self) -> list[Value]:
        return [*self.parameters, *self.hidden]

    def report(self, fault: Value, task: int) -> None:
        """Where an outermost function and what it calls from here on report to, and as which."""
        self.fault, self.task = fault, self.value(task, I64)

    # --------------------------------------------------------------- extents

    def bounded(self, pointer: Value, begin: Value, size: Integer, operand: int) -> Value:
        """The pointer, into the `size` bytes from `begin` on that are operand number `operand`."""
        extent = Extent(begin, index(size).on(self), self.value(operand, I64))
        return Pointer(pointer, extent)

    def moved(self, kind: str, text: str, base: Value, depth: int) -> Value:
        return self.akin(super().moved(kind, text, base, depth), base)

    def akin(self, value: Value, other: Value) -> Value:
        return Pointer(value, other.extent) if isinstance(other, Pointer) else value

    def select(self, condition: Value, yes: Operand, no: Operand, kind: str = "") -> Value:
        found = super().select(condition, yes, no, kind)
        if isinstance(yes, Pointer) and isinstance(no, Pointer):
            pairs = zip(yes.extent.values(), no.extent.values(), strict=True)
            return Pointer(found, Extent(*(self.select(condition, a, b) for a, b in pairs)))
        return found

    def symbol(self, name: str) -> Value:
        found = super().symbol(name)
        return self.bounded(found, found, self.sizes[name], faults.CONSTANT)

    def stack(self, count: int, align: int = 64) -> Place:
        found = super().stack(count, align).base
        return Place(self.bounded(found, found, count, faults.STACK))

    def call(self, name: str, result: str, *arguments: Value) -> Value:
        function = self.module.functions.get(name)
        if not isinstance(function, CheckedEmit) or function.outermost:
            return super().call(name, result, *arguments)
        hidden: list[Value] = []
        for argument in arguments:
            if argument.type == POINTER:
                hidden += self._extent(argument).values()
        return super().call(name, result, *arguments, *hidden, self.fault, self.task)

    def _extent(self, pointer: Value) -> Extent:
        if isinstance(pointer, Pointer):
            return pointer.extent
        raise UncheckedError(f"{self.name}: {pointer.text} points to memory of unknown extent")

    # --------------------------------------------------------------- accesses

    def reached(
        self, place: Place, kind: str, mask: Value | None, *, writes: bool, invariant: bool = False
    ) -> Value:
        pointer = place.pointer
        if not isinstance(pointer, Pointer) and self.outermost:
            return pointer
        element, lanes = parts(kind)
        size = element_bytes(element)
        if mask is None:
            return self._checked(pointer, self.value(size * lanes, I64), writes, invariant)
        return self._checked_lanes(pointer, size, mask, pointer, writes)

    def reached_each(self, pointers: Value, element: str, mask: Value, *, writes: bool) -> Value:
        size = element_bytes(element)
        found = pointers
        for lane in range(pointers.lanes):
            here, on = self.extract(pointers, lane), self.extract(mask, lane)
            safe = self._checked_lanes(here, size, on, pointers, writes)
            found = self.insert(found, safe, lane)
        return found

    def reached_bytes(self, place: Place, count: Value, *, writes: bool) -> tuple[Value, Value]:
        pointer = place.pointer
        if not isinstance(pointer, Pointer) and self.outermost:
            return pointer, count
        safe = self._checked(pointer, count, writes, invariant=False)
        return safe, self.select(safe.equal(pointer), count, 0)

    def _checked(self, pointer: Value, count: Value, writes: bool, invariant: bool) -> Value:
        return self._ask("lamina_checked", [pointer, count], pointer, writes, invariant)

    def _checked_lanes(
        self, pointer: Value, size: int, mask: Value, source: Value, writes: bool
    ) -> Value:
        """For elements of `size` bytes in the lanes of a mask, one behind the other."""
        whole = f"i{mask.lanes}"
        number = mask
        if mask.lanes > 1:
            text = f"bitcast {mask.type} {mask.text} to {whole}"
            number = self.op(whole, text, mask.depth)
        number = self.op(I64, f"zext {whole} {number.text} to i64", number.depth)
        arguments = [pointer, self.value(size, I64), number]
        return self._ask("lamina_checked_lanes", arguments, source, writes, invariant=False)

    def _ask(
        self, name: str, arguments: list[Value], source: Value, writes: bool, invariant: bool
    ) -> Value:
        arguments = [*arguments, *self._extent(source).values(), self.fault, self.task]
        arguments.append(self.value(int(writes), I1))
        text = ", ".join([f"{a.type} {a.text}" for a in arguments])
        line = f"call {POINTER} @{name}({text})"
        if invariant:
            return self.op(POINTER, line, max(a.depth for a in arguments))
        return self.effect(POINTER, line)


_EXTENT = "ptr %begin, i64 %size, i64 %operand, ptr %fault, i64 %task, i1 %writes"


def _note(offset: int, value: str) -> str:
    return f"""  %at{offset} = getelementptr i8, ptr %fault, i64 {offset}
  store i64 {value}, ptr %at{offset}, align 8"""


_CHECKS = f"""
define ptr @lamina_checked(ptr %place, i64 %bytes, {_EXTENT}) noinline nounwind {{
entry:
  %number = ptrtoint ptr %place to i64
  %first = ptrtoint ptr %begin to i64
  %offset = sub i64 %number, %first
  %room = sub i64 %size, %bytes
  %fits = icmp sle i64 %bytes, %size
  %inside = icmp ule i64 %offset, %room
  %good = and i1 %fits, %inside
  br i1 %good, label %done, label %bad
bad:
  %blank = getelementptr i8, ptr %fault, i64 {faults.BLANK}
  %pair = cmpxchg ptr %fault, i64 0, i64 1 acq_rel monotonic
  %taken = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %taken, label %note, label %known
note:
  %written = zext i1 %writes to i64
{_note(faults.TASK, "%task")}
{_note(faults.OPERAND, "%operand")}
{_note(faults.OFFSET, "%offset")}
{_note(faults.BYTES, "%bytes")}
{_note(faults.SIZE, "%size")}
{_note(faults.WRITES, "%written")}
  ret ptr %blank
known:
  ret ptr %blank
done:
  ret ptr %place
}}
define ptr @lamina_checked_lanes(
  ptr %place, i64 %element, i64 %lanes, {_EXTENT}) noinline nounwind {{
entry:
  %none = icmp eq i64 %lanes, 0
  br i1 %none, label %fine, label %some
some:
  %low = call i64 @llvm.cttz.i64(i64 %lanes, i1 true)
  %above = call i64 @llvm.ctlz.i64(i64 %lanes, i1 true)
  %reach = sub i64 64, %above
  %count = sub i64 %reach, %low
  %skipped = mul i64 %low, %element
  %bytes = mul i64 %count, %element
  %from = getelementptr i8, ptr %place, i64 %skipped
  %found = call ptr @lamina_checked(ptr %from, i64 %bytes, {_EXTENT})
  %same = icmp eq ptr %found, %from
  br i1 %same, label %fine, label %bad
fine:
  ret ptr %place
bad:
  ret ptr %found
}}
"""
