"""Step programs: `train_step` and its like, traced once and compiled for a batch capacity.

A step is compiled for a nesting of data, the shapes and types of one row, a capacity, and which
layers are trainable. Nothing else recompiles it: not a learning rate, an epoch or a short batch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina import config, tree
from lamina.errors import BatchError
from lamina.executor import Executable
from lamina.tensor import Variable, cast, convert
from lamina.trace import Traced, executor_for, trace
from lamina.types import FLOATS, Batch, Type

KEPT = 32
SMALLEST_CAPACITY = 32


def rounded_capacity(rows: int) -> int:
    """The capacity that is compiled for so many rows: powers of two from 32.

    >>> rounded_capacity(5), rounded_capacity(33)
    (32, 64)
    """
    return max(SMALLEST_CAPACITY, 1 << (rows - 1).bit_length())


def row_types(template: Any) -> Any:
    """The types of a nesting of arrays with the first axis as the run-time batch; None stays."""
    return tree.map_structure(
        lambda leaf: None if leaf is None else Type((Batch(1), *leaf.shape[1:]), str(leaf.dtype)),
        template,
    )


def in_floatx(data: Any) -> Any:
    """Floating-point tensors of data in the default dtype, as in Keras; others as they are."""

    def converted(leaf: Any) -> Any:
        if leaf is None or leaf.dtype not in FLOATS or leaf.dtype == config.floatx():
            return leaf
        return cast(leaf, config.floatx())

    return tree.map_structure(converted, data)


@dataclass
class CompiledStep:
    """A traced step and its machine code.

    traced       program, variables and the structure of what the step returned
    executable   compiled for `capacity` rows
    exact        None where any number of rows up to the capacity runs; else the only number
    writes       whether the step changes a variable
    by_row       whether each output has one row for each row of the batch
    """

    traced: Traced
    executable: Executable
    capacity: int
    exact: int | None

    def __post_init__(self) -> None:
        program = self.traced.program
        self.writes = any(update is not None for update in program.updates)
        self.output_types: list[Type] = [node.type for node in program.outputs]
        self.by_row = all(type.shape[:1] == (Batch(1),) for type in self.output_types)

    def call(self, leaves: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """One step on these rows; updates the variables and gives the outputs."""
        inputs = [leaf for leaf in leaves if leaf is not None]
        return self.executable(inputs, self.traced.states())

    def place_of(self, variable: Variable) -> int | None:
        """The position of a variable among the states."""
        for place, known in enumerate(self.traced.variables):
            if known is variable:
                return place
        return None

    def results(self, outputs: Sequence[np.ndarray]) -> Any:
        """What the step returned, with arrays in place of tensors."""
        return self.traced.unflatten(outputs)


class StepCache:
    """The compiled steps of one model, the least recently used given up beyond 32."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, CompiledStep] = OrderedDict()
        self._traces: OrderedDict[Any, Traced] = OrderedDict()
        self._need_rows: set[Any] = set()
        self._lock = threading.RLock()
        self.compiled = 0
        self.structure: Any = None  # the layers and weights of a model that does not change

    def clear(self) -> None:
        """Forget every step, as after `compile` or when layers were added."""
        with self._lock:
            self._known.clear()
            self._traces.clear()
            self._need_rows.clear()
            self.structure = None

    def step(
        self,
        signature: Any,
        function: Callable[[Any], Any],
        template: Any,
        capacity: int,
        rows: int,
    ) -> CompiledStep:
        """The compiled step for this data, made where it is not known.

        signature   what the step depends on besides the data: its kind, what is trainable
        function    takes the nested tensors
        template    (x,), (x, y) or (x, y, sample_weight), nested arrays, of which the shapes of
                    a row and the types matter
        capacity    rows a step may hold
        rows        rows that it shall hold now, used where a step needs the exact number
        """
        leaves = tree.flatten(template)
        kinds = tuple([None if leaf is None else (leaf.shape[1:], leaf.dtype) for leaf in leaves])
        data = (signature, tree.skeleton(template), kinds, config.floatx(), config.executor())
        with self._lock:
            exact = rows if data in self._need_rows else None
            key = (data, capacity if exact is None else ("exactly", rows))
            found = self._known.get(key)
            if found is None:
                found = self._make(data, function, row_types(template), capacity, rows)
                key = (data, capacity if found.exact is None else ("exactly", rows))
                self._known[key] = found
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return found

    def _make(
        self, data: Any, function: Callable[[Any], Any], types: Any, capacity: int, rows: int
    ) -> CompiledStep:
        def body(*parts: Any) -> Any:
            return function(as_given(in_floatx(parts)))

        labels = ["x", "y", "sample_weight"]

        if data not in self._need_rows:
            try:
                traced = self._traces.get(data)
                if traced is None:
                    traced = trace(body, *types, labels=labels[: len(types)])
                executable = executor_for(traced.program, capacity)
            except BatchError:
                self._need_rows.add(data)
            else:
                self._traces[data] = traced
                while len(self._traces) > KEPT:
                    self._traces.popitem(last=False)
                self.compiled += 1
                return CompiledStep(traced, executable, capacity, None)
        traced = trace(body, *types, labels=labels[: len(types)], rows=rows)
        self.compiled += 1
        return CompiledStep(traced, executor_for(traced.program, rows), rows, rows)


def as_given(parts: Any) -> Any:
    """What a step gets: (x, y), (x, y, sample_weight), or x itself where it stands alone.

    As in Keras, a list or tuple of inputs alone stays in a tuple: (x,).
    """
    alone = len(parts) == 1 and not isinstance(parts[0], (list, tuple))
    return parts[0] if alone else parts


def tensors_of(template: Any) -> Any:
    """The nested arrays as tensors, for a step that runs eagerly."""
    return in_floatx(
        tree.map_structure(lambda leaf: None if leaf is None else convert(leaf), template)
    )
