"""A lock that many readers share and one writer holds alone, in the order of arrival."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


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

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        self._enter(writes=False)
        try:
            yield
        finally:
            self._leave(writes=False)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock alone."""
        self._enter(writes=True)
        try:
            yield
        finally:
            self._leave(writes=True)
