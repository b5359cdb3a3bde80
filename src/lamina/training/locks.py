"""A lock that many readers share and one writer holds alone, in the order of arrival."""

from __future__ import annotations

import threading
from collections import deque

_LOOK_SECONDS = 0.1  # how often one who waits looks whether a turn was lost


class _Turn:
    """One thread's place in the queue; `closed` is locked until its turn has come.

    A bare lock, because an interrupt inside `threading.Event.wait` ends in a RuntimeError: its
    condition gives a lock back twice.
    """

    __slots__ = ("closed", "thread", "writes")

    def __init__(self, thread: int, *, writes: bool) -> None:
        self.thread = thread
        self.writes = writes
        self.closed = threading.Lock()
        self.closed.acquire()

    def open(self) -> None:
        """Wake the thread; its guard is held, and an interrupted thread may have opened it."""
        if self.closed.locked():
            self.closed.release()


class ReadWriteLock:
    """Readers of a model run together; a writer waits for them and excludes them.

    Whoever asks waits behind those who asked before, so that a training loop, which takes the lock
    again at once, lets predictions in between its native calls. One thread never asks twice.

    An interrupt (Ctrl-C) may strike between any two instructions in here, also where the lock is
    given back. So all that counts is who holds it: a thread that asks while it is still in the list
    has lost its turn to an interrupt, and who waits looks again from time to time.
    """

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._waiting: deque[_Turn] = deque()
        self._holders: dict[int, bool] = {}  # thread -> whether it writes

    def _enter(self, *, writes: bool) -> None:
        thread = threading.get_ident()
        with self._guard:
            self._holders.pop(thread, None)
            if not self._waiting and self._free_for(writes):
                self._holders[thread] = writes
                return
            turn = _Turn(thread, writes=writes)
            self._waiting.append(turn)
            self._admit()
        while not turn.closed.acquire(timeout=_LOOK_SECONDS):
            with self._guard:
                self._admit()

    def _free_for(self, writes: bool) -> bool:
        return not self._holders or not (writes or any(self._holders.values()))

    def _admit(self) -> None:
        """Let in who waits longest, as far as that is possible."""
        while self._waiting:
            turn = self._waiting[0]
            if turn.thread not in self._holders:
                if not self._free_for(turn.writes):
                    return
                self._holders[turn.thread] = turn.writes
            turn.open()
            self._waiting.popleft()

    def _leave(self) -> None:
        thread = threading.get_ident()
        with self._guard:
            self._holders.pop(thread, None)
            if self._waiting:
                # Interrupted while it waited, the thread stands there itself.
                self._waiting = deque(turn for turn in self._waiting if turn.thread != thread)
                self._admit()

    def reading(self) -> Held:
        """A `with` block that holds the lock together with other readers."""
        return Held(self, writes=False)

    def writing(self) -> Held:
        """A `with` block that holds the lock alone."""
        return Held(self, writes=True)


class Held:
    """The lock for the length of a `with` block."""

    __slots__ = ("_lock", "_writes")

    def __init__(self, lock: ReadWriteLock, *, writes: bool) -> None:
        self._lock, self._writes = lock, writes

    def __enter__(self) -> None:
        try:
            self._lock._enter(writes=self._writes)
        except BaseException:  # an interrupt, before or behind the turn
            self._lock._leave()
            raise

    def __exit__(self, *exception: object) -> None:
        self._lock._leave()
