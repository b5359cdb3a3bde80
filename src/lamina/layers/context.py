"""The call in progress: whether it trains, and which losses belong to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CallContext:
    """What a call tells the calls inside it.

    training   what the outermost call was told, None where nobody said
    entry      the outermost layer
    """

    training: bool | None
    entry: Any


_current: ContextVar[CallContext | None] = ContextVar("lamina_call", default=None)


def current() -> CallContext | None:
    """The call in progress in this thread, if there is one."""
    return _current.get()


@contextlib.contextmanager
def calling(layer: Any, training: bool | None) -> Iterator[CallContext]:
    """Inside a call of `layer`; nested calls inherit `training` from it."""
    outer = _current.get()
    context = CallContext(training, layer if outer is None else outer.entry)
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
