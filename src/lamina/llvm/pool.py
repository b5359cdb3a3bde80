"""The process's worker threads: Python threads that sit in native code, asleep between jobs.

    lease = pool.lease(4)                 # at most four threads, the caller's own among them
    lease.run(entry, args)                # void entry(ptr args, i64 tid, i64 threads)

There is one pool, and one call has it at a time, from its beginning to its end in native code. A
call that finds it taken runs on its own thread alone, which gives the same bits. Workers start at
the first lease of more than one thread and then stay. The calling convention stands at the top of
`runtime`.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import threading
import time
from types import TracebackType
from typing import Self

from lamina import config
from lamina.llvm import binding, cache, engine, host, runtime

_ALIGNMENT = 128
_START_SECONDS = 2.0
_STOP_SECONDS = 2.0
_MEASURE_NANOSECONDS = 50_000

_RunFunction = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
)
_WorkerFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
_MeasureFunction = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
_StopFunction = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
_InitFunction = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class Runtime:
    """The runtime module of this process, loaded once and never freed: workers sit in it."""

    def __init__(self, table: host.OsTable | None = None) -> None:
        self.table = table or host.os_table()
        target = host.target("native")
        key = (
            f"runtime {self.table.kind} {target.key} {cache.generator_digest()} {binding.version()}"
        )
        entry = cache.fetch(key)
        if entry is None:
            code = engine.compile_text(runtime.runtime_text(target, self.table), target)
            cache.store(key, code, {})
        else:
            code = entry.code
        self.loaded = engine.load(code, target)
        address = self.loaded.address
        self.run = _RunFunction(address("lamina_run"))
        self.work = _WorkerFunction(address("lamina_worker"))
        self.stop = _StopFunction(address("lamina_stop"))
        self.ticks_per_microsecond = 0.0
        # For all calls on one thread: barriers of one thread touch nothing, the clock only reads.
        self.single = self.area(0)
        measure = _MeasureFunction(address("lamina_measure"))
        ticks = measure(self.single.address, _MEASURE_NANOSECONDS)
        self.ticks_per_microsecond = ticks * 1000 / _MEASURE_NANOSECONDS

    def area(self, workers: int) -> Area:
        """A new sync area for `workers` threads beside the caller's."""
        area = Area(runtime.area_bytes(workers))
        address, table = self.loaded.address, self.table
        area.write(runtime.SLEEP, address("lamina_sleep"))
        area.write(runtime.WAKE, address("lamina_wake"))
        area.write(runtime.NANOSECONDS, address("lamina_time"))
        ticks = self.ticks_per_microsecond
        area.write(runtime.SPIN, int(runtime.SPIN_MICROSECONDS * ticks))
        area.write(runtime.IDLE, int(runtime.IDLE_MICROSECONDS * ticks))
        system = (table.wait, table.wake, table.clock, table.lock, table.unlock)
        for index, function in enumerate(system):
            area.write(runtime.SYSTEM + 8 * index, function)
        area.write(runtime.NUMBER, table.number)
        if table.make_lock:
            _InitFunction(table.make_lock)(area.address + runtime.LOCK, None)
            _InitFunction(table.make_condition)(area.address + runtime.CONDITION, None)
        return area


