"""From groups to tasks: every group becomes kernels bound to buffers.

The lowering decides where values lie (which buffer, which layout), never when they are computed
or by which thread: that is the planner's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lamina.errors import BatchError, ShapeError
from lamina.ir.contractions import Window, WindowGrad
from lamina.ir.control import Scan
from lamina.ir.elementary import Reduce
from lamina.ir.graph import Input, Node, pick
from lamina.ir.indexing import Scatter
from lamina.ir.movement import Concat, Pad
from lamina.ir.order import Sort, TopK
from lamina.ir.program import Program
from lamina.ir.reductions import ArgReduce, Cumulative
from lamina.ir.winners import WindowArgMax, WinnerFilterGrad, WinnerInputGrad
from lamina.llvm import choices, kernel
from lamina.llvm.body import BodyBuilder, Operands
from lamina.llvm.fuse import VIEWS, Fuser, Fusion, Group
from lamina.llvm.kernel import Body, Core, Guard, Inside, Instruction, Kernel, Store
from lamina.llvm.products import Piece, Side, pieces
from lamina.llvm.task import Loop, Step, Task
from lamina.llvm.views import (
    Affine,
    Buffer,
    Index,
    View,
    axis,
    drop_axis,
    identity,
    is_contiguous,
    moved_view,
    whole,
)
from lamina.types import Batch, Dimension, Shape, Type, static_shape


@dataclass(eq=False)
class Lowered:
    """The tasks of a program and its memory.

    updates    (buffer that receives the new value, state buffer); the planner makes them one
               where nothing reads the old value afterwards, and copies otherwise
    """

    steps: list[Step]
    buffers: list[Buffer]
    states: list[Buffer]
    inputs: list[Buffer]
    outputs: list[Buffer]
    updates: list[tuple[Buffer, Buffer]]
    fusions: list[Fusion] = field(default_factory=list)


def lower(program: Program, capacity: int, parts: int) -> Lowered:
    """The tasks of a program whose batch has room for `capacity` rows, summed in `parts` parts."""
    states = [
        Buffer(node.type, "state", label=_name(node, "state"), slot=i)
        for i, node in enumerate(program.states)
    ]
    inputs = [
        Buffer(node.type, "input", label=_name(node, "input"), slot=i)
        for i, node in enumerate(program.inputs)
    ]
    outputs = [
        Buffer(node.type, "output", label=f"output {i}", slot=i)
        for i, node in enumerate(program.outputs)
    ]
    known = {
        node: whole(buffer, capacity)
        for node, buffer in zip((*program.states, *program.inputs), (*states, *inputs), strict=True)
    }
    lowering = Lowering(program.roots, known, capacity, parts)
    updates: list[tuple[Buffer, Buffer]] = []
    for node, buffer in zip(program.outputs, outputs, strict=True):
        lowering.deliver(node, whole(buffer, capacity))
    for update, state in zip(program.updates, states, strict=True):
        if update is not None:
            fresh = Buffer(update.type, "shared", label=f"new {state.label}")
            lowering.buffers.append(fresh)
            lowering.deliver(update, whole(fresh, capacity))
            updates.append((fresh, state))
    lowering.run()
    return Lowered(
        lowering.steps, lowering.buffers, states, inputs, outputs, updates, lowering.fusions
    )


def _name(node: Node, fallback: str) -> str:
    return (node.op.label if isinstance(node.op, Input) else "") or fallback


class Lowering:
    """Lower the graph below `roots`; `known` says where its inputs lie.

    `outer` is the lowering around a time loop: copies of what does not change in the loop are
    made there. `loops` counts the loops around, to number them.
    """

    def __init__(
        self,
        roots: Sequence[Node],
        known: dict[Node, View],
        capacity: int,
        parts: int,
        outer: Lowering | None = None,
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
        self.fusion = Fuser(self.roots, capacity).run()
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

    def run(self) -> None:
        for group in self.fusion.groups:
            self.layer = next((n.scope for n in group.nodes() if n.scope), "")
            self._lower_group(group)
        for node, views in self.destinations.items():
            source = self.views.get(node) if node in self.fusion.home else None
            for view in views:
                if source is None or view != source:
                    self._copy(node, view)

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
        return self._moved(node)

    def view(self, node: Node) -> View | None:
        if node not in self.views:
            found = None
            if isinstance(node.op, VIEWS) and node.inputs[0] not in self.partial:
                source = self.view(node.inputs[0])
                if source is not None:
                    found = moved_view(node.op, source, node.shape, self.capacity)
            self.views[node] = found
        return self.views[node]

    def _moved(self, node: Node) -> list[View] | None:
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
            self._copy(node, target)
            self.views[node] = view = target
            del self.partial[node]
        if view is None:
            target = whole(self.buffer(node.type, "copy"), self.capacity)
            self._copy(node, target)
            self.views[node] = view = target
        return view

    def packed(self, node: Node) -> View:
        """The view of a value laid out contiguously, copied if it is not."""
        view = self.required(node)
        if is_contiguous(view, self.capacity):
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
            self._copy_view(moved, target, dtype)
            self.copies[key] = target
        return self.copies[key]

    def _copy_view(self, source: View, target: View, dtype: str) -> None:
        operands = Operands()
        rank = len(source.shape)
        builder = BodyBuilder(rank, operands, self.memory)
        argument = builder.load(source, dtype, identity(rank))
        stores = (builder.store(argument, target, identity(rank), dtype),)
        self._elementwise(source.shape, builder, stores, operands, "copy")

    def _copy(self, node: Node, target: View) -> None:
        """Compute a value that no group stores there, straight into a view."""
        operands = Operands()
        rank = len(node.shape)
        builder = BodyBuilder(rank, operands, self.memory)
        argument = builder.value(node, identity(rank))
        stores = (builder.store(argument, target, identity(rank), node.dtype),)
        self._elementwise(node.shape, builder, stores, operands, "copy")

    def place(self, node: Node, group: Group) -> View:
        """Where a value of a group is stored: its destination, or a new buffer."""
        if node in self.destinations:
            view = self.destinations[node][0]
        else:
            view = whole(self.buffer(node.type, _label(node)), self.capacity)
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
    ) -> None:
        written = tuple(sorted(operands.written))
        task = Task(spec, tuple(operands.list), written, mode, extent, label, self.layer)
        self.steps.append(task)

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

    def _elementwise(
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

    def _lower_group(self, group: Group) -> None:
        match group.kind:
            case "map":
                self._lower_map(group)
            case "contract":
                self._lower_contraction(group)
            case "rows":
                self._lower_rows(group)
            case "reduce":
                self._lower_reduction(group)
            case _:
                self._lower_special(group.anchors[0], group)

    def _stores(
        self, group: Group, builder: BodyBuilder, index: Index, nodes: Sequence[Node]
    ) -> tuple[Store, ...]:
        stores = []
        for node in nodes:
            argument = builder.value(node, index)
            if node in self.exported:
                stores.append(builder.store(argument, self.place(node, group), index, node.dtype))
        return tuple(stores)

    def _lower_map(self, group: Group) -> None:
        operands = Operands()
        rank = len(group.space)
        moved = {n: views for n in group.members if (views := self._moved(n)) is not None}
        inside = [member for member in group.members if member not in moved]

        def memory(node: Node) -> list[View] | None:
            return moved[node] if node in moved else self.memory(node)

        builder = BodyBuilder(rank, operands, memory, inside=inside)
        stores = self._stores(group, builder, identity(rank), group.members)
        self._elementwise(group.space, builder, stores, operands, _names(group))

    def _lower_contraction(self, group: Group) -> None:
        anchor = group.anchors[0]
        repeated = self.outer is not None
        found = pieces(anchor, self.required, self.reordered, repeated=repeated)
        if group.partial:
            self._lower_partial_contraction(anchor, found[0])
            return
        for node in group.nodes():
            if node in self.exported:
                self.place(node, group)
        for piece in found:
            self._lower_piece(group, anchor, piece)

    def _accesses(
        self, operands: Operands, sides: tuple[Side, Side], dtypes: tuple[str, str]
    ) -> tuple[kernel.Access, kernel.Access]:
        a, b = (
            kernel.Access(operands.number(side.view), dtype, side.offset, side.strides, side.guards)
            for side, dtype in zip(sides, dtypes, strict=True)
        )
        return a, b

    def _lower_piece(self, group: Group, anchor: Node, piece: Piece) -> None:
        operands = Operands()
        accumulator = _accumulator(anchor)
        rank = len(piece.space)
        core: dict[Node, Instruction] = {}
        builder = BodyBuilder(rank, operands, self.memory, core, group.members)
        if piece.sides is None:
            zero = builder.constant(0, anchor.dtype)
            core[anchor] = builder.instructions[zero]
        else:
            dtypes = _side_dtypes(piece.sides)
            a, b = self._accesses(operands, piece.sides, dtypes)
            core[anchor] = Core(0, accumulator)
            if accumulator != anchor.dtype:
                argument = builder.emit(core[anchor])
                converted = builder.emit(kernel.Convert(argument, anchor.dtype))
                core[anchor] = builder.instructions[converted]
        stores = []
        for node in group.nodes():
            argument = builder.value(node, piece.index)
            if node in self.exported:
                view = self.views[node]
                assert view is not None
                stores.append(builder.store(argument, view, piece.index, node.dtype))
        label = _names(group)
        if piece.sides is None:
            self._elementwise(piece.space, builder, tuple(stores), operands, label)
            return
        split, mode, extent = self.split(piece.space, piece.reduced)
        if accumulator == anchor.dtype and choices.reduces_better(
            piece.space, piece.reduced, a.strides, b.strides
        ):
            body, results = _product(a, b, accumulator)
            reduction = kernel.Reduction(
                piece.space, piece.reduced, body, results, builder.body(), tuple(stores), split
            )
            self.add(reduction, operands, label, mode, extent)
            return
        spec = kernel.Contraction(
            piece.space,
            piece.reduced,
            a,
            b,
            builder.body(),
            tuple(stores),
            split,
            accumulator=accumulator,
        )
        self.add(spec, operands, label, mode, extent)

    def _partial_views(self, node: Node) -> list[View]:
        buffer = self.buffer(node.type, f"partial {_label(node)}", parts=self.parts)
        first = whole(buffer, self.capacity)
        size = math.prod(static_shape(node.shape, self.capacity))
        return [View(buffer, part * size, first.shape, first.strides) for part in range(self.parts)]

    def _lower_partial_contraction(self, anchor: Node, piece: Piece) -> None:
        assert piece.sides is not None
        operands = Operands()
        accumulator = _accumulator(anchor)
        if accumulator != anchor.dtype:
            raise ShapeError(f"sums over the batch in {anchor.dtype} are not supported")
        a, b = self._accesses(operands, piece.sides, _side_dtypes(piece.sides))
        views = self._partial_views(anchor)
        builder = BodyBuilder(len(piece.space), operands, self.memory)
        argument = builder.emit(Core(0, accumulator))
        store = builder.store(argument, views[0], piece.index, anchor.dtype)
        split, mode, extent = self.split(piece.space, piece.reduced, partial=True)
        spec = kernel.Contraction(
            piece.space,
            piece.reduced,
            a,
            b,
            builder.body(),
            (store,),
            split,
            accumulate=True,
            accumulator=accumulator,
        )
        self.add(spec, operands, anchor.op.name, mode, extent)
        self._keep_partial(anchor, views)

    def _keep_partial(self, node: Node, views: list[View]) -> None:
        """Leave a sum in parts, which its readers add; or add them now if it must be whole."""
        self.partial[node] = views
        if node in self.destinations:
            target = self.destinations[node][0]
            self._copy(node, target)
            del self.partial[node]
            self.views[node] = target

    def _lower_rows(self, group: Group) -> None:
        operands = Operands()
        rank = len(group.space)
        count = rank + 1
        core = {node: Core(i, node.dtype) for i, node in enumerate(group.anchors)}
        builder = BodyBuilder(count, operands, self.memory, dict(core), group.members)
        full, row = identity(count), identity(rank, count)
        stages = []
        for anchor in group.anchors:
            assert isinstance(anchor.op, Reduce)
            argument = builder.value(anchor.inputs[0], full)
            stages.append(kernel.Stage(argument, anchor.op.kind))
        whole_rows = [n for n in group.members if n.shape != group.space]
        per_row = [*group.anchors, *(n for n in group.members if n.shape == group.space)]
        stores = self._stores(group, builder, full, whole_rows)
        row_stores = self._stores(group, builder, row, per_row)
        trimmed = tuple(
            Store(s.argument, s.operand, s.dtype, s.offset, s.strides[:rank]) for s in row_stores
        )
        split, mode, extent = self.split(group.space, (group.columns,))
        space, body = group.space, builder.body()
        if not space:
            space, extent = (1,), 1
            body, stores, trimmed = with_axis(body), with_axis(stores), with_axis(trimmed)
        spec = kernel.RowGroup(space, group.columns, body, tuple(stages), stores, trimmed, split)
        self.add(spec, operands, _names(group), mode, extent)

    def _lower_reduction(self, group: Group) -> None:
        operands = Operands()
        anchor = group.anchors[0]
        if isinstance(anchor.op, (Window, WindowArgMax)):
            self._lower_window(group)
            return
        source = anchor.inputs[0]
        rank = len(source.shape)
        axes = group.reduced
        if isinstance(anchor.op, ArgReduce):
            axes = (anchor.op.axis % rank,)
        kept = [i for i in range(rank) if i not in axes]
        space = tuple(source.shape[i] for i in kept)
        reduced = tuple(source.shape[i] for i in axes)
        places = {old: new for new, old in enumerate((*kept, *axes))}
        index = tuple(axis(places[i], rank) for i in range(rank))
        builder = BodyBuilder(rank, operands, self.memory)
        results = []
        for node in group.anchors:
            argument = builder.value(node.inputs[0], index)
            kind = node.op.kind if isinstance(node.op, (Reduce, ArgReduce)) else "sum"
            results.append((argument, f"arg{kind}" if isinstance(node.op, ArgReduce) else kind))
        core: dict[Node, Instruction] = {
            node: Core(i, node.dtype) for i, node in enumerate(group.anchors)
        }
        after = BodyBuilder(len(space), operands, self.memory, core, group.members)
        split, mode, extent = self.split(space, reduced, group.partial)
        stores: tuple[Store, ...]
        if mode == "parts":
            partial = [(node, self._partial_views(node)) for node in group.anchors]
            stores = tuple(
                after.store(after.value(node, identity(len(space))), views[0],
                            identity(len(space)), node.dtype)
                for node, views in partial
            )  # fmt: skip
        else:
            partial = []
            stores = self._stores(group, after, identity(len(space)), group.nodes())
        spec = kernel.Reduction(
            space,
            reduced,
            builder.body(),
            tuple(results),
            after.body(),
            stores,
            split,
            accumulate=mode == "parts",
        )
        self.add(spec, operands, _names(group), mode, extent)
        for node, views in partial:
            self._keep_partial(node, views)

    def _lower_window(self, group: Group) -> None:
        """Pooling as a reduction over the cells of the window; cells outside the image are left
        out of a maximum and of a mean.
        """
        anchor = group.anchors[0]
        size, steps, padding = _window_of(anchor)
        operands = Operands()
        source = anchor.inputs[0]
        view = self.required(source)
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
        builder = BodyBuilder(count, operands, self.memory)
        bounds = tuple(guards)
        cell = builder.load(view, source.dtype, index, bounds)
        core: dict[Node, Instruction] = {}
        after = BodyBuilder(len(space), operands, self.memory, core, group.members)
        results: list[tuple[int, str]] = []
        for node in group.anchors:
            match node.op:
                case WindowArgMax():
                    results.append((cell, "argmax"))
                    core[node] = self._place_in_image(after, len(results) - 1, node.op)
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
                            results.append(
                                (builder.emit(kernel.Convert(inside, node.dtype)), "sum")
                            )
                            cells = after.emit(Core(len(results) - 1, node.dtype))
                        else:
                            cells = after.constant(math.prod(size), node.dtype)
                        quotient = after.scalar("div", total, cells, dtype=node.dtype)
                        core[node] = after.instructions[quotient]
        stores = self._stores(group, after, identity(len(space)), group.nodes())
        split, mode, extent = self.split(space, reduced)
        spec = kernel.Reduction(
            space, reduced, builder.body(), tuple(results), after.body(), stores, split
        )
        self.add(spec, operands, _names(group), mode, extent)

    @staticmethod
    def _place_in_image(after: BodyBuilder, result: int, op: WindowArgMax) -> Instruction:
        """The cell in the image from the position in the window that a reduction gives."""
        rows, columns = op.size
        position = after.emit(Core(result, "int32"))
        corner = (0, rows * op.pitch, columns, 0)
        cell = after.scalar(
            "add", after.emit(kernel.Position("int32", 0, corner)), position, dtype="int32"
        )
        for row in range(1, rows):
            below = after.scalar(
                "ge", position, after.constant(row * columns, "int32"), dtype="bool"
            )
            further = after.constant(op.pitch - columns, "int32")
            none = after.constant(0, "int32")
            shift = after.scalar("where", below, further, none, dtype="int32")
            cell = after.scalar("add", cell, shift, dtype="int32")
        return after.instructions[cell]

    # ------------------------------------------------------------------ the rest

    def _lower_special(self, node: Node, group: Group) -> None:
        match node.op:
            case WindowGrad():
                self._lower_window_gradient(node, node.op, group)
            case WinnerFilterGrad():
                self._lower_winner_filter(node)
            case WinnerInputGrad():
                self._lower_winner_input(node, group)
            case Concat():
                self._lower_concat(node, node.op, group)
            case Pad():
                self._lower_interior_pad(node, node.op, group)
            case Scatter():
                self._lower_scatter(node, node.op, group)
            case Cumulative():
                self._lower_cumulative(node, node.op, group)
            case Sort() | TopK():
                self._lower_sort(node, group)
            case Scan():
                self._lower_scan(node, node.op, group)
            case _:
                raise ShapeError(f"the llvm executor has no kernel for {node.op.name}")

    def _lower_window_gradient(self, node: Node, op: WindowGrad, group: Group) -> None:
        operands = Operands()
        x, gradient = node.inputs
        views = [self.packed(x), self.packed(gradient)]
        for view in views:
            operands.number(view)
        operands.written_number(self.place(node, group))
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
        self.add(spec, operands, node.op.name, mode, batch)

    def _lower_winner_filter(self, node: Node) -> None:
        operands = Operands()
        x, places, _ = node.inputs
        for parent in node.inputs:
            operands.number(self.packed(parent))
        views = self._partial_views(node)
        operands.written_number(views[0])
        filters, high, wide, channels = (int(size) for size in node.shape)
        batch = x.shape[0]
        spec = kernel.WinnerFilterGradient(
            batch,
            (int(x.shape[1]), int(x.shape[2])),
            (high, wide),
            int(places.shape[1]) * int(places.shape[2]),
            channels,
            filters,
        )
        self.add(spec, operands, node.op.name, "parts", batch)
        self._keep_partial(node, views)

    def _lower_winner_input(self, node: Node, group: Group) -> None:
        operands = Operands()
        places, _, w = node.inputs
        for parent in node.inputs:
            operands.number(self.packed(parent))
        operands.written_number(self.place(node, group))
        batch, high, wide, channels = node.shape
        spec = kernel.WinnerInputGradient(
            batch,
            (int(high), int(wide)),
            (int(w.shape[1]), int(w.shape[2])),
            int(places.shape[1]) * int(places.shape[2]),
            int(channels),
            int(w.shape[0]),
        )
        self.add(spec, operands, node.op.name, "rows", batch)

    def _lower_concat(self, node: Node, op: Concat, group: Group) -> None:
        """Each part goes to its place; neighbours of one shape are one kernel."""
        target = self.place(node, group)
        position = op.axis % len(node.shape)
        rank = len(node.shape)
        start = 0
        for shape, run in itertools.groupby(node.inputs, key=lambda part: part.shape):
            operands = Operands()
            builder = BodyBuilder(rank, operands, self.memory)
            stores = []
            for part in run:
                offset = target.offset + start * target.strides[position]
                piece = View(target.buffer, offset, shape, target.strides, target.loops)
                argument = builder.value(part, identity(rank))
                stores.append(builder.store(argument, piece, identity(rank), part.dtype))
                start += int(shape[position])
            self._elementwise(shape, builder, tuple(stores), operands, op.name)

    def _lower_interior_pad(self, node: Node, op: Pad, group: Group) -> None:
        target = self.place(node, group)
        operands = Operands()
        rank = len(node.shape)
        builder = BodyBuilder(rank, operands, self.memory)
        filling = builder.emit(kernel.Constant(op.value, node.dtype))
        stores = (builder.store(filling, target, identity(rank), node.dtype),)
        self._elementwise(node.shape, builder, stores, operands, "fill")
        offset = target.offset + sum(
            low * stride for low, stride in zip(op.low, target.strides, strict=True)
        )
        strides = tuple(
            stride * (inner + 1) for stride, inner in zip(target.strides, op.interior, strict=True)
        )
        source = node.inputs[0]
        self._copy(source, View(target.buffer, offset, source.shape, strides, target.loops))

    def _lower_scatter(self, node: Node, op: Scatter, group: Group) -> None:
        base, where, rows = node.inputs
        target = self.place(node, group)
        self._copy(base, target)
        axis_, batch = op.axis % len(base.shape), op.batch
        if axis_ != batch:
            raise ShapeError("the llvm executor scatters along the first axis after the batch")
        operands = Operands()
        operands.written_number(target)
        for view in (self.packed(where), self.packed(rows)):
            operands.number(view)
        outer = _extent(base.shape[:batch])
        inner = math.prod(static_shape(base.shape[axis_ + 1 :], self.capacity))
        table = base.shape[axis_]
        if not isinstance(table, int):
            raise BatchError("scatter along the batch axis needs the number of rows")
        if where.type.batch_axis not in {None, 0}:
            raise BatchError("scatter needs the batch as the first axis of its index")
        count = _extent(where.shape[batch:])
        rowwise = isinstance(outer, Batch)
        spec = kernel.Scatter(
            outer,
            table,
            inner,
            count,
            op.kind,
            node.dtype,
            where.dtype,
            0 if rowwise else 1,
        )
        mode = "rows" if rowwise else "units"
        self.add(spec, operands, node.op.name, mode, outer if rowwise else table)

    def _three_axes(self, shape: Shape, position: int) -> tuple[int | Batch, int, int]:
        length = shape[position]
        if not isinstance(length, int):
            raise BatchError("an order or a running sum along the batch needs the number of rows")
        inner = _extent(shape[position + 1 :])
        if isinstance(inner, Batch) or any(isinstance(size, Batch) for size in shape[1:]):
            raise BatchError("the batch must stand before the axis that is sorted or summed")
        return _extent(shape[:position]), length, inner

    def _lower_cumulative(self, node: Node, op: Cumulative, group: Group) -> None:
        operands = Operands()
        operands.number(self.packed(node.inputs[0]))
        operands.written_number(self.place(node, group))
        outer, length, inner = self._three_axes(node.shape, op.axis % len(node.shape))
        spec = kernel.Cumulative(outer, length, inner, op.kind, op.reverse, node.dtype)
        mode = "rows" if isinstance(outer, Batch) else "single"
        self.add(spec, operands, node.op.name, mode, outer)

    def _lower_sort(self, node: Node, group: Group) -> None:
        op = node.op
        source = node.inputs[0]
        position = len(source.shape) - 1
        if isinstance(op, Sort) and op.axis % len(source.shape) != position:
            raise ShapeError("the llvm executor sorts along the last axis")
        outer, length, _ = self._three_axes(source.shape, position)
        operands = Operands()
        targets = []
        carried = tuple(parent.dtype for parent in node.inputs[1:])
        for parent in node.inputs:
            operands.number(self.packed(parent))
        if isinstance(op, TopK):
            positions = whole(self.buffer(Type(source.shape, "int32"), "positions"), self.capacity)
            self._copy_positions(positions, source.shape)
            operands.number(positions)
            carried = ("int32",)
        for i in range(len(node.types)):
            picked = self._result(node, i)
            view = self.place(picked, group)
            targets.append(operands.written_number(view))
        descending = op.descending if isinstance(op, Sort) else True
        top = op.k if isinstance(op, TopK) else None
        spec = kernel.Sort(outer, length, source.dtype, carried, descending, top)
        mode = "rows" if isinstance(outer, Batch) else "single"
        self.add(spec, operands, op.name, mode, outer)

    def _copy_positions(self, target: View, shape: Shape) -> None:
        rank = len(shape)
        operands = Operands()
        builder = BodyBuilder(rank, operands, self.memory)
        last = axis(rank - 1, rank)
        argument = builder.emit(kernel.Position("int32", last.offset, last.strides))
        stores = (builder.store(argument, target, identity(rank), "int32"),)
        self._elementwise(shape, builder, stores, operands, "iota")

    def _result(self, node: Node, position: int) -> Node:
        """The node that picks a result, whether or not the graph reads it."""
        if len(node.types) == 1:
            return node
        return pick(node, position)

    def _lower_scan(self, node: Node, op: Scan, group: Group) -> None:
        parameters, results = op.split(op.body.parameters), op.body.results
        initial, sequences, constants = op.split(node.inputs)
        carried = op.carries
        number = next(self.numbers)
        loop = Loop(number, op.length, op.reverse, label=op.name, layer=self.layer)
        known: dict[Node, View] = {}
        carries = []
        for i, (parameter, value) in enumerate(zip(parameters[0], initial, strict=True)):
            view = self.place(self._result(node, i), group)
            self._copy(value, view)
            known[parameter] = view
            carries.append(view)
        for parameter, value in zip(parameters[1], sequences, strict=True):
            known[parameter] = drop_axis(self.required(value), 0, number)
        for parameter, value in zip(parameters[2], constants, strict=True):
            known[parameter] = self.required(value)
        inner = Lowering(results, known, self.capacity, self.parts, self, self.numbers)
        for i, root in enumerate(results[carried:]):
            view = self.place(self._result(node, carried + i), group)
            inner.deliver(root, drop_axis(view, 0, number))
        inner.run()
        late: list[tuple[Node, View]] = []
        for root, view in zip(results, carries, strict=False):
            if inner.views.get(root) != view:
                late.append((root, view))
        inner.renew(late)
        loop.body = inner.steps
        tasks = loop.tasks()
        loop.mode = "rows" if all(task.mode == "rows" for task in tasks) else "single"
        self.buffers.extend(inner.buffers)
        self.fusions.extend(inner.fusions)
        self.steps.append(loop)

    def renew(self, pairs: list[tuple[Node, View]]) -> None:
        """At the end of an iteration: move new carries to where the next one reads them.

        A new carry may be an old one (a swap), so those that are read from a carry's own buffer
        go through a copy first.
        """
        targets = {view.buffer for _, view in pairs}
        sources: list[tuple[View, View, str]] = []
        for node, target in pairs:
            source = self.required(node)
            if source.buffer in targets:
                spare = whole(self.buffer(node.type, "spare"), self.capacity)
                self._copy_view(source, spare, node.dtype)
                source = spare
            sources.append((source, target, node.dtype))
        for source, target, dtype in sources:
            self._copy_view(source, target, dtype)


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


def _product(
    a: kernel.Access, b: kernel.Access, dtype: str
) -> tuple[Body, tuple[tuple[int, str], ...]]:
    """The terms of a contraction as the body of a reduction."""
    loads = [
        kernel.Load(side.operand, side.dtype, side.offset, side.strides, side.guards)
        for side in (a, b)
    ]
    return (*loads, kernel.Scalar("mul", (0, 1), dtype)), ((2, "sum"),)


def _accumulator(node: Node) -> str:
    return "float32" if node.dtype in ("float16", "bfloat16") else node.dtype


def _side_dtypes(sides: tuple[Side, Side]) -> tuple[str, str]:
    return sides[0].view.buffer.type.dtype, sides[1].view.buffer.type.dtype


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


def _extent(shape: Shape) -> int | Batch:
    total: int | Batch = 1
    for size in shape:
        total = total * size
    return total


def _label(node: Node) -> str:
    name = getattr(node.op, "fn", node.op.name)
    return f"{node.scope}:{name}" if node.scope else str(name)


def _names(group: Group) -> str:
    return "+".join(getattr(node.op, "fn", node.op.name) for node in group.nodes())
