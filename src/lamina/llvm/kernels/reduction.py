"""Reductions: sums, extremes and their positions over any axes, maps fused before and after.

The vector runs along an axis that stays where one has unit stride: then a tile of several vectors
is reduced at once. Otherwise it runs along a reduced axis, with several independent accumulators,
whose lanes are joined in a fixed tree at the end. Long float sums are taken in blocks, so that
rounding errors grow with the number of blocks, not of terms. The order of terms follows from the
shape alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lamina.llvm import maths
from lamina.llvm.emit import I32, MEMORY, Emit, Index, Module, Value
from lamina.llvm.expression import (
    Bounds,
    Evaluation,
    Expression,
    KernelError,
    Point,
    from_memory,
    load_lanes,
    place,
    store_lanes,
)
from lamina.llvm.kernel import Core, Reduction, Store
from lamina.llvm.kernels.elementwise import weight
from lamina.llvm.kernels.nest import (
    Axis,
    Frame,
    Span,
    loading_cost,
    loops,
    masked,
    merge,
    open_kernel,
    operand_count,
    padded,
    point,
    stride_vectors,
    sweep,
)
from lamina.llvm.kernels.reducers import Reducer, State, flatten, unflatten

_UNROLLED = 32  # terms up to which a reduction becomes straight code
_BLOCK = 512  # terms of a float sum that share one accumulator


def operands(kernel: Reduction) -> int:
    """How many operands a call of the kernel takes."""
    return operand_count(kernel.body, kernel.after, kernel.stores)


@dataclass
class _Plan:
    """A reduction over merged axes, all strides padded to their full number."""

    frame: Frame
    axes: tuple[Axis, ...]
    spaces: int
    before: Expression
    after: Expression
    stores: tuple[Store, ...]
    arguments: tuple[int, ...]
    reducers: list[Reducer]
    dtypes: list[str]
    positions: tuple[int, ...]
    accumulate: bool
    ways: int = 1

    @property
    def emit(self) -> Emit:
        return self.frame.emit

    @property
    def reduced(self) -> range:
        return range(self.spaces, len(self.axes))


def build(kernel: Reduction, name: str, module: Module) -> None:
    """Add the function of a reduction to the module."""
    frame = open_kernel(module, name, operands(kernel))
    plan = _plan(kernel, frame)
    axis = _vector_axis(plan)
    if axis is None or axis < plan.spaces:
        _along_space(plan, axis)
    else:
        _along_reduced(plan, axis)
    frame.emit.finish()


def _plan(kernel: Reduction, frame: Frame) -> _Plan:
    zeros = (0,) * len(kernel.reduced)
    stores = tuple(replace(store, strides=store.strides + zeros) for store in kernel.stores)
    after = padded(kernel.after, len(kernel.reduced))
    vectors = [*stride_vectors(kernel.body, stores), *stride_vectors(after, ())]
    extents = (*kernel.space, *kernel.reduced)
    merged = merge(extents, kernel.split, vectors, len(kernel.space))
    reducers = [Reducer(kind, kernel.body[argument].dtype) for argument, kind in kernel.results]
    dtypes = [_core_dtype(kernel, number, r) for number, r in enumerate(reducers)]
    return _Plan(
        frame,
        merged.axes,
        merged.spaces,
        Expression(frame.emit, merged.body(kernel.body), frame.operands, frame.rows),
        Expression(frame.emit, merged.body(after), frame.operands, frame.rows),
        merged.stores(stores),
        tuple(argument for argument, _ in kernel.results),
        reducers,
        dtypes,
        _position_strides(merged.axes, merged.spaces, reducers),
        kernel.accumulate,
    )


def _core_dtype(kernel: Reduction, number: int, reducer: Reducer) -> str:
    for instruction in kernel.after:
        if isinstance(instruction, Core) and instruction.index == number:
            return instruction.dtype
    return "int32" if reducer.positional else reducer.dtype


def _position_strides(
    axes: Sequence[Axis], spaces: int, reducers: Sequence[Reducer]
) -> tuple[int, ...]:
    """How far one step on each axis moves in row-major order over the reduced axes."""
    strides = [0] * len(axes)
    if any(reducer.positional for reducer in reducers):
        step = 1
        for number in range(len(axes) - 1, spaces - 1, -1):
            strides[number] = step
            extent = axes[number].extent
            if isinstance(extent, int):
                step *= extent
            elif number != spaces:
                raise KernelError("argmax over the batch needs it as the first reduced axis")
    return tuple(strides)


def _vector_axis(plan: _Plan) -> int | None:
    """The axis along which a vector costs least, or None where there is no axis."""
    lanes = plan.emit.lanes
    body = plan.before.body
    work = weight(body) + 2 * len(plan.reducers)
    reduced = max(1, math.prod(plan.axes[number].typical for number in plan.reduced))
    best, least = None, float("inf")
    for number, axis in enumerate(plan.axes):
        cost = work + loading_cost(body, number, lanes)
        cost *= -(-axis.typical // lanes) / max(1, axis.typical)
        if number < plan.spaces:
            apart = [s.strides[number] for s in plan.stores]
            cost += sum(1.0 if s == 1 else 2.0 if s else 1000.0 for s in apart) / reduced
        else:
            cost += 12.0 * len(plan.reducers) / reduced
        if cost <= least:
            best, least = number, cost
    return best


# ------------------------------------------------------------------------- common parts


def _position(plan: _Plan, where: Point) -> Value | None:
    """Row-major positions over the reduced axes, as i32 lanes."""
    if not any(reducer.positional for reducer in plan.reducers):
        return None
    emit = plan.emit
    total = Index(None)
    for number, stride in zip(where.indexes, plan.positions, strict=True):
        if stride:
            total += number * stride
    first = emit.resize(total.on(emit), I32)
    stride = where.stride(plan.positions)
    if stride == 0:
        return emit.splat(first, where.lanes)
    return emit.splat(first, where.lanes) + emit.lane_numbers(where.lanes, I32, stride)


def _take(plan: _Plan, states: Sequence[State], where: Point, *, tail: bool) -> list[State]:
    """The states with the terms of one point, or one vector of points."""
    evaluation = plan.before.at(where)
    position = _position(plan, where)
    mask = where.mask if tail else None
    return [
        reducer.take(plan.emit, state, evaluation.lanes(argument), position, mask)
        for reducer, argument, state in zip(plan.reducers, plan.arguments, states, strict=True)
    ]


def _join(plan: _Plan, a: Sequence[State], b: Sequence[State]) -> list[State]:
    return [r.join(plan.emit, x, y) for r, x, y in zip(plan.reducers, a, b, strict=True)]


def _start(plan: _Plan, lanes: int) -> list[State]:
    return [reducer.start(plan.emit, lanes) for reducer in plan.reducers]


def _finish(plan: _Plan, where: Point, states: Sequence[State]) -> None:
    """Evaluate what comes after, and store or add it."""
    emit = plan.emit
    cores = [
        reducer.result(emit, state, dtype)
        for reducer, state, dtype in zip(plan.reducers, states, plan.dtypes, strict=True)
    ]
    evaluation = plan.after.at(where, cores)
    if not plan.accumulate:
        evaluation.store(plan.stores)
        return
    for store in plan.stores:
        _add_to(plan, evaluation, where, store)


def _add_to(plan: _Plan, evaluation: Evaluation, where: Point, store: Store) -> None:
    emit = plan.emit
    operand = plan.frame.operands[store.operand]
    start = place(operand, where, store.strides, store.offset, store.dtype)
    stride = where.stride(store.strides)
    value = evaluation.lanes(store.argument)
    if where.lanes == 1:
        read = emit.load(start, MEMORY[store.dtype], mask=where.mask)
    else:
        everywhere = Bounds(possible=True, scalar=None, mask=None)
        changing = replace(where, hoist=False)
        read = load_lanes(emit, start, store.dtype, stride, changing, everywhere)
    old = from_memory(emit, read, store.dtype)
    total = maths.apply(emit, "add", [old, value], [store.dtype] * 2, store.dtype)
    store_lanes(emit, total, start, store.dtype, stride, where)


def _in_blocks(
    plan: _Plan,
    axis: Axis,
    states: Sequence[State],
    lanes: int,
    inner: Callable[[Index, Index, Sequence[State]], list[State]],
) -> list[State]:
    """Reduce an axis, in blocks with their own accumulators where a float sum is long."""
    start, stop = axis.bounds(plan.frame)
    emit = plan.emit
    inexact = any(reducer.inexact for reducer in plan.reducers)
    if not inexact or (axis.static is not None and axis.static <= 2 * _BLOCK):
        return inner(start, stop, states)
    carry = flatten(states)
    with emit.loop(start, stop, _BLOCK, carry) as block:
        end = (block.index + _BLOCK).on(emit)
        last = stop.on(emit)
        end = emit.select(end < last, end, last)
        part = inner(block.index, Index(end), _start(plan, lanes))
        total = _join(plan, unflatten(block.carry, plan.reducers), part)
        block.next = flatten(total)
    return unflatten(block.result, plan.reducers)


# ------------------------------------------------------------------------- along the space


def _along_space(plan: _Plan, axis: int | None) -> None:
    emit = plan.emit
    reduced = list(plan.reduced)
    vectors = 1 if axis is None else _tile_vectors(plan, axis)
    if vectors * len(plan.reducers) < 4 and weight(plan.before.body) <= 12:
        # Few vectors in a tile: several terms in flight hide the latency of an addition. As the
        # order of terms depends on it, narrower tiles at the edge do the same.
        plan = replace(plan, ways=4)
    order = [number for number in range(plan.spaces) if number != axis]
    with loops(plan.frame, plan.axes, order) as indexes:

        def visit(spans: Sequence[Span | None]) -> None:
            def at(where: dict[int, Index], span: Span | None) -> Point:
                return point({**indexes, **where}, len(plan.axes), axis, span)

            lanes = spans[0].lanes if spans[0] is not None else 1
            tile = [_start(plan, lanes) for _ in spans]
            tile = _reduce_tile(plan, reduced, {}, tile, spans, at)
            nowhere = {number: Index(None) for number in reduced}
            for span, states in zip(spans, tile, strict=True):
                _finish(plan, at(nowhere, span), states)

        if axis is None:
            visit([None])
        else:
            start, stop = plan.axes[axis].bounds(plan.frame)
            sweep(emit, start, stop, emit.lanes, vectors, visit)


def _tile_vectors(plan: _Plan, axis: int) -> int:
    """How many vectors of the axis to reduce side by side."""
    heavy = weight(plan.before.body) > 12
    limit = 2 if heavy else max(1, plan.emit.target.registers // (4 * len(plan.reducers)))
    terms = _straight(plan, plan.reduced)
    if terms is not None:  # all terms stand in the code, for each vector of the tile
        limit = min(limit, 4, max(1, _UNROLLED // (2 * len(terms) + 1)))
    vectors = plan.axes[axis].typical // plan.emit.lanes
    return max(1, min(limit, vectors))


def _straight(plan: _Plan, numbers: Sequence[int]) -> list[tuple[int, ...]] | None:
    """All indexes of the axes if they are known and few."""
    extents = [plan.axes[number].static for number in numbers]
    if any(extent is None for extent in extents):
        return None
    known = [extent for extent in extents if extent is not None]
    if math.prod(known) > _UNROLLED:
        return None
    return list(itertools.product(*(range(extent) for extent in known)))


def _reduce_tile(
    plan: _Plan,
    numbers: Sequence[int],
    where: dict[int, Index],
    tile: Sequence[Sequence[State]],
    spans: Sequence[Span | None],
    at: Callable[[dict[int, Index], Span | None], Point],
) -> list[list[State]]:
    """The tile reduced over the axes `numbers`, outermost first."""
    straight = _straight(plan, numbers)
    if straight is not None:
        current = [list(states) for states in tile]
        for indexes in straight:
            inside = {**where, **{n: Index(None, i) for n, i in zip(numbers, indexes, strict=True)}}
            current = [
                _take(plan, states, at(inside, span), tail=False)
                for span, states in zip(spans, current, strict=True)
            ]
        return current
    number, *rest = numbers
    emit = plan.emit
    lanes = spans[0].lanes if spans[0] is not None else 1
    width = len(plan.reducers)
    ways = 1 if rest else plan.ways

    def step(position: Index, states: Sequence[State]) -> list[State]:
        inside = {**where, number: position}
        parts = [list(states[i * width : (i + 1) * width]) for i in range(len(spans))]
        after = _reduce_tile(plan, rest, inside, parts, spans, at)
        return [state for part in after for state in part]

    def run(start: Index, stop: Index, states: Sequence[State]) -> list[State]:
        if ways == 1:
            with emit.loop(start, stop, 1, flatten(states)) as loop:
                loop.next = flatten(step(loop.index, unflatten(loop.carry, plan.reducers)))
            return unflatten(loop.result, plan.reducers)
        count = (stop + start * -1).on(emit)
        middle = start + (count & -ways)
        others = [_start(plan, lanes) * len(spans) for _ in range(ways - 1)]
        size = len(states)
        carry = flatten([*states, *itertools.chain(*others)])
        with emit.loop(start, middle, ways, carry) as loop:
            current = unflatten(loop.carry, plan.reducers)
            following: list[State] = []
            for way in range(ways):
                part = current[way * size : (way + 1) * size]
                following += step(loop.index + way, part)
            loop.next = flatten(following)
        current = unflatten(loop.result, plan.reducers)
        groups = [current[way * size : (way + 1) * size] for way in range(ways)]
        while len(groups) > 1:
            groups = [
                [
                    plan.reducers[i % width].join(emit, a, b)
                    for i, (a, b) in enumerate(zip(groups[g], groups[g + 1], strict=True))
                ]
                for g in range(0, len(groups), 2)
            ]
        with emit.loop(middle, stop, 1, flatten(groups[0])) as loop:
            loop.next = flatten(step(loop.index, unflatten(loop.carry, plan.reducers)))
        return unflatten(loop.result, plan.reducers)

    states = [state for part in tile for state in part]
    wide = replace(plan, reducers=plan.reducers * len(spans))
    result = _in_blocks(wide, plan.axes[number], states, lanes, run)
    return [result[i * width : (i + 1) * width] for i in range(len(spans))]


# ------------------------------------------------------------------------- along a reduced axis


def _along_reduced(plan: _Plan, axis: int) -> None:
    emit = plan.emit
    lanes = emit.lanes
    outer = [number for number in plan.reduced if number != axis]
    ways = _ways(plan, axis)
    with loops(plan.frame, plan.axes, range(plan.spaces)) as indexes:

        def at(where: dict[int, Index], span: Span) -> Point:
            return point({**indexes, **where}, len(plan.axes), axis, span)

        def row(where: dict[int, Index], states: Sequence[State]) -> list[State]:
            """The vector states and, behind them, the scalar ones, after one row."""

            def run(start: Index, stop: Index, current: Sequence[State]) -> list[State]:
                return _row(plan, start, stop, ways, current, lambda span: at(where, span))

            return _blocked_row(plan, axis, states, lanes, run)

        def nest(
            numbers: Sequence[int], where: dict[int, Index], states: list[State]
        ) -> list[State]:
            if not numbers:
                return row(where, states)
            number, *rest = numbers
            start, stop = plan.axes[number].bounds(plan.frame)
            with emit.loop(start, stop, 1, flatten(states)) as loop:
                current = unflatten(loop.carry, plan.reducers)
                loop.next = flatten(nest(rest, {**where, number: loop.index}, current))
            return unflatten(loop.result, plan.reducers)

        states = nest(outer, {}, [*_start(plan, lanes), *_start(plan, 1)])
        width = len(plan.reducers)
        total = [
            reducer.join(emit, reducer.across(emit, wide), single)
            for reducer, wide, single in zip(
                plan.reducers, states[:width], states[width:], strict=True
            )
        ]
        nowhere = {number: Index(None) for number in plan.reduced}
        rank = len(plan.axes)
        _finish(plan, point({**indexes, **nowhere}, rank, None, None), total)


def _ways(plan: _Plan, axis: int) -> int:
    """How many vectors to accumulate side by side: a power of two, so that `_row` can mask."""
    vectors = plan.axes[axis].typical // plan.emit.lanes
    limit = 4 if weight(plan.before.body) <= 12 else 1
    return 1 << (max(1, min(limit, vectors)).bit_length() - 1)


def _blocked_row(
    plan: _Plan,
    axis: int,
    states: Sequence[State],
    lanes: int,
    run: Callable[[Index, Index, Sequence[State]], list[State]],
) -> list[State]:
    """Blocks of a whole number of vectors, each with its own accumulators."""
    emit = plan.emit
    start, stop = plan.axes[axis].bounds(plan.frame)
    inexact = any(reducer.inexact for reducer in plan.reducers)
    block_size = _BLOCK * lanes
    if not inexact or plan.axes[axis].typical <= 2 * block_size:
        return run(start, stop, states)
    fresh = [*_start(plan, lanes), *_start(plan, 1)]
    with emit.loop(start, stop, block_size, flatten(states)) as block:
        end = (block.index + block_size).on(emit)
        last = stop.on(emit)
        part = run(block.index, Index(emit.select(end < last, end, last)), fresh)
        current = unflatten(block.carry, plan.reducers)
        width = len(plan.reducers)
        total = [
            *_join(plan, current[:width], part[:width]),
            *_join(plan, current[width:], part[width:]),
        ]
        block.next = flatten(total)
    return unflatten(block.result, plan.reducers)


def _row(
    plan: _Plan,
    start: Index,
    stop: Index,
    ways: int,
    states: Sequence[State],
    at: Callable[[Span], Point],
) -> list[State]:
    """Reduce `[start, stop)` of the vector's axis into vector states and scalar states."""
    emit = plan.emit
    lanes = emit.lanes
    width = len(plan.reducers)
    wide, single = list(states[:width]), list(states[width:])
    first = start
    count = (stop + start * -1).on(emit)
    if start.number is not None and stop.number is not None:
        length = stop.number - start.number
        ends = [start + length // n * n for n in (lanes * ways, lanes)]
    else:
        ends = [start + (count & -n) for n in (lanes * ways, lanes)]
    if ways > 1:
        others = [_start(plan, lanes) for _ in range(ways - 1)]
        carry = flatten([*wide, *itertools.chain(*others)])
        with emit.loop(first, ends[0], lanes * ways, carry) as loop:
            current = unflatten(loop.carry, plan.reducers)
            following: list[State] = []
            for way in range(ways):
                span = Span(loop.index + way * lanes, lanes)
                part = current[way * width : (way + 1) * width]
                following += _take(plan, part, at(span), tail=False)
            loop.next = flatten(following)
        current = unflatten(loop.result, plan.reducers)
        groups = [current[way * width : (way + 1) * width] for way in range(ways)]
        while len(groups) > 1:
            joined = [_join(plan, a, b) for a, b in zip(groups[::2], groups[1::2], strict=False)]
            groups = [*joined, *groups[len(joined) * 2 :]]
        wide = groups[0]
        first = ends[0]
    last = stop if emit.target.has_masks else ends[1]
    if first.number is not None and first.number == stop.number:
        return [*wide, *single]
    with emit.loop(first, last, lanes, flatten(wide)) as loop:
        current = unflatten(loop.carry, plan.reducers)
        span = masked(emit, loop.index, last, lanes)
        if not emit.target.has_masks:
            span = Span(loop.index, lanes)
        loop.next = flatten(_take(plan, current, at(span), tail=True))
    wide = unflatten(loop.result, plan.reducers)
    if not emit.target.has_masks:
        with emit.loop(last, stop, 1, flatten(single)) as loop:
            current = unflatten(loop.carry, plan.reducers)
            loop.next = flatten(_take(plan, current, at(Span(loop.index, 1)), tail=False))
        single = unflatten(loop.result, plan.reducers)
    return [*wide, *single]
