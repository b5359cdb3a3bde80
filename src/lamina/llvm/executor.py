"""From a program to something that runs: compile or fetch the step, bind memory, call it.

`Program -> fuse -> lower -> plan -> step text -> object code -> step function`. The object is kept
on disk under the program's digest, so a second start only loads it.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Sequence

import numpy as np

from lamina import config
from lamina.errors import ShapeError, layout
from lamina.executor import Array, Executable
from lamina.ir.program import Program
from lamina.llvm import cache, choices, engine, host, pool
from lamina.llvm.fingerprint import fingerprint
from lamina.llvm.words import (
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
    Sizes,
)
from lamina.types import Type, numpy_dtype, static_shape

CALL_NANOSECONDS = 100_000_000
_ALIGNMENT = 4096
_POISON = 0xFF  # bytes of a NaN in every float type


def compile_llvm(program: Program, capacity: int) -> LlvmExecutable:
    """Compile a program whose batch has room for `capacity` rows (1 if it has no batch)."""
    target = host.detect()
    parts = choices.parts(capacity)
    key = "\n".join(
        [
            fingerprint(program),
            f"{capacity} {parts} {config.arena()}",
            target.key,
            cache.generator_digest(),
        ]
    )
    found = None if config.dump() else cache.fetch(key)
    if found is not None:
        sizes = Sizes(**found.manifest["sizes"])
        return LlvmExecutable(program, capacity, engine.load(found.code, target), sizes)
    # A second start finds its step on the disk and never loads the compiler.
    compiler = importlib.import_module("lamina.llvm.generate")
    made = compiler.generate(program, capacity, target)
    code = engine.compile_text(made.text, target)
    cache.store(key, code, {"sizes": made.sizes.__dict__})
    return LlvmExecutable(program, capacity, engine.load(code, target), made.sizes)


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
        self.poisoned = config.arena() == "apart"
        self.entry = loaded.address("step")
        self._free: list[_Areas] = []
        self._lock = threading.Lock()

    def __call__(self, inputs: Sequence[Array], states: Sequence[Array]) -> list[Array]:
        arrays, rows = self.checked(inputs, states)
        nodes = self.program.outputs
        outputs = [self._room(node.type, rows) for node in nodes]
        fed = [
            self._padded(array, node.type)
            for array, node in zip(arrays, self.program.inputs, strict=True)
        ]
        self._call(fed, states, outputs, rows, rows, None, 0, 1, None)
        return [
            self._trimmed(array, node.type, rows)
            for array, node in zip(outputs, nodes, strict=True)
        ]

    def _room(self, type: Type, rows: int) -> Array:
        """Memory for an output as the kernels address it."""
        there = rows if type.batch_axis in (None, 0) else self.capacity
        return np.empty(static_shape(type.shape, there), numpy_dtype(type.dtype))

    def _padded(self, array: Array, type: Type) -> Array:
        """An input as the kernels address it: contiguous, or padded to the capacity."""
        if type.batch_axis in (None, 0):
            return np.ascontiguousarray(array)
        wide = np.zeros(static_shape(type.shape, self.capacity), array.dtype)
        wide[tuple(slice(0, size) for size in array.shape)] = array
        return wide

    @staticmethod
    def _trimmed(array: Array, type: Type, rows: int) -> Array:
        if type.batch_axis in (None, 0):
            return array
        return array[tuple(slice(0, size) for size in static_shape(type.shape, rows))].copy()

    def steps(
        self,
        data: Sequence[Array],
        states: Sequence[Array],
        *,
        batch_size: int,
        order: Array | None = None,
        first: int = 0,
        last: int | None = None,
        outputs: Sequence[Array] | None = None,
        stop_on: int | None = None,
    ) -> int:
        """As `Executable.steps`, in one native call where rows lie on the first axis."""
        nodes = self.program.outputs
        types = [node.type for node in (*self.program.inputs, *nodes)]
        if any(type.batch_axis not in (None, 0) for type in types):
            return super().steps(
                data,
                states,
                batch_size=batch_size,
                order=order,
                first=first,
                last=last,
                outputs=outputs,
                stop_on=stop_on,
            )
        arrays, total = self._whole(data)
        if order is not None:
            order = np.ascontiguousarray(order, np.int64)
            if order.size and not 0 <= order.min() <= order.max() < total:
                raise ShapeError(f"the order names rows outside of the {total} that are there.")
            total = len(order)
        if min(batch_size, total) > self.capacity:
            raise ShapeError(f"batches of {batch_size} rows, compiled for {self.capacity}.")
        end = -(-total // batch_size) if last is None else last
        if outputs is None:
            outputs = [self._room(type, total) for type in (node.type for node in nodes)]
        for array in (*states, *outputs):
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise ShapeError("states and outputs must be contiguous, writable arrays.")
        stop = self._call(arrays, states, outputs, batch_size, total, order, first, end, stop_on)
        return stop - first

    def _whole(self, data: Sequence[Array]) -> tuple[list[Array], int]:
        """The data as contiguous arrays of the right types, and how many rows there are."""
        arrays = [
            np.ascontiguousarray(array, numpy_dtype(node.dtype))
            for array, node in zip(data, self.program.inputs, strict=True)
        ]
        rows = self.rows_in(arrays)
        for position, (array, node) in enumerate(zip(arrays, self.program.inputs, strict=True)):
            if array.shape != static_shape(node.shape, rows):
                raise ShapeError(
                    layout(
                        f"input {position}: does not fit what the program was traced for.",
                        [("expected", str(node.type)), ("given", f"{array.dtype} {array.shape}")],
                    )
                )
        for position, limit in self._limits.items():
            self.check_indexes(position, arrays[position], limit)
        return arrays, rows

    def _call(
        self,
        data: Sequence[Array],
        states: Sequence[Array],
        outputs: Sequence[Array],
        batch_size: int,
        total: int,
        order: Array | None,
        first: int,
        last: int,
        stop_on: int | None,
    ) -> int:
        arrays = (*states, *data, *outputs)
        with pool.lease(self.threads()) as lease:
            areas = self._areas(lease.threads, POINTERS + len(arrays))
            if self.poisoned:
                areas.memory.fill(_POISON)
            words = areas.words
            words[SYNC] = lease.sync
            words[FIRST], words[STOP] = first, last
            words[BATCH], words[TOTAL] = batch_size, total
            words[ORDER] = 0 if order is None else order.ctypes.data
            several = last - first > 1
            words[DEADLINE] = time.perf_counter_ns() + CALL_NANOSECONDS if several else 0
            words[WATCHED] = 0 if stop_on is None else states[stop_on].ctypes.data
            self.prepare(words)
            for position, array in enumerate(arrays):
                words[POINTERS + position] = array.ctypes.data
            with self.loaded.lease():
                lease.run(self.entry, words.ctypes.data)
            reached = int(words[STOP])
        with self._lock:
            self._free.append(areas)
        return min(reached, last)

    def threads(self) -> int:
        """On how many threads a call may run."""
        return min(self.sizes.threads, pool.usual_threads())

    def prepare(self, words: Array) -> None:
        """Fill in further words of a call's table; a profiled step has one."""

    def _areas(self, threads: int, words: int) -> _Areas:
        with self._lock:
            for position, areas in enumerate(self._free):
                if areas.threads >= threads:
                    return self._free.pop(position)
        return _Areas(self.sizes, words, threads)
