"""Take gradients behind max pooling at the winners only; see `ir.winners`."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.ir.contractions import ConvFilterGrad, ConvInputGrad, WindowGrad
from lamina.ir.elementary import Reduce
from lamina.ir.graph import Node, apply, rebuilt, toposort, users
from lamina.ir.movement import transpose
from lamina.ir.winners import WindowArgMax, WinnerFilterGrad, WinnerInputGrad


def use_winners(roots: Sequence[Node], fewest_channels: int) -> list[Node]:
    """Rewrite the gradients of convolutions that stand before a max pooling.

    Before: filter_gradient(x, window_gradient(y, g))
    After:  transpose(winner_filter_gradient(x, window_argmax(y), g))

    likewise for the input's gradient, and for the bias's, which is the sum of g.

    fewest_channels   of the convolution's input: fewer do not fill a vector
    """
    order = toposort(roots)
    readers = users(order)
    spreads = {
        node
        for node in order
        if isinstance(node.op, WindowGrad)
        and _needless(node, node.op, readers[node], fewest_channels)
    }
    if not spreads:
        return list(roots)
    new: dict[Node, Node] = {}
    for node in order:
        spread = next((i for i in node.inputs if i in spreads), None)
        if spread is not None:
            new[node] = _at_winners(node, spread, new)
        elif node not in spreads:
            inputs = tuple(new[parent] for parent in node.inputs)
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            new[node] = node if same else rebuilt(node, inputs)
    return [new[root] for root in roots]


def _needless(node: Node, op: WindowGrad, readers: list[Node], fewest_channels: int) -> bool:
    """Whether all that read a pooling gradient, a convolution among them, can do without it."""
    apart = op.kind == "max" and op.strides == op.size and len(op.size) == 2
    if not apart or any(map(any, op.padding)) or node.dtype != "float32":
        return False
    convolutions = 0
    for reader in readers:
        match reader.op:
            case ConvFilterGrad() as conv if reader.inputs[1] is node:
                channels = reader.inputs[0].shape[-1]
            case ConvInputGrad() as conv if reader.inputs[0] is node:
                channels = reader.inputs[1].shape[2]
            case Reduce(kind="sum", axes=axes) if sorted(axes) == [0, 1, 2]:
                continue
            case _:
                return False
        if not plain(conv) or channels < fewest_channels:
            return False
        convolutions += 1
    return convolutions > 0


def plain(conv: ConvFilterGrad | ConvInputGrad) -> bool:
    """Whether a convolution has stride and dilation one, no padding, no groups."""
    steps = {*conv.strides, *conv.dilation}
    return steps == {1} and conv.groups == 1 and not any(map(any, conv.padding))


def _at_winners(node: Node, spread: Node, new: dict[Node, Node]) -> Node:
    pooling = spread.op
    assert isinstance(pooling, WindowGrad)
    y, g = (new[parent] for parent in spread.inputs)
    if isinstance(node.op, Reduce):
        return apply(node.op, g)
    size = pooling.size[0], pooling.size[1]
    places = apply(WindowArgMax(size), y)
    if isinstance(node.op, ConvFilterGrad):
        x, kernel = new[node.inputs[0]], (node.op.kernel[0], node.op.kernel[1])
        gradient = apply(WinnerFilterGrad(kernel, size), x, places, g)
        return transpose(gradient, (1, 2, 3, 0))
    assert isinstance(node.op, ConvInputGrad)
    w = transpose(new[node.inputs[1]], (3, 0, 1, 2))
    image = (node.op.image[0], node.op.image[1])
    return apply(WinnerInputGrad(image, size), places, g, w)
