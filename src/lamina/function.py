"""`lamina.function`: a Python function over tensors, compiled once for each kind of arguments."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from lamina import tree
from lamina.executor import Executable
from lamina.tensor import values
from lamina.tensor.tensor import Tensor, convert
from lamina.tensor.variable import Variable
from lamina.trace import Traced, executor_for, trace
from lamina.types import Type

KEPT = 32


class CompiledFunction:
    """A function that is traced and compiled for each signature of its arguments.

    Tensors and arrays (also inside lists, tuples and dicts) are inputs: another shape or dtype
    compiles anew, another value does not. Everything else (numbers, strings, None) is part of the
    signature. Variables that the function reads or assigns are state. Inside a trace, or on
    symbolic tensors, the plain function runs.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self._known: OrderedDict[Any, tuple[Traced, Executable]] = OrderedDict()
        self._lock = threading.RLock()

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self if owner is None else functools.partial(self, owner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if values.is_tracing():
            return self.function(*args, **kwargs)
        leaves = tree.flatten([args, kwargs])
        inputs = [index for index, leaf in enumerate(leaves) if _is_array(leaf)]
        tensors = [convert(leaves[index]) for index in inputs]
        signature = self._signature(args, kwargs, leaves, inputs, tensors)
        with self._lock:
            if signature not in self._known:
                self._known[signature] = self._compile(args, kwargs, leaves, inputs, tensors)
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(signature)
            traced, executable = self._known[signature]
        arrays = [tensor._value() for tensor in tensors]
        alone = any(update is not None for update in traced.program.updates)
        with self._lock if alone else contextlib.nullcontext():
            outputs = executable(arrays, traced.states())
        return traced.unflatten([Tensor(values.leaf(output)) for output in outputs])

    def _signature(
        self, args: Any, kwargs: Any, leaves: list[Any], inputs: list[int], tensors: list[Tensor]
    ) -> Any:
        kinds: list[Any] = [
            leaf if _is_hashable(leaf) else id(leaf) for leaf in map(_with_type, leaves)
        ]
        for index, tensor in zip(inputs, tensors, strict=True):
            kinds[index] = tensor.node.type
        paths = tuple(path for path, _ in tree.flatten_with_path([args, kwargs]))
        return paths, tuple(kinds)

    def _compile(
        self, args: Any, kwargs: Any, leaves: list[Any], inputs: list[int], tensors: list[Tensor]
    ) -> tuple[Traced, Executable]:
        def body(*given: Tensor) -> Any:
            filled = list(leaves)
            for index, tensor in zip(inputs, given, strict=True):
                filled[index] = tensor
            inner_args, inner_kwargs = tree.pack([args, kwargs], filled)
            return self.function(*inner_args, **inner_kwargs)

        types = [Type(tensor.shape, tensor.dtype) for tensor in tensors]
        traced = trace(body, *types)
        return traced, executor_for(traced.program, capacity=1)


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, Variable):
        return False
    return isinstance(leaf, Tensor) or (hasattr(leaf, "__array__") and hasattr(leaf, "dtype"))


def _with_type(leaf: Any) -> Any:
    """1, 1.0 and True are equal, but not the same argument."""
    return (type(leaf), leaf)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def function(function: Callable[..., Any]) -> CompiledFunction:
    """Compile a function of tensors: traced and compiled at the first call of each signature.

    >>> from lamina import config
    >>> @function
    ... def double(x):
    ...     return x + x
    >>> with config.override(executor="reference"):
    ...     double(convert([1.0, 2.0])).numpy().tolist()
    [2.0, 4.0]
    """
    return CompiledFunction(function)
