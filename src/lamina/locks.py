"""Locks that belong to the process, and that a fork neither loses nor leaves locked."""

from __future__ import annotations

import os
import threading


def process_lock() -> threading.RLock:
    """A lock for what a module has one of; made once, on import.

    A fork waits until it is free, so that a child never inherits it from a thread that is not
    there any more, nor what it guards half done. It is re-entrant, because a finaliser that the
    garbage collector runs inside of it may need it again.
    """
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )
    return lock
