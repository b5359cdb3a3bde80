"""From graph to kernel body: a value at an index becomes a list of instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from lamina.errors import BatchError, ShapeError
from lamina.ir.elementary import Broadcast, Map
from lamina.ir.graph import Const, Node, Rows
from lamina.ir.indexing import DynamicSlice, DynamicUpdate, Gather
from lamina.ir.movement import Iota, Pad, Reshape, Slice, Transpose
from lamina.ir.random import RandomBits
from lamina.ir.scalar import Cast, StopGradient
from lamina.llvm.kernel import (
    Body,
    Constant,
    Convert,
    Count,
    Guard,
    Inside,
    Instruction,
    Load,
    Lookup,
    Position,
    Random,
    Scalar,
    Store,
)
from lamina.llvm.task import Operand
from lamina.llvm.views import Index, View, moved_index, nowhere, row_major
from lamina.types import numpy_dtype


class Operands:
    """The pointers of a kernel, numbered by first use."""

    def __init__(self) -> None:
        self.list: list[Operand] = []
        self.written: set[int] = set()
        self.wide: set[int] = set()

    def number(self, view: View) -> int:
        operand = Operand(view.buffer, view.loops)
        if operand not in self.list:
            self.list.append(operand)
        return self.list.index(operand)

    def written_number(self, view: View) -> int:
        number = self.number(view)
        self.written.add(number)
        return number


class BodyBuilder:
    """Instructions for values of the graph, over a kernel with `axes` axes.

    memory  gives the views of a stored value: one, or one per partial sum
    local   values that this kernel computes itself, by the instruction that stands for them
    inside  maps that this kernel computes itself; they are evaluated, never loaded
    """

    def __init__(
        self,
        axes: int,
        operands: Operands,
        memory: Callable[[Node], list[View] | None],
        local: dict[Node, Instruction] | None = None,
        inside: Iterable[Node] = (),
    ) -> None:
        self.axes = axes
        self.operands = operands
        self.memory = memory
        self.local = {} if local is None else local
        self.inside = frozenset(inside)
        self.instructions: list[Instruction] = []
        self._positions: dict[Instruction, int] = {}
        self._values: dict[tuple[Node, Index, tuple[Guard, ...]], int] = {}

    def body(self) -> Body:
        return tuple(self.instructions)

    def emit(self, instruction: Instruction) -> int:
        """The position of an instruction; an equal one is used again."""
        if instruction not in self._positions:
            self._positions[instruction] = len(self.instructions)
            self.instructions.append(instruction)
        return self._positions[instruction]

    def store(self, argument: int, view: View, index: Index, dtype: str) -> Store:
        offset, strides = view.address(index) if index else (view.offset, (0,) * self.axes)
        return Store(argument, self.operands.written_number(view), dtype, offset, strides)

    def load(self, view: View, dtype: str, index: Index, guards: tuple[Guard, ...] = ()) -> int:
        offset, strides = view.address(index) if index else (view.offset, (0,) * self.axes)
        return self.emit(Load(self.operands.number(view), dtype, offset, strides, guards))

    def scalar(self, fn: str, *arguments: int, dtype: str) -> int:
        return self.emit(Scalar(fn, arguments, dtype))

    def constant(self, value: float | int | bool, dtype: str) -> int:
        return self.emit(Constant(np.asarray(value).astype(numpy_dtype(dtype)).tobytes(), dtype))

    def value(self, node: Node, index: Index, guards: tuple[Guard, ...] = ()) -> int:
        """The instruction that gives `node` at `index`, reading memory only inside the guards."""
        key = (node, index, guards)
        known = self._values.get(key)
        if known is None:
            known = self._values[key] = self._value(node, index, guards)
        return known

    def _value(self, node: Node, index: Index, guards: tuple[Guard, ...]) -> int:
        if node in self.local:
            return self.emit(self.local[node])
        if node not in self.inside:
            views = self.memory(node)
            if views is not None:
                return self.sum(
                    [self.load(v, node.dtype, index, guards) for v in views], node.dtype
                )
        op = node.op
        match op:
            case Map():
                arguments = tuple(self.value(parent, index, guards) for parent in node.inputs)
                return self.emit(Scalar(op.fn, arguments, node.dtype))
            case Cast():
                return self.emit(Convert(self.value(node.inputs[0], index, guards), node.dtype))
            case StopGradient():
                return self.value(node.inputs[0], index, guards)
            case Const():
                return self.emit(Constant(op.bits, op.dtype))
            case Rows():
                return self.emit(Count(op.factor, op.dtype))
            case Iota():
                coordinate = index[op.axis]
                return self.emit(Position(node.dtype, coordinate.offset, coordinate.strides))
            case RandomBits():
                return self._random(node, op, index)
            case Transpose() | Broadcast() | Slice() | Reshape():
                moved = moved_index(op, node.inputs[0].shape, index)
                if moved is None:
                    raise BatchError(
                        f"{op.name} from {node.inputs[0].type} cannot be read in place"
                    )
                return self.value(node.inputs[0], moved[0], guards)
            case Pad():
                return self._pad(node, op, index, guards)
            case Gather():
                return self._gather(node, op, index, guards)
            case DynamicSlice():
                return self._dynamic_slice(node, index, guards)
            case DynamicUpdate():
                return self._dynamic_update(node, index, guards)
        raise ShapeError(f"{op.name} cannot be computed inside another kernel")

    def sum(self, terms: list[int], dtype: str) -> int:
        """Combine partial sums in a fixed tree."""
        while len(terms) > 1:
            pairs = zip(terms[::2], terms[1::2], strict=False)
            summed = [self.scalar("add", a, b, dtype=dtype) for a, b in pairs]
            terms = summed + terms[len(summed) * 2 :]
        return terms[0]

    def _random(self, node: Node, op: RandomBits, index: Index) -> int:
        views = self.memory(node.inputs[0])
        if views is None:
            raise ShapeError("a random key must be stored")
        axis = op.counted
        row = index[axis] if axis is not None else nowhere(self.axes)
        others = [i for i in range(len(index)) if i != axis]
        within = row_major([index[i] for i in others], tuple(node.shape[i] for i in others))
        if not others:
            within = nowhere(self.axes)
        return self.emit(
            Random(
                self.operands.number(views[0]),
                op.site,
                row.strides,
                within.strides,
                within.offset,
                row.offset,
            )
        )

    def _pad(self, node: Node, op: Pad, index: Index, guards: tuple[Guard, ...]) -> int:
        moved = moved_index(op, node.inputs[0].shape, index)
        if moved is None:
            raise ShapeError("a padding between elements is a kernel of its own")
        where, bounds = moved
        if not bounds:
            return self.value(node.inputs[0], where, guards)
        inner = self.value(node.inputs[0], where, (*guards, *bounds))
        other = self.emit(Constant(op.value, node.dtype))
        inside = self.emit(Inside(bounds))
        return self.scalar("where", inside, inner, other, dtype=node.dtype)

    def _table(self, node: Node) -> View:
        views = self.memory(node)
        if views is None or len(views) != 1:
            raise ShapeError(f"the table of a look-up must be stored, got {node!r}")
        return views[0]

    def _lookup(
        self,
        view: View,
        dtype: str,
        index: Index,
        found: list[tuple[int, int, int]],
        guards: tuple[Guard, ...],
    ) -> int:
        offset, strides = view.address(index)
        number = self.operands.number(view)
        return self.emit(Lookup(number, dtype, offset, strides, tuple(found), guards))

    def _gather(self, node: Node, op: Gather, index: Index, guards: tuple[Guard, ...]) -> int:
        table, where = node.inputs
        axis, batch = op.axis % len(table.shape), op.batch
        own = len(where.shape) - batch
        position = self.value(where, (*index[:batch], *index[axis : axis + own]), guards)
        view = self._table(table)
        coordinates = (*index[:axis], nowhere(self.axes), *index[axis + own :])
        limit = table.shape[axis]
        if not isinstance(limit, int):
            raise BatchError("gather along the batch axis needs the number of rows")
        found = [(position, view.strides[axis], limit)]
        return self._lookup(view, node.dtype, coordinates, found, guards)

    def _dynamic_slice(self, node: Node, index: Index, guards: tuple[Guard, ...]) -> int:
        source, *starts = node.inputs
        view = self._table(source)
        found = []
        for axis, start in enumerate(starts):
            room = source.shape[axis]
            if room == node.shape[axis]:
                continue
            if not isinstance(room, int):
                raise BatchError("a dynamic slice takes the batch axis whole")
            position = self.value(start, (), guards)
            found.append((position, view.strides[axis], room - node.shape[axis] + 1))
        return self._lookup(view, node.dtype, index, found, guards)

    def _dynamic_update(self, node: Node, index: Index, guards: tuple[Guard, ...]) -> int:
        source, patch, *starts = node.inputs
        view = self._table(patch)
        inside, found, rest = [], [], []
        for axis, start in enumerate(starts):
            size, room = patch.shape[axis], source.shape[axis]
            if size == room:
                rest.append(index[axis])
                continue
            if not isinstance(room, int):
                raise BatchError("a dynamic update takes the batch axis whole")
            rest.append(nowhere(self.axes))
            begin = self.emit(Convert(self.value(start, (), guards), "int32"))
            begin = self.scalar(
                "maximum",
                self.scalar("minimum", begin, self.constant(room - size, "int32"), dtype="int32"),
                self.constant(0, "int32"),
                dtype="int32",
            )
            here = self.emit(Position("int32", index[axis].offset, index[axis].strides))
            away = self.scalar("sub", here, begin, dtype="int32")
            below = self.scalar("lt", away, self.constant(size, "int32"), dtype="bool")
            above = self.scalar("ge", away, self.constant(0, "int32"), dtype="bool")
            inside.append(self.scalar("and", below, above, dtype="bool"))
            found.append((away, view.strides[axis], size))
        new = self._lookup(view, node.dtype, tuple(rest), found, guards)
        if not inside:
            return new
        both = inside[0]
        for condition in inside[1:]:
            both = self.scalar("and", both, condition, dtype="bool")
        old = self.value(source, index, guards)
        return self.scalar("where", both, new, old, dtype=node.dtype)
