"""Contractions of narrow numbers: both operands are copied into words, which tiles multiply.

    for every index on the axes on which both operands move
        copy b into panels of columns                 words of a panel's vectors, term after term
        for every index on the outer rows
            for every chunk of the rows that are taken together
                copy the chunk of a                   words of a row, term after term
                panels, tiles of rows                 | terms

Reduced axes are runs of terms that lie side by side in `a`; a run is filled up to whole words with
zeros. So the order of a sum is fixed by shapes and the target, like its words (see `words`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lamina.llvm import choices
from lamina.llvm.emit import I1, MEMORY, Index, Place, Value, index, parts, vector
from lamina.llvm.expression import Expression, Point, bounds
from lamina.llvm.host import Target
from lamina.llvm.kernel import Access, Contraction
from lamina.llvm.kernels.axes import Nest, simplify
from lamina.llvm.kernels.nest import Axis, Frame
from lamina.llvm.kernels.words import Words, words
from lamina.types import Batch, fixed, itemsize

_WORD = 4


@dataclass(frozen=True)
class Narrow:
    """How a narrow contraction is computed.

    nest      simplified
    words     what is multiplied at once
    lanes     sums in a vector
    rows      of a tile, and
    vectors   of its columns
    around    axes of space on which both operands move
    outer     axes of rows around the chunks
    box       axes of rows that are taken together: one, or several that are copied whole
    chunk     rows of the box that are copied at a time
    """

    nest: Nest
    words: Words
    lanes: int
    rows: int
    vectors: int
    around: tuple[int, ...]
    outer: tuple[int, ...]
    box: tuple[int, ...]
    chunk: int

    @property
    def column(self) -> int:
        return len(self.nest.kernel.space) - 1

    @property
    def run(self) -> int:
        """Terms of `a` that lie side by side."""
        return fixed(self.nest.kernel.reduced[-1])

    @property
    def run_words(self) -> int:
        return -(-self.run // self.words.terms)

    @property
    def row_words(self) -> int:
        """Words of a whole sum."""
        runs = math.prod(fixed(size) for size in self.nest.kernel.reduced[:-1])
        return runs * self.run_words

    @property
    def columns(self) -> int:
        """Vectors of columns, the last of which may be cut."""
        return -(-fixed(self.nest.kernel.space[-1]) // self.lanes)

    @property
    def panel_bytes(self) -> int:
        """What all panels take, and the sums to begin with."""
        begin = self.words.unsigned
        return self.columns * (self.row_words + begin) * self.lanes * _WORD

    @property
    def scratch_bytes(self) -> int:
        # Copies of runs are written in whole vectors.
        return self.panel_bytes + self.chunk * self.row_words * _WORD + 2 * 64


def narrow(kernel: Contraction, target: Target) -> Narrow | None:
    """How a contraction of narrow numbers is computed; None if this is not for it."""
    chosen = words(kernel.a.dtype, target)
    if chosen is None or kernel.a.dtype != kernel.b.dtype or kernel.accumulate:
        return None
    if kernel.accumulator != ("int32" if kernel.a.dtype == "int8" else "float32"):
        return None
    nest = simplify(Nest(kernel))
    kernel = nest.kernel
    column = len(kernel.space) - 1
    static = all(isinstance(size, int) for size in (kernel.space[-1], *kernel.reduced))
    if not static or not kernel.reduced or kernel.split >= column or kernel.b.guards:
        return None
    side_by_side = kernel.a.strides[-1] == 1 and kernel.b.strides[column] == 1
    if not side_by_side or kernel.a.strides[column]:
        return None
    if any(guard.strides[column] or guard.strides[-1] for guard in kernel.a.guards):
        return None
    around = tuple(axis for axis in range(column) if kernel.b.strides[axis])
    rows = [axis for axis in range(column) if not kernel.b.strides[axis]]
    sizes = [fixed(size) for size in kernel.reduced]
    terms = math.prod(sizes)
    usual_rows = math.prod(choices.typical(kernel.space[axis]) for axis in rows)
    if not choices.words_pay(usual_rows, fixed(kernel.space[-1]), terms, sizes[-1], target):
        return None
    tile, vectors = choices.word_tile(target)
    row_bytes = math.prod(sizes[:-1]) * -(-sizes[-1] // chosen.terms) * _WORD
    most = choices.rows_in_words(row_bytes, tile)
    box = rows[-1:]
    while len(box) < len(rows) and _together(kernel, rows[-len(box) - 1 :], most):
        box = rows[-len(box) - 1 :]
    extent = 1
    for axis in box:
        size = kernel.space[axis]
        extent *= size if isinstance(size, int) and axis != kernel.split else most
    return Narrow(
        nest,
        chosen,
        target.lanes,
        tile,
        vectors,
        around,
        tuple(axis for axis in rows if axis not in box),
        tuple(box),
        extent if len(box) > 1 else min(extent, most),
    )


def _together(kernel: Contraction, axes: Sequence[int], most: int) -> bool:
    """Whether axes of rows can be one chunk."""
    sizes = [kernel.space[axis] for axis in axes]
    if kernel.split in axes or any(isinstance(size, Batch) for size in sizes):
        return False
    return math.prod(fixed(size) for size in sizes) <= most


def write(frame: Frame, plan: Narrow) -> None:
    """Write the contraction into a function."""
    _Writer(frame, plan).run()


Indexes = dict[int, Index]


class _Writer:
    def __init__(self, frame: Frame, plan: Narrow) -> None:
        self.frame, self.emit, self.plan = frame, frame.emit, plan
        self.kernel, self.words = plan.nest.kernel, plan.words
        self.operands = frame.operands
        self.epilogue = Expression(frame.emit, self.kernel.body, frame.operands, frame.rows)
        self.memory = MEMORY[self.words.dtype]
        self.size = itemsize(self.words.dtype)
        self.vector = plan.lanes * _WORD  # bytes
        self.panels = Place(frame.scratch)
        self.begin = Place(frame.scratch) + plan.columns * plan.row_words * self.vector
        self.copied = Place(frame.scratch) + plan.panel_bytes

    def run(self) -> None:
        a, b = (
            Place(self.operands[side.operand], side.offset * self.size)
            for side in (self.kernel.a, self.kernel.b)
        )
        with self.emit.when(self.frame.low < self.frame.high):
            self._around(list(self.plan.around), {}, a, b)

    # --------------------------------------------------------------- the loops

    def _range(self, axis: int) -> tuple[Index, Index]:
        split = axis == self.kernel.split
        return Axis(self.kernel.space[axis], split, self.plan.nest.scale).bounds(self.frame)

    def _along(self, side: Access, place: Place, axis: int, number: Index) -> Place:
        return place.step(number, side.strides[axis] * self.size)

    def _around(self, axes: list[int], where: Indexes, a: Place, b: Place) -> None:
        if not axes:
            self._columns(lambda start, vectors, mask: self._pack(b, start, vectors, mask))
            self._outer(list(self.plan.outer), where, a)
            return
        axis, *rest = axes
        with self.emit.loop(*self._range(axis)) as at:
            here = self._along(self.kernel.a, a, axis, at.index)
            there = self._along(self.kernel.b, b, axis, at.index)
            self._around(rest, {**where, axis: at.index}, here, there)

    def _outer(self, axes: list[int], where: Indexes, a: Place) -> None:
        if axes:
            axis, *rest = axes
            with self.emit.loop(*self._range(axis)) as at:
                here = self._along(self.kernel.a, a, axis, at.index)
                self._outer(rest, {**where, axis: at.index}, here)
            return
        box, chunk = self.plan.box, self.plan.chunk
        if len(box) != 1:
            self._copy_box(list(box), where, a, index(0))
            self._chunk(where, index(0), index(0), index(chunk))
            return
        start, stop = self._range(box[0])
        known = start.number is not None and stop.number is not None
        with self.emit.loop(start, stop, chunk) as at:
            rows = index(stop.number) if known and stop.number == chunk else None
            if rows is None:
                left = stop.on(self.emit) - at.index.on(self.emit)
                rows = index(self.emit.select(left < chunk, left, chunk))
            with self.emit.loop(0, rows) as row:
                further = at.index + row.index
                here = self._along(self.kernel.a, a, box[0], further)
                self._copy_row({**where, box[0]: further}, here, row.index)
            self._chunk(where, at.index, index(0), rows)

    def _columns(self, visit: Callable[[Index, int, Value | None], None]) -> None:
        """Visit every panel: its first vector, how many it has, and the mask of its last."""
        plan, emit = self.plan, self.emit
        left = fixed(self.kernel.space[-1]) % plan.lanes
        position = 0
        for vectors, count in choices.pieces(plan.columns, plan.vectors):
            end = position + vectors * count
            cut = left > 0 and end == plan.columns
            whole = end - vectors * cut
            if whole > position:
                with emit.loop(position, whole, vectors) as at:
                    visit(at.index, vectors, None)
            if cut:
                mask = emit.row([lane < left for lane in range(plan.lanes)], I1)
                visit(index(whole), vectors, mask)
            position = end

    def _chunk(self, where: Indexes, first: Index, start: Index, stop: Index) -> None:
        """All columns of the rows that have been copied; `first` is what row 0 is on the box."""

        def panel(column: Index, vectors: int, mask: Value | None) -> None:
            here = self.panels.step(column, self.plan.row_words * self.vector)
            for begin, end, size in self._tiles(start, stop):
                if begin.number is not None and begin.number == end.number:
                    continue
                with self.emit.loop(begin, end, size) as at:
                    sums = self._sums(at.index, size, here, column, vectors)
                    self._finish(where, first, at.index, size, column, vectors, mask, sums)

        self._columns(panel)

    def _tiles(self, start: Index, stop: Index) -> list[tuple[Index, Index, int]]:
        """Loops over rows: whole tiles, then the edge."""
        found = []
        if stop.number is not None:
            for size, count in choices.pieces(stop.number, self.plan.rows):
                found.append((start, start + size * count, size))
                start += size * count
            return found
        for size in choices.descending(self.plan.rows, self.plan.vectors):
            left = stop.on(self.emit) - start.on(self.emit)
            end = stop if size == 1 else index(start.on(self.emit) + left // size * size)
            found.append((start, end, size))
            start = end
        return found

    # --------------------------------------------------------------- copies

    def _runs(self, visit: Callable[[Indexes, Index], None]) -> None:
        """Visit every run of terms: the indexes on the reduced axes around it, and its number."""
        first = self.plan.column + 1
        axes = list(range(first, len(self.plan.nest.sizes) - 1))

        def nest(axes: list[int], where: Indexes, number: Index) -> None:
            if not axes:
                visit(where, number)
                return
            axis, *rest = axes
            size = fixed(self.plan.nest.sizes[axis])
            with self.emit.loop(0, size) as at:
                nest(rest, {**where, axis: at.index}, number * size + at.index)

        nest(axes, {}, index(0))

    def _pack(self, b: Place, column: Index, vectors: int, mask: Value | None) -> None:
        """Copy a panel of `b` into words."""
        emit, plan, terms = self.emit, self.plan, self.words.terms
        stride = self.kernel.b.strides[-1] * self.size
        panel = self.panels.step(column, plan.row_words * self.vector)
        b = b.step(column, plan.lanes * self.size)
        kind = vector(self.memory, plan.lanes)
        whole, left = divmod(plan.run, terms)

        def word(source: Place, target: Place, count: int) -> None:
            for v in range(vectors):
                cut = mask if v == vectors - 1 else None
                found = [
                    emit.load(source + t * stride + v * plan.lanes * self.size, kind, mask=cut)
                    for t in range(count)
                ]
                emit.store(self.words.right(emit, found), target + v * self.vector)

        def run(where: Indexes, number: Index) -> None:
            source = b
            for axis, position in where.items():
                source = self._along(self.kernel.b, source, axis, position)
            target = panel.step(number, plan.run_words * vectors * self.vector)
            with emit.loop(0, whole) as at:
                here = target.step(at.index, vectors * self.vector)
                word(source.step(at.index, terms * stride), here, terms)
            if left:
                word(source + whole * terms * stride, target + whole * vectors * self.vector, left)

        self._runs(run)
        if self.words.unsigned:
            self._begin(panel, column, vectors)

    def _begin(self, panel: Place, column: Index, vectors: int) -> None:
        """What sums begin with, where the left side is 128 too large: less the sum of `b`."""
        emit, kind = self.emit, vector(self.words.register, self.plan.lanes)
        zeros = [emit.zeros(kind)] * vectors
        with emit.loop(0, self.plan.row_words, carry=zeros, nonempty=True) as k:
            here = panel.step(k.index, vectors * self.vector)
            k.next = [
                self.words.surplus(emit, emit.load(here + v * self.vector, kind), total)
                for v, total in enumerate(k.carry)
            ]
        here = self.begin.step(column, self.vector)
        for v, total in enumerate(k.result):
            emit.store(0 - total, here + v * self.vector)

    def _copy_box(self, axes: list[int], where: Indexes, a: Place, row: Index) -> None:
        """Copy the rows of several axes."""
        if not axes:
            self._copy_row(where, a, row)
            return
        axis, *rest = axes
        size = fixed(self.kernel.space[axis])
        with self.emit.loop(0, size) as at:
            here = self._along(self.kernel.a, a, axis, at.index)
            self._copy_box(rest, {**where, axis: at.index}, here, row * size + at.index)

    def _copy_row(self, where: Indexes, a: Place, row: Index) -> None:
        """Copy all terms of a row of `a` into words; zeros outside of the guards."""
        emit, plan = self.emit, self.plan
        target = self.copied.step(row, plan.row_words * _WORD)

        def run(inside: Indexes, number: Index) -> None:
            source = a
            for axis, at in inside.items():
                source = self._along(self.kernel.a, source, axis, at)
            here = target.step(number, plan.run_words * _WORD)
            everywhere = {**where, **inside}
            indexes = tuple(everywhere.get(i, index(0)) for i in range(len(plan.nest.sizes)))
            held = bounds(emit, Point(indexes), self.kernel.a.guards)
            if not held.possible:
                self._clear_run(here)
            elif held.scalar is None:
                self._copy_run(source, here)
            else:
                emit.choose(
                    held.scalar,
                    lambda: self._copy_run(source, here),
                    lambda: self._clear_run(here),
                )

        self._runs(run)

    def _copy_run(self, source: Place, target: Place) -> list[Value]:
        emit, words, run = self.emit, self.words, self.plan.run
        lanes = self.plan.lanes * words.terms
        size = _WORD // words.terms
        whole = run // lanes * lanes
        for start, stop, count in ((0, whole, lanes), (whole, run, 1)):
            with emit.loop(start, stop, count) as at:
                kind = vector(self.memory, count) if count > 1 else self.memory
                found = emit.load(source.step(at.index, self.size), kind)
                emit.store(words.left(emit, found), target.step(at.index, size))
        for term in range(run, self.plan.run_words * words.terms):
            emit.store(words.zero(emit, 1), target + term * size)
        return []

    def _clear_run(self, target: Place) -> list[Value]:
        """Zeros for a run, in whole vectors: what lies behind is written later, or nothing's."""
        lanes = self.plan.lanes * self.words.terms
        with self.emit.loop(0, self.plan.run_words, self.plan.lanes) as at:
            self.emit.store(self.words.zero(self.emit, lanes), target.step(at.index, _WORD))
        return []

    # --------------------------------------------------------------- tiles

    def _sums(
        self, row: Index, rows: int, panel: Place, column: Index, vectors: int
    ) -> list[Value]:
        """The sums of a tile, row by row."""
        emit, plan, words = self.emit, self.plan, self.words
        a = self.copied.step(row, plan.row_words * _WORD)
        kind, sums = vector(words.register, plan.lanes), vector(words.sums, plan.lanes)
        begin = [emit.zeros(sums)] * vectors
        if words.unsigned:
            here = self.begin.step(column, self.vector)
            begin = [emit.load(here + v * self.vector, sums) for v in range(vectors)]
        carry = [*begin * rows, a.pointer, panel.pointer]
        tile = list(itertools.product(range(rows), range(vectors)))
        with emit.loop(0, plan.row_words, carry=carry, nonempty=True) as k:
            *totals, left, right = k.carry
            columns = [emit.load(Place(right, v * self.vector), kind) for v in range(vectors)]
            each = [
                emit.splat(
                    emit.load(Place(left, r * plan.row_words * _WORD), parts(kind)[0]), plan.lanes
                )
                for r in range(rows)
            ]
            k.next = [
                words.multiply(emit, each[r], columns[v], total)
                for (r, v), total in zip(tile, totals, strict=True)
            ]
            k.next += [Place(left, _WORD).pointer, Place(right, vectors * self.vector).pointer]
        return k.result[:-2]

    def _finish(
        self,
        where: Indexes,
        first: Index,
        row: Index,
        rows: int,
        column: Index,
        vectors: int,
        mask: Value | None,
        sums: Sequence[Value],
    ) -> None:
        """The epilogue of a tile."""
        lanes = self.plan.lanes
        for r in range(rows):
            box = self._box(first + row + r)
            for v in range(vectors):
                at = {**where, **box, self.plan.column: column * lanes + v * lanes}
                indexes = tuple(at[axis] for axis in range(self.plan.column + 1))
                cut = mask if v == vectors - 1 else None
                point = Point(indexes, self.plan.column, lanes, cut)
                evaluation = self.epilogue.at(point, [sums[r * vectors + v]])
                evaluation.store(self.kernel.stores)

    def _box(self, row: Index) -> Indexes:
        """The indexes on the axes of the box of one of its rows."""
        found: Indexes = {}
        rest = row
        for axis in reversed(self.plan.box[1:]):
            size = fixed(self.kernel.space[axis])
            if rest.number is not None:
                found[axis], rest = index(rest.number % size), index(rest.number // size)
                continue
            whole = rest.on(self.emit) // size
            found[axis] = index(rest.on(self.emit) - whole * size)
            rest = index(whole)
        return {**found, self.plan.box[0]: rest}