class Area:
    """Zeroed memory on a line's boundary."""

    __slots__ = ("_memory", "address")

    def __init__(self, size: int) -> None:
        self._memory = ctypes.create_string_buffer(size + _ALIGNMENT)
        self.address = -(-ctypes.addressof(self._memory) // _ALIGNMENT) * _ALIGNMENT

    def write(self, offset: int, value: int) -> None:
        """Write a 64-bit integer at `offset` bytes."""
        ctypes.c_int64.from_address(self.address + offset).value = value

    def read(self, offset: int) -> int:
        """Read a 64-bit integer at `offset` bytes."""
        return ctypes.c_int64.from_address(self.address + offset).value


class Pool:
    """Workers with one sync area. `size` counts the caller: a pool of size 1 has no workers."""

    def __init__(self, native: Runtime, most: int = config.MOST_THREADS) -> None:
        self.native = native
        self.most = most
        self.alive = True
        self._cores = host.cores()
        self._area = native.area(most - 1)
        self._workers: list[threading.Thread] = []
        self._joining = threading.Lock()
        self._wanted = 1

    @property
    def size(self) -> int:
        """Threads that a call can have, with the caller's own."""
        return len(self._workers) + 1

    @property
    def sync(self) -> int:
        """The address of the sync area."""
        return self._area.address

    def grow(self, threads: int) -> int:
        """Start workers until `threads` can work, or the system refuses; how many can."""
        threads = min(threads, self.most)
        if self.alive and self.size < threads:
            self._grow(threads)
        return min(threads, self.size)

    def _grow(self, threads: int) -> None:
        self._wanted = max(self._wanted, threads)
        for index in range(self.size, threads):
            worker = threading.Thread(target=self._work, name=f"lamina-worker-{index}", daemon=True)
            try:
                worker.start()
            except RuntimeError:  # the system has no more threads: fewer give the same results
                threads = index
                break
        deadline = time.monotonic() + _START_SECONDS
        while self.size < threads and time.monotonic() < deadline:
            time.sleep(1e-4)
        if self.size > self._cores:
            # Who spins here keeps the one from running for whom it waits.
            for place in (runtime.SPIN, runtime.IDLE):
                self._area.write(place, int(self.native.ticks_per_microsecond))

    def _work(self) -> None:
        """A worker's life. It counts itself in: Ctrl-C cannot come between, as it might outside."""
        with self._joining:
            if self.size >= self._wanted or not self.alive:
                return
            tid = self.size
            self._workers.append(threading.current_thread())
        self.native.work(self.sync, tid)

    def stop(self, seconds: float = _STOP_SECONDS) -> bool:
        """End the workers, unless a call is under way; whether they have ended."""
        with self._joining:
            self.alive = False
        if self._workers and self.native.stop(self.sync, self.size):
            deadline = time.monotonic() + seconds
            for worker in self._workers:
                worker.join(max(0.0, deadline - time.monotonic()))
        return not any(worker.is_alive() for worker in self._workers)


class Lease:
    """The right to run steps on `threads` threads, or on one while another call has the others."""

    __slots__ = ("_native", "_pool", "_threads")

    def __init__(self, native: Runtime, pool: Pool | None, threads: int) -> None:
        self._native = native
        self._pool = pool
        self._threads = 1 if pool is None else pool.grow(threads)

    @property
    def threads(self) -> int:
        """On how many threads `run` runs at most: the step needs memory for so many.

        A lease that a fork carried into a child has one.
        """
        return self._threads if self._pool is None or self._pool.alive else 1

    @property
    def sync(self) -> int:
        """The address of the sync area, for the step's arguments."""
        return self._native.single.address if self._pool is None else self._pool.sync

    def run(self, entry: int, args: int) -> int:
        """Call `void entry(ptr args, i64 tid, i64 threads)` on all threads; wait for all.

        entry, args    addresses; whoever calls keeps code and memory alive until the return
        returns        on how many threads it ran: `threads`, or 1 if another call had the others

        Ctrl-C during the call is handled after it, by the interpreter.
        """
        ran: int = self._native.run(self.sync, entry, args, self.threads)
        return ran

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held between calls; a `with` block shows how long the sync area is used."""


class _Process:
    """What this process has one of."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.native: Runtime | None = None
        self.pool: Pool | None = None
        self.ended = False


_process = _Process()


def native() -> Runtime:
    """The runtime module of this process, loaded at the first call."""
    if _process.native is None:
        with binding.lock():
            if _process.native is None:
                _process.native = Runtime()
    return _process.native


def usual_threads() -> int:
    """How many threads a call asks for when it does not say: the setting, or the cores.

    The cores are counted at most once a second: that reads files, and a small call is quicker.
    """
    return config.threads() or _cores_lately(int(time.monotonic()))


@functools.lru_cache(maxsize=1)
def _cores_lately(second: int) -> int:
    del second
    return host.cores()


def lease(threads: int | None = None) -> Lease:
    """Threads for one call: as many as asked for, or one where another call has the pool.

    threads   how many, with the caller's own; default: `usual_threads()`
    """
    module = native()
    wanted = usual_threads() if threads is None else threads
    if wanted < 2 or _process.ended:
        return Lease(module, None, 1)
    if _process.pool is None:
        with _process.lock:
            if _process.pool is None:
                _process.pool = Pool(module)
    return Lease(module, _process.pool, wanted)


def workers() -> int:
    """How many worker threads this process has."""
    return 0 if _process.pool is None else _process.pool.size - 1


def _end() -> None:
    """At the interpreter's end: the workers leave native code, if no call is under way."""
    _process.ended = True
    if _process.pool is not None:
        _process.pool.stop()


def _after_fork() -> None:
    """In the child: threads do not survive a fork, so it starts with no workers."""
    if _process.pool is not None:
        _process.pool.alive = False
    _process.pool = None
    _process.lock = threading.Lock()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
