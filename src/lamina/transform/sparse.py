"""Pass over the zeros of a gradient behind a maximum over all positions; see `ir.winners`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lamina.ir.contractions import ConvFilterGrad, ConvInputGrad
from lamina.ir.elementary import Broadcast, Map, Reduce
from lamina.ir.graph import Node, apply, rewrite
from lamina.ir.movement import reshape, transpose
from lamina.ir.winners import SparseFilterGrad, SparseInputGrad
from lamina.transform.simplify import number_of
from lamina.transform.winners import plain


def use_sparse(roots: Sequence[Node], fewest_channels: int, fewest_positions: int) -> list[Node]:
    """Rewrite the gradients of convolutions that stand before a maximum over all positions.

    Before: filter_gradient(x, where(eq(y, max(y)), g, 0))
    After:  transpose(sparse_filter_gradient(x, where(eq(y, max(y)), g, 0)))

    likewise for the input's gradient.

    fewest_channels    of the convolution's input: fewer do not fill a vector
    fewest_positions   of which one is the maximum, or several that are equal
    """

    def visit(node: Node) -> Node:
        conv = node.op
        if not isinstance(conv, (ConvFilterGrad, ConvInputGrad)) or not plain(conv):
            return node
        if len(conv.strides) > 2 or node.dtype != "float32":
            return node
        x, g = node.inputs if isinstance(conv, ConvFilterGrad) else (node, node.inputs[0])
        if x.shape[-1] < fewest_channels or not _sparse(g, fewest_positions):
            return node
        if isinstance(conv, ConvFilterGrad):
            kernel = _two(conv.kernel)
            found = apply(SparseFilterGrad(kernel), _image(x), _image(g))
            return reshape(transpose(found, (1, 2, 3, 0)), node.shape)
        w = node.inputs[1]
        filters = transpose(reshape(w, (*_two(w.shape[:-2]), *w.shape[-2:])), (3, 0, 1, 2))
        image = _two(conv.image)
        return reshape(apply(SparseInputGrad(image), _image(g), filters), node.shape)

    return rewrite(roots, visit)


def _sparse(g: Node, fewest_positions: int) -> bool:
    """Whether a value is zero but where a maximum over all positions lies."""
    match g:
        case Node(op=Map(fn="mul"), inputs=factors):
            return any(_sparse(factor, fewest_positions) for factor in factors)
        case Node(op=Map(fn="where"), inputs=(condition, value, otherwise)) if (
            number_of(otherwise) == 0
        ):
            return _at_maximum(condition, fewest_positions) or _sparse(value, fewest_positions)
    return False


def _at_maximum(condition: Node, fewest_positions: int) -> bool:
    """Whether a condition holds only where a value is the largest of all positions."""
    match condition:
        case Node(
            op=Map(fn="eq"),
            inputs=(y, Node(op=Broadcast(), inputs=(Node(op=Reduce() as most, inputs=(x,)),))),
        ):
            positions = range(1, y.type.rank - 1)
            count = math.prod(size for size in y.shape[1:-1] if isinstance(size, int))
            everywhere = most.kind == "max" and most.axes == tuple(positions)
            return x is y and everywhere and count >= fewest_positions
    return False


def _two(sizes: Sequence[object]) -> tuple[int, int]:
    """The sizes of an image: a sequence is an image of one row."""
    high, wide = sizes if len(sizes) == 2 else (1, *sizes)
    assert isinstance(high, int)
    assert isinstance(wide, int)
    return high, wide


def _image(node: Node) -> Node:
    """A batch of images with channels."""
    batch, *sizes, channels = node.shape
    return reshape(node, (batch, *_two(sizes), channels))
