"""Loop nests: simplify the axes of a kernel, walk them, and cut an axis into vectors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from lamina.llvm.emit import I1, I64, POINTER, Emit, Index, Module, Value, index
from lamina.llvm.expression import Point, arguments
from lamina.llvm.kernel import (
    Body,
    Guard,
    Inside,
    Instruction,
    Load,
    Lookup,
    Position,
    Random,
    Store,
)
from lamina.types import Batch, Dimension


@dataclass(frozen=True)
class Frame:
    """The arguments of a kernel's function."""

    emit: Emit
    operands: tuple[Value, ...]
    scratch: Value
    low: Value
    high: Value
    rows: Value


def open_kernel(module: Module, name: str, operands: int) -> Frame:
    """Start the function of a kernel with its fixed signature."""
    parameters = [(POINTER, f"p{number}") for number in range(operands)]
    parameters += [(POINTER, "scratch"), (I64, "low"), (I64, "high"), (I64, "rows")]
    emit = module.function(name, parameters)
    *pointers, scratch, low, high, rows = emit.parameters
    return Frame(emit, tuple(pointers), scratch, low, high, rows)


def aligned(count: int) -> int:
    """So many bytes of scratch in whole lines of the cache."""
    return -(-count // 64) * 64


def operand_count(*parts: Iterable[Instruction | Store]) -> int:
    """One more than the largest operand number."""
    numbers = [
        item.operand
        for part in parts
        for item in part
        if isinstance(item, Load | Lookup | Random | Store)
    ]
    return max(numbers, default=-1) + 1


# ------------------------------------------------------------------------- axes


@dataclass(frozen=True)
class Axis:
    """One loop. `scale` is how many of its indexes one step of the split axis stands for."""

    extent: Dimension
    split: bool = False
    scale: int = 1

    def bounds(self, frame: Frame) -> tuple[Index, Index]:
        if self.split:
            return index(frame.low) * self.scale, index(frame.high) * self.scale
        if isinstance(self.extent, Batch):
            return Index(None), index(frame.rows) * self.extent.factor
        return Index(None), Index(None, self.extent)

    @property
    def static(self) -> int | None:
        """The extent, if it is known and this axis is not split."""
        return self.extent if isinstance(self.extent, int) and not self.split else None

    @property
    def typical(self) -> int:
        """A number of iterations to plan with."""
        return self.extent if isinstance(self.extent, int) else 32 * self.extent.factor


@dataclass(frozen=True)
class Merge:
    """How axes were merged: for each new axis, the old axis whose stride it takes."""

    axes: tuple[Axis, ...]
    kept: tuple[int, ...]
    spaces: int  # how many of the new axes come from the first `boundary` old ones

    def strides(self, strides: Sequence[int]) -> tuple[int, ...]:
        return tuple(strides[axis] for axis in self.kept)

    def body(self, body: Body) -> Body:
        return tuple(map_strides(instruction, self.strides) for instruction in body)

    def stores(self, stores: Sequence[Store]) -> tuple[Store, ...]:
        return tuple(replace(store, strides=self.strides(store.strides)) for store in stores)


def map_strides(
    instruction: Instruction, change: Callable[[tuple[int, ...]], tuple[int, ...]]
) -> Instruction:
    """The instruction with all its strides changed."""

    def guards(old: Sequence[Guard]) -> tuple[Guard, ...]:
        return tuple(replace(guard, strides=change(guard.strides)) for guard in old)

    match instruction:
        case Load() | Lookup():
            return replace(
                instruction,
                strides=change(instruction.strides),
                guards=guards(instruction.guards),
            )
        case Position():
            return replace(instruction, strides=change(instruction.strides))
        case Inside():
            return replace(instruction, guards=guards(instruction.guards))
        case Random():
            return replace(
                instruction, row=change(instruction.row), within=change(instruction.within)
            )
        case _:
            return instruction


def padded(body: Body, count: int) -> Body:
    """A body over fewer axes as one over `count` more, on which it does not depend."""
    zeros = (0,) * count
    return tuple(map_strides(item, lambda strides: strides + zeros) for item in body)


def stride_vectors(body: Iterable[Instruction], stores: Iterable[Store]) -> list[tuple[int, ...]]:
    """Everything that is affine in the index, by its strides."""
    found: list[tuple[int, ...]] = [store.strides for store in stores]
    for instruction in body:
        match instruction:
            case Load() | Lookup():
                found.append(instruction.strides)
                found.extend(guard.strides for guard in instruction.guards)
            case Position():
                found.append(instruction.strides)
            case Inside():
                found.extend(guard.strides for guard in instruction.guards)
            case Random():
                found.extend((instruction.row, instruction.within))
            case _:
                pass
    return found


def needed_by(body: Body, number: int) -> set[int]:
    """The instructions that one is computed from, and itself."""
    needed = {number}
    for position in arguments(body[number]):
        needed |= needed_by(body, position)
    return needed


def varies(body: Body, number: int, axis: int) -> bool:
    """Whether the value of an instruction changes along an axis."""
    inside = [body[position] for position in needed_by(body, number)]
    return any(strides[axis] for strides in stride_vectors(inside, ()))


def loading_cost(body: Body, axis: int, lanes: int) -> float:
    """What all loads of a vector along the axis cost, in loads of a vector that lies in one piece.

    A look-up at another row in every lane takes its elements one by one.
    """
    cost = 0.0
    for instruction in body:
        if isinstance(instruction, Load | Lookup):
            stride = instruction.strides[axis]
            apart = any(varies(body, number, axis) for number in arguments(instruction))
            cost += float(lanes) if apart or stride not in (0, 1) else 1.0 if stride else 0.5
    return cost


def merge(
    extents: Sequence[Dimension],
    split: int,
    vectors: Sequence[tuple[int, ...]],
    boundary: int | None = None,
) -> Merge:
    """Drop axes of extent 1 and join neighbours that every stride vector walks as one.

    No axis before `boundary` is joined with one behind it.
    """
    boundary = len(extents) if boundary is None else boundary
    axes: list[Axis] = []
    kept: list[int] = []
    sides: list[bool] = []
    for number, extent in enumerate(extents):
        if extent == 1 and number != split:
            continue
        side = number < boundary
        if (
            axes
            and sides[-1] == side
            and isinstance(extent, int)
            and number != split
            and all(v[kept[-1]] == v[number] * extent for v in vectors)
        ):
            outer = axes[-1]
            axes[-1] = Axis(outer.extent * extent, outer.split, outer.scale * extent)
            kept[-1] = number
        else:
            axes.append(Axis(extent, number == split))
            kept.append(number)
            sides.append(side)
    return Merge(tuple(axes), tuple(kept), sum(sides))


def cuts(body: Iterable[Instruction], axis: int, extent: int) -> list[int]:
    """Where guards on this axis alone begin or stop to hold, between 0 and the extent."""
    found = {0, extent}
    for instruction in body:
        if not isinstance(instruction, Load | Lookup | Inside):
            continue
        for guard in instruction.guards:
            stride = guard.strides[axis]
            if stride and sum(map(bool, guard.strides)) == 1:
                for limit in (guard.low, guard.high):
                    # The first index at which the guarded number has reached the limit.
                    number = (
                        -((guard.offset - limit) // stride)
                        if stride > 0
                        else ((guard.offset - limit) // -stride + 1)
                    )
                    found.add(min(max(number, 0), extent))
    return sorted(found)


# ------------------------------------------------------------------------- walking


@contextlib.contextmanager
def loops(frame: Frame, axes: Sequence[Axis], order: Sequence[int]) -> Iterator[dict[int, Index]]:
    """Nested loops over the axes with these numbers; gives the index of each."""
    with contextlib.ExitStack() as stack:
        indexes: dict[int, Index] = {}
        for number in order:
            start, stop = axes[number].bounds(frame)
            loop = stack.enter_context(frame.emit.loop(start, stop))
            indexes[number] = loop.index
        yield indexes


@dataclass(frozen=True)
class Span:
    """A stretch of the vector's axis: its first index, its lanes, and which of them count.

    `reach` is where all indexes are known to lie, see `Point`.
    """

    index: Index
    lanes: int
    mask: Value | None = None
    reach: tuple[int, int] | None = None


def sweep(
    emit: Emit,
    start: Index,
    stop: Index,
    lanes: int,
    unroll: int,
    visit: Callable[[list[Span]], None],
) -> None:
    """Call `visit` with code positions that together cover `[start, stop)` once.

    First `unroll` vectors at a time. Where the target has masks, a loop of single vectors under a
    mask does the rest, or everything if `unroll` is 1: heavy code should stand there once only.
    Otherwise single vectors follow, and a tail in halves if the length is known, else one by one.
    """
    if start.number is not None and stop.number is not None:
        _sweep_static(emit, start.number, stop.number, lanes, unroll, visit)
        return
    count = (stop + start * -1).on(emit)
    first = start
    if unroll > 1:
        wide = lanes * unroll
        # The whole groups: by a mask where that is one, which three vectors' is not.
        power = wide & (wide - 1) == 0
        first = start + (count & -wide if power else count - count % wide)
        with emit.loop(start, first, wide) as loop:
            visit([Span(loop.index + number * lanes, lanes) for number in range(unroll)])
    if lanes > 1 and emit.target.has_masks:
        with emit.loop(first, stop, lanes) as loop:
            visit([masked(emit, loop.index, stop, lanes)])
        return
    if lanes > 1:
        end = start + (count & -lanes)
        with emit.loop(first, end, lanes) as loop:
            visit([Span(loop.index, lanes)])
        first = end
    with emit.loop(first, stop) as loop:
        visit([Span(loop.index, 1)])


def masked(emit: Emit, first: Index, stop: Index, lanes: int) -> Span:
    """A vector from `first` on, of which the lanes before `stop` count."""
    rest = stop + first * -1
    if rest.number is None:
        return Span(first, lanes, emit.first_lanes(rest.on(emit), lanes))
    if rest.number >= lanes:
        return Span(first, lanes)
    return Span(first, lanes, emit.row([int(lane < rest.number) for lane in range(lanes)], I1))


def _sweep_static(
    emit: Emit,
    start: int,
    stop: int,
    lanes: int,
    unroll: int,
    visit: Callable[[list[Span]], None],
) -> None:
    vectors, rest = divmod(stop - start, lanes)
    has_masks = lanes > 1 and emit.target.has_masks
    if unroll == 1 and vectors and rest and has_masks:
        with emit.loop(start, stop, lanes) as loop:
            visit([masked(emit, loop.index, Index(None, stop), lanes)])
        return
    groups, left = divmod(vectors, unroll)
    if groups:
        with emit.loop(start, start + groups * unroll * lanes, unroll * lanes) as loop:
            visit([Span(loop.index + number * lanes, lanes) for number in range(unroll)])
        start += groups * unroll * lanes
    if left:
        visit([Span(Index(None, start + number * lanes), lanes) for number in range(left)])
        start += left * lanes
    if rest and has_masks:
        visit([masked(emit, Index(None, start), Index(None, stop), lanes)])
        return
    while rest:
        part = 1 << (rest.bit_length() - 1)
        visit([Span(Index(None, start), part)])
        start += part
        rest -= part


def point(indexes: dict[int, Index], rank: int, axis: int | None, span: Span | None) -> Point:
    """The point where `span` lies on `axis` and the other axes stand at `indexes`."""
    whole = dict(indexes)
    if axis is not None and span is not None:
        whole[axis] = span.index
    numbers = tuple(whole[axis] for axis in range(rank))
    if span is None or axis is None:
        return Point(numbers)
    return Point(numbers, axis, span.lanes, span.mask, reach=span.reach)
