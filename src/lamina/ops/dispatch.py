"""How a public op meets symbolic tensors: they record the op instead of computing it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from lamina.errors import BatchError, ShapeError
from lamina.tensor import Tensor, is_symbolic
from lamina.types import Batch

F = TypeVar("F", bound=Callable[..., Any])

# Every public op by name, from which a saved functional model finds its ops again.
OPERATIONS: dict[str, Callable[..., Any]] = {}


def _symbolic(value: Any) -> Any:
    if type(value) is Tensor:
        return None
    if is_symbolic(value):
        return value
    if isinstance(value, (list, tuple)):
        return next((found for part in value if (found := _symbolic(part)) is not None), None)
    return None


def operation(function: F) -> F:
    """Make a function of tensors a public op, which symbolic tensors record when it meets one."""

    @functools.wraps(function)
    def public(*args: Any, **kwargs: Any) -> Any:
        for value in args:
            found = _symbolic(value)
            if found is not None:
                return found.__lamina_symbolic__(public, args, kwargs)
        for value in kwargs.values():
            found = _symbolic(value)
            if found is not None:
                return found.__lamina_symbolic__(public, args, kwargs)
        return function(*args, **kwargs)

    OPERATIONS[function.__name__] = public
    return public  # type: ignore[return-value]  # the same signature


def normal_axis(axis: Any, rank: int) -> int:
    """A possibly negative axis as one from 0 to rank - 1.

    raises   ShapeError outside
    """
    at = int(axis)
    if not -rank <= at < rank:
        raise ShapeError(f"axis {at} is out of range for a value with {rank} axes")
    return at % rank


def known_axis(x: Tensor, axis: Any, what: str) -> int:
    """An axis from 0 to rank - 1 that is not the run-time batch.

    raises   BatchError where it is: the caller traces again for a known number of rows
    """
    at = normal_axis(axis, x.ndim)
    if isinstance(x.shape[at], Batch):
        raise BatchError(
            f"{what}: axis {at} of {x.node.type} is the batch, whose rows are not known"
        )
    return at


def normal_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """None as all axes, one axis or several as a sorted tuple."""
    if axis is None:
        return tuple(range(rank))
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    return tuple(sorted({normal_axis(one, rank) for one in given}))
