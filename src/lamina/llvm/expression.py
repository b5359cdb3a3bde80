"""Evaluate the body of a kernel at a point, or at a vector of neighbouring points.

What does not depend on the vector's axis is computed once as a scalar and broadcast where a vector
needs it. Memory outside of guards or beyond the tail is never touched: a scalar guard sends its
load to a block of zeros instead, a guard that differs between lanes becomes a mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lamina.errors import LaminaError
from lamina.llvm import maths
from lamina.llvm.emit import (
    DOUBLE,
    FLOAT,
    I1,
    I8,
    I32,
    I64,
    MEMORY,
    REGISTER,
    Emit,
    Index,
    Place,
    Value,
    parts,
    vector,
)
from lamina.llvm.kernel import (
    Body,
    Constant,
    Convert,
    Core,
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
from lamina.types import UNSIGNED, itemsize, numpy_dtype


class KernelError(LaminaError, RuntimeError):
    """A kernel specification that no generator can follow: an error of lamina's planner."""


@dataclass(frozen=True)
class Point:
    """Where a body is evaluated.

    indexes  the index on each axis of the kernel; of the first lane on the vector's axis
    axis     the vector's axis; None for a single point
    lanes    how many neighbouring points along `axis`
    mask     which lanes are inside of the kernel's range (i1 lanes); None if all are
    hoist    whether loads may move out of loops: not where the point itself may not exist
    reach    where the indexes of all lanes are known to lie on `axis`, as (first, last + 1)
    """

    indexes: tuple[Index, ...]
    axis: int | None = None
    lanes: int = 1
    mask: Value | None = None
    hoist: bool = True
    reach: tuple[int, int] | None = None

    def stride(self, strides: Sequence[int]) -> int:
        """How far apart two neighbouring lanes are."""
        return strides[self.axis] if self.axis is not None and self.lanes > 1 else 0


@dataclass
class Expression:
    """A body with the operands that it reads, and the count of rows present."""

    emit: Emit
    body: Body
    operands: Sequence[Value]
    rows: Value
    _closures: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def closure(self, number: int) -> tuple[int, ...]:
        """The instructions that instruction `number` needs, itself included, in order."""
        found = self._closures.get(number)
        if found is None:
            needed = {number}
            for argument in arguments(self.body[number]):
                needed.update(self.closure(argument))
            found = self._closures[number] = tuple(sorted(needed))
        return found

    def at(self, point: Point, cores: Sequence[Value] = ()) -> Evaluation:
        return Evaluation(self, point, cores)


def arguments(instruction: Instruction) -> tuple[int, ...]:
    """The positions of the instructions that this one reads."""
    match instruction:
        case Scalar(arguments=positions):
            return positions
        case Convert(argument=position):
            return (position,)
        case Lookup(indexes=indexes):
            return tuple(position for position, _, _ in indexes)
        case _:
            return ()


# ------------------------------------------------------------------------- addresses


def affine(point: Point, strides: Sequence[int], offset: int) -> Index:
    """`offset + sum(index * strides)` at the first lane."""
    total = Index(None, offset)
    for number, stride in _by_depth(point, strides):
        total += number * stride
    return total


def _by_depth(point: Point, strides: Sequence[int]) -> list[tuple[Index, int]]:
    """Indexes with their strides, outer loops first, so that partial sums leave the inner ones."""
    terms = [(i, s) for i, s in zip(point.indexes, strides, strict=True) if s]
    terms.sort(key=lambda term: term[0].value.depth if term[0].value is not None else -1)
    return terms


def place(operand: Value, point: Point, strides: Sequence[int], offset: int, dtype: str) -> Place:
    """The address of the first lane."""
    size = itemsize(dtype)
    found = Place(operand, offset * size)
    for number, stride in _by_depth(point, strides):
        found = found.step(number, stride * size)
    return found


@dataclass(frozen=True)
class Bounds:
    """Guards at a point: a Python truth, a condition for all lanes, and a mask of lanes."""

    possible: bool
    scalar: Value | None
    mask: Value | None


