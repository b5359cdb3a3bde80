"""What the lowering of one graph shares: where values lie, and the tasks so far."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from lamina.ir.graph import Input, Node, pick
from lamina.llvm import choices, kernel
from lamina.llvm.body import BodyBuilder, Operands
from lamina.llvm.fuse import VIEWS, Fuser, Group
from lamina.llvm.kernel import Guard, Kernel, Store
from lamina.llvm.task import Counted, Step, Task
from lamina.llvm.views import Buffer, Index, View, identity, is_contiguous, moved_view, whole
from lamina.types import Batch, Dimension, Shape, Type, static_shape


class Workspace(ABC):
    """The memory and the tasks of the graph below `roots`; `known` says where its inputs lie.

    `outer` is the workspace around a time loop: copies of what does not change in the loop are
    made there. `numbers` counts the loops, to number them.
    """

    def __init__(
        self,
        roots: Sequence[Node],
        known: dict[Node, View],
        capacity: int,
        parts: int,
        outer: Workspace | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self.capacity, self.parts, self.outer = capacity, parts, outer
        self.numbers = numbers if numbers is not None else itertools.count()
        self.roots = list(roots)
        self.views: dict[Node, View | None] = dict(known)
        self.partial: dict[Node, list[View]] = {}
        self.destinations: dict[Node, list[View]] = {}
        self.steps: list[Step] = []
        self.buffers: list[Buffer] = []
        self.copies: dict[tuple[object, ...], View] = {}
        self.own: set[Buffer] = set()
        self.fusion = Fuser(self.roots, capacity, parts=parts, in_loop=outer is not None).run()
        self.fusions = [self.fusion]
        self.exported = self._exported()
        self.layer = ""

    def _exported(self) -> set[Node]:
        """Values that a group other than their own reads, or that leave the graph."""
        fuser = Fuser(self.roots, self.capacity)
        fuser.home = self.fusion.home
        fuser.groups = self.fusion.groups
        found = {root for root in self.roots if root in self.fusion.home}
        for group in self.fusion.groups:
            for node in group.nodes():
                for read in fuser.dependencies(node):
                    if self.fusion.home[read] is not group:
                        found.add(read)
        for root in self.roots:
            if root not in self.fusion.home and not isinstance(root.op, Input):
                found.update(fuser.dependencies(root))
        return found

    def deliver(self, node: Node, view: View) -> None:
        """Ask for the value of a root to be written to a view."""
        self.destinations.setdefault(node, []).append(view)

    @abstractmethod
    def run(self) -> None:
        """Lower all groups, in order."""

    @abstractmethod
    def nested(self, roots: Sequence[Node], known: dict[Node, View]) -> Workspace:
        """The workspace of a time loop's body."""

    # ------------------------------------------------------------------ memory

    def buffer(self, type: Type, label: str, parts: int = 0) -> Buffer:
        buffer = Buffer(type, "shared", label, parts=parts)
        self.buffers.append(buffer)
        self.own.add(buffer)
        return buffer

    def memory(self, node: Node) -> list[View] | None:
        """Where a value lies: one view, several partial sums to add, or nowhere."""
        if node in self.partial:
            return self.partial[node]
        view = self.view(node)
        if view is not None:
            return [view]
        return self.moved(node)

    def view(self, node: Node) -> View | None:
        if node not in self.views:
            found = None
            if isinstance(node.op, VIEWS) and node.inputs[0] not in self.partial:
                source = self.view(node.inputs[0])
                if source is not None:
                    found = moved_view(node.op, source, node.shape, self.capacity)
            self.views[node] = found
        return self.views[node]

    def moved(self, node: Node) -> list[View] | None:
        """Where the result of a movement lies already: its input's memory in another shape."""
        if not isinstance(node.op, VIEWS):
            return None
        moved = [
            moved_view(node.op, source, node.shape, self.capacity)
            for source in self.memory(node.inputs[0]) or ()
        ]
        found = [view for view in moved if view is not None]
        return found if found and len(found) == len(moved) else None

    def required(self, node: Node) -> View:
        """The view of a value that a kernel reads through memory."""
        view = self.view(node)
        if view is None and node in self.partial:
            target = whole(self.buffer(node.type, "sum"), self.capacity)
            self.copy(node, target)
            self.views[node] = view = target
            del self.partial[node]
        if view is None:
            target = whole(self.buffer(node.type, "copy"), self.capacity)
            self.copy(node, target)
            self.views[node] = view = target
        return view

    def packed(self, node: Node) -> View:
        """The view of a value that lies in one piece from its buffer's start, copied if need be."""
        view = self.required(node)
        if is_contiguous(view, self.capacity) and not view.offset:
            return view
        return self.reordered(view, tuple(range(len(view.shape))))

    def reordered(self, view: View, order: tuple[int, ...]) -> View:
        """A contiguous copy of a view with its axes in another order, made once."""
        if self.outer is not None and not view.loops and view.buffer not in self.own:
            return self.outer.reordered(view, order)
        key = (view, order)
        if key not in self.copies:
            shape = tuple(view.shape[i] for i in order)
            dtype = view.buffer.type.dtype
            target = whole(self.buffer(Type(shape, dtype), "reordered"), self.capacity)
            moved = View(
                view.buffer,
                view.offset,
                shape,
                tuple(view.strides[i] for i in order),
                view.loops,
            )
            self.copy_view(moved, target, dtype)
            self.copies[key] = target
        return self.copies[key]

    def copy_view(self, source: View, target: View, dtype: str) -> None:
        operands = Operands()
        rank = len(source.shape)
        builder = BodyBuilder(rank, operands, self.memory)
        argument = builder.load(source, dtype, identity(rank))
        stores = (builder.store(argument, target, identity(rank), dtype),)
        self.elementwise(source.shape, builder, stores, operands, "copy")

    def copy(self, node: Node, target: View) -> None:
        """Compute a value that no group stores there, straight into a view."""
        operands = Operands()
        rank = len(node.shape)
        builder = BodyBuilder(rank, operands, self.memory)
        argument = builder.value(node, identity(rank))
        stores = (builder.store(argument, target, identity(rank), node.dtype),)
        self.elementwise(node.shape, builder, stores, operands, "copy")

    def place(self, node: Node, group: Group) -> View:
        """Where a value of a group is stored: its destination, or a new buffer."""
        if node in self.destinations:
            view = self.destinations[node][0]
        else:
            view = whole(self.buffer(node.type, label(node)), self.capacity)
        self.views[node] = view
        return view

    # ------------------------------------------------------------------ tasks

    def add(
        self,
        spec: Kernel,
        operands: Operands,
        label: str,
        mode: str,
        extent: Dimension,
        counted: Counted | None = None,
    ) -> None:
        written = tuple(sorted(operands.written))
        task = Task(spec, tuple(operands.list), written, mode, extent, label, self.layer)
        task.counted = counted
        self.steps.append(task)

    def counted(self, count: Node, room: Dimension, unit: int = 1) -> Counted:
        """A number of rows that the step itself finds."""
        assert isinstance(room, int)
        return Counted(self.packed(count).buffer, room, unit)

    def split(
        self, space: Shape, reduced: Shape = (), partial: bool = False
    ) -> tuple[int, str, Dimension]:
        """(axis to split, mode, its extent) for loops over space + reduced."""
        for i, size in enumerate(space):
            if isinstance(size, Batch):
                return i, "rows", size
        if partial:
            for i, size in enumerate(reduced):
                if isinstance(size, Batch):
                    return len(space) + i, "parts", size
        extents = static_shape(space, self.capacity)
        work = math.prod(extents) * math.prod(static_shape(reduced, self.capacity))
        if work < choices.SMALLEST_SHARED_WORK or not extents:
            return 0, "single", (*space, *reduced, 1)[0]
        best = max(range(len(extents)), key=lambda i: (min(extents[i], 64), -i))
        return best, "units", extents[best]

    def elementwise(
        self,
        space: Shape,
        builder: BodyBuilder,
        stores: tuple[Store, ...],
        operands: Operands,
        label: str,
    ) -> None:
        split, mode, extent = self.split(space)
        body = builder.body()
        if not space:
            space = (1,)
            body, stores = with_axis(body), with_axis(stores)
        self.add(kernel.Elementwise(space, body, stores, split), operands, label, mode, extent)

    # ------------------------------------------------------------------ groups

    def stores(
        self, group: Group, builder: BodyBuilder, index: Index, nodes: Sequence[Node]
    ) -> tuple[Store, ...]:
        stores = []
        for node in nodes:
            argument = builder.value(node, index)
            if node in self.exported:
                stores.append(builder.store(argument, self.place(node, group), index, node.dtype))
        return tuple(stores)

    def partial_views(self, node: Node, type: Type | None = None) -> list[View]:
        """Room for the sums of all parts; `type` where they are not yet the node's value."""
        type = type or node.type
        buffer = self.buffer(type, f"partial {label(node)}", parts=self.parts)
        first = whole(buffer, self.capacity)
        size = math.prod(static_shape(type.shape, self.capacity))
        return [View(buffer, part * size, first.shape, first.strides) for part in range(self.parts)]

    def keep_partial(self, node: Node, views: list[View]) -> None:
        """Leave a sum in parts, which its readers add; or add them now if it must be whole."""
        self.partial[node] = views
        if node in self.destinations:
            target = self.destinations[node][0]
            self.copy(node, target)
            del self.partial[node]
            self.views[node] = target


