"""Row groups: several reductions along the last axis and the maps around them, row by row.

A row of at most `_HELD` vectors stays in registers (or on the stack, where LLVM sends what does
not fit) from the first stage to the stores, and nothing is computed twice. Longer rows are walked
once for each stage and once for the stores; values that are dear and needed again are kept in
scratch memory, where a row of a few thousand columns still lies in the nearest cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lamina.llvm.emit import REGISTER, Index, Module, Place, Value, element_bytes, parts, vector
from lamina.llvm.expression import Evaluation, Expression, Point
from lamina.llvm.host import Target
from lamina.llvm.kernel import (
    Body,
    Core,
    Lookup,
    Random,
    RowGroup,
    Scalar,
    Store,
)
from lamina.llvm.kernels.elementwise import weight
from lamina.llvm.kernels.nest import (
    Axis,
    Frame,
    Merge,
    Span,
    loops,
    masked,
    merge,
    needed_by,
    open_kernel,
    operand_count,
    point,
    stride_vectors,
    sweep,
    varies,
)
from lamina.llvm.kernels.reducers import Reducer, State, flatten, unflatten

_HELD = 8  # vectors of a row that are held
_CHEAP = {
    "add", "sub", "mul", "maximum", "minimum", "neg", "abs", "where", "and", "or", "xor", "not",
    "eq", "ne", "lt", "le", "gt", "ge", "square", "shl", "shr",
}  # fmt: skip


def operands(kernel: RowGroup) -> int:
    """How many operands a call of the kernel takes."""
    return operand_count(kernel.body, kernel.stores, kernel.row_stores)


def scratch_bytes(kernel: RowGroup, target: Target) -> int:
    """One row of each value that is kept between passes."""
    if _is_held(kernel, target.lanes):
        return 0
    return len(_kept(kernel)) * _row_bytes(kernel, target.lanes)


def _is_held(kernel: RowGroup, lanes: int) -> bool:
    return -(-kernel.columns // lanes) <= _HELD


def _row_bytes(kernel: RowGroup, lanes: int) -> int:
    """Room for a row of the widest elements, to a whole number of vectors."""
    return -(-kernel.columns // lanes) * lanes * 8 // 64 * 64 + 64


@dataclass
class _Plan:
    frame: Frame
    axes: tuple[Axis, ...]
    expression: Expression
    reducers: list[Reducer]
    arguments: tuple[int, ...]
    dtypes: list[str]
    stores: tuple[Store, ...]
    row_stores: tuple[Store, ...]
    columns: int
    kept: tuple[int, ...]

    @property
    def column_axis(self) -> int:
        return len(self.axes) - 1


def build(kernel: RowGroup, name: str, module: Module) -> None:
    """Add the function of a row group to the module."""
    frame = open_kernel(module, name, operands(kernel))
    row_stores = tuple(replace(s, strides=(*s.strides, 0)) for s in kernel.row_stores)
    # One column is an axis like any other here, so the columns are always the last axis.
    merged = _merge(kernel, row_stores)
    reducers = [Reducer(stage.kind, kernel.body[stage.argument].dtype) for stage in kernel.stages]
    plan = _Plan(
        frame,
        merged.axes,
        Expression(frame.emit, merged.body(kernel.body), frame.operands, frame.rows),
        reducers,
        tuple(stage.argument for stage in kernel.stages),
        [_core_dtype(kernel.body, number, r) for number, r in enumerate(reducers)],
        merged.stores(kernel.stores),
        merged.stores(row_stores),
        kernel.columns,
        _kept(kernel),
    )
    with loops(frame, plan.axes, range(plan.column_axis)) as indexes:
        if _is_held(kernel, frame.emit.lanes):
            _held_row(plan, indexes)
        else:
            _long_row(plan, indexes, _row_bytes(kernel, frame.emit.lanes))
    frame.emit.finish()


def _merge(kernel: RowGroup, row_stores: Sequence[Store]) -> Merge:
    vectors = stride_vectors(kernel.body, [*kernel.stores, *row_stores])
    rank = len(kernel.space)
    merged = merge(kernel.space, kernel.split, [v[:rank] for v in vectors])
    axes = (*merged.axes, Axis(kernel.columns))
    return Merge(axes, (*merged.kept, rank), merged.spaces)


def _core_dtype(body: Body, number: int, reducer: Reducer) -> str:
    for instruction in body:
        if isinstance(instruction, Core) and instruction.index == number:
            return instruction.dtype
    return "int32" if reducer.positional else reducer.dtype


def _pieces(columns: int, lanes: int, *, masks: bool) -> list[tuple[int, int, int]]:
    """(first column, lanes, lanes that count): whole vectors, then the tail."""
    found = [(c, lanes, lanes) for c in range(0, columns - lanes + 1, lanes)]
    start = columns // lanes * lanes
    rest = columns - start
    if rest and masks:
        return [*found, (start, lanes, rest)]
    while rest:
        part = 1 << (rest.bit_length() - 1)
        found.append((start, part, part))
        start, rest = start + part, rest - part
    return found


# ------------------------------------------------------------------------- short rows


def _held_row(plan: _Plan, indexes: dict[int, Index]) -> None:
    emit = plan.frame.emit
    cores: list[Value] = []
    evaluations = []
    pieces = _pieces(plan.columns, emit.lanes, masks=emit.target.has_masks)
    for start, lanes, count in pieces:
        mask = None
        if count < lanes:
            mask = emit.row([int(lane < count) for lane in range(lanes)], "i1")
        span = Span(Index(None, start), lanes, mask)
        where = point(indexes, len(plan.axes), plan.column_axis, span)
        evaluations.append(plan.expression.at(where))
    for number, reducer in enumerate(plan.reducers):
        states: dict[int, list[State]] = {}
        for (start, lanes, _), evaluation in zip(pieces, evaluations, strict=True):
            evaluation.cores = cores
            value = evaluation.lanes(plan.arguments[number])
            position = _columns(plan, reducer, Index(None, start), lanes)
            first = reducer.start(emit, lanes)
            state = reducer.take(emit, first, value, position, evaluation.point.mask)
            states.setdefault(lanes, []).append(state)
        cores.append(_total(plan, reducer, states, plan.dtypes[number]))
    for evaluation in evaluations:
        evaluation.cores = cores
    for evaluation in evaluations:
        evaluation.store(plan.stores)
    _store_row(plan, indexes, cores)


def _total(plan: _Plan, reducer: Reducer, states: dict[int, list[State]], dtype: str) -> Value:
    """Join states pairwise, vectors of equal lanes first, wide ones before narrow ones."""
    emit = plan.frame.emit
    single: State | None = None
    for lanes in sorted(states, reverse=True):
        group = states[lanes]
        while len(group) > 1:
            joined = [
                reducer.join(emit, a, b) for a, b in zip(group[::2], group[1::2], strict=False)
            ]
            group = [*joined, *group[len(joined) * 2 :]]
        total = reducer.across(emit, group[0])
        single = total if single is None else reducer.join(emit, single, total)
    assert single is not None
    return reducer.result(emit, single, dtype)


def _columns(plan: _Plan, reducer: Reducer, start: Index, lanes: int) -> Value | None:
    """The numbers of the columns, for a reduction that wants positions."""
    if not reducer.positional:
        return None
    emit = plan.frame.emit
    first = emit.resize(start.on(emit), "i32")
    return emit.splat(first, lanes) + emit.lane_numbers(lanes)


def _store_row(plan: _Plan, indexes: dict[int, Index], cores: Sequence[Value]) -> None:
    if not plan.row_stores:
        return
    where = point({**indexes, plan.column_axis: Index(None)}, len(plan.axes), None, None)
    plan.expression.at(where, cores).store(plan.row_stores)


# ------------------------------------------------------------------------- long rows


def _kept(kernel: RowGroup) -> tuple[int, ...]:
    """Dear values that a stage computes and a later stage or a store needs again."""
    body = kernel.body
    uses = [stage.argument for stage in kernel.stages]
    uses += [store.argument for store in kernel.stores]
    closures = [needed_by(body, argument) for argument in uses]
    found = []
    for number, instruction in enumerate(body):
        if not _is_dear(instruction) or not varies(body, number, -1):
            continue
        passes = [i for i, closure in enumerate(closures) if number in closure]
        last = len(kernel.stages)
        if len({min(i, last) for i in passes}) > 1:
            found.append(number)
    inner = {n for number in found for n in needed_by(body, number) if n != number}
    return tuple(
        number for number in found if number not in inner or _outside(body, number, found, closures)
    )


def _outside(body: Body, number: int, found: Sequence[int], closures: Sequence[set[int]]) -> bool:
    """Whether some use does not go through another kept value."""
    others = {other for other in found if other != number and number in needed_by(body, other)}
    return any(number in closure and not others & closure for closure in closures)


def _is_dear(instruction: object) -> bool:
    match instruction:
        case Scalar(fn=fn, dtype=dtype):
            return fn not in _CHEAP and dtype != "bool"
        case Lookup(dtype=dtype) | Random(dtype=dtype):
            return dtype != "bool"
        case _:
            return False


def _long_row(plan: _Plan, indexes: dict[int, Index], row_bytes: int) -> None:
    emit = plan.frame.emit
    cores: list[Value] = []
    written: set[int] = set()
    for number, reducer in enumerate(plan.reducers):
        cores.append(_stage(plan, indexes, number, reducer, cores, written, row_bytes))

    def visit(spans: list[Span]) -> None:
        evaluations = [
            _evaluation(plan, indexes, span, cores, written, row_bytes) for span in spans
        ]
        for evaluation in evaluations:
            for store in plan.stores:
                evaluation.lanes(store.argument)
        for evaluation in evaluations:
            evaluation.store(plan.stores)

    if plan.stores:
        unroll = 2 if weight(plan.expression.body) <= 24 else 1
        sweep(emit, Index(None), Index(None, plan.columns), emit.lanes, unroll, visit)
    _store_row(plan, indexes, cores)


def _evaluation(
    plan: _Plan,
    indexes: dict[int, Index],
    span: Span,
    cores: Sequence[Value],
    written: set[int],
    row_bytes: int,
) -> Evaluation:
    """An evaluation that reads kept values from scratch."""
    where = point(indexes, len(plan.axes), plan.column_axis, span)
    evaluation = plan.expression.at(where, cores)
    for number in written:
        place, kind = _slot(plan, number, where, row_bytes)
        evaluation.known[number] = plan.frame.emit.load(place, kind)
    return evaluation


def _slot(plan: _Plan, number: int, where: Point, row_bytes: int) -> tuple[Place, str]:
    """Where the value of an instruction is kept, and its type."""
    element = REGISTER[plan.expression.body[number].dtype]
    kind = vector(element, where.lanes)
    start = Place(plan.frame.scratch, plan.kept.index(number) * row_bytes)
    return start.step(where.indexes[plan.column_axis], element_bytes(kind)), kind


def _stage(
    plan: _Plan,
    indexes: dict[int, Index],
    number: int,
    reducer: Reducer,
    cores: Sequence[Value],
    written: set[int],
    row_bytes: int,
) -> Value:
    """One pass over the row: reduce it, and keep what is needed again."""
    emit = plan.frame.emit
    lanes = emit.lanes
    argument = plan.arguments[number]
    closure = plan.expression.closure(argument)
    fresh = [n for n in plan.kept if n in closure and n not in written]

    def take(state: State, span: Span) -> State:
        evaluation = _evaluation(plan, indexes, span, cores, written, row_bytes)
        value = evaluation.lanes(argument)
        for kept in fresh:
            place, kind = _slot(plan, kept, evaluation.point, row_bytes)
            result = evaluation.lanes(kept)
            assert parts(kind) == parts(result.type)
            emit.store(result, place)
        position = _columns(plan, reducer, span.index, span.lanes)
        return reducer.take(emit, state, value, position, span.mask)

    ways = 4 if weight([plan.expression.body[n] for n in closure]) <= 12 else 1
    reach = lanes * ways
    middle = plan.columns // reach * reach if ways > 1 or not emit.target.has_masks else 0
    states = [reducer.start(emit, lanes) for _ in range(ways)]
    if middle:
        with emit.loop(0, middle, reach, flatten(states)) as loop:
            current = unflatten(loop.carry, [reducer])
            spans = [Span(loop.index + way * lanes, lanes) for way in range(ways)]
            loop.next = flatten([take(s, span) for s, span in zip(current, spans, strict=True)])
        states = unflatten(loop.result, [reducer])
    groups: dict[int, list[State]] = {lanes: states}
    if emit.target.has_masks:
        if middle < plan.columns:
            with emit.loop(middle, plan.columns, lanes, states[0]) as loop:
                (state,) = unflatten(loop.carry, [reducer])
                stop = Index(None, plan.columns)
                loop.next = take(state, masked(emit, loop.index, stop, lanes))
            states[0] = tuple(loop.result)
    else:
        for start, width, _ in _pieces(plan.columns - middle, lanes, masks=False):
            state = take(reducer.start(emit, width), Span(Index(None, middle + start), width))
            groups.setdefault(width, []).append(state)
    written.update(fresh)
    return _total(plan, reducer, groups, plan.dtypes[number])
