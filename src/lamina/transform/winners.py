"""Take gradients behind max pooling at the winners only; see `ir.winners`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina.ir.contractions import ConvFilterGrad, ConvInputGrad, WindowGrad
from lamina.ir.elementary import Reduce
from lamina.ir.graph import Node, apply, rebuilt, toposort, users
from lamina.ir.movement import transpose
from lamina.ir.winners import WindowArgMax, WinnerFilterGrad, WinnerInputGrad

# Fewer channels do not fill a vector.
FEWEST_CHANNELS = 8


@dataclass(frozen=True)
class _Spread:
    """A pooling gradient that need not be written down: the convolution that reads it."""

    kernel: tuple[int, int]
    pitch: int


def use_winners(roots: Sequence[Node]) -> list[Node]:
    """Rewrite the gradients of convolutions that stand before a max pooling.

    Before: filter_gradient(x, window_gradient(y, g))
    After:  transpose(winner_filter_gradient(x, window_argmax(y), g))

    likewise for the input's gradient, and for the bias's, which is the sum of g.
    """
    order = toposort(roots)
    readers = users(order)
    spreads = {
        node: found
        for node in order
        if isinstance(node.op, WindowGrad) and (found := _spread(node, node.op, readers[node]))
    }
    if not spreads:
        return list(roots)
    new: dict[Node, Node] = {}
    for node in order:
        spread = next((i for i in node.inputs if i in spreads), None)
        if spread is not None:
            new[node] = _at_winners(node, spread, spreads[spread], new)
        elif node not in spreads:
            inputs = tuple(new[parent] for parent in node.inputs)
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            new[node] = node if same else rebuilt(node, inputs)
    return [new[root] for root in roots]


def _spread(node: Node, op: WindowGrad, readers: list[Node]) -> _Spread | None:
    """What reads a pooling gradient, if all that do can do without it."""
    apart = op.kind == "max" and op.strides == op.size and len(op.size) == 2
    if not apart or any(map(any, op.padding)) or node.dtype != "float32":
        return None
    found: set[_Spread] = set()
    for reader in readers:
        match reader.op:
            case ConvFilterGrad(kernel=kernel) as conv if reader.inputs[1] is node:
                x = reader.inputs[0]
                if not _plain(conv) or x.shape[-1] < FEWEST_CHANNELS:
                    return None
                found.add(_Spread((kernel[0], kernel[1]), int(x.shape[2])))
            case ConvInputGrad(image=image) as conv if reader.inputs[0] is node:
                w = reader.inputs[1]
                if not _plain(conv) or w.shape[2] < FEWEST_CHANNELS:
                    return None
                found.add(_Spread((int(w.shape[0]), int(w.shape[1])), image[1]))
            case Reduce(kind="sum", axes=axes) if sorted(axes) == [0, 1, 2]:
                pass
            case _:
                return None
    return found.pop() if len(found) == 1 else None


def _plain(conv: ConvFilterGrad | ConvInputGrad) -> bool:
    """Stride and dilation one, no padding, no groups."""
    steps = {*conv.strides, *conv.dilation}
    return steps == {1} and conv.groups == 1 and not any(map(any, conv.padding))


def _at_winners(node: Node, spread: Node, found: _Spread, new: dict[Node, Node]) -> Node:
    pooling = spread.op
    assert isinstance(pooling, WindowGrad)
    y, g = (new[parent] for parent in spread.inputs)
    if isinstance(node.op, Reduce):
        return apply(node.op, g)
    places = apply(WindowArgMax((pooling.size[0], pooling.size[1]), found.pitch), y)
    if isinstance(node.op, ConvFilterGrad):
        x = new[node.inputs[0]]
        gradient = apply(WinnerFilterGrad(found.kernel), x, places, g)
        return transpose(gradient, (1, 2, 3, 0))
    assert isinstance(node.op, ConvInputGrad)
    w = transpose(new[node.inputs[1]], (3, 0, 1, 2))
    image = (node.op.image[0], node.op.image[1])
    return apply(WinnerInputGrad(image), places, g, w)
