"""From groups to tasks: every group becomes kernels bound to buffers.

The lowering decides where values lie (which buffer, which layout), never when they are computed
or by which thread: that is the planner's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lamina.errors import ShapeError
from lamina.ir.contractions import WindowGrad
from lamina.ir.control import Scan, While
from lamina.ir.distinct import Distinct
from lamina.ir.graph import Input, Node
from lamina.ir.indexing import Scatter
from lamina.ir.movement import Concat, Pad
from lamina.ir.order import Sort, TopK
from lamina.ir.program import Program
from lamina.ir.reductions import Cumulative
from lamina.ir.winners import (
    SparseFilterGrad,
    SparseInputGrad,
    WinnerFilterGrad,
    WinnerInputGrad,
)
from lamina.llvm.body import BodyBuilder, Operands
from lamina.llvm.fuse import Fusion, Group
from lamina.llvm.lowering.contractions import lower_contraction
from lamina.llvm.lowering.loops import lower_scan, lower_while
from lamina.llvm.lowering.movements import (
    lower_concat,
    lower_distinct,
    lower_interior_pad,
    lower_scatter,
)
from lamina.llvm.lowering.order import lower_cumulative, lower_sort
from lamina.llvm.lowering.reductions import lower_reduction, lower_rows
from lamina.llvm.lowering.windows import (
    lower_window_gradient,
    lower_winner_filter,
    lower_winner_input,
)
from lamina.llvm.lowering.workspace import Workspace, names
from lamina.llvm.task import Step
from lamina.llvm.views import (
    Buffer,
    View,
    identity,
    whole,
)


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


class Lowering(Workspace):
    """Lower every group of a graph."""

    def run(self) -> None:
        for group in self.fusion.groups:
            self.layer = next((n.scope for n in group.nodes() if n.scope), "")
            self._lower_group(group)
        for node, views in self.destinations.items():
            source = self.views.get(node) if node in self.fusion.home else None
            for view in views:
                if source is None or view != source:
                    self.copy(node, view)

    def _lower_group(self, group: Group) -> None:
        match group.kind:
            case "map":
                self._lower_map(group)
            case "contract":
                lower_contraction(self, group)
            case "rows":
                lower_rows(self, group)
            case "reduce":
                lower_reduction(self, group)
            case _:
                self._lower_special(group.anchors[0], group)

    def _lower_map(self, group: Group) -> None:
        operands = Operands()
        rank = len(group.space)
        moved = {n: views for n in group.members if (views := self.moved(n)) is not None}
        inside = [member for member in group.members if member not in moved]

        def memory(node: Node) -> list[View] | None:
            return moved[node] if node in moved else self.memory(node)

        builder = BodyBuilder(rank, operands, memory, inside=inside)
        stores = self.stores(group, builder, identity(rank), group.members)
        self.elementwise(group.space, builder, stores, operands, names(group))

    def _lower_special(self, node: Node, group: Group) -> None:
        match node.op:
            case WindowGrad():
                lower_window_gradient(self, node, node.op, group)
            case WinnerFilterGrad() | SparseFilterGrad():
                lower_winner_filter(self, node, node.op)
            case WinnerInputGrad() | SparseInputGrad():
                lower_winner_input(self, node, node.op, group)
            case Concat():
                lower_concat(self, node, node.op, group)
            case Pad():
                lower_interior_pad(self, node, node.op, group)
            case Scatter():
                lower_scatter(self, node, node.op, group)
            case Distinct():
                lower_distinct(self, node, node.op, group)
            case Cumulative():
                lower_cumulative(self, node, node.op, group)
            case Sort() | TopK():
                lower_sort(self, node, group)
            case Scan():
                lower_scan(self, node, node.op, group)
            case While():
                lower_while(self, node, node.op, group)
            case _:
                raise ShapeError(f"the llvm executor has no kernel for {node.op.name}")

    def nested(self, roots: Sequence[Node], known: dict[Node, View]) -> Lowering:
        return Lowering(roots, known, self.capacity, self.parts, self, self.numbers)
