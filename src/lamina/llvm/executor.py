"""From a program to something that runs: compile or fetch the step, bind memory, call it.

`Program -> fuse -> lower -> plan -> step text -> object code -> step function`. The object is kept
on disk under the program's digest, so a second start only loads it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina import config
from lamina.executor import Executable
from lamina.ir.program import Program
from lamina.llvm import cache, choices, engine, fuse, host, pool
from lamina.llvm.fingerprint import fingerprint
from lamina.llvm.host import Target
from lamina.llvm.lower import Lowered, lower
from lamina.llvm.plan import Plan, plan
from lamina.llvm.step import (
    BATCH,
    DEADLINE,
    FIRST,
    ORDER,
    POINTERS,
    PRIVATE,
    SCRATCH,
    SHARED,
    STOP,
    SYNC,
    TOTAL,
    WATCHED,
    step_text,
)
from lamina.transform.simplify import simplify
from lamina.types import numpy_dtype

CALL_NANOSECONDS = 100_000_000
_ALIGNMENT = 4096


@dataclass(frozen=True)
class Sizes:
    """Bytes of the areas that a call needs; private and scratch are for each thread."""

    shared: int
    private: int
    scratch: int
    threads: int


def compile_llvm(program: Program, capacity: int) -> LlvmExecutable:
    """Compile a program whose batch has room for `capacity` rows (1 if it has no batch)."""
    target = host.detect()
    apart = config.arena() == "apart"
    parts = choices.parts(capacity)
    key = "\n".join(
        [
            fingerprint(program),
            f"{capacity} {parts} {apart} {sorted(config.check())}",
            target.key,
            cache.generator_digest(),
        ]
    )
    found = None if config.dump() else cache.fetch(key)
    if found is not None:
        sizes = Sizes(**found.manifest["sizes"])
        return LlvmExecutable(program, capacity, engine.load(found.code, target), sizes)
    text, sizes = generate(program, capacity, target, apart=apart)
    code = engine.compile_text(text, target)
    if "asm" in config.dump():
        _dump("asm", engine.assembly(text, target))
    cache.store(key, code, {"sizes": sizes.__dict__})
    return LlvmExecutable(program, capacity, engine.load(code, target), sizes)


def generate(
    program: Program, capacity: int, target: Target, *, apart: bool = False
) -> tuple[str, Sizes]:
    """The LLVM text of a program's step, and the memory it needs."""
    parts = choices.parts(capacity)
    simple = simplify(program)
    lowered = lower(simple, capacity, parts)
    planned = plan(lowered, capacity, parts, apart=apart)
    step = step_text(simple, planned, lowered.inputs, target)
    _show(simple, lowered, planned, step.text)
    scratch = -(-max(step.scratch_bytes, 1) // 128) * 128
    sizes = Sizes(step.shared_bytes, planned.private_bytes, scratch, planned.threads)
    return step.text, sizes


def _show(program: Program, lowered: Lowered, planned: Plan, text: str) -> None:
    wanted = config.dump()
    if "graph" in wanted:
        _dump("graph", "\n".join(map(repr, program.nodes())))
    if "fuse" in wanted:
        _dump("fuse", "\n".join(fuse.describe(fusion) for fusion in lowered.fusions))
    if "plan" in wanted:
        _dump("plan", planned.describe())
    if "llvm" in wanted:
        _dump("llvm", text)


def _dump(title: str, text: str) -> None:
    print(f"; ---- {title}\n{text}")


class _Areas:
    """Memory for one call at a time: shared, private and scratch, and the table of words."""

    def __init__(self, sizes: Sizes, words: int, threads: int) -> None:
        total = sizes.shared + (sizes.private + sizes.scratch) * threads
        self.threads = threads
        self.memory = np.zeros(total + 3 * _ALIGNMENT, np.uint8)
        start = -(-self.memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        self.words = np.zeros(words, np.int64)
        self.words[SHARED] = start
        self.words[PRIVATE] = start + sizes.shared
        self.words[SCRATCH] = start + sizes.shared + sizes.private * threads


class LlvmExecutable(Executable):
    """A compiled program. Calls from several threads run side by side, each on its own memory."""

    def __init__(
        self, program: Program, capacity: int, loaded: engine.Loaded, sizes: Sizes
    ) -> None:
        super().__init__(program, capacity)
        self.loaded = loaded
        self.sizes = sizes
        self.entry = loaded.address("step")
        self._free: list[_Areas] = []
        self._lock = threading.Lock()

    def run(
        self, inputs: Sequence[np.ndarray], states: Sequence[np.ndarray], rows: int
    ) -> list[np.ndarray]:
        """One step on `rows` rows; states are updated in place, outputs returned."""
        outputs = [self._output(node.type, rows) for node in self.program.outputs]
        fed = [
            self._roomy(array, node.type)
            for array, node in zip(inputs, self.program.inputs, strict=True)
        ]
        self._call(fed, states, outputs, rows, rows, None, 0, 1, None)
        return [
            self._trimmed(array, node.type, rows)
            for array, node in zip(outputs, self.program.outputs, strict=True)
        ]

    def _output(self, type: Any, rows: int) -> np.ndarray:
        room = rows if type.batch_axis in (None, 0) else self.capacity
        return np.empty(type.at(room).shape, numpy_dtype(type.dtype))

    def _roomy(self, array: np.ndarray, type: Any) -> np.ndarray:
        """An input as the kernels address it: rows contiguous, or padded to the capacity."""
        array = np.ascontiguousarray(array, numpy_dtype(type.dtype))
        if type.batch_axis in (None, 0):
            return array
        wide = np.zeros(type.at(self.capacity).shape, array.dtype)
        wide[tuple(slice(0, size) for size in array.shape)] = array
        return wide

    def _trimmed(self, array: np.ndarray, type: Any, rows: int) -> np.ndarray:
        if type.batch_axis in (None, 0):
            return array
        return array[tuple(slice(0, size) for size in type.at(rows).shape)].copy()

    def run_steps(
        self,
        data: Sequence[np.ndarray],
        states: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray],
        *,
        batch_size: int,
        total: int,
        order: np.ndarray | None,
        first: int,
        last: int,
        stop_on: int | None,
    ) -> int:
        """Steps `first` to `last`, or fewer when the time of a call is up; the step reached."""
        return self._call(
            data, states, outputs, batch_size, total, order, first, last, stop_on
        )

    def _call(
        self,
        data: Sequence[np.ndarray],
        states: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray],
        batch_size: int,
        total: int,
        order: np.ndarray | None,
        first: int,
        last: int,
        stop_on: int | None,
    ) -> int:
        arrays = (*states, *data, *outputs)
        with pool.lease(min(self.sizes.threads, pool.usual_threads())) as lease:
            areas = self._areas(lease.threads, POINTERS + len(arrays))
            words = areas.words
            words[SYNC] = lease.sync
            words[FIRST], words[STOP] = first, last
            words[BATCH], words[TOTAL] = batch_size, total
            words[ORDER] = 0 if order is None else order.ctypes.data
            several = last - first > 1
            words[DEADLINE] = time.monotonic_ns() + CALL_NANOSECONDS if several else 0
            words[WATCHED] = 0 if stop_on is None else states[stop_on].ctypes.data
            for position, array in enumerate(arrays):
                words[POINTERS + position] = array.ctypes.data
            with self.loaded.lease():
                lease.run(self.entry, words.ctypes.data)
            reached = int(words[STOP])
        with self._lock:
            self._free.append(areas)
        return min(reached, last)

    def _areas(self, threads: int, words: int) -> _Areas:
        with self._lock:
            for position, areas in enumerate(self._free):
                if areas.threads >= threads:
                    return self._free.pop(position)
        return _Areas(self.sizes, words, threads)

