"""How much a step computes, roughly, from its graph alone: it decides how many threads share it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lamina.ir.contractions import Conv, ConvFilterGrad, ConvInputGrad, Dot
from lamina.ir.control import Scan
from lamina.ir.elementary import Broadcast, Map
from lamina.ir.graph import Const, Input, Node, Pick, Rows, toposort
from lamina.ir.movement import Iota, Reshape, Slice, Transpose
from lamina.ir.scalar import Cast, StopGradient
from lamina.ir.winners import WinnerFilterGrad, WinnerInputGrad
from lamina.types import Shape, static_shape

_FREE = (Const, Input, Pick, Rows, Broadcast, Iota, Reshape, Slice, Transpose, StopGradient)


def operations(roots: Sequence[Node], capacity: int) -> float:
    """Multiply-adds, and half of all element operations, of one step with a full batch."""
    return sum(_of_node(node, capacity) for node in toposort(roots))


def _of_node(node: Node, capacity: int) -> float:
    def size(shape: Shape) -> int:
        return math.prod(static_shape(shape, capacity))

    op = node.op
    if isinstance(op, _FREE):
        return 0.0
    if isinstance(op, Scan):
        return op.length * operations(op.body.results, capacity)
    shapes = [type.shape for parent in node.inputs for type in parent.types[:1]]
    results = size(node.types[0].shape)
    match op:
        case Map() | Cast():
            return 0.5 * results
        case Dot(contract=contract):
            return float(results * size(tuple(shapes[0][axis] for axis, _ in contract)))
        case Conv():
            return float(results * size(shapes[1][:-1]))
        case ConvInputGrad():
            return float(size(shapes[0]) * size(shapes[1][:-1]))
        case ConvFilterGrad():
            return float(size(shapes[1]) * size(node.shape[:-1]))
        case WinnerFilterGrad():
            return float(size(shapes[2]) * size(node.shape[1:]))
        case WinnerInputGrad():
            return float(size(shapes[1]) * size(shapes[2][1:]))
    return float(max([results, *map(size, shapes)]))
