"""Compute of a convolution only what the pooling behind it reads.

Windows of 2 x 2 leave the last row and column of an image of 11 x 11 alone: 21 outputs of 121, and
with Winograd's tiles 11 of 36.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lamina.ir.contractions import Conv, Window
from lamina.ir.elementary import Broadcast, Map
from lamina.ir.graph import Node, rebuilt, toposort, users
from lamina.ir.movement import slice_
from lamina.ir.winners import WindowArgMax
from lamina.types import Batch, Shape


def crop(roots: Sequence[Node]) -> list[Node]:
    """Cut the images that only windows read down to what these reach.

    Before: window(relu(conv(x, w)))
    After:  window(relu(conv(slice(x), w)))
    """
    return _Crop(roots).run()


class _Crop:
    def __init__(self, roots: Sequence[Node]) -> None:
        self.roots = roots
        self.order = toposort(roots)
        self.readers = users(self.order)
        for root in roots:
            self.readers[root].append(root)
        self.new: dict[Node, Node] = {}

    def run(self) -> list[Node]:
        for node in self.order:
            inputs = tuple(self.new[parent] for parent in node.inputs)
            if isinstance(node.op, (Window, WindowArgMax)):
                inputs = (self._seen(node.inputs[0]),)
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            self.new[node] = node if same else rebuilt(node, inputs)
        return [self.new[root] for root in self.roots]

    def _seen(self, image: Node) -> Node:
        """What the windows over an image see of it; all, where anything else reads it."""
        reached = [_reached(reader) for reader in self.readers[image]]
        if not all(reached):
            return self.new[image]
        extents = tuple(map(max, zip(*reached, strict=True)))
        small = self._cropped(image, extents) if extents != image.shape[1:-1] else None
        return small or self.new[image]

    def _cropped(self, node: Node, extents: tuple[int, ...]) -> Node | None:
        """The first `extents` of a value's image, if a convolution need not compute the rest."""
        match node.op:
            case Broadcast(axes=axes) if not {*axes} & {*range(1, len(extents) + 1)}:
                shape: Shape = (node.shape[0], *extents, node.shape[-1])
                return rebuilt(node, (self.new[node.inputs[0]],), Broadcast(shape, axes))
            case Map():
                parts = [self._cropped(parent, extents) for parent in self._owned(node)]
                found = tuple(part for part in parts if part is not None)
                return rebuilt(node, found) if len(found) == len(node.inputs) else None
            case Conv():
                return self._convolution(node, node.op, extents)
        return None

    def _owned(self, node: Node) -> list[Node]:
        """The inputs of a map that nothing else reads, or that cost nothing."""
        return [
            parent
            for parent in node.inputs
            if isinstance(parent.op, Broadcast) or len(self.readers[parent]) == 1
        ]

    def _convolution(self, node: Node, op: Conv, extents: tuple[int, ...]) -> Node:
        """The convolution of the part of its image from which these outputs come."""
        x, w = (self.new[parent] for parent in node.inputs)
        stops: list[int | None] = [None if isinstance(x.shape[0], Batch) else x.shape[0]]
        padding = []
        for axis, count in enumerate(extents):
            size, kernel = int(x.shape[1 + axis]), int(w.shape[axis])
            low, high = op.padding[axis]
            end = (count - 1) * op.strides[axis] + (kernel - 1) * op.dilation[axis] + 1 - low
            stops.append(min(end, size))
            padding.append((low, min(high, max(0, end - size))))
        stops.append(int(x.shape[-1]))
        part = slice_(x, (0,) * len(stops), stops)
        return rebuilt(node, (part, w), replace(op, padding=tuple(padding)))


def _reached(reader: Node) -> tuple[int, ...]:
    """How far the windows of a reader reach along every axis; () for any other reader."""
    counts = [size for size in reader.shape[1:-1] if isinstance(size, int)]
    match reader.op:
        case WindowArgMax(size=size):
            return tuple(count * k for count, k in zip(counts, size, strict=True))
        case Window(size=size, strides=strides, padding=padding) if not any(map(any, padding)):
            rows = zip(counts, size, strides, strict=True)
            return tuple((count - 1) * step + k for count, k, step in rows)
    return ()