def bounds(emit: Emit, point: Point, guards: Iterable[Guard]) -> Bounds:
    """Evaluate guards: what is known now, what holds for all lanes, what differs between them."""
    scalar: Value | None = None
    mask: Value | None = None
    for guard in guards:
        low = affine(point, guard.strides, guard.offset - guard.low)
        extent = guard.high - guard.low
        stride = point.stride(guard.strides)
        if extent <= 0:
            return Bounds(False, None, None)
        if stride == 0:
            if low.number is not None:
                if not 0 <= low.number < extent:
                    return Bounds(False, None, None)
                continue
            inside = low.on(emit).below(extent)
            scalar = inside if scalar is None else scalar & inside
        else:
            first = emit.splat(emit.resize(low.on(emit), I32), point.lanes)
            lanes = first + emit.lane_numbers(point.lanes, I32, stride)
            inside = lanes.below(extent)
            mask = inside if mask is None else mask & inside
    return Bounds(True, scalar, mask)


def _settled(point: Point, guard: Guard) -> bool | None:
    """Whether a guard on the vector's axis alone holds in all of the reach, or in none of it."""
    axis = point.axis
    if axis is None or point.reach is None or not guard.strides[axis]:
        return None
    if any(stride for number, stride in enumerate(guard.strides) if number != axis):
        return None
    first, last = point.reach[0], point.reach[1] - 1
    ends = sorted(guard.offset + guard.strides[axis] * number for number in (first, last))
    if guard.low <= ends[0] and ends[1] < guard.high:
        return True
    return False if ends[1] < guard.low or ends[0] >= guard.high else None


