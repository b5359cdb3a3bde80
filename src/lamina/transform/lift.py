"""One op over all time steps at once: what a loop computes afresh in each step, done outside."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.ir.contractions import Conv, ConvFilterGrad, ConvInputGrad, Dot, Window, WindowGrad, dot
from lamina.ir.elementary import Broadcast, Map, Reduce, broadcast
from lamina.ir.graph import Node, Op, apply
from lamina.ir.indexing import Gather, gather
from lamina.ir.movement import Concat, Pad, Reshape, Slice, Transpose, reshape, transpose
from lamina.ir.order import Sort, TopK
from lamina.ir.reductions import ArgReduce, Cumulative
from lamina.ir.scalar import Cast, StopGradient


def over_time(op: Op, inputs: Sequence[Node], walks: Sequence[bool], length: int) -> Node | None:
    """The op at every step, time on axis 0 of its result; None where that cannot be written.

    inputs   its operands; those that `walk` have one more axis in front, the time
    walks    which ones these are: at least one

    Before: step t: dot(x[t], w)    After: dot(x, w) contracting the same axes of (time, ...).
    """

    def spread(number: int) -> Node:
        """The operand, repeated over time if it is the same in every step."""
        x = inputs[number]
        if walks[number]:
            return x
        return broadcast(x, (length, *x.shape), range(1, x.type.rank + 1))

    def all_spread() -> list[Node]:
        return [spread(number) for number in range(len(inputs))]

    match op:
        case Map() | Cast() | StopGradient():
            return apply(op, *all_spread())
        case Broadcast(shape=shape, axes=axes):
            return broadcast(inputs[0], (length, *shape), (0, *(axis + 1 for axis in axes)))
        case Reshape(shape=shape):
            return reshape(inputs[0], (length, *shape))
        case Transpose(perm=perm):
            return transpose(inputs[0], (0, *(axis + 1 for axis in perm)))
        case Slice(start=start, stop=stop, step=step):
            return apply(Slice((0, *start), (None, *stop), (1, *step)), inputs[0])
        case Pad(low=low, high=high, interior=interior, value=value):
            return apply(Pad((0, *low), (0, *high), (0, *interior), value), inputs[0])
        case Concat(axis=axis):
            return apply(Concat(axis + 1), *all_spread())
        case Reduce(kind=kind, axes=axes):
            return apply(Reduce(kind, tuple(axis + 1 for axis in axes)), inputs[0])
        case ArgReduce(kind=kind, axis=axis):
            return apply(ArgReduce(kind, axis + 1), inputs[0])
        case Cumulative(kind=kind, axis=axis, reverse=reverse):
            return apply(Cumulative(kind, axis + 1, reverse), inputs[0])
        case Sort(axis=axis, descending=descending):
            return apply(Sort(axis + 1, descending), *all_spread())
        case TopK():
            return apply(op, inputs[0])
        case Dot():
            return _dot(op, inputs, walks)
        case Gather(axis=axis, batch=batch):
            return _gather(axis, batch, inputs, walks)
        case Conv() if walks == [True, False]:
            return _images(op, [inputs[0]], inputs[1:])
        case ConvInputGrad() if walks == [True, False]:
            return _images(op, [inputs[0]], inputs[1:])
        case Window():
            return _images(op, [inputs[0]], [])
        case WindowGrad():
            return _images(op, all_spread(), [])
    return None


def _dot(op: Dot, inputs: Sequence[Node], walks: Sequence[bool]) -> Node:
    a, b = inputs
    left, right = (int(walk) for walk in walks)
    contract = [(i + left, j + right) for i, j in op.contract]
    batch = [(i + left, j + right) for i, j in op.batch]
    if all(walks):
        return dot(a, b, contract, [(0, 0), *batch], op.out_dtype)
    found = dot(a, b, contract, batch, op.out_dtype)
    shared = len(op.batch)
    free = a.type.rank - len(op.contract) - shared
    time = shared if left else shared + free
    rest = [axis for axis in range(found.type.rank) if axis != time]
    return transpose(found, [time, *rest])


def _gather(axis: int, batch: int, inputs: Sequence[Node], walks: Sequence[bool]) -> Node | None:
    table, index = inputs
    if all(walks):
        return gather(table, index, axis + 1, batch + 1)
    if batch:
        return None
    if walks[0]:
        return gather(table, index, axis + 1)
    found = gather(table, index, axis)
    return transpose(found, [axis, *(i for i in range(found.type.rank) if i != axis)])


def _images(op: Op, images: Sequence[Node], others: Sequence[Node]) -> Node:
    """An op on images, which are independent: time is folded into the batch of images."""
    length = images[0].shape[0]
    found = apply(op, *map(folded, images), *others)
    batch = found.shape[0] // length
    opened = reshape(found, (batch, length, *found.shape[1:]))
    return transpose(opened, [1, 0, *range(2, opened.type.rank)])


def folded(images: Node) -> Node:
    """(time, batch, ...) as (batch * time, ...): the batch stays the outer one, as it must."""
    time, batch, *rest = images.shape
    swapped = transpose(images, [1, 0, *range(2, images.type.rank)])
    return reshape(swapped, (batch * time, *rest))


def summed_over_time(op: Op, inputs: Sequence[Node]) -> Node | None:
    """The sum over all steps of an op both of whose operands walk, without its single terms."""
    match op:
        case Dot(batch=batch, contract=contract, out_dtype=out_dtype):
            return dot(
                inputs[0],
                inputs[1],
                [(0, 0), *((i + 1, j + 1) for i, j in contract)],
                [(i + 1, j + 1) for i, j in batch],
                out_dtype,
            )
        case ConvFilterGrad():
            return apply(op, *map(folded, inputs))
    return None
