"""Where the time of a compiled step goes: ticks of every task, against what the machine can do."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lamina.executor import Array
from lamina.ir.elementary import SCALARS
from lamina.ir.program import Program
from lamina.llvm import engine, host
from lamina.llvm.executor import LlvmExecutable
from lamina.llvm.generate import generate
from lamina.llvm.host import Target
from lamina.llvm.kernel import (
    Body,
    Contraction,
    Random,
    Scalar,
    TileFilterGradient,
    WinnerFilterGradient,
    WinnerInputGradient,
)
from lamina.llvm.kernels.winograd import winograd
from lamina.llvm.task import Counted, Operand, Task
from lamina.llvm.words import PROFILE
from lamina.types import Batch, Dimension, itemsize


@dataclass(frozen=True)
class TaskProfile:
    """One task of a step.

    seconds   its time in one step, of the slowest thread
    flops     multiply-adds count two; other functions their cost in the scalar table
    bytes     what it reads and writes, each buffer once
    times     how often it runs in a step (in a time loop: the loop's length)
    """

    layer: str
    kernel: str
    label: str
    shape: str
    phase: int
    mode: str
    times: int
    seconds: float
    flops: float
    bytes: float


@dataclass(frozen=True)
class StepProfile:
    """All tasks of a step, the waiting at barriers, and what compiling took."""

    tasks: tuple[TaskProfile, ...]
    waiting: float
    step_seconds: float
    rows: int
    threads: int
    shared_bytes: int
    private_bytes: int
    compile_seconds: dict[str, float]


class _Profiled(LlvmExecutable):
    """An executable whose table of words names the area of ticks."""

    ticks: Array

    def prepare(self, words: Array) -> None:
        words[PROFILE] = self.ticks.ctypes.data


def profile(
    program: Program,
    capacity: int,
    data: Sequence[Array],
    states: Sequence[Array],
    *,
    batch_size: int,
    steps: int = 50,
) -> StepProfile:
    """Run `steps` steps of a program with every task timed.

    data     all rows of the inputs, as `Executable.steps` takes them; used again from the start
             where there are not enough
    states   are updated, as by any other call: hand over copies
    """
    target = host.detect()
    before = time.perf_counter()
    made = generate(program, capacity, target, profile=True)
    generated = time.perf_counter()
    code = engine.compile_text(made.text, target)
    compiled = time.perf_counter()
    executable = _Profiled(program, capacity, engine.load(code, target), made.sizes, made.checked)
    loaded = time.perf_counter()
    rows = executable.rows_in(data)
    per_pass = max(1, -(-rows // batch_size))
    threads = executable.threads(per_pass)
    waiting = len(made.tasks)
    executable.ticks = np.zeros((threads, 2 * waiting + 1), np.int64)
    executable.steps(data, states, batch_size=batch_size, last=min(3, per_pass))
    executable.ticks[:] = 0
    done, start = 0, time.perf_counter()
    while done < steps:
        last = min(per_pass, steps - done)
        first = 0
        while first < last:
            first += executable.steps(data, states, batch_size=batch_size, first=first, last=last)
        done += last
    elapsed = time.perf_counter() - start
    ticks, counts = np.split(executable.ticks, [waiting + 1], axis=1)
    rate = elapsed / max(int(ticks.sum(axis=1).max()), 1)
    slowest = ticks.max(axis=0) * rate / done
    present = min(batch_size, rows)
    found = counts.max(axis=0) // done
    tasks = tuple(
        _describe(task, phase, times, float(slowest[number]), present, int(found[number]), target)
        for number, (task, phase, times) in enumerate(made.tasks)
    )
    return StepProfile(
        tasks,
        float(slowest[waiting]),
        elapsed / done,
        present,
        threads,
        made.sizes.shared,
        made.sizes.private,
        {
            "plan and write": generated - before,
            "compile": compiled - generated,
            "load": loaded - compiled,
        },
    )


def _describe(
    task: Task, phase: int, times: int, seconds: float, rows: int, found: int, target: Target
) -> TaskProfile:
    """What is told of a task, in whose step `rows` rows were present, and `found` if counted."""
    spec = task.kernel
    space = getattr(spec, "space", ())
    reduced = getattr(spec, "reduced", ())
    shape = "x".join(map(str, space)) + (f" over {'x'.join(map(str, reduced))}" if reduced else "")
    if hasattr(spec, "columns"):
        shape += f" over {spec.columns}"
    moved = sum(
        operand.buffer.elements(rows)
        * itemsize(operand.buffer.type.dtype)
        / times ** bool(operand.loops)
        * _present(task.counted, operand, found)
        for operand in task.operands
    )
    if task.counted:
        shape, rows = shape.replace("batch", "found"), found
    return TaskProfile(
        task.layer,
        type(spec).__name__,
        task.label,
        shape,
        phase,
        task.mode,
        times,
        seconds,
        task_flops(task, rows, target) * times,
        moved * times,
    )


def _present(counted: Counted | None, operand: Operand, found: int) -> float:
    """The share of an operand that is there, of one that has room for counted rows."""
    shape = operand.buffer.type.shape
    has_room = counted is not None and shape[:1] == (counted.room,)
    return found * counted.unit / counted.room if counted and has_room else 1.0


def task_flops(task: Task, rows: int, target: Target) -> float:
    """Floating-point operations of one run of a task on `rows` rows: those that really run.

    The rows of a counted task are those that it finds.

    A convolution by Winograd's method counts its multiply-adds a tile, without the transforms.
    Of a sparse gradient the search for values but zero is counted: their number is not known.
    """
    spec = task.kernel
    space = _points(getattr(spec, "space", (task.extent,)), rows)
    inner = _points(getattr(spec, "reduced", ()), rows) * getattr(spec, "columns", 1)
    if isinstance(spec, (WinnerFilterGradient, WinnerInputGradient)):
        taps = math.prod(spec.kernel) * spec.channels if spec.placed else 0.5
        return 2.0 * _points((spec.batch, *spec.windows), rows) * spec.filters * taps
    if isinstance(spec, TileFilterGradient):
        tiles = _points((spec.batch,), rows) * math.prod(-(-side // 2) for side in spec.outputs)
        return 32.0 * tiles * spec.channels * spec.filters
    if isinstance(spec, Contraction):
        plan = winograd(spec, target)
        if plan is not None:
            tiles = _points(spec.space[:1], rows) * math.prod(plan.tiles)
            products = 2.0 * plan.positions * plan.channels * plan.filters
            return tiles * products + space * _cost(spec.body)
        return space * (2.0 * inner + _cost(spec.body))
    after = _cost(getattr(spec, "after", ()))
    return space * (inner * _cost(getattr(spec, "body", ())) + after)


def _points(shape: Sequence[Dimension], rows: int) -> int:
    return math.prod(size.rows(rows) if isinstance(size, Batch) else size for size in shape)


def _cost(body: Body) -> float:
    total = 0.0
    for instruction in body:
        if isinstance(instruction, Scalar):
            total += SCALARS[instruction.fn].cost
        elif isinstance(instruction, Random):
            total += 60
    return total
