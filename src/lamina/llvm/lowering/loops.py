"""Time loops."""

from __future__ import annotations

from lamina.ir.control import Scan, While
from lamina.ir.graph import Node
from lamina.llvm.fuse import Group
from lamina.llvm.lowering.workspace import (
    Workspace,
    result,
)
from lamina.llvm.task import Loop
from lamina.llvm.views import (
    View,
    drop_axis,
    whole,
)


def lower_scan(work: Workspace, node: Node, op: Scan, group: Group) -> None:
    """A time loop: its body's tasks run in every iteration, on one step of each sequence."""
    parameters, results = op.split(op.body.parameters), op.body.results
    initial, sequences, constants = op.split(node.inputs)
    carried = op.carries
    number = next(work.numbers)
    loop = Loop(number, op.length, op.reverse, label=op.name, layer=work.layer)
    known: dict[Node, View] = {}
    carries = []
    for i, (parameter, value) in enumerate(zip(parameters[0], initial, strict=True)):
        view = work.place(result(node, i), group)
        work.copy(value, view)
        known[parameter] = view
        carries.append(view)
    for parameter, value in zip(parameters[1], sequences, strict=True):
        known[parameter] = drop_axis(work.required(value), 0, number)
    for parameter, value in zip(parameters[2], constants, strict=True):
        known[parameter] = work.required(value)
    inner = work.nested(results, known)
    for i, root in enumerate(results[carried:]):
        view = work.place(result(node, carried + i), group)
        inner.deliver(root, drop_axis(view, 0, number))
    inner.run()
    late: list[tuple[Node, View]] = []
    for root, view in zip(results, carries, strict=False):
        if inner.views.get(root) != view:
            late.append((root, view))
    _renew(inner, late)
    loop.body = inner.steps
    tasks = loop.tasks()
    loop.mode = "rows" if all(task.mode == "rows" for task in tasks) else "single"
    work.buffers.extend(inner.buffers)
    work.fusions.extend(inner.fusions)
    work.steps.append(loop)


def lower_while(work: Workspace, node: Node, op: While, group: Group) -> None:
    """A loop of unknown length: one thread computes the test, then the body, again and again."""
    loop = Loop(next(work.numbers), 1, False, mode="single", label=op.name, layer=work.layer)
    views = []
    for i, value in enumerate(node.inputs):
        if i < op.carries:
            view = work.place(result(node, i), group)
            work.copy(value, view)
        else:
            view = work.required(value)
        views.append(view)
    flag = work.buffer(op.test.types[0], "test")
    test = work.nested(op.test.results, dict(zip(op.test.parameters, views, strict=True)))
    test.deliver(op.test.results[0], whole(flag, work.capacity))
    test.run()
    inner = work.nested(op.body.results, dict(zip(op.body.parameters, views, strict=True)))
    inner.run()
    _renew(
        inner,
        [
            (root, view)
            for root, view in zip(op.body.results, views, strict=False)
            if inner.views.get(root) != view
        ],
    )
    loop.head, loop.body, loop.test = test.steps, inner.steps, flag
    for part in (test, inner):
        work.buffers.extend(part.buffers)
        work.fusions.extend(part.fusions)
    work.steps.append(loop)


def _renew(work: Workspace, pairs: list[tuple[Node, View]]) -> None:
    """At the end of an iteration: move new carries to where the next one reads them.

    A new carry may be an old one (a swap), so those that are read from a carry's own buffer
    go through a copy first.
    """
    targets = {view.buffer for _, view in pairs}
    sources: list[tuple[View, View, str]] = []
    for node, target in pairs:
        source = work.required(node)
        if source.buffer in targets:
            spare = whole(work.buffer(node.type, "spare"), work.capacity)
            work.copy_view(source, spare, node.dtype)
            source = spare
        sources.append((source, target, node.dtype))
    for source, target, dtype in sources:
        work.copy_view(source, target, dtype)
