"""The gradient of pooling, image by image: each window gives to the cells that it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

from lamina.llvm import maths
from lamina.llvm.emit import I32, I64, MEMORY, Emit, Index, Module, Place, Value, vector
from lamina.llvm.expression import from_memory, to_memory
from lamina.llvm.kernel import WindowGradient
from lamina.llvm.kernels.nest import Axis, Frame, Span, open_kernel, sweep
from lamina.types import itemsize


def operands(_kernel: WindowGradient) -> int:
    """How many operands a call of the kernel takes."""
    return 3


def build(kernel: WindowGradient, name: str, module: Module) -> None:
    """Add the function of a pooling gradient to the module."""
    frame = open_kernel(module, name, operands(kernel))
    emit = frame.emit
    start, stop = Axis(kernel.batch, split=kernel.split == 0).bounds(frame)
    with emit.loop(start, stop) as samples:
        _sample(kernel, frame, samples.index)
    emit.finish()


def _row_major(shape: Sequence[int], unit: int) -> list[int]:
    strides = [unit] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides


def _sample(kernel: WindowGradient, frame: Frame, sample: Index) -> None:
    emit = frame.emit
    unit = kernel.channels * itemsize(kernel.dtype)
    image_bytes, window_bytes = math.prod(kernel.image) * unit, math.prod(kernel.windows) * unit
    image, gradient, result = (Place(operand) for operand in frame.operands)
    image, result = image.step(sample, image_bytes), result.step(sample, image_bytes)
    gradient = gradient.step(sample, window_bytes)
    if not _covered(kernel):
        emit.clear(result, image_bytes)
    steps = _row_major(kernel.windows, unit)

    def nest(axis: int, corner: tuple[Index, ...], source: Place) -> None:
        if axis == len(kernel.windows):
            _window(kernel, emit, corner, image, source, result)
            return
        with emit.loop(0, kernel.windows[axis]) as loop:
            place = loop.index * kernel.strides[axis] + -kernel.low[axis]
            nest(axis + 1, (*corner, place), source.step(loop.index, steps[axis]))

    nest(0, (), gradient)


def _apart(kernel: WindowGradient) -> bool:
    """Whether no two windows share a cell."""
    return all(step >= size for step, size in zip(kernel.strides, kernel.size, strict=True))


def _covered(kernel: WindowGradient) -> bool:
    """Whether every cell belongs to exactly one window."""
    return (
        not any(kernel.low)
        and kernel.strides == kernel.size
        and all(
            count * size == extent
            for count, size, extent in zip(kernel.windows, kernel.size, kernel.image, strict=True)
        )
    )


def _window(
    kernel: WindowGradient,
    emit: Emit,
    corner: tuple[Index, ...],
    image: Place,
    source: Place,
    result: Place,
) -> None:
    """Give the gradient of the window whose first cell is `corner` to its cells."""
    unit = kernel.channels * itemsize(kernel.dtype)
    strides = _row_major(kernel.image, unit)
    cells = list(product(*(range(size) for size in kernel.size)))
    inside = [_inside(kernel, emit, corner, cell) for cell in cells]
    first = result
    offsets = [sum(c * s for c, s in zip(cell, strides, strict=True)) for cell in cells]
    for number, stride in zip(corner, strides, strict=True):
        first, image = first.step(number, stride), image.step(number, stride)
    share = _share(kernel, emit, inside)

    def visit(spans: Sequence[Span]) -> None:
        for span in spans:
            if kernel.kind == "max":
                _give_to_winner(kernel, emit, span, image, source, first, offsets, inside)
            else:
                _give_to_all(kernel, emit, span, source, first, offsets, inside, share)

    sweep(emit, Index(None), Index(None, kernel.channels), emit.lanes, 1, visit)


def _inside(
    kernel: WindowGradient, emit: Emit, corner: tuple[Index, ...], cell: tuple[int, ...]
) -> Value | None:
    """Whether a cell lies inside of the image; None where it always does."""
    result: Value | None = None
    for axis, (first, offset) in enumerate(zip(corner, cell, strict=True)):
        lowest = offset - kernel.low[axis]
        highest = lowest + (kernel.windows[axis] - 1) * kernel.strides[axis]
        if lowest >= 0 and highest < kernel.image[axis]:
            continue
        here = (first + offset).on(emit).below(kernel.image[axis])
        result = here if result is None else result & here
    return result


def _share(kernel: WindowGradient, emit: Emit, inside: Sequence[Value | None]) -> Value | None:
    """What an average's gradient is divided by: the number of cells inside."""
    if kernel.kind != "mean":
        return None
    count = emit.value(sum(here is None for here in inside), I64)
    for here in inside:
        if here is not None:
            count = count + emit.cast("zext", here, I64)
    return maths.convert(
        emit, count, "int64", "float64" if kernel.dtype == "float64" else "float32"
    )


