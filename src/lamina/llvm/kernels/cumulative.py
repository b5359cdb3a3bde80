"""Running sums, products and maxima along the middle axis of (outer, length, inner)."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.llvm.emit import MEMORY, Index, Module, Place, Value, vector
from lamina.llvm.expression import from_memory, to_memory
from lamina.llvm.kernel import Cumulative
from lamina.llvm.kernels.nest import Axis, Frame, Span, open_kernel, sweep
from lamina.llvm.kernels.reducers import Reducer
from lamina.types import itemsize


def operands(_kernel: Cumulative) -> int:
    """How many operands a call of the kernel takes."""
    return 2


def build(kernel: Cumulative, name: str, module: Module) -> None:
    """Add the function of a cumulative kernel to the module."""
    frame = open_kernel(module, name, operands(kernel))
    emit = frame.emit
    axes = (
        Axis(kernel.outer, split=kernel.split == 0),
        Axis(kernel.inner, split=kernel.split == 2),
    )
    start, stop = axes[0].bounds(frame)
    first, last = axes[1].bounds(frame)
    with emit.loop(start, stop) as outer:

        def visit(spans: Sequence[Span]) -> None:
            for span in spans:
                _columns(kernel, frame, outer.index, span)

        sweep(emit, first, last, emit.lanes, 1, visit)
    emit.finish()


def _columns(kernel: Cumulative, frame: Frame, outer: Index, span: Span) -> None:
    """All of the length, for one vector of the inner axis."""
    emit = frame.emit
    reducer = Reducer(kernel.kind, kernel.dtype)
    size = itemsize(kernel.dtype)
    step = kernel.inner * size

    def place(operand: Value) -> Place:
        return Place(operand).step(outer, kernel.length * step).step(span.index, size)

    source, target = (place(operand) for operand in frame.operands)
    kind = vector(MEMORY[kernel.dtype], span.lanes)
    (state,) = reducer.start(emit, span.lanes)
    with emit.loop(0, kernel.length, 1, [state]) as loop:
        where = loop.index
        if kernel.reverse:
            where = Index(None, kernel.length - 1) + where * -1
        value = emit.load(source.step(where, step), kind, mask=span.mask)
        value = from_memory(emit, value, kernel.dtype)
        (state,) = reducer.take(emit, (loop.carry[0],), value, None, None)
        state = reducer.result(emit, (state,), kernel.dtype)
        emit.store(to_memory(emit, state, kernel.dtype), target.step(where, step), mask=span.mask)
        loop.next = [state]
