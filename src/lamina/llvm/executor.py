"""From a program to something that runs: compile or fetch the step, bind memory, call it.

`Program -> fuse -> lower -> plan -> step text -> object code -> step function`. The object is kept
on disk under the program's digest, so a second start only loads it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import operator
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lamina import config
from lamina.errors import ShapeError, layout
from lamina.executor import Array, Executable
from lamina.ir.control import endless
from lamina.ir.graph import Node
from lamina.ir.program import Program
from lamina.llvm import cache, choices, engine, host, pool
from lamina.llvm.faults import Checked, FaultArea
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
from lamina.types import Batch, Type, numpy_dtype, static_shape

CALL_NANOSECONDS = 100_000_000
_ALIGNMENT = 4096
_POISON = 0xFF  # bytes of a NaN in every float type


def compile_llvm(program: Program, capacity: int) -> LlvmExecutable:
    """Compile a program whose batch has room for `capacity` rows (1 if it has no batch)."""
    target = host.detect()
    key = "\n".join(
        [
            fingerprint(program),
            f"{capacity} {config.arena()} {config.check()}",
            target.key,
            cache.generator_digest(),
        ]
    )
    found = None if config.dump() else cache.fetch(key)
    if found is not None:
        sizes = Sizes(**found.manifest["sizes"])
        names = found.manifest["checked"]
        checked = None if names is None else Checked(**names)
        return LlvmExecutable(program, capacity, engine.load(found.code, target), sizes, checked)
    # A second start finds its step on the disk and never loads the compiler.
    compiler = importlib.import_module("lamina.llvm.generate")
    made = compiler.generate(program, capacity, target)
    code = engine.compile_text(made.text, target)
    names = None if made.checked is None else made.checked.__dict__
    cache.store(key, code, {"sizes": made.sizes.__dict__, "checked": names})
    return LlvmExecutable(program, capacity, engine.load(code, target), made.sizes, made.checked)


class _Areas:
    """Memory for one call at a time: shared, private and scratch, and the table of words."""

    def __init__(self, sizes: Sizes, words: int, threads: int) -> None:
        total = sizes.shared + (sizes.private + sizes.scratch) * threads
        self.threads = threads
        self.memory = np.zeros(total + 3 * _ALIGNMENT, np.uint8)
        start = -(-self.memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        self.words = np.zeros(words, np.int64)
        self.table = self.words.ctypes.data
        self.words[SHARED] = start
        self.words[PRIVATE] = start + sizes.shared
        self.words[SCRATCH] = start + sizes.shared + sizes.private * threads


@dataclass(frozen=True)
class _Port:
    """What an input or output must be like: dtype, and shape with the batch on the first axis.

    factor   rows on the first axis for each row of the batch; 0 where there is no batch
    sizes    the other axes
    """

    dtype: np.dtype[Any]
    factor: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, type: Type) -> Self | None:
        """None where the batch stands on another axis."""
        if type.batch_axis not in (None, 0):
            return None
        first = type.shape[0] if type.batch_axis == 0 else None
        factor = first.factor if isinstance(first, Batch) else 0
        sizes = tuple(size for size in type.shape if isinstance(size, int))
        return cls(numpy_dtype(type.dtype), factor, sizes)

    def room(self, rows: int) -> Array:
        """Memory for so many rows."""
        shape = (self.factor * rows, *self.sizes) if self.factor else self.sizes
        return np.empty(shape, self.dtype)


def _address(array: Array) -> int:
    """Where a contiguous array lies: as `array.ctypes.data`, in half of its time."""
    if array.flags.writeable:
        try:
            return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
        except (TypeError, ValueError):  # empty, or of a dtype that has no buffers
            pass
    return int(array.ctypes.data)


class _States:
    """The arrays of the states, and where they lie: callers bring the same ones every time."""

    def __init__(self, arrays: Sequence[Array], updates: Sequence[Node | None]) -> None:
        for array, update in zip(arrays, updates, strict=True):
            flags = array.flags
            if not flags.c_contiguous or not (update is None or flags.writeable):
                raise ShapeError("states must be contiguous, writable arrays.")
        self.arrays = tuple(arrays)
        self.places = [_address(array) for array in arrays]

    def are(self, arrays: Sequence[Array]) -> bool:
        return len(arrays) == len(self.arrays) and all(map(operator.is_, arrays, self.arrays))


class LlvmExecutable(Executable):
    """A compiled program. Calls from several threads run side by side, each on its own memory."""

    def __init__(
        self,
        program: Program,
        capacity: int,
        loaded: engine.Loaded,
        sizes: Sizes,
        checked: Checked | None = None,
    ) -> None:
        super().__init__(program, capacity)
        self.loaded = loaded
        self.sizes = sizes
        self.checked_names = checked
        self.endless = endless(program.roots)
        self.poisoned = config.arena() == "apart"
        self.entry = loaded.address("step")
        self._inputs = _ports(program.inputs)
        self._outputs = _ports(program.outputs)
        self._states: _States | None = None
        self._free: list[_Areas] = []

    def __call__(self, inputs: Sequence[Array], states: Sequence[Array]) -> list[Array]:
        rows, known = self._fitting(inputs), self._states
        if rows is not None and rows <= self.capacity and known is not None and known.are(states):
            self._check_indexes(inputs)
            arrays = list(inputs)
        else:
            arrays, rows = self.checked(inputs, states)
        if self._inputs is not None and self._outputs is not None:
            outputs = [port.room(rows) for port in self._outputs]
            fed = [np.ascontiguousarray(array) for array in arrays]
            self._call(fed, states, outputs, rows, rows, None, 0, 1, None)
            return outputs
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

    def _fitting(self, arrays: Sequence[Any]) -> int | None:
        """The number of rows, if all arrays can be handed over as they are."""
        if self._inputs is None or len(arrays) != len(self._inputs):
            return None
        rows: int | None = None
        for array, port in zip(arrays, self._inputs, strict=True):
            if type(array) is not np.ndarray or array.dtype != port.dtype:
                return None
            if not array.flags.c_contiguous:
                return None
            if not port.factor:
                if array.shape != port.sizes:
                    return None
                continue
            if array.shape[1:] != port.sizes:
                return None
            count, left = divmod(len(array), port.factor)
            if left or rows not in (None, count):
                return None
            rows = count
        return 1 if rows is None else rows

    def _check_indexes(self, arrays: Sequence[Array]) -> None:
        for position, limit in self._limits.items():
            self.check_indexes(position, arrays[position], limit)

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
        if self._inputs is None or self._outputs is None:
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
            outputs = [port.room(total) for port in self._outputs]
        for array in outputs:
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise ShapeError("outputs must be contiguous, writable arrays.")
        stop = self._call(arrays, states, outputs, batch_size, total, order, first, end, stop_on)
        return stop - first

    def _whole(self, data: Sequence[Array]) -> tuple[Sequence[Array], int]:
        """The data as contiguous arrays of the right types, and how many rows there are."""
        arrays = data
        rows = self._fitting(data)
        if rows is None:
            arrays = [
                np.ascontiguousarray(array, numpy_dtype(node.dtype))
                for array, node in zip(data, self.program.inputs, strict=True)
            ]
            rows = self.rows_in(arrays)
            for position, (array, node) in enumerate(zip(arrays, self.program.inputs, strict=True)):
                if array.shape != static_shape(node.shape, rows):
                    given = f"{array.dtype} {array.shape}"
                    raise ShapeError(
                        layout(
                            f"input {position}: does not fit what the program was traced for.",
                            [("expected", str(node.type)), ("given", given)],
                        )
                    )
        self._check_indexes(arrays)
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
        known = self._states
        if known is None or not known.are(states):
            known = self._states = _States(states, self.program.updates)
        places = known.places + [_address(array) for array in (*data, *outputs)]
        fault = FaultArea() if self.checked_names else None
        before: list[Array] = []
        if fault or self.endless:  # states are given back as they were before a step that fails
            last = min(last, first + 1)
            before = [state.copy() for state in states]
        if fault:
            places.append(fault.address)
        with pool.lease(self.threads(last - first)) as lease:
            areas = self._areas(lease.threads, POINTERS + len(places))
            if self.poisoned:
                areas.memory.fill(_POISON)
            several = last - first > 1
            words = areas.words
            words[SYNC] = lease.sync
            words[FIRST], words[STOP] = first, last
            words[BATCH], words[TOTAL] = batch_size, total
            words[ORDER] = 0 if order is None else order.ctypes.data
            words[DEADLINE] = time.perf_counter_ns() + CALL_NANOSECONDS if several else 0
            words[WATCHED] = 0 if stop_on is None else known.places[stop_on]
            words[POINTERS:] = places
            self.prepare(words)
            try:
                with self.loaded.lease():
                    self._run(lease, areas)
                if fault and self.checked_names:
                    fault.check(self.checked_names)
            except BaseException:
                for state, old in zip(states, before, strict=False):
                    state[...] = old
                raise
            reached = int(words[STOP])
        self._free.append(areas)
        return min(reached, last)

    def _run(self, lease: pool.Lease, areas: _Areas) -> None:
        """Run a call; one that need not end is left to a thread, so that Ctrl-C can end it."""
        if not self.endless:
            lease.run(self.entry, areas.table)
            return
        worker = threading.Thread(target=lease.run, args=(self.entry, areas.table))
        worker.start()
        try:
            worker.join()
        except BaseException:
            areas.words[STOP] = areas.words[FIRST]
            while worker.is_alive():
                with contextlib.suppress(KeyboardInterrupt):
                    worker.join()
            raise

    def threads(self, steps: int) -> int:
        """On how many threads a call of so many steps may run."""
        wanted = choices.threads_wanted(self.sizes.work, steps)
        return 1 if wanted == 1 else min(wanted, pool.usual_threads())

    def prepare(self, words: Array) -> None:
        """Fill in further words of a call's table; a profiled step has one."""

    def _areas(self, threads: int, words: int) -> _Areas:
        try:  # one operation of a list needs no lock, which a fork might leave locked
            areas = self._free.pop()
        except IndexError:
            return _Areas(self.sizes, words, threads)
        return areas if areas.threads >= threads else _Areas(self.sizes, words, threads)


def _ports(nodes: Sequence[Node]) -> list[_Port] | None:
    """The ports of inputs or outputs; None if one has its batch on another axis than the first."""
    ports = [_Port.of(node.type) for node in nodes]
    known = [port for port in ports if port is not None]
    return known if len(known) == len(ports) else None
