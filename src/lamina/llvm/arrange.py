"""Bring what an op works along to where its kernel wants it, and in the dtype that it sums in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lamina.ir.contractions import ConvFilterGrad, Dot
from lamina.ir.control import Body, Scan, While
from lamina.ir.elementary import HALVES, Reduce
from lamina.ir.graph import Node, Op, Pick, apply, pick, rewrite
from lamina.ir.indexing import Scatter
from lamina.ir.movement import Transpose, inverse, transpose
from lamina.ir.order import Sort, TopK
from lamina.ir.reductions import Cumulative
from lamina.ir.scalar import cast
from lamina.types import Type


def arrange(roots: Sequence[Node]) -> list[Node]:
    """Sort along the last axis, scatter along the first one that is not shared.

    The batch comes first: memory has room for all rows of the capacity, so only there are the
    rows that are present one piece.

    Before: sort(x, axis=0)    After: transpose(sort(transpose(x), axis=last))
    """
    moved: dict[Node, tuple[Node, tuple[int, ...]]] = {}

    def visit(node: Node) -> Node:
        op = node.op
        if isinstance(op, Pick) and node.inputs[0] in moved:
            several, order = moved[node.inputs[0]]
            return transpose(pick(several, op.index), inverse(order))
        if isinstance(op, Scatter):
            return _axis_first(node, op)
        if isinstance(op, Scan):
            body = _arranged(op.body)
            return node if body == op.body else apply(replace(op, body=body), *node.inputs)
        if isinstance(op, While):
            loop = While(_arranged(op.test), _arranged(op.body), op.carries)
            return node if loop == op else apply(loop, *node.inputs)
        if isinstance(op, (Reduce, Dot, ConvFilterGrad)):
            return _summed_wide(node)
        if not isinstance(op, (Sort, TopK, Cumulative)):
            return node
        found = _along(op, node.inputs[0].type)
        if found is None:
            return node
        order, arranged = found
        several = apply(arranged, *(transpose(x, order) for x in node.inputs))
        if len(node.types) == 1:
            return transpose(several, inverse(order))
        moved[node] = (several, order)
        return node

    return rewrite(roots, visit)


def _arranged(body: Body) -> Body:
    return Body(body.parameters, tuple(arrange(body.results)))


def _along(op: Sort | TopK | Cumulative, x: Type) -> tuple[tuple[int, ...], Op] | None:
    """The order of axes that the kernel wants, and the op on it; None if all is well."""
    order = list(range(x.rank))
    if x.batch_axis is not None:
        order.insert(0, order.pop(x.batch_axis))
    arranged: Op = op
    if isinstance(op, Sort):
        order.append(order.pop(order.index(op.axis)))
        arranged = replace(op, axis=x.rank - 1)
    elif isinstance(op, Cumulative):
        arranged = replace(op, axis=order.index(op.axis))
    return None if order == sorted(order) else (tuple(order), arranged)


def _axis_first(node: Node, op: Scatter) -> Node:
    """Scatter along the first axis after the shared ones."""
    base, index, rows = node.inputs[:3]
    axis, batch = op.axis, op.batch
    if axis == batch:
        return _batch_first(op, *node.inputs)
    own = index.type.rank - batch
    order = (*range(batch), axis, *(i for i in range(batch, base.type.rank) if i != axis))
    rows_order = (
        *range(batch),
        *range(axis, axis + own),
        *range(batch, axis),
        *range(axis + own, rows.type.rank),
    )
    scattered = _batch_first(
        Scatter(op.kind, batch, batch), transpose(base, order), index, transpose(rows, rows_order)
    )
    return transpose(scattered, inverse(order))


def _batch_first(op: Scatter, base: Node, index: Node, rows: Node, *count: Node) -> Node:
    """Bring the batch to the front of the shared axes.

    Rows that were moved to fit the index stay where they lie, and the index is moved instead. With
    "set" the last of several rows wins, so there the order of the index is left alone.
    """
    place = index.type.batch_axis
    if place and place < op.batch:
        order = _to_front(place, base.type.rank)
        inputs = (transpose(x, _to_front(place, x.type.rank)) for x in (base, index, rows))
        return transpose(apply(op, *inputs), inverse(order))
    own = index.type.rank
    if isinstance(rows.op, Transpose) and not op.batch and op.kind != "set":
        perm = rows.op.perm
        if perm[own:] == tuple(range(own, len(perm))):
            index, rows = transpose(index, inverse(perm[:own])), rows.inputs[0]
    return apply(op, base, index, rows, *count)


def _summed_wide(node: Node) -> Node:
    """Sum half precision over the batch in single precision, because it is summed in parts.

    Before: reduce_sum[0](x: float16)    After: cast(reduce_sum[0](cast(x, float32)), float16)
    """
    op, x = node.op, node.inputs[0]
    if node.dtype not in HALVES or x.type.batch_axis is None:
        return node
    wide = [cast(parent, "float32") for parent in node.inputs]
    match op:
        case Reduce(kind="sum", axes=axes) if x.type.batch_axis in axes:
            return cast(apply(op, *wide), node.dtype)
        case Dot(contract=contract) if x.type.batch_axis in {i for i, _ in contract}:
            return cast(apply(replace(op, out_dtype="float32"), *node.inputs), node.dtype)
        case ConvFilterGrad():
            return cast(apply(op, *wide), node.dtype)
    return node


def _to_front(position: int, rank: int) -> tuple[int, ...]:
    return (position, *(i for i in range(rank) if i != position))
