"""Matrix products and convolutions, forward and backward, as one generator.

`plan` chooses a way, and this module writes the loops around the register tiles:

    axes        merges axes that lie in line
    schedule    decides the order of the loops, and what is cut, copied or packed
    tiles       the register tile: its terms and its epilogue
    halo        a copy of an image with its border
    taps        tap by tap, where a border would be mostly zeros
    borders     the inside apart from the borders, for depthwise convolutions
    across      vectors along the sum, where there are hardly any columns
    winograd    3 x 3, and 2 x 2, by fewer multiplications
    narrow      int8 and half precision in words of several terms
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from lamina.llvm import choices
from lamina.llvm.emit import I64, Index, Module, Place, Value, index
from lamina.llvm.host import Target
from lamina.llvm.kernel import Contraction
from lamina.llvm.kernels.across import along_the_sum
from lamina.llvm.kernels.borders import cut
from lamina.llvm.kernels.halo import SCRATCH, copy_image
from lamina.llvm.kernels.narrow import Narrow, narrow
from lamina.llvm.kernels.narrow import write as write_narrow
from lamina.llvm.kernels.nest import Axis, Frame, open_kernel
from lamina.llvm.kernels.schedule import (
    BEFORE,
    COLUMNS,
    COPY,
    FIRST,
    SUMS,
    Block,
    Item,
    RowBlock,
    Schedule,
    moves,
    schedule,
)
from lamina.llvm.kernels.tiles import Panel, Terms, Tiles, Where
from lamina.llvm.kernels.winograd import Winograd, winograd
from lamina.llvm.kernels.winograd import write as write_winograd
from lamina.types import itemsize

Segment = tuple[Index, Index, int]
"""Start, stop and step of a loop."""


@dataclass(frozen=True)
class Parts:
    """Contractions over parts of the space, one after another for every step of the split axis."""

    schedules: tuple[Schedule, ...]

    @property
    def scratch_bytes(self) -> int:
        return max(one.scratch_bytes for one in self.schedules)


@functools.lru_cache(maxsize=1024)
def plan(kernel: Contraction, target: Target) -> Schedule | Winograd | Narrow | Parts:
    """How a contraction is computed."""
    fast = winograd(kernel, target)
    if fast:
        return fast
    in_words = narrow(kernel, target)
    if in_words:
        return in_words
    few = along_the_sum(kernel, target.lanes * 4 // itemsize(kernel.accumulator))
    kernel, across = few or kernel, few is not None
    column = len(kernel.space) - 1
    if kernel.a.guards and moves(kernel.a, column) and moves(kernel.b, column):
        parts = cut(kernel) if kernel.split < column and not kernel.accumulate else None
        if parts:
            return Parts(tuple(schedule(part, target, part=True, across=across) for part in parts))
    return schedule(kernel, target, across=across)


def scratch_bytes(kernel: Contraction, target: Target) -> int:
    """How much scratch, aligned to 64 bytes, a call of the kernel needs."""
    return plan(kernel, target).scratch_bytes


def operands(kernel: Contraction) -> int:
    """How many pointers stand before `scratch` in the arguments of the kernel's function."""
    return 1 + max(
        kernel.a.operand,
        kernel.b.operand,
        *(store.operand for store in kernel.stores),
        *(getattr(one, "operand", 0) for one in kernel.body),
    )


def build(kernel: Contraction, name: str, module: Module) -> None:
    """Write the function `name` for a contraction into the module."""
    frame = open_kernel(module, name, operands(kernel))
    emit = frame.emit
    match plan(kernel, module.target):
        case Winograd() as chosen:
            write_winograd(frame, chosen)
        case Narrow() as chosen:
            write_narrow(frame, chosen)
        case Parts(schedules):
            with emit.loop(frame.low, frame.high) as at:
                step = replace(frame, low=at.index.on(emit), high=(at.index + 1).on(emit))
                for one in schedules:
                    _Loops(step, one).write()
        case Schedule() as chosen:
            _Loops(frame, chosen).write()
    emit.finish()


