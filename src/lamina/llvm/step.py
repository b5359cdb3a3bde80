"""The compiled step as LLVM text: every kernel once, and one entry that runs them in order.

    void step(ptr args, i64 tid, i64 threads)

runs the steps `FIRST` to `STOP` of a program on one of the threads (see `runtime` for the
convention). `args` is a table of 64-bit words, see `words`. With an order, each thread first
gathers its rows of the inputs into shared memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lamina.ir.program import Program
from lamina.llvm import faults, kernels, runtime
from lamina.llvm.checked import CheckedEmit, CheckedModule
from lamina.llvm.emit import I8, I32, I64, POINTER, Integer, Module, Place, Value, index
from lamina.llvm.host import Target
from lamina.llvm.plan import ALIGNMENT, Phase, Plan, row_stride
from lamina.llvm.task import Loop, Operand, Step, Task
from lamina.llvm.views import Buffer
from lamina.llvm.words import (
    BATCH,
    DEADLINE,
    FIRST,
    ORDER,
    POINTERS,
    PRIVATE,
    PROFILE,
    SCRATCH,
    SHARED,
    STOP,
    SYNC,
    TOTAL,
    WATCHED,
)
from lamina.types import Batch, itemsize


@dataclass(frozen=True)
class StepText:
    """The module of a program and the sizes of its areas."""

    text: str
    scratch_bytes: int
    shared_bytes: int
    tasks: list[tuple[Task, int, int]]


def step_text(
    program: Program,
    plan: Plan,
    inputs: list[Buffer],
    target: Target,
    *,
    profile: bool = False,
    checked: bool = False,
) -> StepText:
    """Write the module of a planned program.

    profile   count the ticks of every task in the order of `tasks` of the result, which holds
              (task, phase, runs a step). A thread's next slot counts the waiting at barriers, and
              one more a task the rows that it found to be there, if it is `counted`
    checked   compare every access of memory with the extent of its buffer
    """
    module = CheckedModule(target) if checked else Module(target)
    return _Writer(program, plan, inputs, module, profile=profile).run()


class _Writer:
    def __init__(
        self,
        program: Program,
        plan: Plan,
        inputs: list[Buffer],
        module: Module,
        *,
        profile: bool,
    ) -> None:
        self.program, self.plan, self.profile = program, plan, profile
        self.module, self.target = module, module.target
        self.tasks: dict[Task, int] = {}
        self.numbered: list[tuple[Task, int, int]] = []
        self.inputs = inputs
        self.names: dict[object, str] = {}
        self.scratch = 0
        self.staged: dict[int, int] = {}
        self.shared_bytes = plan.shared_bytes
        self.states = len(program.states)
        self._times: dict[int, Value] = {}
        for slot, buffer in enumerate(inputs):
            if buffer.type.batch_axis == 0:
                size = buffer.elements(plan.capacity) * itemsize(buffer.type.dtype)
                self.staged[slot] = self.shared_bytes
                self.shared_bytes += -(-size // ALIGNMENT) * ALIGNMENT

    def run(self) -> StepText:
        for number, phase in enumerate(self.plan.phases):
            for step in (*phase.shared, *phase.rows):
                self._kernels(step, number, 1)
        self._step_body()
        self._entry()
        text = runtime.barrier_text(self.target) + "\n" + self.module.text()
        return StepText(text, self.scratch, self.shared_bytes, self.numbered)

    # ------------------------------------------------------------------ kernels

    def _kernels(self, step: Step, phase: int, times: int) -> None:
        if isinstance(step, Loop):
            for inner in step.steps():
                self._kernels(inner, phase, times * step.length)
            return
        self._kernel(step)
        self.tasks[step] = len(self.tasks)
        self.numbered.append((step, phase, times))

    def _kernel(self, task: Task) -> str:
        """The function of a kernel, written once for all tasks that are the same."""
        if task.kernel not in self.names:
            name = f"k{len(self.names)}"
            self.names[task.kernel] = name
            kernels.build(task.kernel, name, self.module, self.target)
            self.scratch = max(self.scratch, kernels.scratch_bytes(task.kernel, self.target))
        return self.names[task.kernel]

    # ------------------------------------------------------------------ the step

    def _step_body(self) -> None:
        """`one(args, tid, threads, number)`: everything of one step, with its barriers."""
        emit = self.module.function(
            "one",
            [(POINTER, "args"), (I64, "tid"), (I64, "threads"), (I64, "number")],
            internal=True,
            outermost=True,
        )
        self.emit = emit
        args, self.tid, self.threads, number = emit.parameters
        self.number = number
        self.args = Place(args)
        self.sync = self._word_pointer(SYNC)
        batch, total = self._word(BATCH), self._word(TOTAL)
        self.start = number * batch
        left = total - self.start
        self.rows = emit.select(left < batch, left, batch)
        self.shared_base = self._word_pointer(SHARED)
        own = self.tid * self.plan.private_bytes
        self.private_base = Place(self._word_pointer(PRIVATE)).step(own, 1).pointer
        own = self.tid * self._scratch_stride()
        self.scratch_base = Place(self._word_pointer(SCRATCH)).step(own, 1).pointer
        self.order = self._word(ORDER)
        self.gathers = self.order.differs(0)
        self._bases: dict[Buffer, Value] = {}
        self._report(faults.ROWS)
        for buffer in self._outside_buffers():
            self._bases[buffer] = self._outside(buffer)
        phases = self.plan.phases
        if self.staged:
            with emit.when(self.gathers):
                self._own_rows(self.plan.capacity, self._gather)
        for position, phase in enumerate(phases):
            if position or self._reads_gathered(phase):
                self._barrier()
            self._phase(phase)
        emit.finish()

    def _reads_gathered(self, phase: Phase) -> bool:
        """Whether the first phase may read input rows that another thread gathered."""
        by_all = any(b.place == "input" for step in phase.shared for b in step.read_buffers())
        return bool(self.staged) and (phase.in_parts or by_all)

    def _report(self, task: int) -> None:
        """In a checked build, say what the accesses from here on belong to."""
        if isinstance(self.emit, CheckedEmit):
            slots = self.states + len(self.inputs) + len(self.program.outputs)
            self.emit.report(self._word_pointer(POINTERS + slots), task)

    def _scratch_stride(self) -> int:
        return -(-max(self.scratch, 1) // 128) * 128

    def _word(self, position: int) -> Value:
        return self.emit.load(self.args + 8 * position, I64)

    def _word_pointer(self, position: int) -> Value:
        return self.emit.load(self.args + 8 * position, POINTER)

    def _barrier(self) -> None:
        start = self._ticks()
        self.emit.call("lamina_barrier", "void", self.sync, self.threads)
        self._count(len(self.tasks), start)

    def _ticks(self) -> Value | None:
        return self.emit.call("lamina_ticks", I64) if self.profile else None

    def _count(self, slot: int, start: Value | None) -> None:
        """Add the ticks since `start` to this thread's slot."""
        if start is None:
            return
        emit = self.emit
        self._add(slot, emit.call("lamina_ticks", I64) - start)

    def _add(self, slot: int, more: Value) -> None:
        """Add to one of this thread's slots of a profile."""
        own = self.tid * ((2 * len(self.tasks) + 1) * 8)
        place = Place(self._word_pointer(PROFILE)).step(own, 1) + 8 * slot
        self.emit.store(self.emit.load(place, I64) + more, place)

    def _outside_buffers(self) -> list[Buffer]:
        found: dict[Buffer, None] = {}
        for phase in self.plan.phases:
            for step in (*phase.shared, *phase.rows):
                for task in step.tasks() if isinstance(step, Loop) else [step]:
                    for operand in task.operands:
                        if operand.buffer.place in ("state", "input", "output"):
                            found[operand.buffer] = None
        return list(found)

    def _outside(self, buffer: Buffer) -> Value:
        """The address of row 0 of this step, of a buffer that the caller gave."""
        emit = self.emit
        if buffer.place == "state":
            return self._word_pointer(POINTERS + buffer.slot)
        shift = self.states + (0 if buffer.place == "input" else len(self.inputs))
        base = self._word_pointer(POINTERS + shift + buffer.slot)
        if buffer.type.batch_axis != 0:
            return base
        here = Place(base).step(self.start, row_stride(buffer, self.plan.capacity)).pointer
        if buffer.place == "input":
            staged = Place(self.shared_base, self.staged[buffer.slot]).pointer
            return emit.select(self.gathers, staged, here)
        return here

    # ------------------------------------------------------------------ rows

    def _own_rows(self, block: int, act: Callable[[Value, Value], None]) -> None:
        """Run `act(low, high)` over blocks of this thread's share of the rows."""
        low = self.tid * self.rows // self.threads
        high = (self.tid + 1) * self.rows // self.threads
        self._blocks(low, high, block, act)

    def _blocks(
        self, low: Value, high: Value, block: int, act: Callable[[Value, Value], None]
    ) -> None:
        emit = self.emit
        if block >= self.plan.capacity:
            with emit.when(low < high):
                act(low, high)
            return
        with emit.loop(low, high, block) as loop:
            first = index(loop.index).on(emit)
            last = first + block
            act(first, emit.select(last < high, last, high))

    def _own_parts(self, phase: Phase) -> None:
        """Run the phase over this thread's parts of the batch, part by part."""
        emit, parts = self.emit, self.plan.parts
        each = (self.rows + (parts - 1)) // parts
        low_part = self.tid * parts // self.threads
        high_part = (self.tid + 1) * parts // self.threads
        with emit.loop(low_part, high_part) as loop:
            self.part = index(loop.index).on(emit)
            low = self.part * each
            low = emit.select(low < self.rows, low, self.rows)
            high = low + each
            high = emit.select(high < self.rows, high, self.rows)
            for buffer in phase.partial_buffers():
                place = self._partial_place(buffer)
                emit.clear(place, self._partial_bytes(buffer))
            self._blocks(low, high, phase.block, lambda a, b: self._run_rows(phase, a, b))

    def _partial_bytes(self, buffer: Buffer) -> int:
        return buffer.type.size_at(self.plan.capacity) * itemsize(buffer.type.dtype)

    def _partial_place(self, buffer: Buffer) -> Place:
        base = Place(self.shared_base, buffer.offset)
        return base.step(self.part, self._partial_bytes(buffer))

    def _run_rows(self, phase: Phase, low: Value, high: Value) -> None:
        self.block_start, self.block_stop = low, high
        for step in phase.rows:
            self._run(step, low, high)

    def _gather(self, low: Value, high: Value) -> None:
        """Copy rows in the order asked for to where the kernels read them."""
        emit = self.emit
        order = Place(emit.effect(POINTER, f"inttoptr i64 {self.order.text} to ptr"))
        total = self._word(TOTAL) if isinstance(emit, CheckedEmit) else None
        with emit.loop(low, high) as row:
            here = index(row.index).on(emit)
            source = emit.load(order.step(self.start + here, 8), I64)
            for slot, offset in self.staged.items():
                buffer = self.inputs[slot]
                stride = row_stride(buffer, self.plan.capacity)
                base = self._word_pointer(POINTERS + self.states + slot)
                if isinstance(emit, CheckedEmit) and total is not None:
                    base = emit.bounded(base, base, total * stride, slot)
                target = Place(self.shared_base, offset).step(here, stride)
                emit.copy(target, Place(base).step(source, stride), stride)

    # ------------------------------------------------------------------ phases and tasks

    def _phase(self, phase: Phase) -> None:
        emit = self.emit
        lone = [step for step in phase.shared if step.mode == "single"]
        split = [step for step in phase.shared if step.mode == "units"]
        self.block_start = self.block_stop = emit.value(0, I64)
        self.part = emit.value(0, I64)
        if lone:
            with emit.when(self.tid.equal(0)):
                for step in lone:
                    self._run(step, None, None)
        for step in split:
            assert isinstance(step, Task)
            extent = self._extent(step)
            low = self.tid * extent // self.threads
            high = (self.tid + 1) * extent // self.threads
            with emit.when(low < high):
                self._call(step, low, high)
        if not phase.rows:
            return
        if phase.in_parts:
            self._own_parts(phase)
        else:
            self._own_rows(phase.block, lambda a, b: self._run_rows(phase, a, b))

    def _extent(self, task: Task) -> Value:
        if isinstance(task.extent, Batch):
            return self._rows_of(task) * task.extent.factor
        return self.emit.value(task.extent, I64)

    def _rows_of(self, task: Task) -> Value:
        """The number that the batch dimensions of the task's kernel stand for."""
        if task.counted is None:
            return self.rows
        place = Place(self.shared_base, task.counted.buffer.offset)
        count = self.emit.resize(self.emit.load(place, I32), I64)
        unit = task.counted.unit
        return count if unit == 1 else (count + (unit - 1)) // unit

    def _run(self, step: Step, low: Value | None, high: Value | None) -> None:
        """Run a task or a time loop over rows low to high; None for everything."""
        if isinstance(step, Loop):
            self._run_loop(step, low, high)
        elif low is None or high is None:
            if step.mode == "parts":
                self._all_parts(step)
            else:
                self._call(step, self.emit.value(0, I64), self._extent(step))
        else:
            factor = step.extent.factor if isinstance(step.extent, Batch) else 1
            self._call(step, low * factor, high * factor)

    def _all_parts(self, task: Task) -> None:
        """All partial sums by one thread: where a loop in time sums over the batch."""
        emit, parts = self.emit, self.plan.parts
        each = (self.rows + (parts - 1)) // parts
        factor = task.extent.factor if isinstance(task.extent, Batch) else 1
        with emit.loop(0, parts) as loop:
            self.part = index(loop.index).on(emit)
            low = self.part * each
            low = emit.select(low < self.rows, low, self.rows)
            high = low + each
            high = emit.select(high < self.rows, high, self.rows)
            for buffer in task.written_buffers():
                emit.clear(self._partial_place(buffer), self._partial_bytes(buffer))
            self._call(task, low * factor, high * factor)

    def _run_loop(self, loop: Loop, low: Value | None, high: Value | None) -> None:
        emit = self.emit
        if loop.test is not None:
            self._run_while(loop, loop.test, low, high)
            return
        with emit.loop(0, loop.length) as counter:
            step = index(counter.index).on(emit)
            time = (loop.length - 1) - step if loop.reverse else step
            outer = self._times
            self._times = {**outer, loop.number: time}
            for inner in loop.body:
                self._run(inner, low, high)
            self._times = outer

    def _run_while(self, loop: Loop, test: Buffer, low: Value | None, high: Value | None) -> None:
        """Go on as long as the test holds and the caller has not called the step off."""
        emit = self.emit
        with emit.repeat() as again:
            for inner in loop.head:
                self._run(inner, low, high)
            holds = emit.load(Place(self.shared_base, test.offset), I8).differs(0)
            again.only_if(holds & (self.number < self._word(STOP)))
            for inner in loop.body:
                self._run(inner, low, high)

    def _call(self, task: Task, low: Value, high: Value) -> None:
        emit = self.emit
        pointers = [self._pointer(task, i, operand) for i, operand in enumerate(task.operands)]
        name = self.names[task.kernel]
        scratch = self.scratch_base
        if isinstance(emit, CheckedEmit):
            size = kernels.scratch_bytes(task.kernel, self.target)
            scratch = emit.bounded(scratch, scratch, size, faults.SCRATCH)
            self._report(self.tasks[task])
        start = self._ticks()
        rows = self._rows_of(task)
        emit.call(name, "void", *pointers, scratch, low, high, rows)
        self._count(self.tasks[task], start)
        if self.profile and task.counted:
            self._add(len(self.tasks) + 1 + self.tasks[task], rows)

    def _pointer(self, task: Task, position: int, operand: Operand) -> Value:
        buffer = operand.buffer
        match buffer.place:
            case "private":
                place = Place(self.private_base, buffer.offset)
                place = place.step(self.block_start, -row_stride(buffer, self.plan.capacity))
            case "shared":
                place = Place(self.shared_base, buffer.offset)
                if buffer.parts and task.mode == "parts" and position in task.writes:
                    place = self._partial_place(buffer)
            case _:
                place = Place(self._bases[buffer])
        for number, stride in operand.loops:
            place = place.step(self._times[number], stride * itemsize(buffer.type.dtype))
        if isinstance(self.emit, CheckedEmit):
            own_part = task.mode == "parts" and position in task.writes
            begin, size = self._extent_of(buffer, own_part=own_part)
            return self.emit.bounded(place.pointer, begin, size, position)
        return place.pointer

    def _extent_of(self, buffer: Buffer, *, own_part: bool) -> tuple[Value, Integer]:
        """Where the memory of a buffer begins that a task may touch now, and its bytes.

        Of a batch on the first axis these are the rows that are there, not the capacity.
        """
        capacity = self.plan.capacity
        stride = row_stride(buffer, capacity)
        if buffer.place == "private":
            begin = Place(self.private_base, buffer.offset).pointer
            return begin, (self.block_stop - self.block_start) * stride
        if buffer.parts and own_part:
            return self._partial_place(buffer).pointer, self._partial_bytes(buffer)
        shared = buffer.place == "shared"
        begin = Place(self.shared_base, buffer.offset).pointer if shared else self._bases[buffer]
        if buffer.type.batch_axis == 0:
            return begin, self.rows * stride
        return begin, buffer.elements(capacity) * itemsize(buffer.type.dtype)

    # ------------------------------------------------------------------ the entry

    def _entry(self) -> None:
        """`step(args, tid, threads)`: one step after another until STOP."""
        parameters = [(POINTER, "args"), (I64, "tid"), (I64, "threads")]
        emit = self.module.function("step", parameters, outermost=True)
        self.emit = emit
        args, tid, threads = emit.parameters
        self.args, self.tid = Place(args), tid
        first, stop = self._word(FIRST), self._word(STOP)
        self.sync, self.threads = self._word_pointer(SYNC), threads
        with emit.loop(first, stop) as loop:
            number = index(loop.index).on(emit)
            limit = self._word(STOP)
            with emit.when(number < limit):
                emit.call("one", "void", args, tid, threads, number)
                with emit.when(tid.equal(0)):
                    self._end_of_step(number)
                self._barrier()
        emit.finish()

    def _end_of_step(self, number: Value) -> None:
        """Thread 0: end the call after this step if its time is up or the watched sum is lost."""
        emit = self.emit
        after = number + 1
        deadline = self._word(DEADLINE)
        with emit.when(deadline.differs(0)):
            now = emit.call("lamina_nanoseconds", I64, self.sync)
            with emit.when(now > deadline):
                emit.store(after, self.args + 8 * STOP)
        watched = self._word(WATCHED)
        with emit.when(watched.differs(0)):
            place = Place(emit.effect(POINTER, f"inttoptr i64 {watched.text} to ptr"))
            bits = emit.load(place, I32)
            exponent = bits & 0x7F800000
            with emit.when(exponent.equal(0x7F800000)):
                emit.store(after, self.args + 8 * STOP)
