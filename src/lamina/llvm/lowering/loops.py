"""Time loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lamina.ir.control import Scan, While
from lamina.ir.graph import Node
from lamina.llvm.fuse import Group
from lamina.llvm.lowering.workspace import Workspace, result
from lamina.llvm.task import Loop, Task, rename, same_index
from lamina.llvm.views import View, drop_axis, whole
from lamina.types import Type


@dataclass(frozen=True)
class _Carry:
    """Where a carry lies: before the loop, at the start and the end of a step, and at last."""

    first: View
    old: View
    new: View
    last: View


def lower_scan(work: Workspace, node: Node, op: Scan, group: Group) -> None:
    """A time loop: its body's tasks run in every iteration, on one step of each sequence."""
    parameters, results = op.split(op.body.parameters), op.body.results
    initial, sequences, constants = op.split(node.inputs)
    number = next(work.numbers)
    loop = Loop(number, op.length, op.reverse, label=op.name, layer=work.layer)
    known: dict[Node, View] = {}
    carries: list[_Carry] = []
    for i, (parameter, value) in enumerate(zip(parameters[0], initial, strict=True)):
        carry = _among_steps(work, node, op, i, number)
        if carry is None:
            view = work.place(result(node, i), group)
            carry = _Carry(view, view, view, view)
        work.views[result(node, i)] = carry.last
        work.copy(value, carry.first)
        known[parameter] = carry.old
        carries.append(carry)
    for parameter, value in zip(parameters[1], sequences, strict=True):
        known[parameter] = drop_axis(work.required(value), 0, number)
    for parameter, value in zip(parameters[2], constants, strict=True):
        known[parameter] = work.required(value)
    inner = work.nested(results, known)
    for root, carry in zip(results, carries, strict=False):
        if carry.new != carry.old:
            inner.deliver(root, carry.new)
    for i, root in enumerate(results[op.carries :]):
        stacked = result(node, op.carries + i)
        if work.views.get(stacked) is None:
            view = work.place(stacked, group)
            inner.deliver(root, drop_axis(view, 0, number))
    inner.run()
    late: list[tuple[Node, View]] = []
    for root, carry in zip(results, carries, strict=False):
        there = inner.views.get(root) == carry.new or carry.new != carry.old
        if not there and not _in_place(inner, root, carry.new, results):
            late.append((root, carry.new))
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


def _among_steps(work: Workspace, node: Node, op: Scan, place: int, number: int) -> _Carry | None:
    """A carry that every step hands out: all its values one after the other, none is ever copied.

    In memory stand the first value and that after each step, in the order in which time passes:
    a step reads one and writes the next. Both sequences, of the values before and after a step,
    are parts of it.
    """
    parameter, new = op.body.parameters[place], op.body.results[place]
    handed_out = op.body.results[op.carries :]
    before = [result(node, op.carries + i) for i, r in enumerate(handed_out) if r is parameter]
    after = [result(node, op.carries + i) for i, r in enumerate(handed_out) if r is new]
    asked = any(n in work.destinations for n in (result(node, place), *before, *after))
    shared = any(work.views.get(n) is not None for n in (*before, *after))
    if asked or shared or not (before or after):
        return None
    if new in op.body.parameters or new in op.body.results[:place]:
        return None
    buffer = work.buffer(Type((op.length + 1, *parameter.shape), parameter.dtype), "carry")
    every = whole(buffer, work.capacity)
    stride = every.strides[0]
    end = op.length * stride
    start, old, later, last = (end, stride, 0, 0) if op.reverse else (0, 0, stride, end)

    def sequence(offset: int) -> View:
        return View(buffer, offset, (op.length, *parameter.shape), every.strides)

    def single(offset: int) -> View:
        return View(buffer, offset, parameter.shape, every.strides[1:])

    work.views.update((n, sequence(old)) for n in before)
    work.views.update((n, sequence(later)) for n in after)
    return _Carry(
        single(start),
        drop_axis(sequence(old), 0, number),
        drop_axis(sequence(later), 0, number),
        single(last),
    )


def _in_place(inner: Workspace, root: Node, carry: View, results: Sequence[Node]) -> bool:
    """Write a new carry over the old one, if nothing reads the old one later; else False."""
    source = inner.views.get(root)
    if source is None or source.buffer not in inner.own or source.buffer.parts:
        return False
    same = replace(source, buffer=carry.buffer) == carry and not carry.loops
    alone = all(
        view is None or view.buffer is not carry.buffer
        for view in (inner.views.get(other) for other in results)
    )
    if not same or not alone or source.shape != source.buffer.type.shape:
        return False
    writers = [i for i, step in enumerate(inner.steps) if source.buffer in step.written_buffers()]
    if len(writers) != 1:
        return False
    writer = inner.steps[writers[0]]
    if not isinstance(writer, Task) or writer.updates:
        return False
    if any(carry.buffer in step.read_buffers() for step in inner.steps[writers[0] + 1 :]):
        return False
    reads = carry.buffer in writer.read_buffers()
    if reads and not same_index(writer, source.buffer, carry.buffer):
        return False
    for step in inner.steps:
        rename(step, {source.buffer: carry.buffer})
    for node, view in inner.views.items():
        if view is not None and view.buffer is source.buffer:
            inner.views[node] = replace(view, buffer=carry.buffer)
    inner.buffers.remove(source.buffer)
    return True


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
