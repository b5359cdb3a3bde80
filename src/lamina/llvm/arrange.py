"""Bring the axis that an op works along to where its kernel wants it, by transposes."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.ir.graph import Node, Pick, apply, pick, rewrite
from lamina.ir.indexing import Scatter
from lamina.ir.movement import transpose
from lamina.ir.order import Sort


def arrange(roots: Sequence[Node]) -> list[Node]:
    """Scatter along the first axis after the batch axes, sort along the last axis.

    Before: sort(x, axis=0)    After: transpose(sort(transpose(x), axis=last))
    """
    moved: dict[Node, tuple[Node, tuple[int, ...]]] = {}

    def visit(node: Node) -> Node:
        match node.op:
            case Scatter() as op if op.axis % len(node.shape) != op.batch:
                return _scatter(node, op)
            case Sort() as op if op.axis % len(node.inputs[0].shape) != _last(node):
                order = _to_last(op.axis % len(node.inputs[0].shape), _last(node) + 1)
                inputs = [transpose(parent, order) for parent in node.inputs]
                sorted_ = apply(Sort(_last(node), op.descending), *inputs)
                if len(node.types) == 1:
                    return transpose(sorted_, _back(order))
                moved[node] = (sorted_, _back(order))
                return node
            case Pick(index=index) if node.inputs[0] in moved:
                sorted_, order = moved[node.inputs[0]]
                return transpose(pick(sorted_, index), order)
        return node

    return rewrite(roots, visit)


def _last(node: Node) -> int:
    return len(node.inputs[0].shape) - 1


def _to_last(position: int, rank: int) -> tuple[int, ...]:
    return (*(i for i in range(rank) if i != position), position)


def _back(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=lambda i: order[i]))


def _scatter(node: Node, op: Scatter) -> Node:
    base, index, rows = node.inputs
    axis, batch = op.axis % len(base.shape), op.batch
    own = len(index.shape) - batch
    order = (*range(batch), axis, *(i for i in range(batch, len(base.shape)) if i != axis))
    rows_order = (
        *range(batch),
        *range(axis, axis + own),
        *range(batch, axis),
        *range(axis + own, len(rows.shape)),
    )
    scattered = apply(
        Scatter(op.kind, batch, batch), transpose(base, order), index, transpose(rows, rows_order)
    )
    return transpose(scattered, _back(order))
