"""A lock that many readers share and one writer holds alone, in the order of arrival."""

from __future__ import annotations

import threading
from collections import deque


class ReadWriteLock:
    """Readers of a model run together; a writer waits for them and excludes them.

    Whoever asks waits behind those who asked before, so that a training loop, which takes the lock
    again at once, lets predictions in between its native calls. One thread never asks twice.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[tuple[bool, threading.Event]] = deque()
        self._readers = 0
        self._writing = False

    def _enter(self, *, writes: bool) -> None:
        with self._guard:
            if not self._waiting and self._free_for(writes):
                self._take(writes)
                return
            turn = threading.Event()
            self._waiting.append((writes, turn))
        try:
            turn.wait()
        except BaseException:  # an interrupt while waiting leaves the queue as if never joined
            with self._guard:
                if turn.is_set():
                    self._leave_locked(writes)
                else:
                    self._waiting.remove((writes, turn))
                    self._admit()
            raise

    def _free_for(self, writes: bool) -> bool:
        return not self._writing and (not writes or self._readers == 0)

    def _take(self, writes: bool) -> None:
        if writes:
            self._writing = True
        else:
            self._readers += 1

    def _admit(self) -> None:
        while self._waiting and self._free_for(self._waiting[0][0]):
            writes, turn = self._waiting.popleft()
            self._take(writes)
            turn.set()

    def _leave_locked(self, writes: bool) -> None:
        if writes:
            self._writing = False
        else:
            self._readers -= 1
        self._admit()

    def _leave(self, *, writes: bool) -> None:
        with self._guard:
            self._leave_locked(writes)

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
        self._lock._enter(writes=self._writes)

    def __exit__(self, *exception: object) -> None:
        self._lock._leave(writes=self._writes)
