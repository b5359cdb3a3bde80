"""When each task runs, on which thread, and where its results lie.

Threads run the same step. A *phase* is what they do between two barriers: first tasks that share
out an axis that is no batch ("units") or that one thread does ("single"), then one loop over
blocks of rows in which a thread takes its own rows through all "rows" and "parts" tasks of the
phase. A value that lives only inside such a loop is *private*: each thread has one block of it,
which stays in the cache.

A barrier stands between a task and a reader that may see another thread's results. Memory shared
by all threads is laid out by liveness counted in phases, because threads drift inside one; private
memory by liveness counted in tasks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lamina.llvm import choices
from lamina.llvm.kernel import Elementwise, Load, Store
from lamina.llvm.lower import Lowered
from lamina.llvm.task import Loop, Operand, Step, Task, rename, same_index
from lamina.llvm.views import Buffer, contiguous_strides
from lamina.types import Batch, itemsize

ALIGNMENT = 64


@dataclass(eq=False)
class Phase:
    """What runs between two barriers."""

    shared: list[Step] = field(default_factory=list)
    rows: list[Step] = field(default_factory=list)
    block: int = 1

    @property
    def in_parts(self) -> bool:
        """Whether a thread owns whole parts of the batch here, because sums are taken a part."""
        return any(step.mode == "parts" for step in self.rows)

    def partial_buffers(self) -> list[Buffer]:
        """Partial sums that must be zero before a part is summed."""
        found: dict[Buffer, None] = {}
        for step in self.rows:
            if isinstance(step, Task) and step.mode == "parts":
                found.update((buffer, None) for buffer in step.written_buffers())
        return list(found)


@dataclass(eq=False)
class Plan:
    """Phases and memory of a step."""

    phases: list[Phase]
    capacity: int
    parts: int
    shared_bytes: int
    private_bytes: int
    buffers: list[Buffer]

    def describe(self) -> str:
        """The phases, a line a task: mode, kernel, what it reads and writes, and where it lies."""
        lines = [
            (
                f"capacity {self.capacity}, {self.parts} parts, "
                f"{self.shared_bytes} bytes shared, {self.private_bytes} private"
            )
        ]
        for number, phase in enumerate(self.phases):
            lines.append(f"phase {number}, blocks of {phase.block} rows")
            for step in (*phase.shared, *phase.rows):
                lines.extend(_describe(step, "  "))
        return "\n".join(lines)


def _describe(step: Step, indent: str) -> list[str]:
    if isinstance(step, Loop):
        times = f"of {step.length}" if step.test is None else f"while {step.test.label}"
        head = f"{indent}{step.mode:6} loop {step.number} {times}"
        return [head, *(line for s in step.steps() for line in _describe(s, indent + "  "))]
    names = [
        f"{'>' if i in step.writes else ''}{o.buffer.label}@{o.buffer.place}"
        for i, o in enumerate(step.operands)
    ]
    kind = type(step.kernel).__name__
    return [f"{indent}{step.mode:6} {kind} {step.label} [{step.layer}]: {', '.join(names)}"]


def plan(lowered: Lowered, capacity: int, parts: int, *, apart: bool = False) -> Plan:
    """Order the tasks in phases and lay out their memory.

    apart   give every value its own memory (a switch for finding errors)
    """
    return _Planner(lowered, capacity, parts, apart=apart).run()


class _Planner:
    def __init__(self, lowered: Lowered, capacity: int, parts: int, *, apart: bool) -> None:
        self.lowered = lowered
        self.steps = list(lowered.steps)
        self.capacity, self.parts, self.apart = capacity, parts, apart
        self.writers: dict[Buffer, list[Step]] = {}
        self.readers: dict[Buffer, list[Step]] = {}

    def run(self) -> Plan:
        self._connect()
        for step in self.steps:
            self._earliest(step)
        self._sink()
        self._settle_updates()
        phases = self._phases()
        private = self._choose_private(phases)
        shared_bytes = self._lay_out_shared(phases)
        private_bytes = max((self._lay_out_private(phase, private) for phase in phases), default=0)
        buffers = [*self.lowered.buffers]
        return Plan(phases, self.capacity, self.parts, shared_bytes, private_bytes, buffers)

    # ------------------------------------------------------------------ phases

    def _connect(self) -> None:
        self.writers.clear()
        self.readers.clear()
        for step in self.steps:
            for buffer in set(step.written_buffers()):
                self.writers.setdefault(buffer, []).append(step)
            for buffer in set(step.read_buffers()):
                self.readers.setdefault(buffer, []).append(step)

    def _earliest(self, step: Step) -> None:
        """The first phase in which everything that the step reads is there."""
        order = {id(other): i for i, other in enumerate(self.steps)}
        mine = order[id(step)]
        phase = 0
        for buffer in {*step.read_buffers(), *step.written_buffers()}:
            for writer in self.writers.get(buffer, ()):
                if order[id(writer)] < mine:
                    phase = max(phase, writer.phase + barrier(writer, step, buffer))
        step.phase = phase

    def _sink(self) -> None:
        """Run everything as late as its readers allow, so that phases merge.

        What nothing reads ends with the last phase, unless it is a row task: its inputs would
        have to outlive their loop. For the same reason a sum over rows goes back to where the last
        of them are made.
        """
        last = max((step.phase for step in self.steps), default=0)
        order = {id(step): i for i, step in enumerate(self.steps)}
        for step in reversed(self.steps):
            bounds = [
                other.phase - barrier(step, other, buffer)
                for buffer in step.written_buffers()
                for other in (*self.readers.get(buffer, ()), *self.writers.get(buffer, ()))
                if order[id(other)] > order[id(step)]
            ]
            if bounds:
                step.phase = max(step.phase, min(bounds))
            elif step.mode in ("units", "single"):
                step.phase = last
        for step in self.steps:
            if step.mode == "parts" and any(map(self._is_made_in_rows, step.read_buffers())):
                self._earliest(step)

    def _is_made_in_rows(self, buffer: Buffer) -> bool:
        return any(writer.mode == "rows" for writer in self.writers.get(buffer, ()))

    # ------------------------------------------------------------------ state

    def _settle_updates(self) -> None:
        """Write new state over the old one where nobody reads the old one later; else copy."""
        renamed: dict[Buffer, Buffer] = {}
        for fresh, state in self.lowered.updates:
            if self._in_place(fresh, state):
                renamed[fresh] = state
            else:
                self.steps.append(self._copy_back(fresh, state))
        if renamed:
            for step in self.steps:
                rename(step, renamed)
            self.lowered.buffers = [b for b in self.lowered.buffers if b not in renamed]
        self._connect()

    def _in_place(self, fresh: Buffer, state: Buffer) -> bool:
        writers = self.writers.get(fresh, [])
        if len(writers) != 1 or not isinstance(writers[0], Task):
            return False
        writer = writers[0]
        for reader in self.readers.get(state, ()):
            if reader is writer:
                if not same_index(writer, fresh, state):
                    return False
            elif reader.phase >= writer.phase:
                return False
        return True

    def _copy_back(self, fresh: Buffer, state: Buffer) -> Task:
        size = fresh.elements(self.capacity)
        dtype = fresh.type.dtype
        body = (Load(0, dtype, 0, (1,)),)
        store = Store(0, 1, dtype, 0, (1,))
        spec = Elementwise((size,), body, (store,))
        task = Task(spec, (Operand(fresh), Operand(state)), (1,), "single", size, "copy", "")
        written = max(
            (w.phase + barrier(w, task, fresh) for w in self.writers.get(fresh, ())), default=0
        )
        read = max((r.phase + 1 for r in self.readers.get(state, ())), default=0)
        task.phase = max(written, read)
        self.writers.setdefault(state, []).append(task)
        return task

    # ------------------------------------------------------------------ loops over rows

    def _phases(self) -> list[Phase]:
        count = max((step.phase for step in self.steps), default=-1) + 1
        phases = [Phase() for _ in range(count)]
        for step in self.steps:
            rows = step.mode in ("rows", "parts")
            (phases[step.phase].rows if rows else phases[step.phase].shared).append(step)
        for phase in phases:
            phase.rows = self._sums_early(phase.rows)
        return phases

    @staticmethod
    def _sums_early(steps: list[Step]) -> list[Step]:
        """Take each sum over the batch as soon as its terms are there, while they are in cache."""
        # A buffer may have several writers, as a concatenation has: all of them must be done.
        left = Counter(buffer for step in steps for buffer in set(step.written_buffers()))
        sums = [step for step in steps if step.mode == "parts"]
        ordered: list[Step] = []

        def ready(step: Step) -> bool:
            return not any(left[b] for b in step.read_buffers() if not b.parts)

        for step in steps:
            if step.mode == "parts":
                continue
            ordered.append(step)
            left.subtract(set(step.written_buffers()))
            now = [candidate for candidate in sums if ready(candidate)]
            ordered.extend(now)
            sums = [candidate for candidate in sums if candidate not in now]
        return ordered + sums

    def _choose_private(self, phases: list[Phase]) -> set[Buffer]:
        """Values written and read by one loop over rows alone, the batch on their first axis."""
        private: set[Buffer] = set()
        if self.apart:
            return private
        outside: set[Buffer] = set()
        seen: dict[Buffer, set[int]] = {}
        for number, phase in enumerate(phases):
            for step in phase.shared:
                outside.update(step.read_buffers())
                outside.update(step.written_buffers())
            for step in phase.rows:
                for buffer in (*step.read_buffers(), *step.written_buffers()):
                    seen.setdefault(buffer, set()).add(number)
        for buffer, numbers in seen.items():
            shape = buffer.type.shape
            if (
                buffer.place == "shared"
                and not buffer.parts
                and buffer not in outside
                and len(numbers) == 1
                and shape
                and isinstance(shape[0], Batch)
            ):
                buffer.place = "private"
                private.add(buffer)
        return private

    def _lay_out_private(self, phase: Phase, private: set[Buffer]) -> int:
        """Choose how many rows a block has, then lay out one block; the bytes it takes."""
        spans: dict[Buffer, list[int]] = {}
        for position, step in enumerate(phase.rows):
            for buffer in (*step.read_buffers(), *step.written_buffers()):
                if buffer in private:
                    spans.setdefault(buffer, [position, position])[1] = position

        def pack(rows: int) -> int:
            return _pack(
                [(buffer, start, stop) for buffer, (start, stop) in spans.items()],
                lambda buffer: _row_bytes(buffer) * rows,
            )

        loops = [step for step in phase.rows if isinstance(step, Loop)]
        if loops:
            # What a row needs at one time; weights that pass by in every step want many rows.
            row_bytes = max(map(_iteration_bytes, loops))
            phase.block = choices.block_rows(self.capacity, self.parts, row_bytes)
            return pack(phase.block)
        read = {b for step in phase.rows for b in step.read_buffers() if b not in private}
        phase.block = choices.block_rows(
            self.capacity,
            self.parts,
            pack(16) // 16,
            sum(_row_bytes(b) for b in read if b.type.batch_axis == 0),
            sum(
                b.type.size_at(self.capacity) * itemsize(b.type.dtype)
                for b in read
                if b.type.batch_axis is None
            ),
        )
        return pack(phase.block)

    def _lay_out_shared(self, phases: list[Phase]) -> int:
        spans: dict[Buffer, list[int]] = {}
        for number, phase in enumerate(phases):
            for step in (*phase.shared, *phase.rows):
                for buffer in (*step.read_buffers(), *step.written_buffers()):
                    if buffer.place == "shared":
                        span = spans.setdefault(buffer, [number, number])
                        span[0], span[1] = min(span[0], number), max(span[1], number)
        last = len(phases)
        return _pack(
            [
                (buffer, 0 if self.apart else start, last if self.apart else stop)
                for buffer, (start, stop) in spans.items()
            ],
            lambda buffer: buffer.elements(self.capacity) * itemsize(buffer.type.dtype),
        )


def barrier(writer: Step, reader: Step, buffer: Buffer) -> int:
    """1 if a barrier must stand between two tasks that touch the same buffer, else 0."""
    if writer.mode == "single" and reader.mode == "single":
        return 0
    if writer.mode == "rows" and reader.mode in ("rows", "parts"):
        return int(buffer.type.batch_axis is None)
    return 1


def _row_bytes(buffer: Buffer) -> int:
    shape = buffer.type.shape
    factor = shape[0].factor if shape and isinstance(shape[0], Batch) else 1
    return (
        factor * math.prod(s for s in shape[1:] if isinstance(s, int)) * itemsize(buffer.type.dtype)
    )


def _iteration_bytes(loop: Loop) -> int:
    """What an iteration of a time loop touches for each row of the batch."""
    sizes: dict[Buffer, int] = {}
    for task in loop.tasks():
        for operand in task.operands:
            buffer, steps = operand.buffer, loop.length if operand.loops else 1
            place = buffer.type.batch_axis
            if place is not None:
                # Where time stands first, the bytes of a row are those of one step already.
                sizes[buffer] = _row_bytes(buffer) // (1 if place else steps)
    return sum(sizes.values())


def _pack(spans: Iterable[tuple[Buffer, int, int]], size_of: Callable[[Buffer], int]) -> int:
    """Give each buffer the lowest offset free during its whole life, the largest first."""
    placed: list[tuple[int, int, int, int]] = []
    total = 0
    for buffer, start, stop in sorted(spans, key=lambda span: -size_of(span[0])):
        size = -(-max(size_of(buffer), 1) // ALIGNMENT) * ALIGNMENT
        offset = 0
        for other_offset, other_size, other_start, other_stop in sorted(placed):
            if other_stop < start or stop < other_start:
                continue
            if offset + size <= other_offset:
                break
            offset = max(offset, other_offset + other_size)
        buffer.offset = offset
        placed.append((offset, size, start, stop))
        total = max(total, offset + size)
    return total


def row_stride(buffer: Buffer, capacity: int) -> int:
    """Bytes from one row of the batch to the next."""
    axis = buffer.type.batch_axis
    if axis is None:
        return 0
    size = buffer.type.shape[axis]
    factor = size.factor if isinstance(size, Batch) else 1
    strides = contiguous_strides(buffer.type.shape, capacity)
    return strides[axis] * factor * itemsize(buffer.type.dtype)
