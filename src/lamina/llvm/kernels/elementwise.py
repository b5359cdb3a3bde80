"""Maps, copies, broadcasts: evaluate a body at every point of a space and store it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina.llvm.emit import Module
from lamina.llvm.expression import Expression
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
    loops,
    merge,
    open_kernel,
    operand_count,
    point,
    stride_vectors,
    sweep,
)

_LIGHT = 12  # instructions of a body up to which the loop around it is worth unrolling
_UNROLL = 4
_CHEAP = {
    "add", "sub", "mul", "div", "maximum", "minimum", "neg", "abs", "where", "square", "sqrt",
    "reciprocal", "and", "or", "xor", "not", "eq", "ne", "lt", "le", "gt", "ge", "shl", "shr",
}  # fmt: skip


def operands(kernel: Elementwise) -> int:
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
    order = [number for number in range(len(axes)) if number != axis]
    with loops(frame, axes, order) as indexes:

        def visit(spans: Sequence[Span | None]) -> None:
            evaluations = [expression.at(point(indexes, len(axes), axis, span)) for span in spans]
            for evaluation in evaluations:
                for store in stores:
                    evaluation.lanes(store.argument)
            for evaluation in evaluations:
                evaluation.store(stores)

        if axis is None:
            visit([None])
        else:
            sweep_axis(frame, axes[axis], body, visit)
    emit.finish()


def sweep_axis(frame: Frame, axis: Axis, body: Body, visit: Callable[[list[Span]], None]) -> None:
    """Cut the axis into vectors, several at a time if the body is light."""
    start, stop = axis.bounds(frame)
    unroll = _UNROLL if weight(body) <= _LIGHT else 1
    sweep(frame.emit, start, stop, frame.emit.lanes, unroll, visit)


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
        cost = float(work)
        for strides, load in [
            *((store.strides, False) for store in stores),
            *((i.strides, True) for i in body if isinstance(i, Load | Lookup)),
        ]:
            stride = strides[number]
            if stride == 0:
                cost += 0.5 if load else 1000.0
            else:
                cost += 1.0 if stride == 1 else float(lanes)
        extent = axes[number].typical
        cost *= -(-extent // lanes) / max(1, extent)
        if cost <= least:
            best, least = number, cost
    return best
