"""Variables: state that lives across steps, in one buffer each."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from lamina.errors import ShapeError, layout
from lamina.ir.graph import Node, current_scope
from lamina.tensor import values
from lamina.tensor.tensor import Operators, Tensor, as_dtype, cast, convert
from lamina.types import FLOATS, Shape, dtype_name, numpy_dtype

_autocast: ContextVar[str | None] = ContextVar("lamina_autocast", default=None)


@contextlib.contextmanager
def autocast(dtype: str | None) -> Iterator[None]:
    """Floating-point variables read as `dtype` inside (mixed precision); None: as they are."""
    token = _autocast.set(dtype)
    try:
        yield
    finally:
        _autocast.reset(token)


class Variable(Operators):
    """A value that is assigned to: a weight, an optimiser slot, a counter, a random key.

    initializer  an array, a number, or a function (shape, dtype) -> array
    shape        needed with a function; otherwise the shape of the value
    dtype        default: the dtype of an array, `config.floatx()` otherwise
    trainable    whether optimisers change it

    Outside a trace, reading takes the value at that moment. Inside a trace, reading gives what the
    step has assigned so far, and `assign` records the value that the step leaves behind. The buffer
    is one array for life, which compiled steps update in place.
    """

    __hash__ = object.__hash__

    def __init__(
        self,
        initializer: Any,
        shape: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        aggregation: str = "none",
        synchronization: str = "auto",
        name: str | None = None,
    ) -> None:
        self.name = name or "variable"
        scope = current_scope()
        self.path = f"{scope}/{self.name}" if scope else self.name
        self.trainable = self.born_trainable = bool(trainable)
        self.autocast = autocast
        self.aggregation = aggregation
        self.synchronization = synchronization
        self.regularizer: Callable[[Any], Any] | None = None
        self.constraint: Callable[[Any], Any] | None = None
        self._leaf: weakref.ref[Node] | None = None
        with values.outside_trace():
            self.buffer = _initial(initializer, shape, dtype, self.path)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.buffer.shape

    @property
    def dtype(self) -> str:
        return dtype_name(self.buffer.dtype)

    @property
    def ndim(self) -> int:
        return self.buffer.ndim

    @property
    def size(self) -> int:
        return self.buffer.size

    @property
    def node(self) -> Node:
        """The node that stands for the value now, without autocast."""
        trace = values.active_trace.get()
        if trace is not None:
            return trace.read(self)
        return self._snapshot()

    def _snapshot(self) -> Node:
        """The node of a copy of the buffer; the same node while the buffer stays the same."""
        known = self._leaf() if self._leaf is not None else None
        if known is not None:
            value = values.known_value(known)
            if value is not None and _same_bits(value, self.buffer):
                return known
        node = values.leaf(self.buffer.copy(), self.path)
        self._leaf = weakref.ref(node)
        return node

    @property
    def value(self) -> Tensor:
        """The value as a tensor, in the dtype of `autocast` where that is in force."""
        tensor = Tensor(self.node)
        wanted = _autocast.get()
        if wanted is None or not self.autocast or self.dtype not in FLOATS:
            return tensor
        return cast(tensor, wanted)

    def numpy(self) -> np.ndarray:
        """A copy of the value.

        raises   TraceError inside a trace
        """
        if values.is_tracing():
            return Tensor(self.node).numpy()
        return self.buffer.copy()

    def assign(self, value: Any) -> Tensor:
        """Set the value; the shape must be the variable's own.

        raises   ShapeError if the shape differs
        """
        tensor = convert(value, self.dtype)
        if tensor.shape != self.shape:
            raise ShapeError(
                layout(
                    f"{self.path}: a value of another shape cannot be assigned.",
                    [("variable", f"{self.dtype} {self.shape}"), ("given", str(tensor.node.type))],
                )
            )
        trace = values.active_trace.get()
        if trace is not None:
            trace.write(self, tensor.node)
        else:
            self.buffer[...] = tensor._value()
        return tensor

    def assign_add(self, value: Any) -> Tensor:
        return self.assign(Tensor(self.node) + value)

    def assign_sub(self, value: Any) -> Tensor:
        return self.assign(Tensor(self.node) - value)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<lamina.Variable {self.path} {self.dtype} {self.shape}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_leaf": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, buffer=aligned(state["buffer"]))

    def __deepcopy__(self, memo: dict[int, Any]) -> Variable:
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(self.__dict__, _leaf=None, buffer=aligned(self.buffer))
        return twin


def _initial(initializer: Any, shape: Any, dtype: Any, path: str) -> np.ndarray:
    if callable(initializer) and not isinstance(initializer, (Tensor, Variable)):
        if shape is None:
            raise ShapeError(f"{path}: an initializer needs the shape of the variable")
        wanted: Shape = tuple(int(size) for size in shape)
        name = as_dtype(dtype)
        given = convert(initializer(wanted, dtype=name), name)
    else:
        keep = hasattr(initializer, "dtype") or isinstance(initializer, (bool, int))
        given = convert(initializer, dtype if dtype is not None or keep else as_dtype(None))
        wanted = given.shape if shape is None else tuple(int(size) for size in shape)
    if given.shape != wanted:
        raise ShapeError(f"{path}: the initial value has shape {given.shape}, expected {wanted}")
    value = given._value()
    return aligned(np.asarray(value, dtype=numpy_dtype(given.dtype)))


def aligned(array: np.ndarray) -> np.ndarray:
    """A contiguous copy that begins at a cache line.

    NumPy's own arrays begin 16 bytes behind one; every vector that a kernel loads from them then
    lies on two lines, and products run at little more than half their speed.
    """
    area = np.empty(array.nbytes + 64, np.uint8)
    start = -area.ctypes.data % 64
    copy = area[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind in "biu":
        return bool(np.array_equal(one, other))
    flat = np.ascontiguousarray(one).reshape(-1).view(np.uint8)
    return bool(np.array_equal(flat, other.reshape(-1).view(np.uint8)))
