"""The different rows of a table that an index names, in the order of their first place.

What stands in scratch for a row says where it may have been noted; it was, if it stands there. So
scratch of any content will do (Briggs and Torczon, An efficient representation for sparse sets,
section 2), and nothing of the size of the table is cleared.
"""

from __future__ import annotations

from lamina.llvm.emit import I32, I64, MEMORY, Module, Place
from lamina.llvm.host import Target
from lamina.llvm.kernel import Distinct
from lamina.llvm.kernels.nest import aligned, open_kernel
from lamina.types import itemsize


def operands(_kernel: Distinct) -> int:
    """How many operands a call of the kernel takes."""
    return 4


def scratch_bytes(kernel: Distinct, _target: Target) -> int:
    """A number for each row of the table."""
    return aligned(4 * kernel.table)


def build(kernel: Distinct, name: str, module: Module) -> None:
    """Add the function of a search for different rows to the module."""
    frame = open_kernel(module, name, operands(kernel))
    emit = frame.emit
    indices, rows, places, number = (Place(operand) for operand in frame.operands)
    noted = Place(frame.scratch)
    width = itemsize(kernel.index_dtype)
    with emit.loop(frame.low, frame.high, carry=[emit.value(0, I64)]) as loop:
        (count,) = loop.carry
        row = emit.resize(
            emit.load(indices.step(loop.index, width), MEMORY[kernel.index_dtype]), I64
        )
        row = emit.select(row < 0, 0, row)
        row = emit.select(row < kernel.table, row, kernel.table - 1)
        short = emit.resize(row, I32)
        maybe = emit.resize(emit.load(noted.step(row, 4), I32), I64)
        within = maybe.below(count)
        maybe = emit.select(within, maybe, 0)
        known = within & emit.load(rows.step(maybe, 4), I32).equal(short)
        place = emit.select(known, maybe, count)
        emit.store(short, rows.step(place, 4))
        place32 = emit.resize(place, I32)
        emit.store(place32, noted.step(row, 4))
        emit.store(place32, places.step(loop.index, 4))
        loop.next = [emit.select(known, count, count + 1)]
    (count,) = loop.result
    first = emit.select(count.equal(0), 0, emit.load(rows, I32))
    with emit.loop(count, kernel.room) as rest:
        emit.store(first, rows.step(rest.index, 4))
    emit.store(emit.resize(count, I32), number)
    emit.finish()