def _load(emit: Emit, start: Place, span: Span, dtype: str) -> Value:
    kind = vector(MEMORY[dtype], span.lanes)
    place = start.step(span.index, itemsize(dtype))
    return from_memory(emit, emit.load(place, kind, mask=span.mask), dtype)


def _give(kernel: WindowGradient, emit: Emit, span: Span, target: Place, value: Value) -> None:
    """Add to a cell; where windows are apart, nothing stands there yet."""
    if not _apart(kernel):
        value = _load(emit, target, span, kernel.dtype) + value
    place = target.step(span.index, itemsize(kernel.dtype))
    emit.store(to_memory(emit, value, kernel.dtype), place, mask=span.mask)


def _where(emit: Emit, condition: Value | None, body: Callable[[], None]) -> None:
    if condition is None:
        body()
        return
    with emit.when(condition):
        body()


def _give_to_all(
    kernel: WindowGradient,
    emit: Emit,
    span: Span,
    source: Place,
    first: Place,
    offsets: Sequence[int],
    inside: Sequence[Value | None],
    share: Value | None,
) -> None:
    value = _load(emit, source, span, kernel.dtype)
    if share is not None:
        value = value / emit.splat(share, span.lanes)
    for offset, here in zip(offsets, inside, strict=True):

        def give(target: Place = first + offset) -> None:
            _give(kernel, emit, span, target, value)

        _where(emit, here, give)


def _give_to_winner(
    kernel: WindowGradient,
    emit: Emit,
    span: Span,
    image: Place,
    source: Place,
    first: Place,
    offsets: Sequence[int],
    inside: Sequence[Value | None],
) -> None:
    """Find the first maximum (NaN wins) with the number of its cell, then add where it is."""
    zeros = emit.zero_block().pointer
    best: Value | None = None
    winner: Value | None = None
    size = itemsize(kernel.dtype)
    found: Value | None = None  # whether a cell before this one lies inside; None: surely
    for number, (offset, here) in enumerate(zip(offsets, inside, strict=True)):
        place = (image + offset).step(span.index, size)
        if here is not None:
            place = Place(emit.select(here, place.pointer, zeros))
        kind = vector(MEMORY[kernel.dtype], span.lanes)
        value = from_memory(emit, emit.load(place, kind, mask=span.mask), kernel.dtype)
        cell = emit.value(number, vector(I32, span.lanes))
        if best is None or winner is None:
            best, winner, found = value, cell, here
            continue
        better = ~(best.compare("sge", "oge", value) | best.is_nan())
        if found is not None:
            better = better | emit.splat(~found, span.lanes)
        if here is not None:
            better = better & emit.splat(here, span.lanes)
        if found is not None:
            found = None if here is None else found | here
        best = emit.select(better, value, best)
        winner = emit.select(better, cell, winner)
    assert winner is not None
    gradient = _load(emit, source, span, kernel.dtype)
    for number, (offset, here) in enumerate(zip(offsets, inside, strict=True)):
        mine = winner.equal(number)

        def give(target: Place = first + offset, mine: Value = mine) -> None:
            zero = emit.zeros(gradient.type)
            _give(kernel, emit, span, target, emit.select(mine, gradient, zero))

        _where(emit, here, give)
