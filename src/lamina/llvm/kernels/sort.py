"""Stable sorting along the last axis: a bottom-up merge sort of positions.

The positions of a row are merged from one half of scratch into the other, runs of 1, 2, 4, ...;
comparisons read the keys through them. Then keys and everything carried are gathered.
"""

from __future__ import annotations

from lamina.llvm.emit import I32, I64, MEMORY, Emit, Index, Module, Place, Value
from lamina.llvm.expression import from_memory
from lamina.llvm.host import Target
from lamina.llvm.kernel import Sort
from lamina.llvm.kernels.nest import Axis, Frame, open_kernel
from lamina.types import FLOATS, UNSIGNED, itemsize


def operands(kernel: Sort) -> int:
    """How many operands a call of the kernel takes."""
    return 2 * (1 + len(kernel.carried))


def scratch_bytes(kernel: Sort, _target: Target) -> int:
    """Two rows of positions."""
    return 2 * _row_bytes(kernel)


def _row_bytes(kernel: Sort) -> int:
    return -(-kernel.length * 4 // 64) * 64


def build(kernel: Sort, name: str, module: Module) -> None:
    """Add the function of a sort to the module."""
    frame = open_kernel(module, name, operands(kernel))
    emit = frame.emit
    start, stop = Axis(kernel.outer, split=kernel.split == 0).bounds(frame)
    with emit.loop(start, stop) as rows:
        _sort_row(kernel, frame, rows.index)
    emit.finish()


def _sort_row(kernel: Sort, frame: Frame, row: Index) -> None:
    emit = frame.emit
    keys = Place(frame.operands[0]).step(row, kernel.length * itemsize(kernel.dtype))
    scratch = Place(frame.scratch)
    other = scratch + _row_bytes(kernel)
    with emit.loop(0, kernel.length) as loop:
        emit.store(emit.resize(loop.index.on(emit), I32), scratch.step(loop.index, 4))
    passes = max(0, (kernel.length - 1).bit_length())
    runs = [emit.value(1, I64), scratch.pointer, other.pointer]
    with emit.loop(0, passes, carry=runs) as loop:
        run, source, target = loop.carry
        _merge_runs(kernel, emit, keys, Place(source), Place(target), run)
        loop.next = [run * 2, target, source]
    order = scratch if passes % 2 == 0 else other
    count = kernel.length if kernel.top is None else kernel.top
    with emit.loop(0, count) as loop:
        chosen = emit.resize(emit.load(order.step(loop.index, 4), I32), I64)
        half = len(kernel.carried) + 1
        for position, dtype in enumerate((kernel.dtype, *kernel.carried)):
            size = itemsize(dtype)
            whence = Place(frame.operands[position]).step(row, kernel.length * size)
            where = Place(frame.operands[half + position]).step(row, count * size)
            value = emit.load(whence.step(chosen, size), MEMORY[dtype])
            emit.store(value, where.step(loop.index, size))


def _merge_runs(
    kernel: Sort, emit: Emit, keys: Place, source: Place, target: Place, run: Value
) -> None:
    """Merge neighbouring sorted runs of `run` positions."""
    size = itemsize(kernel.dtype)

    def key(number: Value) -> Value:
        value = emit.load(keys.step(emit.resize(number, I64), size), MEMORY[kernel.dtype])
        return from_memory(emit, value, kernel.dtype)

    def smaller(a: Value, b: Value) -> Value:
        return emit.select(a < b, a, b)

    length = emit.value(kernel.length, I64)
    pairs = (length + (run * 2 - 1)) // (run * 2)
    with emit.loop(0, pairs, nonempty=True) as loop:
        first = loop.index.on(emit) * (run * 2)
        middle = smaller(first + run, length)
        end = smaller(middle + run, length)
        with emit.loop(first, end, 1, [first, middle], nonempty=True) as output:
            left, right = output.carry
            # An exhausted run is not read: its position is replaced by one of the other run.
            left_open, right_open = left < middle, right < end
            one = emit.load(source.step(emit.select(left_open, left, right), 4), I32)
            two = emit.load(source.step(emit.select(right_open, right, left), 4), I32)
            before = _before(kernel, key(two), key(one))
            take_right = ~left_open | (right_open & before)
            emit.store(emit.select(take_right, two, one), target.step(output.index, 4))
            step = emit.cast("zext", take_right, I64)
            output.next = [left + (1 - step), right + step]


def _before(kernel: Sort, a: Value, b: Value) -> Value:
    """Whether a key must stand before one that stood before it: ties stay, NaNs go last."""
    unsigned = kernel.dtype in UNSIGNED or kernel.dtype == "bool"
    if kernel.descending:
        found = a.compare("ugt" if unsigned else "sgt", "ogt", b)
    else:
        found = a.compare("ult" if unsigned else "slt", "olt", b)
    if kernel.dtype in FLOATS:
        found = found | (b.is_nan() & ~a.is_nan())
    return found
