"""Prove a plan safe before code is made of it: no races, no overlaps, nothing read too early.

Nothing here is taken from the planner's own reckoning: who touches which buffer, which rows and
when is worked out again from the kernels. A finding is an error of lamina's, never of a model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lamina.errors import LaminaError
from lamina.llvm.kernel import Contraction, Count, Elementwise, Load, Lookup, Reduction, RowGroup
from lamina.llvm.plan import Plan, row_stride
from lamina.llvm.task import Loop, Step, Task
from lamina.llvm.views import Buffer
from lamina.types import Batch, itemsize


class PlanError(LaminaError, RuntimeError):
    """A plan in which threads could race or memory be used twice."""


@dataclass(frozen=True)
class Touch:
    """One access: which task touches which buffer, when, and whether it writes."""

    buffer: Buffer
    task: Task
    step: Step
    phase: int
    position: int
    in_rows: bool
    writes: bool


def verify(plan: Plan) -> None:
    """Raise PlanError if the plan is unsafe."""
    touches = list(_touches(plan))
    by_buffer: dict[Buffer, list[Touch]] = {}
    for touch in touches:
        by_buffer.setdefault(touch.buffer, []).append(touch)
    for buffer, found in by_buffer.items():
        _check_order(buffer, found)
        _check_races(buffer, found)
        if buffer.place == "private":
            _check_private(buffer, found)
    for task in {touch.task: None for touch in touches if touch.in_rows}:
        if task.mode == "rows":
            _check_rows(task, plan.capacity)
    for task in {touch.task: None for touch in touches}:
        body = getattr(task.kernel, "body", ())
        if task.counted and any(isinstance(instruction, Count) for instruction in body):
            _fail(task.counted.buffer, "would be taken for the rows of the batch", task)
    _check_overlaps(by_buffer, plan)


def _touches(plan: Plan) -> Iterator[Touch]:
    for number, phase in enumerate(plan.phases):
        for in_rows, steps in ((False, phase.shared), (True, phase.rows)):
            for position, step in enumerate(steps):
                for task in step.tasks() if isinstance(step, Loop) else [step]:
                    if task.counted:
                        counter = task.counted.buffer
                        yield Touch(counter, task, step, number, position, in_rows, False)
                    for i, operand in enumerate(task.operands):
                        writes = i in task.writes
                        if not writes or task.updates:
                            yield Touch(
                                operand.buffer, task, step, number, position, in_rows, False
                            )
                        if writes:
                            yield Touch(operand.buffer, task, step, number, position, in_rows, True)


def _fail(buffer: Buffer, problem: str, *tasks: Task) -> None:
    names = ", ".join(f"{type(task.kernel).__name__} {task.label}" for task in tasks)
    raise PlanError(f"the plan is unsafe: {buffer.label} ({buffer.place}) {problem}: {names}")


def _check_order(buffer: Buffer, found: list[Touch]) -> None:
    """What lamina allocates is written before it is read."""
    if buffer.place not in ("shared", "private"):
        return
    first = min(((t.phase, t.in_rows, t.position) for t in found if t.writes), default=None)
    for touch in found:
        if touch.writes or (touch.task.updates and not isinstance(touch.step, Loop)):
            continue
        inside_loop = isinstance(touch.step, Loop)
        when = (touch.phase, touch.in_rows, touch.position)
        if first is None or when < first or (when == first and not inside_loop):
            writers = [t.task for t in found if t.writes]
            if first is None or touch.task not in writers:
                _fail(buffer, "is read before it is written", touch.task)


def _check_races(buffer: Buffer, found: list[Touch]) -> None:
    """Within a phase, threads may meet in a buffer only row by row, or all inside one thread."""
    if buffer.place == "private":
        return
    for write in found:
        if not write.writes:
            continue
        for other in found:
            if other.phase != write.phase or other.step is write.step:
                continue
            pair = (write.step.mode, other.step.mode)
            if pair == ("single", "single"):
                continue
            rowwise = buffer.type.batch_axis is not None
            if rowwise and pair in (("rows", "rows"), ("rows", "parts"), ("parts", "rows")):
                if "parts" in pair and buffer.parts:
                    _fail(buffer, "holds sums that are read unfinished", write.task, other.task)
                continue
            _fail(buffer, "is touched by two threads in one phase", write.task, other.task)


def _check_private(buffer: Buffer, found: list[Touch]) -> None:
    if len({touch.phase for touch in found}) != 1 or not all(t.in_rows for t in found):
        _fail(buffer, "leaves the loop over rows in which it lives", found[0].task)
    if not buffer.type.shape or not isinstance(buffer.type.shape[0], Batch):
        _fail(buffer, "has no rows on its first axis", found[0].task)


def _check_rows(task: Task, capacity: int) -> None:
    """A task over rows touches, of every batch value, exactly the rows it was called for."""
    spec = task.kernel
    if not isinstance(spec, (Elementwise, Reduction, RowGroup, Contraction)):
        return
    assert isinstance(task.extent, Batch)
    for number, strides in _addresses(spec):
        buffer = task.operands[number].buffer
        if buffer.type.batch_axis is None:
            continue
        size = itemsize(buffer.type.dtype)
        wanted = row_stride(buffer, capacity)
        if strides[spec.split] * task.extent.factor * size != wanted:
            _fail(buffer, "is touched in rows of other threads", task)


def _addresses(
    spec: Elementwise | Reduction | RowGroup | Contraction,
) -> Iterator[tuple[int, tuple[int, ...]]]:
    bodies = [spec.body, spec.after] if isinstance(spec, Reduction) else [spec.body]
    for body in bodies:
        for instruction in body:
            if isinstance(instruction, (Load, Lookup)):
                yield instruction.operand, instruction.strides
    stores = [*spec.stores, *(spec.row_stores if isinstance(spec, RowGroup) else ())]
    for store in stores:
        yield store.operand, store.strides
    if isinstance(spec, Contraction):
        for access in (spec.a, spec.b):
            yield access.operand, access.strides


def _check_overlaps(by_buffer: dict[Buffer, list[Touch]], plan: Plan) -> None:
    """Buffers that share bytes are never alive at the same time."""
    shared, private = [], []
    for buffer, found in by_buffer.items():
        if buffer.place == "shared":
            size = buffer.elements(plan.capacity) * itemsize(buffer.type.dtype)
            span = (min(t.phase for t in found), max(t.phase for t in found))
            shared.append((buffer, size, span, 0, found[0].task))
        elif buffer.place == "private":
            phase = found[0].phase
            size = row_stride(buffer, plan.capacity) * plan.phases[phase].block
            span = (min(t.position for t in found), max(t.position for t in found))
            private.append((buffer, size, span, phase, found[0].task))
    for items, room in ((shared, plan.shared_bytes), (private, plan.private_bytes)):
        for i, (buffer, size, span, phase, task) in enumerate(items):
            if buffer.offset < 0 or buffer.offset + size > room:
                _fail(buffer, "lies outside of its area", task)
            for other, other_size, other_span, other_phase, other_task in items[:i]:
                apart = (
                    buffer.offset + size <= other.offset
                    or other.offset + other_size <= buffer.offset
                )
                together = span[0] <= other_span[1] and other_span[0] <= span[1]
                if phase == other_phase and together and not apart:
                    _fail(buffer, f"shares memory with {other.label}", task, other_task)
