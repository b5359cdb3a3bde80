"""Pooling, and the gradients that go back through it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lamina.errors import ShapeError
from lamina.ir.contractions import Window, WindowGrad
from lamina.ir.graph import Node
from lamina.ir.winners import (
    SparseFilterGrad,
    SparseInputGrad,
    WindowArgMax,
    WinnerFilterGrad,
    WinnerInputGrad,
)
from lamina.llvm import kernel
from lamina.llvm.body import BodyBuilder, Operands
from lamina.llvm.fuse import Group
from lamina.llvm.kernel import Core, Inside, Instruction
from lamina.llvm.lowering.workspace import Workspace, names
from lamina.llvm.views import Affine, axis, identity
from lamina.types import Batch


def lower_window(work: Workspace, group: Group) -> None:
    """Pooling as a reduction over the cells of the window; cells outside the image are left
    out of a maximum and of a mean.
    """
    anchor = group.anchors[0]
    size, steps, padding = _window_of(anchor)
    operands = Operands()
    source = anchor.inputs[0]
    view = work.required(source)
    space, reduced = anchor.shape, tuple(size)
    count = len(space) + len(size)
    at, guards = [], []
    for i, step in enumerate(steps):
        strides = [0] * count
        strides[1 + i], strides[len(space) + i] = step, 1
        coordinate = Affine(-padding[i][0], tuple(strides))
        at.append(coordinate)
        if any(padding[i]):
            guards.append(coordinate.guard(0, int(source.shape[1 + i])))
    index = (axis(0, count), *at, axis(len(space) - 1, count))
    builder = BodyBuilder(count, operands, work.memory)
    bounds = tuple(guards)
    cell = builder.load(view, source.dtype, index, bounds)
    core: dict[Node, Instruction] = {}
    after = BodyBuilder(len(space), operands, work.memory, core, group.members)
    results: list[tuple[int, str]] = []
    for node in group.anchors:
        match node.op:
            case WindowArgMax():
                results.append((cell, "argmax"))
                core[node] = Core(len(results) - 1, node.dtype)
            case Window(kind="max"):
                argument = cell
                if bounds:
                    lowest = builder.constant(_lowest(source.dtype), source.dtype)
                    inside = builder.emit(Inside(bounds))
                    argument = builder.scalar("where", inside, cell, lowest, dtype=source.dtype)
                results.append((argument, "max"))
                core[node] = Core(len(results) - 1, node.dtype)
            case Window(kind=kind):
                results.append((cell, "sum"))
                core[node] = Core(len(results) - 1, node.dtype)
                if kind == "mean":
                    total = after.emit(core[node])
                    if bounds:
                        inside = builder.emit(Inside(bounds))
                        results.append((builder.emit(kernel.Convert(inside, node.dtype)), "sum"))
                        cells = after.emit(Core(len(results) - 1, node.dtype))
                    else:
                        cells = after.constant(math.prod(size), node.dtype)
                    quotient = after.scalar("div", total, cells, dtype=node.dtype)
                    core[node] = after.instructions[quotient]
    stores = work.stores(group, after, identity(len(space)), group.nodes())
    split, mode, extent = work.split(space, reduced)
    spec = kernel.Reduction(
        space, reduced, builder.body(), tuple(results), after.body(), stores, split
    )
    work.add(spec, operands, names(group), mode, extent)


def lower_window_gradient(work: Workspace, node: Node, op: WindowGrad, group: Group) -> None:
    """The gradient of a pooling, taken window by window."""
    operands = Operands()
    x, gradient = node.inputs
    views = [work.packed(x), work.packed(gradient)]
    for view in views:
        operands.number(view)
    operands.written_number(work.place(node, group))
    if len(operands.list) != 3:
        raise ShapeError("a window gradient needs three different operands")
    batch, *image, channels = node.shape
    spec = kernel.WindowGradient(
        op.kind,
        batch,
        tuple(int(e) for e in image),
        tuple(int(e) for e in gradient.shape[1:-1]),
        tuple(op.size),
        tuple(op.strides),
        tuple(low for low, _ in op.padding),
        int(channels),
        node.dtype,
    )
    mode = "rows" if isinstance(batch, Batch) else "units"
    work.add(spec, operands, node.op.name, mode, batch)


def lower_winner_filter(
    work: Workspace, node: Node, op: WinnerFilterGrad | SparseFilterGrad
) -> None:
    """The gradient of a filter behind max pooling, from the winners alone."""
    operands = Operands()
    x, g = node.inputs[0], node.inputs[-1]
    for parent in node.inputs:
        operands.number(work.packed(parent))
    views = work.partial_views(node)
    operands.written_number(views[0])
    filters, high, wide, channels = (int(size) for size in node.shape)
    batch = x.shape[0]
    spec = kernel.WinnerFilterGradient(
        batch,
        (int(x.shape[1]), int(x.shape[2])),
        (high, wide),
        (int(g.shape[1]), int(g.shape[2])),
        op.size if isinstance(op, WinnerFilterGrad) else (1, 1),
        channels,
        filters,
        placed=isinstance(op, WinnerFilterGrad),
    )
    work.add(spec, operands, node.op.name, "parts", batch)
    work.keep_partial(node, views)


def lower_winner_input(
    work: Workspace, node: Node, op: WinnerInputGrad | SparseInputGrad, group: Group
) -> None:
    """The gradient of an image behind max pooling, from the winners alone."""
    operands = Operands()
    *_, g, w = node.inputs
    for parent in node.inputs:
        operands.number(work.packed(parent))
    operands.written_number(work.place(node, group))
    batch, high, wide, channels = node.shape
    spec = kernel.WinnerInputGradient(
        batch,
        (int(high), int(wide)),
        (int(w.shape[1]), int(w.shape[2])),
        (int(g.shape[1]), int(g.shape[2])),
        op.size if isinstance(op, WinnerInputGrad) else (1, 1),
        int(channels),
        int(w.shape[0]),
        placed=isinstance(op, WinnerInputGrad),
    )
    work.add(spec, operands, node.op.name, "rows", batch)


def _window_of(node: Node) -> tuple[Sequence[int], Sequence[int], Sequence[tuple[int, int]]]:
    """(size, strides, padding) of a pooling."""
    if isinstance(node.op, WindowArgMax):
        return node.op.size, node.op.size, ((0, 0),) * len(node.op.size)
    assert isinstance(node.op, Window)
    return node.op.size, node.op.strides, node.op.padding


def _lowest(dtype: str) -> float | int:
    if dtype.startswith("float") or dtype == "bfloat16":
        return -math.inf
    import numpy as np

    return 0 if dtype == "bool" else int(np.iinfo(dtype).min)
