"""NumPy-style broadcasting, made of explicit nodes, and promotion of mixed operands."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import BatchError, ShapeError, layout
from lamina.ir import elementary, movement, scalar
from lamina.ir.graph import Node
from lamina.tensor.values import where_called
from lamina.types import Batch, Dimension, Shape, Type


def broadcast_shape(*shapes: Shape) -> Shape:
    """The shape that all of these broadcast to, aligned at the last axis.

    raises   ShapeError where two sizes differ and neither is 1; BatchError where one of the two
             is the run-time batch (which may equal the other once the batch is known)
    """
    rank = max((len(shape) for shape in shapes), default=0)
    result: list[Dimension] = []
    for axis in range(-rank, 0):
        size: Dimension = 1
        for shape in shapes:
            here = shape[axis] if -axis <= len(shape) else 1
            if here in (1, size):
                continue
            if size != 1:
                kind = BatchError if isinstance(size, Batch) != isinstance(here, Batch) else None
                given = " and ".join(str(shape) for shape in shapes)
                raise (kind or ShapeError)(
                    layout(
                        f"shapes {given} do not broadcast: {size} against {here} on axis {axis}.",
                        where_called(),
                        hint="two sizes fit if they are equal, or if one of them is 1",
                    )
                )
            size = here
        result.append(size)
    return tuple(result)


def broadcast_to(node: Node, shape: Shape) -> Node:
    """Repeat `node` along missing axes and axes of size 1 until it has `shape`."""
    if node.shape == shape:
        return node
    missing = len(shape) - len(node.shape)
    if missing < 0 or broadcast_shape(node.shape, shape) != shape:
        raise ShapeError(f"a value of {node.type} does not broadcast to {shape}")
    kept = [axis for axis, size in enumerate(node.shape) if size == shape[axis + missing]]
    axes = tuple(axis + missing for axis in kept)
    narrow = tuple(node.shape[axis] for axis in kept)
    if narrow != node.shape:
        node = movement.reshape(node, narrow)
    return elementary.broadcast(node, shape, axes)


def broadcast_all(nodes: Sequence[Node]) -> list[Node]:
    """All nodes, broadcast against one another."""
    shape = broadcast_shape(*(node.shape for node in nodes))
    return [broadcast_to(node, shape) for node in nodes]


def elementwise(name: str, *nodes: Node) -> Node:
    """A row of the scalar table over nodes that broadcast against one another."""
    return elementary.map_(name, *broadcast_all(nodes))


def match_type(node: Node, type: Type) -> Node:
    """`node` cast and broadcast to `type`."""
    return broadcast_to(scalar.cast(node, type.dtype), type.shape)
