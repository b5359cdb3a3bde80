"""Scatter: add, set or maximise rows into a table in place, in order, split by destination.

Every call goes through all indices and takes those whose destination is its own, so that the
result does not depend on how many calls share the table.
"""

from __future__ import annotations

from lamina.llvm import maths
from lamina.llvm.emit import I32, I64, MEMORY, Emit, Index, Module, Place, Value, index, vector
from lamina.llvm.expression import from_memory, to_memory
from lamina.llvm.kernel import Scatter
from lamina.llvm.kernels.nest import Axis, Frame, Span, open_kernel, sweep
from lamina.types import itemsize

_COMBINE = {"add": "add", "max": "maximum"}


def operands(kernel: Scatter) -> int:
    """How many operands a call of the kernel takes."""
    return 4 if kernel.named else 3


def build(kernel: Scatter, name: str, module: Module) -> None:
    """Add the function of a scatter to the module."""
    frame = open_kernel(module, name, operands(kernel))
    emit = frame.emit
    start, stop = Axis(kernel.outer, split=kernel.split == 0).bounds(frame)
    low, high = Index(None), Index(None, kernel.table)
    if kernel.split == 1:
        low, high = index(frame.low), index(frame.high)
    with emit.loop(start, stop) as outer:
        _problem(kernel, frame, outer.index, low, high)
    emit.finish()


def _problem(kernel: Scatter, frame: Frame, number: Index, low: Index, high: Index) -> None:
    emit = frame.emit
    out, indices, rows = (Place(operand) for operand in frame.operands[:3])
    size, width = itemsize(kernel.dtype), itemsize(kernel.index_dtype)
    row_bytes = kernel.inner * size
    capacity = _capacity(kernel)
    table = kernel.table * row_bytes
    out = out.step(number, table)
    first, count = low.on(emit), (high + low * -1)
    total = Axis(kernel.count).bounds(frame)[1]
    if capacity is None:  # the count is the run-time batch, so there is one problem
        indices = indices.step(number, 0)
    else:
        indices = indices.step(number, capacity * width)
        rows = rows.step(number, capacity * row_bytes)
    if kernel.clear:
        end = high
        if kernel.named:
            named = emit.resize(emit.load(Place(frame.operands[3]), I32), I64)
            named = (named + (kernel.named - 1)) // kernel.named * kernel.named
            end = index(emit.select(named < high.on(emit), named, high.on(emit)))
        with emit.loop(low, end) as loop:
            _clear(kernel, frame, out.step(loop.index, row_bytes))
    with emit.loop(0, kernel.steps) as step:
        indices = indices.step(step.index, kernel.pitch * width)
        rows = rows.step(step.index, kernel.pitch * row_bytes)
        with emit.loop(0, total) as loop:
            label = emit.load(indices.step(loop.index, width), MEMORY[kernel.index_dtype])
            label = emit.resize(label, I64)
            label = emit.select(label < 0, 0, label)
            label = emit.select(label < kernel.table, label, kernel.table - 1)
            ours = (label - first).below(count.on(emit))
            with emit.when(ours):
                _row(kernel, frame, rows.step(loop.index, row_bytes), out.step(label, row_bytes))


def _capacity(kernel: Scatter) -> int | None:
    """Indices of one problem in memory; None where there is one problem only."""
    return kernel.count if isinstance(kernel.count, int) else None


def _columns(kernel: Scatter, frame: Frame) -> tuple[Index, Index]:
    """The elements of a row that a call handles."""
    return Axis(kernel.inner, split=kernel.split == 2).bounds(frame)


def _clear(kernel: Scatter, frame: Frame, target: Place) -> None:
    emit, size = frame.emit, itemsize(kernel.dtype)

    def visit(spans: list[Span]) -> None:
        for span in spans:
            zeros = emit.zeros(vector(MEMORY[kernel.dtype], span.lanes))
            emit.store(zeros, target.step(span.index, size), mask=span.mask)

    sweep(emit, *_columns(kernel, frame), emit.lanes, 4, visit)


def _row(kernel: Scatter, frame: Frame, source: Place, target: Place) -> None:
    emit, dtype, size = frame.emit, kernel.dtype, itemsize(kernel.dtype)

    def visit(spans: list[Span]) -> None:
        for span in spans:
            new = _load(emit, source, span, dtype)
            here = target.step(span.index, size)
            if kernel.kind != "set":
                old = _load(emit, target, span, dtype)
                new = maths.apply(emit, _COMBINE[kernel.kind], [old, new], [dtype, dtype], dtype)
            emit.store(to_memory(emit, new, dtype), here, mask=span.mask)

    sweep(emit, *_columns(kernel, frame), emit.lanes, 4, visit)


def _load(emit: Emit, start: Place, span: Span, dtype: str) -> Value:
    place = start.step(span.index, itemsize(dtype))
    kind = vector(MEMORY[dtype], span.lanes)
    return from_memory(emit, emit.load(place, kind, mask=span.mask), dtype)
