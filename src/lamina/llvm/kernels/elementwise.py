"""Maps, copies, broadcasts: evaluate a body at every point of a space and store it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeGuard

from lamina.llvm.emit import I32, I64, MEMORY, POINTER, Emit, Index, Module, Place, Value, vector
from lamina.llvm.expression import Evaluation, Expression, place, sheltered
from lamina.llvm.kernel import (
    Body,
    Elementwise,
    Instruction,
    Load,
    Lookup,
    Random,
    Scalar,
    Store,
)
from lamina.llvm.kernels.nest import (
    Axis,
    Frame,
    Span,
    cuts,
    loading_cost,
    loops,
    masked,
    merge,
    open_kernel,
    operand_count,
    point,
    stride_vectors,
    sweep,
)
from lamina.types import itemsize

_LIGHT = 12  # instructions of a body up to which the loop around it is worth unrolling
_UNROLL = 4
_STRETCHES = 6  # of the vector's axis, between changes of guards
_TOGETHER = 4  # vectors of a transposed tile that are evaluated side by side
_CHEAP = {
    "add", "sub", "mul", "div", "maximum", "minimum", "neg", "abs", "where", "square", "sqrt",
    "reciprocal", "and", "or", "xor", "not", "eq", "ne", "lt", "le", "gt", "ge", "shl", "shr",
}  # fmt: skip


def operands(kernel: Elementwise) -> int:
    """How many operands a call of the kernel takes."""
    return operand_count(kernel.body, kernel.stores)


def build(kernel: Elementwise, name: str, module: Module) -> None:
    """Add the function of an elementwise kernel to the module."""
    frame = open_kernel(module, name, operands(kernel))
    emit = frame.emit
    merged = merge(kernel.space, kernel.split, stride_vectors(kernel.body, kernel.stores))
    body, stores = merged.body(kernel.body), merged.stores(kernel.stores)
    axes = merged.axes
    expression = Expression(emit, body, frame.operands, frame.rows)
    axis = vector_axis(axes, range(len(axes)), body, stores, emit.lanes)
    sweeper = _Sweeper(frame, axes, expression, stores, axis)
    crossing = None if axis is None else _crossing_axis(axes, axis, body, emit.lanes)
    outer = [number for number in range(len(axes)) if number not in {axis, crossing}]
    with loops(frame, axes, outer) as indexes:
        if axis is None:
            sweeper.visit(indexes, [None])
        elif crossing is None:
            start, stop = axes[axis].bounds(frame)
            sweeper.sweep(indexes, start, stop)
        else:
            sweeper.cross(indexes, crossing)
    emit.finish()


@dataclass(frozen=True)
class _Sweeper:
    """An elementwise kernel whose vectors run along `axis`."""

    frame: Frame
    axes: tuple[Axis, ...]
    expression: Expression
    stores: tuple[Store, ...]
    axis: int | None

    def visit(self, indexes: dict[int, Index], spans: Sequence[Span | None]) -> None:
        """Evaluate at some vectors, then store them all."""
        rank = len(self.axes)
        evaluations = [self.expression.at(point(indexes, rank, self.axis, span)) for span in spans]
        self._finish(evaluations)

    def _finish(self, evaluations: Sequence[Evaluation]) -> None:
        for evaluation in evaluations:
            for store in self.stores:
                evaluation.lanes(store.argument)
        for evaluation in evaluations:
            evaluation.store(self.stores)

    def sweep(self, indexes: dict[int, Index], start: Index, stop: Index) -> None:
        """Cut the axis into vectors, several at a time if the body is light.

        Where guards change along the axis (a concatenation, padding) each stretch between two
        changes has its own loop, in which they are settled.
        """
        assert self.axis is not None
        emit = self.frame.emit
        body = self.expression.body
        unroll = _UNROLL if weight(body) <= _LIGHT else 1
        extent = self.axes[self.axis].extent
        edges = cuts(body, self.axis, extent) if isinstance(extent, int) else []
        if not 3 <= len(edges) <= _STRETCHES + 1:
            sweep(emit, start, stop, emit.lanes, unroll, lambda spans: self.visit(indexes, spans))
            return
        unroll = max(1, unroll // (len(edges) - 1))
        for first, last in pairwise(edges):

            def visit(spans: list[Span], reach: tuple[int, int] = (first, last)) -> None:
                self.visit(indexes, [replace(span, reach=reach) for span in spans])

            low, high = _overlap(emit, start, stop, first, last)
            sweep(emit, low, high, emit.lanes, unroll, visit)

    def cross(self, indexes: dict[int, Index], crossing: int) -> None:
        """Tiles of lanes x lanes, where some loads have unit stride along `crossing` instead."""
        assert self.axis is not None
        emit = self.frame.emit
        lanes = emit.lanes
        first, last = self.axes[crossing].bounds(self.frame)
        start, stop = self.axes[self.axis].bounds(self.frame)
        middle = _whole(emit, first, last, lanes)
        end = stop if emit.target.has_masks else _whole(emit, start, stop, lanes)
        with emit.loop(first, middle, lanes) as across:
            with emit.loop(start, end, lanes) as along:
                span = Span(along.index, lanes)
                if emit.target.has_masks and not _divides(start, stop, lanes):
                    span = masked(emit, along.index, stop, lanes)
                self._tile(indexes, crossing, across.index, span, stop)
            if not emit.target.has_masks and not _divides(start, stop, lanes):
                with emit.loop(across.index, across.index + lanes) as rest:
                    self.sweep({**indexes, crossing: rest.index}, end, stop)
        if not _divides(first, last, lanes):
            with emit.loop(middle, last) as rest:
                self.sweep({**indexes, crossing: rest.index}, start, stop)

    def _tile(
        self, indexes: dict[int, Index], crossing: int, first: Index, span: Span, stop: Index
    ) -> None:
        """Transpose what runs along the crossing axis, and evaluate along the other."""
        assert self.axis is not None
        emit, rank = self.frame.emit, len(self.axes)
        lanes = emit.lanes
        corner = point({**indexes, crossing: first}, rank, self.axis, span)
        rows = emit.value(lanes, I64) if span.mask is None else (stop + span.index * -1).on(emit)
        columns: dict[int, Place] = {}
        for number, load in enumerate(self.expression.body):
            if not _crosses(load, self.axis, crossing):
                continue
            operand = self.frame.operands[load.operand]
            source = place(operand, corner, load.strides, load.offset, load.dtype)
            step = load.strides[self.axis] * 4
            store = self.stores[0]
            copies = len(self.expression.body) == len(self.stores) == 1
            if copies and span.mask is None and store.strides[self.axis] == 1:
                operand = self.frame.operands[store.operand]
                target = place(operand, corner, store.strides, store.offset, store.dtype)
                _transpose(emit, source, step, rows, target, store.strides[crossing] * 4)
                return
            columns[number] = emit.stack(lanes * lanes * 4)
            _transpose(emit, source, step, rows, columns[number], lanes * 4)
        with emit.loop(0, lanes, _TOGETHER) as loop:
            evaluations = []
            for lane in range(_TOGETHER):
                where = {**indexes, crossing: first + loop.index + lane}
                evaluation = self.expression.at(point(where, rank, self.axis, span))
                for number, buffer in columns.items():
                    kind = vector(MEMORY[self.expression.body[number].dtype], lanes)
                    start = buffer.step(loop.index + lane, lanes * 4)
                    evaluation.known[number] = emit.load(start, kind)
                evaluations.append(evaluation)
            self._finish(evaluations)


def _overlap(emit: Emit, start: Index, stop: Index, first: int, last: int) -> tuple[Index, Index]:
    """The part of `[start, stop)` that lies in `[first, last)`; perhaps one that stops early."""
    if start.number is not None and stop.number is not None:
        known = max(start.number, first)
        return Index(None, known), Index(None, max(known, min(stop.number, last)))
    begin, end = start.on(emit), stop.on(emit)
    low = emit.select(begin > first, begin, first)
    high = emit.select(end < last, end, last)
    return Index(low), Index(emit.select(high > low, high, low))


def _transpose(
    emit: Emit, source: Place, stride: int, rows: Value, target: Place, target_stride: int
) -> None:
    """Write the transpose of lanes x lanes words to `target`; rows from `rows` on are zero.

    All kernels of a module share one function, in two small loops: shuffles are dear to compile.
    """
    name, lanes = "transpose", emit.lanes
    groups = lanes // 4
    row_bytes = lanes * 4
    if name not in emit.module.functions:
        parameters = [(POINTER, "source"), (I64, "stride"), (I64, "rows")]
        parameters += [(POINTER, "target"), (I64, "target_stride")]
        inner = emit.module.function(name, parameters, internal=True)
        pointer, step, count, out, out_step = inner.parameters
        kind = vector(I32, lanes)
        between = inner.stack(lanes * row_bytes)
        with inner.loop(0, groups) as group:
            quad = []
            for row in range(4):
                number = (group.index * 4 + row).on(inner)
                here = sheltered(inner, Place(pointer).step(step * number), number < count)
                quad.append(inner.load(here, kind))
            for k, value in enumerate(inner.transpose_blocks(quad)):
                inner.store(value, between.step(group.index, row_bytes) + k * groups * row_bytes)
        with inner.loop(0, 4) as column:
            start = between.step(column.index, groups * row_bytes)
            parts = [inner.load(start + group * row_bytes, kind) for group in range(groups)]
            for quarter, value in enumerate(inner.transpose_quarters(parts)):
                number = (column.index + 4 * quarter).on(inner)
                inner.store(value, Place(out).step(out_step * number))
        inner.finish()
    strides = emit.value(stride, I64), emit.value(target_stride, I64)
    emit.call(name, "void", source.pointer, strides[0], rows, target.pointer, strides[1])


def _whole(emit: Emit, start: Index, stop: Index, lanes: int) -> Index:
    """The end of the last whole vector between `start` and `stop`."""
    count = stop + start * -1
    if count.number is not None:
        return start + count.number // lanes * lanes
    return start + (count.on(emit) & -lanes)


def _divides(start: Index, stop: Index, lanes: int) -> bool:
    """Whether the length is known to be a whole number of vectors."""
    count = (stop + start * -1).number
    return count is not None and count % lanes == 0


def _crosses(item: Instruction, axis: int, crossing: int) -> TypeGuard[Load]:
    """Whether an instruction loads along `crossing` what a vector along `axis` needs."""
    return (
        isinstance(item, Load)
        and not item.guards
        and itemsize(item.dtype) == 4
        and item.strides[crossing] == 1
        and item.strides[axis] not in {0, 1}
    )


def _crossing_axis(axes: Sequence[Axis], axis: int, body: Body, lanes: int) -> int | None:
    """The axis along which loads run that would be gathered along `axis`."""
    for number, other in enumerate(axes):
        long_enough = number != axis and min(other.typical, axes[axis].typical) * 2 >= lanes
        if long_enough and any(_crosses(item, axis, number) for item in body):
            return number
    return None


def weight(body: Sequence[Instruction]) -> int:
    """About how many vector instructions one evaluation takes."""
    total = 0
    for instruction in body:
        match instruction:
            case Scalar(fn=fn):
                total += 1 if fn in _CHEAP else 20
            case Lookup() | Random():
                total += 40
            case _:
                total += 1
    return total


def vector_axis(
    axes: Sequence[Axis],
    candidates: Sequence[int],
    body: Body,
    stores: Sequence[Store],
    lanes: int,
) -> int | None:
    """The axis along which a vector costs least, or None where there is no axis."""
    best, least = None, float("inf")
    work = weight(body)
    for number in candidates:
        cost = work + loading_cost(body, number, lanes)
        for store in stores:
            stride = store.strides[number]
            cost += 1.0 if stride == 1 else float(lanes) if stride else 1000.0
        extent = axes[number].typical
        cost *= -(-extent // lanes) / max(1, extent)
        if cost <= least:
            best, least = number, cost
    return best