class _Loops:
    """The loops around the tiles of one contraction."""

    def __init__(self, frame: Frame, plan: Schedule) -> None:
        self.emit = frame.emit
        self.plan = plan
        self.kernel = plan.nest.kernel
        self.operands, self.scratch = frame.operands, frame.scratch
        self.column = len(self.kernel.space) - 1
        self.later_block: Value | None = None
        self.tiles = Tiles(frame, plan)
        self.ranges = [
            Axis(size, axis == self.kernel.split, plan.nest.scale).bounds(frame)
            for axis, size in enumerate(plan.nest.sizes)
        ]
        self.segments = [self._segments(axis) for axis in range(self.column)]

    def write(self) -> None:
        kernel, plan, emit = self.kernel, self.plan, self.emit
        if plan.halo:
            emit.clear(Place(self.scratch), plan.halo.bytes)
        a = self.scratch if kernel.a.operand == SCRATCH else self.operands[kernel.a.operand]
        start = Where(
            (index(0),) * len(plan.nest.sizes),
            Place(a, kernel.a.offset * itemsize(kernel.a.dtype)),
            Place(self.operands[kernel.b.operand], kernel.b.offset * itemsize(kernel.b.dtype)),
            terms=tuple(
                Terms(axis, *self.ranges[axis])
                for axis in range(self.column + 1, len(plan.nest.sizes))
                if axis not in plan.blocked
            ),
        )
        self._descend(0, start, self.tiles.tile)

    # --------------------------------------------------------------- extents

    def _segments(self, axis: int) -> list[Segment]:
        """The loops over an axis of rows: whole tiles, then its edge."""
        start, stop = self.ranges[axis]
        largest = self.plan.tile[axis]
        found: list[Segment] = []
        if start.number is not None and stop.number is not None:
            for size, count in choices.pieces(stop.number, largest):
                found.append((start, start + size * count, size))
                start += size * count
            return found
        sizes = choices.descending(largest, self.plan.vectors)
        for size in sizes:
            end = stop
            if size > 1:
                left = stop.on(self.emit) - start.on(self.emit)
                whole = left // size * size
                if size == largest:
                    whole = self._spared(whole, left, sizes)
                end = index(start.on(self.emit) + whole)
            found.append((start, end, size))
            start = end
        return found

    def _spared(self, whole: Value, rows: Value, sizes: list[int]) -> Value:
        """The rows that whole tiles take, one tile fewer where the edge is better off so."""
        emit, largest = self.emit, sizes[0]
        left = rows - whole
        for number in choices.giving_back(sizes):
            spare = left.equal(number) & (rows > largest)
            whole = emit.select(spare, whole - largest, whole)
        return whole

    # --------------------------------------------------------------- loops

    def _summed(self, position: int, where: Where) -> None:
        """Clear the sums, let all blocks add to them, then hand them to the epilogue."""
        emit, sums, items = self.emit, self.plan.sums, self.plan.order
        assert sums is not None
        here = Place(self.scratch, self.plan.halo_bytes)
        emit.clear(here, sums.bytes)
        reached = {reach.axis: reach.count for reach in self.plan.reaches}
        whole = self.ranges, self.segments
        self.ranges = [
            (index(0), index(reached[axis])) if axis in reached else extent
            for axis, extent in enumerate(self.ranges)
        ]
        self.segments = [self._segments(axis) for axis in range(self.column)]
        self._descend(position + 1, replace(where, sums=here + sums.start), self.tiles.tile)
        self.ranges, self.segments = whole
        rest: list[Item] = [axis for axis in range(self.column) if axis not in items[:position]]
        self._descend(0, replace(where, sums=here), self.tiles.take_up, [*rest, COLUMNS])

    def _descend(
        self,
        position: int,
        where: Where,
        innermost: Callable[[Where], None],
        order: list[Item] | None = None,
    ) -> None:
        items = self.plan.order if order is None else order
        if position == len(items):
            innermost(where)
            return

        def inside(at: Where) -> None:
            self._descend(position + 1, at, innermost, order)

        item = items[position]
        if item == COLUMNS:
            self._columns(where, inside)
        elif item == SUMS:
            self._summed(position, where)
        elif item == COPY:
            self._copy(where)
            inside(where)
        elif isinstance(item, Block):
            self._block(item, where, inside)
        elif isinstance(item, RowBlock):
            self._row_block(item, where, inside)
        else:
            assert isinstance(item, int)
            segments = self.segments[item]
            if self.plan.pack == FIRST and position == len(items) - 1:
                where, segments = self._first(where, item, segments, inside)
            for start, stop, size in segments:
                if start.number is not None and start.number == stop.number:
                    continue
                with self.emit.loop(start, stop, size) as at:
                    inside(self._rows(where, item, at.index, size))

    def _rows(self, where: Where, axis: int, index: Index, size: int) -> Where:
        moved = self.tiles.moved(where, axis, index)
        return replace(moved, rows={**moved.rows, axis: size})

    # --------------------------------------------------------------- packing

    def _panel(self, vectors: int) -> Panel:
        """An empty panel for tiles of so many vectors."""
        kernel = self.kernel
        step = vectors * self.plan.lanes * itemsize(kernel.accumulator)
        strides: list[int | Value] = [0] * len(self.plan.nest.sizes)
        rows = {one.axis: one.rows for one in self.plan.order if isinstance(one, Block)}
        for axis in reversed(range(self.column + 1, len(strides))):
            inner = rows.get(axis)
            if inner is None:
                strides[axis] = step
            else:
                strides[axis] = self._count(inner) * strides[inner]
            step *= self.plan.panel_terms[axis - self.column - 1]
        here = Place(self.scratch, self.plan.panel_start)
        return Panel(here, tuple(strides), write=True)

    def _first(
        self, where: Where, axis: int, segments: list[Segment], inside: Callable[[Where], None]
    ) -> tuple[Where, list[Segment]]:
        """The first of several tiles fills the panel while it computes; the others read it.

        Blocks of rows after the first find every panel filled.
        """
        emit, panel = self.emit, self._panel(where.vectors)
        if self.later_block is not None:
            # All panels stand side by side: this one begins behind those of the columns before.
            terms = math.prod(size for size in self.kernel.reduced if isinstance(size, int))
            column = terms * itemsize(self.kernel.accumulator)
            here = panel.here.step(where.indexes[self.column], column)
            panel = replace(panel, here=here)
        (start, stop, size), *edges = segments
        filling = replace(where, panel=panel)
        if start.number is not None and stop.number is not None:
            inside(self._rows(filling, axis, start, size))
            read = replace(where, panel=replace(panel, write=False))
            return read, [(start + size, stop, size), *edges]
        several = start.on(emit) + size < stop.on(emit)
        fill = several
        if self.later_block is not None:
            fill = several & ~self.later_block
            several = several | self.later_block
        with emit.when(fill):
            inside(self._rows(filling, axis, start, size))
        here = Place(emit.select(several, panel.here.pointer, where.b.pointer))
        b = self.kernel.b
        strides = tuple(
            emit.select(several, emit.value(stride, I64), b.strides[number] * itemsize(b.dtype))
            if stride
            else 0
            for number, stride in enumerate(panel.strides)
        )
        first = emit.select(fill, start.on(emit) + size, start.on(emit))
        either = Panel(here, strides, masked=True)
        return replace(where, panel=either), [(index(first), stop, size), *edges]

    def _row_block(self, block: RowBlock, where: Where, inside: Callable[[Where], None]) -> None:
        """Narrow the range of an axis of rows to one block after the other."""
        emit, whole, segments = self.emit, self.ranges[block.axis], self.segments[block.axis]
        start, stop = whole
        with emit.loop(start, stop, block.size) as at:
            end, last = (at.index + block.size).on(emit), stop.on(emit)
            self.ranges[block.axis] = (at.index, index(emit.select(end < last, end, last)))
            self.segments[block.axis] = self._segments(block.axis)
            self.later_block = at.index.on(emit) > start.on(emit)
            inside(where)
        self.later_block = None
        self.ranges[block.axis], self.segments[block.axis] = whole, segments

    def _block(self, block: Block, where: Where, inside: Callable[[Where], None]) -> None:
        """Loop over a reduced axis around the tiles; the rest of its terms is left to them."""
        start, stop = self.ranges[block.axis]
        axis, emit = block.axis, self.emit
        if block.rows is not None:
            self._steps(block, block.rows, where, inside)
            return
        if block.size == 1:
            with emit.loop(start, stop) as at:
                inside(self.tiles.moved(where, axis, at.index))
            return
        if start.number is not None and stop.number is not None:
            for size, count in choices.pieces(stop.number, block.size):
                with emit.loop(start, start + size * count, size) as at:
                    moved = self.tiles.moved(where, axis, at.index)
                    inside(self._part(moved, axis, index(0), index(size)))
                start += size * count
            return
        with emit.loop(start, stop, block.size) as at:
            inside(self._pass(where, block, at.index, index(block.size)))

    def _steps(
        self, block: Block, batch: int, where: Where, inside: Callable[[Where], None]
    ) -> None:
        """Loop over steps of whole batches: as many as fit into a pass, or one by one."""
        emit, (start, stop) = self.emit, self.ranges[block.axis]
        rows = self._count(batch)
        fitting = emit.value(block.size, I64) // emit.select(rows > 1, rows, 1)
        size = index(emit.select(fitting > 1, fitting, 1))
        passes = (stop.on(emit) - start.on(emit) + (size + (-1)).on(emit)) // size.on(emit)
        with emit.loop(0, passes) as at:
            here = index(start.on(emit) + at.index.on(emit) * size.on(emit))
            inside(self._pass(where, block, here, size))

    def _pass(self, where: Where, block: Block, start: Index, size: Index) -> Where:
        """From `start` on so many terms, or those that are left."""
        emit, last = self.emit, self.ranges[block.axis][1].on(self.emit)
        end = (start + size).on(emit)
        left = emit.select(end < last, end, last) - start.on(emit)
        moved = self.tiles.moved(where, block.axis, start)
        return self._part(moved, block.axis, index(0), index(left))

    def _count(self, axis: int) -> Value:
        """How many rows this call is given of a batch."""
        start, stop = self.ranges[axis]
        return stop.on(self.emit) - start.on(self.emit)

    def _part(self, where: Where, axis: int, start: Index, stop: Index) -> Where:
        terms = (*where.terms, Terms(axis, start, stop))
        return replace(where, terms=tuple(sorted(terms, key=lambda one: one.axis)))

    def _columns(self, where: Where, inside: Callable[[Where], None]) -> None:
        """Loop over the columns in steps of the tile's vectors; the last may be cut by a mask."""
        emit, lanes, widest = self.emit, self.plan.lanes, self.plan.vectors
        start, stop = self.ranges[self.column]

        def run(start: Index, stop: Index, vectors: int, last: Index | None) -> None:
            with emit.loop(start, stop, vectors * lanes) as at:
                moved = self.tiles.moved(where, self.column, at.index)
                mask = None
                if last is not None:
                    left = last + (-(vectors - 1) * lanes)
                    mask = self._mask(left, at.index)
                moved = replace(moved, vectors=vectors, mask=mask)
                if self.plan.pack == BEFORE:
                    panel = self._panel(vectors)
                    self.tiles.pack(replace(moved, panel=panel))
                    moved = replace(moved, panel=replace(panel, write=False))
                inside(moved)

        if start.number is None or stop.number is None:
            step = widest * lanes
            whole = (stop.on(emit) - start.on(emit)) // step * step
            middle = index(start.on(emit) + whole)
            run(start, middle, widest, None)
            run(middle, stop, 1, stop)
            return
        full, left = divmod(stop.number, lanes)
        masked = left > 0 and emit.target.has_masks
        position = 0
        for vectors, count in choices.pieces(full + masked, widest) if full + masked else []:
            end = position + vectors * count * lanes
            reaches = masked and end > stop.number - lanes
            run(index(position), index(end), vectors, stop if reaches else None)
            position = end
        if left and not masked:
            run(index(position), index(position + lanes), 1, stop)

    def _mask(self, stop: Index, at: Index) -> Value:
        """The lanes from `at` on that lie before `stop`."""
        emit, lanes = self.emit, self.plan.lanes
        if at.number is not None and stop.number is not None:
            left = stop.number - at.number
            return emit.row([lane < left for lane in range(lanes)], "i1")
        left_over = stop.on(emit) - at.on(emit)
        return emit.first_lanes(left_over, lanes)

    def _copy(self, where: Where) -> None:
        """Copy the image that the loops around have reached."""
        source, halo = self.plan.nest.source, self.plan.halo
        assert source is not None
        assert halo is not None
        size = itemsize(source.dtype)
        here = Place(self.operands[source.operand], source.offset * size)
        for number, stride in zip(where.indexes, source.strides, strict=True):
            here = here.step(number, stride * size)
        copy_image(self.emit, halo, here, Place(self.scratch))
