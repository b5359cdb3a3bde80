"""Rewrites after which fusion finds more: maps move to where they are cheap or can be absorbed."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.ir.contractions import Conv, ConvInputGrad, Dot, Window, WindowGrad
from lamina.ir.elementary import Broadcast, Map, Reduce, broadcast, reduce_sum
from lamina.ir.graph import Const, Node, apply, in_scope_of, rewrite, toposort, users
from lamina.ir.movement import Reshape, reshape
from lamina.ir.scalar import Cast, mul, neg
from lamina.types import Shape

# How many maps a reshape may be pushed through.
DEEPEST = 6


def absorb(roots: Sequence[Node]) -> list[Node]:
    """Move masks behind pooling to the pooled side, reshapes behind the maps they follow, and
    factors out of sums.
    """
    return factor_sums(sink_reshapes(move_masks(roots)))


def factor_sums(roots: Sequence[Node]) -> list[Node]:
    """Take out of a sum over the batch what does not change along it.

    Before: reduce_sum(mul(g, broadcast(f)))    After: mul(reduce_sum(g), f)

    Behind batch normalisation the sum of g is needed anyway, for the offset's gradient.
    """

    def visit(node: Node) -> Node:
        match node:
            case Node(op=Reduce(kind="sum", axes=axes), inputs=(source,)):
                if source.type.batch_axis in axes:
                    with in_scope_of(node):
                        return _factored(source, axes) or node
        return node

    return rewrite(roots, visit)


def _factored(source: Node, axes: tuple[int, ...]) -> Node | None:
    """The sum of `source` as something times a sum, or minus one."""
    kept = tuple(axis for axis in range(source.type.rank) if axis not in axes)
    match source:
        case Node(op=Map(fn="neg"), inputs=(inner,)):
            return neg(_factored(inner, axes) or reduce_sum(inner, axes))
        case Node(op=Map(fn="mul"), inputs=(one, other)):
            for term, factor in ((one, other), (other, one)):
                match factor:
                    case Node(op=Broadcast(axes=places), inputs=(fixed,)) if fixed.shape and set(
                        places
                    ) <= set(kept):
                        total = _factored(term, axes) or reduce_sum(term, axes)
                        where = tuple(kept.index(place) for place in places)
                        return mul(total, broadcast(fixed, total.shape, where))
    return None


def move_masks(roots: Sequence[Node]) -> list[Node]:
    """Mask the gradient of max pooling before it is spread out, where it is smaller.

    Before: where(y > 0, window_gradient(y, g), 0)
    After:  window_gradient(y, where(window_max(y) > 0, g, 0))

    A cell receives gradient only from windows whose maximum it is, so the mask of the cell is the
    mask of the pooled value, bit for bit.
    """

    def visit(node: Node) -> Node:
        match node:
            case Node(
                op=Map(fn="where"),
                inputs=(
                    Node(op=Map(fn="gt"), inputs=(y, limit)),
                    Node(op=WindowGrad(kind="max") as gradient, inputs=(x, g)),
                    other,
                ),
            ) if x is y and _constant(limit) == 0 and _constant(other) == 0:
                pooling = Window("max", gradient.size, gradient.strides, gradient.padding)
                pooled = apply(pooling, y)
                zero = broadcast(limit.inputs[0], pooled.shape, ())
                positive = apply(Map("gt"), pooled, zero)
                masked = apply(Map("where"), positive, g, broadcast(other.inputs[0], g.shape, ()))
                return apply(gradient, y, masked)
        return node

    return rewrite(roots, visit)


def _constant(node: Node) -> float | None:
    """The number that a broadcast constant repeats."""
    if isinstance(node.op, Broadcast) and isinstance(node.inputs[0].op, Const):
        return float(node.inputs[0].op.value)
    return None


def sink_reshapes(roots: Sequence[Node]) -> list[Node]:
    """Apply maps to a product before it is reshaped, so that its kernel can absorb them.

    Before: where(c, reshape(dot(a, b)), 0)
    After:  reshape(where(reshape(c), dot(a, b), 0))
    """
    readers = users(toposort(roots))

    def visit(node: Node) -> Node:
        if not isinstance(node.op, Map):
            return node
        for parent in node.inputs:
            match parent:
                case Node(op=Reshape(), inputs=(source,)) if isinstance(
                    source.op, (Dot, Conv, ConvInputGrad)
                ):
                    if len(readers.get(parent, ())) > 1 or len(readers.get(source, ())) > 1:
                        continue
                    shaped = [_reshaped(other, source.shape) for other in node.inputs]
                    if all(other is not None for other in shaped):
                        inside = apply(node.op, *(other for other in shaped if other))
                        return reshape(inside, node.shape)
        return node

    return rewrite(roots, visit)


def _reshaped(node: Node, shape: Shape, depth: int = 0) -> Node | None:
    """The value in another shape with no reshape above a map; None if that gets too deep."""
    if node.shape == shape:
        return node
    if depth > DEEPEST:
        return None
    match node:
        case Node(op=Reshape(), inputs=(source,)):
            return source if source.shape == shape else reshape(source, shape)
        case Node(op=Broadcast(axes=()), inputs=(scalar,)):
            return broadcast(scalar, shape, ())
        case Node(op=Map() | Cast() as op, inputs=inputs):
            shaped = [_reshaped(parent, shape, depth + 1) for parent in inputs]
            if any(parent is None for parent in shaped):
                return None
            return apply(op, *(parent for parent in shaped if parent))
    return reshape(node, shape)