def _guards_with_axis(guards: tuple[Guard, ...]) -> tuple[Guard, ...]:
    return tuple(replace(guard, strides=(0, *guard.strides)) for guard in guards)


def with_axis(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """Instructions or stores of a kernel without axes, for one with a leading axis of one."""
    result = []
    for item in items:
        changes: dict[str, Any] = {}
        for name in ("strides", "row", "within"):
            if hasattr(item, name):
                old = getattr(item, name)
                changes[name] = (1,) if isinstance(item, Store) and not old else (0, *old)
        if hasattr(item, "guards"):
            changes["guards"] = _guards_with_axis(item.guards)
        result.append(replace(item, **changes) if changes else item)
    return tuple(result)


def label(node: Node) -> str:
    """What a value is called in a listing: its layer and its op."""
    name = getattr(node.op, "fn", node.op.name)
    return f"{node.scope}:{name}" if node.scope else str(name)


def names(group: Group) -> str:
    """What a kernel is called in a listing: the ops that it computes."""
    return "+".join(getattr(node.op, "fn", node.op.name) for node in group.nodes())


def extent(shape: Shape) -> int | Batch:
    """The number of elements of a shape."""
    total: int | Batch = 1
    for size in shape:
        total = total * size
    return total


def result(node: Node, position: int) -> Node:
    """The node that picks a result, whether or not the graph reads it."""
    return node if len(node.types) == 1 else pick(node, position)
