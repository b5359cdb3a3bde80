"""Tasks: kernels bound to buffers, with what the planner must know to run them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lamina.llvm.kernel import Kernel, Load, Store
from lamina.llvm.views import Buffer
from lamina.types import Dimension


@dataclass(frozen=True)
class Operand:
    """A pointer argument: the start of a buffer, plus the strides of the time loops around."""

    buffer: Buffer
    loops: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Counted:
    """A number of rows that is known as the step runs: the int32 in a buffer, at most `room`.

    unit   the task is told how many times so many rows there are, the last ones perhaps not whole
    """

    buffer: Buffer
    room: int
    unit: int = 1


@dataclass(eq=False)
class Task:
    """One call of a kernel.

    mode      "rows": split over the batch axis of what it writes; reads only those rows
              "parts": sums over the batch, one partial sum a part; reads only the part's rows
              "units": split over another axis; may read anything
              "single": one thread computes all of it
    extent    length of the split axis; for "rows" and "parts" a batch dimension
    writes    positions in `operands` that it writes
    layer     the scope of the node, for messages and the profiler
    counted   what the batch dimensions of the kernel and `extent` count, if not the batch
    """

    kernel: Kernel
    operands: tuple[Operand, ...]
    writes: tuple[int, ...]
    mode: str
    extent: Dimension
    label: str = ""
    layer: str = ""
    phase: int = 0
    counted: Counted | None = None

    def read_buffers(self) -> list[Buffer]:
        """The buffers it reads; what it updates in place counts."""
        written = {self.operands[i].buffer for i in self.writes}
        others = [o.buffer for i, o in enumerate(self.operands) if i not in self.writes]
        numbers = [self.counted.buffer] if self.counted else []
        return [*others, *(b for b in written if self.updates), *numbers]

    def written_buffers(self) -> list[Buffer]:
        return [self.operands[i].buffer for i in self.writes]

    @property
    def updates(self) -> bool:
        """Whether it adds to what its results hold already."""
        if type(self.kernel).__name__ == "Scatter":
            return not getattr(self.kernel, "clear", False)
        return bool(getattr(self.kernel, "accumulate", False))


@dataclass(eq=False)
class Loop:
    """Tasks run in every iteration of a time loop, forwards or backwards, by each thread alone.

    `mode` is "rows" if every task inside is; otherwise one thread runs the whole loop. With a
    `test` the loop goes on as long as that bool, which the tasks of `head` write first in every
    iteration, holds; `length` then says nothing.
    """

    number: int
    length: int
    reverse: bool
    body: list[Task | Loop] = field(default_factory=list)
    mode: str = "rows"
    label: str = "scan"
    layer: str = ""
    phase: int = 0
    head: list[Task | Loop] = field(default_factory=list)
    test: Buffer | None = None

    def steps(self) -> list[Task | Loop]:
        """Everything that an iteration runs, in order."""
        return [*self.head, *self.body]

    def tasks(self) -> list[Task]:
        found: list[Task] = []
        for step in self.steps():
            found.extend(step.tasks() if isinstance(step, Loop) else [step])
        return found

    def read_buffers(self) -> list[Buffer]:
        return [buffer for task in self.tasks() for buffer in task.read_buffers()]

    def written_buffers(self) -> list[Buffer]:
        return [buffer for task in self.tasks() for buffer in task.written_buffers()]


Step = Task | Loop


def same_index(task: Task, fresh: Buffer, state: Buffer) -> bool:
    """Whether a task reads the old state only at the index at which it stores the new one."""
    spec = task.kernel
    numbers = {i for i, operand in enumerate(task.operands) if operand.buffer is state}
    body = getattr(spec, "body", ())
    after = getattr(spec, "after", body)
    stores = [s for s in getattr(spec, "stores", ()) if task.operands[s.operand].buffer is fresh]
    row_stores: Any = getattr(spec, "row_stores", ())
    if len(stores) != 1 or row_stores:
        return False
    if type(spec).__name__ == "Contraction":
        sides = {spec.a.operand, spec.b.operand}  # type: ignore[union-attr]  # a Contraction
        if sides & numbers:
            return False
    elif type(spec).__name__ == "Reduction":
        if any(getattr(i, "operand", -1) in numbers for i in body):
            return False
    elif type(spec).__name__ != "Elementwise":
        return False
    for instruction in after:
        if getattr(instruction, "operand", -1) in numbers:
            if not isinstance(instruction, Load):
                return False
            if not _same_place(instruction, stores[0], getattr(spec, "space", ())):
                return False
    return True


def _same_place(load: Load, store: Store, space: Sequence[Dimension]) -> bool:
    """Whether both have the same address everywhere; strides on axes of one do not matter."""
    strides = zip(load.strides, store.strides, space, strict=True)
    return load.offset == store.offset and all(a == b or size == 1 for a, b, size in strides)


def rename(step: Step, renamed: dict[Buffer, Buffer]) -> None:
    """Let a step work on other buffers in the place of some."""
    if isinstance(step, Loop):
        for inner in step.steps():
            rename(inner, renamed)
        return
    step.operands = tuple(
        Operand(renamed.get(operand.buffer, operand.buffer), operand.loops)
        for operand in step.operands
    )