def both(one: Value | None, other: Value | None) -> Value | None:
    """The conjunction of two optional masks."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


# ------------------------------------------------------------------------- memory


def from_memory(emit: Emit, value: Value, dtype: str) -> Value:
    """What was loaded, as it is computed with: bool as i1, the narrow floats as float32."""
    if dtype == "bool":
        return value.differs(0)
    if dtype in {"float16", "bfloat16"}:
        return maths.widen(emit, value, dtype)
    return value


def to_memory(emit: Emit, value: Value, dtype: str) -> Value:
    """The reverse of `from_memory`, rounding the narrow floats to nearest even."""
    if dtype == "bool":
        return emit.cast("zext", value, I8)
    if dtype in {"float16", "bfloat16"}:
        return maths.narrow(emit, value, dtype)
    return value


def load_lanes(
    emit: Emit, start: Place, dtype: str, stride: int, point: Point, inside: Bounds
) -> Value:
    """`point.lanes` elements `stride` apart from `start` on; zeros outside of masks and guards."""
    element = MEMORY[dtype]
    size = itemsize(dtype)
    lanes = point.lanes
    mask = both(point.mask, inside.mask)
    kind = vector(element, lanes)
    if inside.scalar is not None:
        start = sheltered(emit, start, inside.scalar)
        if stride != 1:
            mask = both(mask, emit.splat(inside.scalar, lanes))
    hoist = point.hoist and inside.scalar is None
    if stride == 1 and (mask is None or emit.target.has_masks):
        return emit.load(start, kind, mask=mask, invariant=hoist and mask is None)
    if stride == -1 and mask is None:
        value = emit.load(start + (1 - lanes) * size, kind, invariant=hoist)
        return emit.shuffle(value, value, range(lanes - 1, -1, -1))
    if emit.target.has_masks and size >= 4:
        offsets = emit.lane_numbers(lanes, I32, stride)
        return emit.gather(emit.pointers(start, offsets, size), element, mask)
    values = []
    for lane in range(lanes):
        here = start + lane * stride * size
        if mask is not None:
            here = sheltered(emit, here, emit.extract(mask, lane))
        values.append(emit.load(here, element, invariant=hoist and mask is None))
    return emit.gathered(values)


def sheltered(emit: Emit, start: Place, condition: Value) -> Place:
    """The place if the condition holds, else a block of zeros."""
    zeros = emit.zero_block().pointer
    return Place(emit.select(condition, start.pointer, zeros))


def store_lanes(
    emit: Emit, value: Value, start: Place, dtype: str, stride: int, point: Point
) -> None:
    """Write `point.lanes` elements `stride` apart from `start` on, those of the mask only."""
    value = to_memory(emit, value, dtype)
    size = itemsize(dtype)
    if point.lanes == 1 or stride == 1:
        emit.store(value, start, mask=point.mask)
    elif stride == 0:
        raise KernelError("a store must move along the vector's axis")
    elif emit.target.has_masks and size >= 4:
        offsets = emit.lane_numbers(point.lanes, I32, stride)
        emit.scatter(value, emit.pointers(start, offsets, size), point.mask)
    else:
        for lane in range(point.lanes):
            here = start + lane * stride * size
            if point.mask is None:
                emit.store(emit.extract(value, lane), here)
            else:
                with emit.when(emit.extract(point.mask, lane)):
                    emit.store(emit.extract(value, lane), here)


# ------------------------------------------------------------------------- evaluation


class Evaluation:
    """The values of a body at one point, each computed when it is first asked for."""

    def __init__(self, expression: Expression, point: Point, cores: Sequence[Value]) -> None:
        self.expression = expression
        self.emit = expression.emit
        self.point = point
        self.cores = list(cores)
        self.known: dict[int, Value] = {}

    def value(self, number: int) -> Value:
        """Instruction `number`: a scalar if it is the same in all lanes, else a vector."""
        known = self.known
        for position in self.expression.closure(number):
            if position not in known:
                known[position] = self._compute(self.expression.body[position])
        return known[number]

    def lanes(self, number: int) -> Value:
        """Instruction `number` with as many lanes as the point has."""
        value = self.value(number)
        if value.lanes != self.point.lanes:
            value = self.emit.splat(value, self.point.lanes)
        return value

    def store(self, stores: Iterable[Store]) -> None:
        """Evaluate everything, then store it."""
        ready = [(store, self.lanes(store.argument)) for store in stores]
        for store, value in ready:
            start = place(
                self.expression.operands[store.operand],
                self.point,
                store.strides,
                store.offset,
                store.dtype,
            )
            stride = self.point.stride(store.strides)
            store_lanes(self.emit, value, start, store.dtype, stride, self.point)

    def _compute(self, instruction: Instruction) -> Value:
        emit = self.emit
        match instruction:
            case Load():
                return self._load(instruction)
            case Lookup():
                return self._lookup(instruction)
            case Constant(bits, dtype):
                return constant(emit, bits, dtype)
            case Position(dtype, offset, strides):
                return self._position(dtype, offset, strides)
            case Count(factor, dtype):
                return maths.convert(emit, self.expression.rows * factor, "int64", dtype)
            case Core(number):
                return self.cores[number]
            case Scalar(fn, positions, dtype):
                body = self.expression.body
                values = [self.known[position] for position in positions]
                widest = max(value.lanes for value in values)
                values = [
                    value if value.lanes == widest else emit.splat(value, widest)
                    for value in values
                ]
                return maths.apply(emit, fn, values, [body[p].dtype for p in positions], dtype)
            case Convert(position, dtype):
                source = self.expression.body[position].dtype
                return maths.convert(emit, self.known[position], source, dtype)
            case Inside(guards):
                inside = bounds(emit, self.point, guards)
                result = both(_spread(emit, inside.scalar, inside.mask), inside.mask)
                if result is None or not inside.possible:
                    return emit.value(int(inside.possible), I1)
                return result
            case Random():
                return self._random(instruction)

    def _load(self, load: Load) -> Value:
        emit, point = self.emit, self.point
        inside = bounds(emit, point, load.guards)
        kind = REGISTER[load.dtype]
        if not inside.possible:
            return emit.zeros(kind)
        operand = self.expression.operands[load.operand]
        start = place(operand, point, load.strides, load.offset, load.dtype)
        stride = point.stride(load.strides)
        if stride:
            found = load_lanes(emit, start, load.dtype, stride, point, inside)
            return from_memory(emit, found, load.dtype)
        return self._same(start, load.dtype, inside)

    def _same(self, start: Place, dtype: str, inside: Bounds) -> Value:
        """An element that all lanes share."""
        emit = self.emit
        allowed = inside.scalar
        if inside.mask is not None:
            allowed = both(allowed, emit.any_lane(inside.mask))
        if allowed is not None:
            start = sheltered(emit, start, allowed)
        hoist = self.point.hoist and allowed is None
        found = from_memory(emit, emit.load(start, MEMORY[dtype], invariant=hoist), dtype)
        if inside.mask is None:
            return found
        lanes = inside.mask.lanes
        return emit.select(
            inside.mask, emit.splat(found, lanes), emit.zeros(vector(found.type, lanes))
        )

    def _lookup(self, lookup: Lookup) -> Value:
        emit, point = self.emit, self.point
        inside = bounds(emit, point, lookup.guards)
        if not inside.possible:
            return emit.zeros(REGISTER[lookup.dtype])
        operand = self.expression.operands[lookup.operand]
        start = place(operand, point, lookup.strides, lookup.offset, lookup.dtype)
        size = itemsize(lookup.dtype)
        varying: list[tuple[Value, int]] = []
        for position, stride, limit in lookup.indexes:
            number = self._clamped(position, limit)
            if number.lanes == 1:
                start = start.step(number, stride * size)
            else:
                varying.append((number, stride))
        stride = point.stride(lookup.strides)
        if not varying:
            if not stride:
                return self._same(start, lookup.dtype, inside)
            found = load_lanes(emit, start, lookup.dtype, stride, point, inside)
            return from_memory(emit, found, lookup.dtype)
        offsets = emit.lane_numbers(point.lanes, I64, stride)
        for number, step in varying:
            offsets = offsets + number * step
        mask = both(point.mask, inside.mask)
        if inside.scalar is not None:
            mask = both(mask, emit.splat(inside.scalar, point.lanes))
        return from_memory(emit, self._gather(start, offsets, lookup.dtype, mask), lookup.dtype)

    def _clamped(self, position: int, limit: int) -> Value:
        """An index as i64, at least 0 and below the limit."""
        emit = self.emit
        number = self.known[position]
        unsigned = self.expression.body[position].dtype in {*UNSIGNED, "bool"}
        number = emit.resize(number, I64, signed=not unsigned)
        number = emit.select(number < 0, 0, number)
        return emit.select(number < limit, number, limit - 1)

    def _gather(self, start: Place, offsets: Value, dtype: str, mask: Value | None) -> Value:
        emit = self.emit
        size = itemsize(dtype)
        if emit.target.has_masks and size >= 4:
            return emit.gather(emit.pointers(start, offsets, size), MEMORY[dtype], mask)
        values = []
        for lane in range(parts(offsets.type)[1]):
            here = start.step(emit.extract(offsets, lane), size)
            if mask is not None:
                here = sheltered(emit, here, emit.extract(mask, lane))
            values.append(emit.load(here, MEMORY[dtype]))
        return emit.gathered(values)

    def _position(self, dtype: str, offset: int, strides: Sequence[int]) -> Value:
        emit = self.emit
        first = affine(self.point, strides, offset).on(emit)
        stride = self.point.stride(strides)
        if not stride:
            return maths.convert(emit, first, "int64", dtype)
        element = I64 if itemsize(dtype) == 8 else I32
        base = emit.splat(emit.resize(first, element), self.point.lanes)
        lanes = base + emit.lane_numbers(self.point.lanes, element, stride)
        return maths.convert(emit, lanes, "int64" if element == I64 else "int32", dtype)

    def _random(self, random: Random) -> Value:
        emit, point = self.emit, self.point
        key = Place(self.expression.operands[random.operand])
        words = [emit.load(key + 4 * word, I32, invariant=point.hoist) for word in range(2)]
        counters = []
        for strides, offset in (
            (random.row, random.row_offset),
            (random.within, random.within_offset),
        ):
            number = emit.resize(affine(point, strides, offset).on(emit), I32)
            stride = point.stride(strides)
            if stride:
                number = emit.splat(number, point.lanes) + emit.lane_numbers(
                    point.lanes, I32, stride
                )
            counters.append(number)
        lanes = max(number.lanes for number in counters)
        return maths.threefry(
            emit,
            words[0],
            words[1] ^ random.site,
            emit.splat(counters[0], lanes) if counters[0].lanes < lanes else counters[0],
            emit.splat(counters[1], lanes) if counters[1].lanes < lanes else counters[1],
        )


def _spread(emit: Emit, scalar: Value | None, mask: Value | None) -> Value | None:
    """A condition for all lanes beside a mask of lanes."""
    if scalar is None or mask is None:
        return scalar
    return emit.splat(scalar, mask.lanes)


def constant(emit: Emit, bits: bytes, dtype: str) -> Value:
    """A constant by its bits."""
    number = np.frombuffer(bits, numpy_dtype(dtype))[0]
    kind = REGISTER[dtype]
    return emit.value(float(number) if kind in {FLOAT, DOUBLE} else int(number), kind)
