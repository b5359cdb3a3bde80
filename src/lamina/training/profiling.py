"""Where the time of a model's step goes: every kernel, against what this machine can do."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina import config
from lamina.data import ArraySource
from lamina.errors import LaminaError, layout
from lamina.training.runs import Pass

if TYPE_CHECKING:
    from lamina.llvm.profile import StepProfile, TaskProfile


class ProfileError(LaminaError, RuntimeError):
    """There is nothing that could be profiled; the message says what to do."""


@dataclass(frozen=True)
class Roof:
    """What this machine reaches, measured by NumPy: a matrix product and a copy.

    flops       operations a second of a product of 768 x 768 matrices, all threads of NumPy
    bandwidth   bytes a second read and written by a copy of 64 MB
    """

    flops: float
    bandwidth: float

    def seconds(self, task: TaskProfile) -> float:
        """The least time for a kernel's operations and bytes."""
        return max(task.flops / self.flops, task.bytes / self.bandwidth)


def _least_seconds(run: Callable[[], object], repeats: int) -> float:
    """The fastest of some runs: a roof is what the machine can do, not what it did."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@functools.cache
def machine_roof() -> Roof:
    """Measure this machine, once in a process; takes about a tenth of a second."""
    size = 768
    a = np.full((size, size), 0.5, np.float32)
    out = np.empty_like(a)
    product = _least_seconds(lambda: np.matmul(a, a, out=out), 15)
    source = np.zeros(8 << 20, np.float64)
    target = np.empty_like(source)
    copy = _least_seconds(lambda: np.copyto(target, source), 5)
    return Roof(2 * size**3 / product, 2 * source.nbytes / copy)


@dataclass(frozen=True)
class Profile:
    """A measured step: `print(profile)` is the table, `profile.tasks` the numbers behind it.

    step   the tasks, times and memory of one step, see `lamina.llvm.profile.StepProfile`
    roof   what the machine can do
    """

    step: StepProfile
    roof: Roof

    @property
    def tasks(self) -> tuple[TaskProfile, ...]:
        return self.step.tasks

    def share_of_roof(self, task: TaskProfile) -> float:
        """Between 0 and 1 (above where less is done than counted): roof time over time taken."""
        return self.roof.seconds(task) / max(task.seconds, 1e-9)

    def table(self, rows: int | None = None) -> str:
        """One line a kernel, the slowest first; `rows` limits them."""
        step = self.step
        total = sum(task.seconds for task in step.tasks) or 1.0
        heads = ("layer", "kernel", "what", "shape")
        widths = (24, 16, 26, 34)
        head = " ".join(f"{name:{width}}" for name, width in zip(heads, widths, strict=True))
        numbers = f"{'phase':>5} {'runs':>5} {'us':>9} {'share':>6} {'GFLOP/s':>8} {'GB/s':>7}"
        lines = [f"{head} {numbers} {'of roof':>7}"]
        slowest = sorted(step.tasks, key=lambda task: -task.seconds)
        for task in slowest[:rows]:
            seconds = max(task.seconds, 1e-9)
            cells = (task.layer, task.kernel, task.label, task.shape)
            words = " ".join(
                f"{_short(cell, width):{width}}" for cell, width in zip(cells, widths, strict=True)
            )
            figures = (
                f"{task.phase:5} {task.times:5} {seconds * 1e6:9.1f} {seconds / total:6.1%} "
                f"{task.flops / seconds / 1e9:8.1f} {task.bytes / seconds / 1e9:7.1f}"
            )
            lines.append(f"{words} {figures} {self.share_of_roof(task):7.0%}")
        if rows is not None and len(slowest) > rows:
            rest = sum(task.seconds for task in slowest[rows:])
            lines.append(f"({len(slowest) - rows} more kernels, {rest * 1e6:.1f} us)")
        stages = ", ".join(f"{name} {t * 1e3:.0f} ms" for name, t in step.compile_seconds.items())
        lines.append(
            f"step {step.step_seconds * 1e6:.1f} us on {step.rows} rows, {step.threads} threads, "
            f"waiting at barriers {step.waiting * 1e6:.1f} us"
        )
        lines.append(
            f"memory {step.shared_bytes / 1e6:.2f} MB shared, "
            f"{step.private_bytes / 1e6:.2f} MB a thread; compiling: {stages}"
        )
        lines.append(
            f"roof {self.roof.flops / 1e9:.0f} GFLOP/s, {self.roof.bandwidth / 1e9:.1f} GB/s "
            "(NumPy's matrix product and copy; what stays in cache may exceed it)"
        )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table(30)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[-(width - 1) :]


def profile_step(
    model: Any, x: Any, y: Any, sample_weight: Any, batch_size: int | None, steps: int
) -> Profile:
    """See `Model.profile`."""
    if config.executor() != "llvm":
        raise ProfileError(
            layout(
                "profile: only compiled steps have kernels to time.",
                [("executor", config.executor())],
                hint="unset LAMINA_EXECUTOR, or set it to llvm",
            )
        )
    source = ArraySource(x, y, sample_weight, batch_size=batch_size)
    rows = min(source.batch_size, source.rows)
    kind = "predict" if y is None or not model.compiled else "train"
    step = Pass(model, kind, source).compiled(source.template, rows, rows)
    if step.exact is not None:
        raise ProfileError("profile: the step of this model depends on the number of rows.")
    data = [leaf for leaf in source.leaves if leaf is not None]
    states = [np.array(state) for state in step.traced.states()]
    # The compiler's modules are loaded for the first profile, not with every model.
    measured = importlib.import_module("lamina.llvm.profile").profile(
        step.traced.program,
        step.capacity,
        data,
        states,
        batch_size=source.batch_size,
        steps=steps,
    )
    return Profile(measured, machine_roof())


@contextmanager
def watching(seen: Callable[[Any, Any, int], None]) -> Iterator[None]:
    """Call `seen(model, data, batch size)` for every `fit` of arrays inside the context."""
    _watchers.append(seen)
    try:
        yield
    finally:
        _watchers.remove(seen)


_watchers: list[Callable[[Any, Any, int], None]] = []


def note_fit(model: Any, source: Any) -> None:
    """Tell the watchers that a model is being fitted."""
    if isinstance(source, ArraySource):
        for seen in _watchers:
            seen(model, source.template, source.batch_size)
