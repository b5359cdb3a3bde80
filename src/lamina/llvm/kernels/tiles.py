"""The register tile of a contraction: rows x vectors sums, the loops of their terms, the epilogue.

One generator serves full tiles, edges and masked tails; only the sizes differ. Every element's sum
is the same sequence of multiply-adds in each of them, so a result never depends on its neighbours.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from lamina.llvm import choices, maths
from lamina.llvm.emit import MEMORY, REGISTER, Index, Place, Value, vector
from lamina.llvm.expression import (
    Bounds,
    Expression,
    Point,
    from_memory,
    load_lanes,
    place,
    store_lanes,
)
from lamina.llvm.kernel import Access, Contraction, Load, Store
from lamina.llvm.kernels.nest import Frame
from lamina.llvm.kernels.schedule import Schedule
from lamina.types import itemsize

_FREE = Bounds(True, None, None)


@dataclass(frozen=True)
class Terms:
    """A loop over a reduced axis inside of the tile."""

    axis: int
    start: Index
    stop: Index

    @property
    def count(self) -> int | None:
        """How many terms, if that is known now."""
        if self.start.number is None or self.stop.number is None:
            return None
        return self.stop.number - self.start.number


@dataclass(frozen=True)
class Panel:
    """The columns of `b` that a tile meets, vector behind vector in scratch.

    strides  bytes between neighbours on every axis; a value where it is known at run time whether
             this is the panel or `b` itself
    write    whether the tile reads `b` and fills the panel for the tiles after it
    masked   whether this may be `b` itself, beyond the end of which nothing may be read
    """

    here: Place
    strides: tuple[int | Value, ...]
    write: bool = False
    masked: bool = False


@dataclass(frozen=True)
class Where:
    """The place of a tile: what the loops around it have fixed so far.

    indexes  on every axis; zero where no loop has run
    a, b     the addresses of both operands at these indexes
    rows     rows of the tile along axes of space
    vectors  vectors of columns, the last of them under `mask`
    terms    the reduced axes that the tile itself runs over
    panel    where columns come from, or go to, if `b` is packed
    sums     the address of the sums that wait in scratch
    """

    indexes: tuple[Index, ...]
    a: Place
    b: Place
    rows: dict[int, int] = field(default_factory=dict)
    vectors: int = 1
    mask: Value | None = None
    terms: tuple[Terms, ...] = ()
    panel: Panel | None = None
    sums: Place | None = None


class Tiles:
    """Writes tiles of one contraction into one function."""

    def __init__(self, frame: Frame, schedule: Schedule) -> None:
        emit, operands, rows = frame.emit, frame.operands, frame.rows
        self.emit = emit
        self.schedule = schedule
        self.kernel: Contraction = schedule.nest.kernel
        self.operands = operands
        self.scratch = frame.scratch
        self.lanes = schedule.lanes
        self.column = len(self.kernel.space) - 1
        self.element = REGISTER[self.kernel.accumulator]
        self.type = vector(self.element, self.lanes)
        self.epilogue = Expression(emit, self.kernel.body, operands, rows)
        written = {store.operand for store in self.kernel.stores}
        self.b_constant = self.kernel.b.operand not in written
        sides = [
            Load(side.operand, side.dtype, side.offset, side.strides, side.guards)
            for side in (self.kernel.a, self.kernel.b)
        ]
        self.sides = Expression(emit, tuple(sides), operands, rows)

    # --------------------------------------------------------------- one tile

    def tile(self, where: Where) -> None:
        """Compute the sums of one tile and hand them on."""
        corners = self._corners(where)
        sums = self._initial(where, corners)
        self._prefetch(where, corners)
        sums = self._run(where, corners, sums)
        if where.sums:
            self._keep(where, corners, sums)
        elif self.kernel.accumulate:
            self._add_up(where, corners, sums)
        else:
            self.finish(where, corners, sums)

    def _corners(self, where: Where) -> list[dict[int, int]]:
        """The offsets of each row of the tile along the axes of space."""
        axes = sorted(where.rows)
        ranges = [range(where.rows[axis]) for axis in axes]
        return [dict(zip(axes, offsets, strict=True)) for offsets in itertools.product(*ranges)]

    def _initial(self, where: Where, corners: list[dict[int, int]]) -> list[Value]:
        if where.sums:
            return [
                self.emit.load(self._sum_place(where, corner, v), self.type)
                for corner in corners
                for v in range(where.vectors)
            ]
        if self.kernel.accumulate:
            (store,) = self.kernel.stores
            return [
                self._stored(store, self.point(where, corner, v))
                for corner in corners
                for v in range(where.vectors)
            ]
        return [self.emit.zeros(self.type)] * (len(corners) * where.vectors)

    # --------------------------------------------------------------- lines that will be needed

    def _prefetch(self, where: Where, corners: list[dict[int, int]]) -> None:
        """Ask for the lines that the epilogue touches, so that they come while terms are added.

        Sums that stand in memory are read at once: there, ask for those of the next tile.
        """
        enough = choices.PREFETCHED_TERMS
        if math.prod(terms.count or enough for terms in where.terms) < enough:
            return
        if where.sums or self.kernel.accumulate:
            corners = self._next(where, corners)
        for corner in corners:
            for v in range(0, where.vectors, self._vectors_a_line):
                for start, write in self._touched(where, corner, v):
                    self.emit.prefetch(start, write=write, locality=3)

    @property
    def _vectors_a_line(self) -> int:
        return max(1, choices.LINE_BYTES // (self.lanes * itemsize(self.kernel.accumulator)))

    def _next(self, where: Where, corners: list[dict[int, int]]) -> list[dict[int, int]]:
        """The rows of the tile behind this one on the innermost axis of rows."""
        axis = next((item for item in reversed(self.schedule.order) if item in where.rows), None)
        if axis is None:
            return []
        return [{**corner, axis: corner[axis] + where.rows[axis]} for corner in corners]

    def _touched(
        self, where: Where, corner: dict[int, int], v: int
    ) -> Iterator[tuple[Place, bool]]:
        """Where a vector of results is written, and what is read for it alone."""
        if where.sums:
            yield self._sum_place(where, corner, v), True
            return
        point = self._in_space(where, corner, v)
        for one in (*self.kernel.body, *self.kernel.stores):
            if not isinstance(one, Load | Store):
                continue
            shared = not one.strides[self.column] or not any(one.strides[: self.column])
            if isinstance(one, Store) or not (shared or one.guards):
                operand = self.operands[one.operand]
                start = place(operand, point, one.strides, one.offset, one.dtype)
                yield start, isinstance(one, Store)

    # --------------------------------------------------------------- terms

    def _run(self, where: Where, corners: list[dict[int, int]], sums: list[Value]) -> list[Value]:
        """Add all terms to the sums."""
        kernel = self.kernel
        size = itemsize(kernel.a.dtype)
        rows = [
            sum(kernel.a.strides[axis] * step for axis, step in corner.items()) * size
            for corner in corners
        ]
        written_out, count = len(where.terms), 1
        while written_out:
            more = where.terms[written_out - 1].count
            if more is None or more * count * len(sums) > choices.LONGEST_BODY:
                break
            if more * count > choices.MOST_WRITTEN_OUT:
                break
            written_out, count = written_out - 1, count * more
        spare = self.emit.target.registers - len(sums) - 2
        resident = written_out == 0 and count * where.vectors <= spare and self.b_constant

        def add(at: Where, sums: list[Value]) -> list[Value]:
            return self._term(at, corners, rows, sums, resident=resident)

        def nest(level: int, at: Where, sums: list[Value]) -> list[Value]:
            if level == len(where.terms):
                return add(at, sums)
            terms = where.terms[level]
            if level >= written_out:
                for number in range(terms.count or 0):
                    sums = nest(level + 1, self.moved(at, terms.axis, terms.start + number), sums)
                return sums
            return self._loop(terms, at, sums, lambda inside, sums: nest(level + 1, inside, sums))

        return nest(0, where, sums)

    def _loop(
        self,
        terms: Terms,
        where: Where,
        sums: list[Value],
        body: Callable[[Where, list[Value]], list[Value]],
    ) -> list[Value]:
        """Loop over a reduced axis; the addresses are carried along and step by a constant."""
        emit, axis, kernel = self.emit, terms.axis, self.kernel
        start = self.moved(where, axis, terms.start)
        steps: list[int | Value] = [
            kernel.a.strides[axis] * itemsize(kernel.a.dtype),
            kernel.b.strides[axis] * itemsize(kernel.b.dtype),
            start.panel.strides[axis] if start.panel else 0,
        ]
        places = [start.a, start.b, start.panel.here if start.panel else start.b]
        moving = [
            number for number, step in enumerate(steps) if not (isinstance(step, int) and step == 0)
        ]
        carry = [*sums, *(places[number].base for number in moving)]
        with emit.loop(terms.start, terms.stop, carry=carry, nonempty=bool(terms.count)) as k:
            here, after = list(places), []
            for number, base in zip(moving, k.carry[len(sums) :], strict=True):
                here[number] = Place(base, places[number].offset)
                step = steps[number]
                later = Place(base, step) if isinstance(step, int) else Place(base).step(step)
                after.append(later.pointer)
            further = where.indexes[axis] + k.index
            inside = replace(
                where,
                indexes=(*where.indexes[:axis], further, *where.indexes[axis + 1 :]),
                a=here[0],
                b=here[1],
                panel=where.panel and replace(where.panel, here=here[2]),
            )
            k.next = [*body(inside, list(k.carry[: len(sums)])), *after]
        return k.result[: len(sums)]

    def moved(self, where: Where, axis: int, index: Index) -> Where:
        """The place `index` further along an axis."""
        kernel, waiting = self.kernel, self.schedule.sums
        further = where.indexes[axis] + index
        return replace(
            where,
            indexes=(*where.indexes[:axis], further, *where.indexes[axis + 1 :]),
            a=where.a.step(index, kernel.a.strides[axis] * itemsize(kernel.a.dtype)),
            b=where.b.step(index, kernel.b.strides[axis] * itemsize(kernel.b.dtype)),
            panel=where.panel and self._moved_panel(where.panel, axis, index),
            sums=where.sums.step(index, waiting.strides[axis]) if where.sums and waiting else None,
        )

    def _moved_panel(self, panel: Panel, axis: int, index: Index) -> Panel:
        stride = panel.strides[axis]
        if isinstance(stride, int):
            here = panel.here.step(index, stride)
        else:
            here = panel.here.step(index.on(self.emit) * stride)
        return replace(panel, here=here)

    def _term(
        self,
        at: Where,
        corners: list[dict[int, int]],
        rows: list[int],
        sums: list[Value],
        *,
        resident: bool,
    ) -> list[Value]:
        """One multiply-add for every sum of the tile."""
        emit, kernel = self.emit, self.kernel
        step = self.lanes * itemsize(kernel.a.dtype)
        across = kernel.a.strides[self.column]
        columns = [self._column(at, v, resident=resident) for v in range(at.vectors)]
        result: list[Value] = []
        for number, (corner, offset) in enumerate(zip(corners, rows, strict=True)):
            same: Value | None = None
            for v in range(at.vectors):
                if kernel.a.guards:
                    left = self._guarded(0, self.point(at, corner, v))
                elif across:
                    left = self._read(kernel.a, at.a + offset + v * step * across, at, v)
                else:
                    same = same or self._read(kernel.a, at.a + offset, at, v)
                    left = same
                right = columns[v]
                total = sums[number * at.vectors + v]
                if self.element in ("float", "double"):
                    result.append(emit.fma(left, right, total))
                else:
                    result.append(left * right + total)
        return result

    def _column(self, at: Where, v: int, *, resident: bool) -> Value:
        b, panel = self.kernel.b, at.panel
        if b.guards:
            return self._guarded(1, self.point(at, {}, v))
        across = v * self.lanes * itemsize(self.kernel.accumulator)
        if panel and not panel.write:
            mask = at.mask if panel.masked and v == at.vectors - 1 else None
            return self.emit.load(panel.here + across, self.type, mask=mask)
        here = at.b + v * self.lanes * b.strides[self.column] * itemsize(b.dtype)
        value = self._read(b, here, at, v, resident=resident)
        if panel:
            self.emit.store(value, panel.here + across)
        return value

    def pack(self, where: Where) -> None:
        """Fill a panel without computing anything."""

        def nest(level: int, at: Where) -> None:
            if level == len(where.terms):
                for v in range(at.vectors):
                    self._column(at, v, resident=False)
                return
            terms = where.terms[level]
            with self.emit.loop(terms.start, terms.stop) as k:
                nest(level + 1, self.moved(at, terms.axis, k.index))

        nest(0, where)

    def _read(
        self, side: Access, here: Place, at: Where, v: int, *, resident: bool = False
    ) -> Value:
        """Vector `v` of an operand without guards, as the accumulator's type."""
        emit, across = self.emit, side.strides[self.column]
        mask = at.mask if v == at.vectors - 1 else None
        memory = MEMORY[side.dtype]
        if across == 0:
            found = emit.load(here, memory)
            if side.dtype == "bfloat16":
                return self._converted(maths.spread(emit, found, self.lanes), side.dtype)
        elif across == 1:
            kind = vector(memory, self.lanes)
            found = emit.load(here, kind, mask=mask, invariant=resident and mask is None)
        else:
            point = Point((), self.column, self.lanes, mask, hoist=False)
            found = load_lanes(emit, here, side.dtype, across, point, _FREE)
        return self._converted(from_memory(emit, found, side.dtype), side.dtype)

    def _guarded(self, side: int, point: Point) -> Value:
        """An operand that is zero outside of its guards, by the general way."""
        access = (self.kernel.a, self.kernel.b)[side]
        return self._converted(self.sides.at(point).value(side), access.dtype)

    def _converted(self, value: Value, dtype: str) -> Value:
        if dtype != self.kernel.accumulator:
            value = maths.convert(self.emit, value, dtype, self.kernel.accumulator)
        return value if value.lanes == self.lanes else self.emit.splat(value, self.lanes)

    # --------------------------------------------------------------- results

    def point(self, at: Where, corner: dict[int, int], v: int) -> Point:
        """The first lane of vector `v` of a row of the tile, over all axes."""
        indexes = list(at.indexes)
        for axis, step in corner.items():
            indexes[axis] += step
        indexes[self.column] += v * self.lanes
        mask = at.mask if v == at.vectors - 1 else None
        return Point(tuple(indexes), self.column, self.lanes, mask)

    def _in_space(self, at: Where, corner: dict[int, int], v: int) -> Point:
        point = self.point(at, corner, v)
        return Point(point.indexes[: self.column + 1], self.column, self.lanes, point.mask)

    def finish(self, at: Where, corners: list[dict[int, int]], sums: list[Value]) -> None:
        """The epilogue, while the sums are in registers."""
        for number, corner in enumerate(corners):
            for v in range(at.vectors):
                point = self._in_space(at, corner, v)
                total = sums[number * at.vectors + v]
                if self.schedule.across:
                    total = self.emit.across(total, operator.add)
                    point = Point(point.indexes)
                self.epilogue.at(point, [total]).store(self.kernel.stores)

    def _stored(self, store: Store, point: Point) -> Value:
        point = Point(point.indexes[: self.column + 1], self.column, self.lanes, point.mask, False)
        start = place(self.operands[store.operand], point, store.strides, store.offset, store.dtype)
        stride = point.stride(store.strides)
        return load_lanes(self.emit, start, store.dtype, stride, point, _FREE)

    def _add_up(self, at: Where, corners: list[dict[int, int]], sums: list[Value]) -> None:
        """Write sums back to where they were read from."""
        (store,) = self.kernel.stores
        for number, corner in enumerate(corners):
            for v in range(at.vectors):
                point = self._in_space(at, corner, v)
                start = place(
                    self.operands[store.operand], point, store.strides, store.offset, store.dtype
                )
                total = sums[number * at.vectors + v]
                stride = point.stride(store.strides)
                store_lanes(self.emit, total, start, store.dtype, stride, point)

    # --------------------------------------------------------------- sums between blocks

    def _sum_place(self, at: Where, corner: dict[int, int], v: int) -> Place:
        sums = self.schedule.sums
        assert at.sums is not None
        assert sums is not None
        steps = sum(sums.strides[axis] * step for axis, step in corner.items())
        return at.sums + steps + v * self.lanes * itemsize(self.kernel.accumulator)

    def _keep(self, at: Where, corners: list[dict[int, int]], sums: list[Value]) -> None:
        """Put sums down until the next block."""
        for number, corner in enumerate(corners):
            for v in range(at.vectors):
                total = sums[number * at.vectors + v]
                self.emit.store(total, self._sum_place(at, corner, v))

    def take_up(self, at: Where) -> None:
        """The epilogue for sums that were put down."""
        corners = self._corners(at)
        sums = [
            self.emit.load(self._sum_place(at, corner, v), self.type)
            for corner in corners
            for v in range(at.vectors)
        ]
        self.finish(at, corners, sums)
