"""One pass over data with a compiled step: as many steps a native call as callbacks allow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lamina import tree
from lamina.data import ArraySource, BatchSource, Source
from lamina.data.batches import RAN_OUT
from lamina.tensor import recording
from lamina.training.locks import Held, ReadWriteLock
from lamina.training.steps import CompiledStep, as_given, rounded_capacity, tensors_of
from lamina.training.trainer import pythonic
from lamina.types import numpy_dtype, static_shape


def _ignore(*_: Any) -> None:
    """What happens where nobody listens."""


@dataclass
class Hooks:
    """What is called around steps: `begin(batch)`, `end(batch, result)`, `done(batch, result)`.

    each      begin and end are wanted for every step (or every `every` steps)
    every     the number of steps between two calls of them
    done      called after each native call, with the number of the last finished step
    stopped   asked after each native call
    """

    each: bool = False
    every: int = 1
    begin: Callable[[int], None] = _ignore
    end: Callable[[int, Any], None] = _ignore
    done: Callable[[int, Any], None] = _ignore
    stopped: Callable[[], bool] = bool


@dataclass
class Pass:
    """The passes of one run over its data: one step function, one source.

    model      whose step it is
    kind       "train", "test" or "predict"
    source     the data
    stop_nan   stop after a step whose loss is not finite
    """

    model: Any
    kind: str
    source: Source
    stop_nan: bool = False
    _order: np.ndarray | None = None
    _cursor: int = 0
    _started: bool = field(default=False)

    @property
    def step_function(self) -> Callable[[Any], Any]:
        function: Callable[[Any], Any] = getattr(self.model, f"{self.kind}_step")
        return function

    def compiled(self, template: Any, capacity: int, rows: int) -> CompiledStep:
        """The compiled step for data like `template`."""
        step: CompiledStep = self.model._steps.step(
            self.model._step_signature(self.kind), self.step_function, template, capacity, rows
        )
        return step

    def held(self, step: CompiledStep) -> Held:
        """Keep other threads off the states for one native call, or share them where it reads."""
        lock: ReadWriteLock = self.model._state_lock
        return lock.writing() if step.writes else lock.reading()

    def epoch(self, hooks: Hooks) -> Any:
        """Run the steps of one epoch; gives what the last step returned, None without a step."""
        if isinstance(self.source, ArraySource) and not self.model.run_eagerly:
            return self._array_epoch(self.source, hooks)
        return self.one_by_one(hooks)

    def one_by_one(self, hooks: Hooks) -> Any:
        """Run the steps of one epoch batch by batch, whatever the data is."""
        return self._one_by_one(self._batches(), hooks)

    # --------------------------------------------------------------- arrays in memory

    def _array_epoch(self, source: ArraySource, hooks: Hooks) -> Any:
        if not self._started or source.requested_steps is None or self._cursor >= source.batches:
            self._order = source.order()
            self._cursor = 0
            self._started = True
        last = self._cursor + source.steps
        if last > source.batches:
            warnings.warn(RAN_OUT, stacklevel=2)
            last = source.batches
        first = self._cursor
        rows = min(source.batch_size, source.rows)
        step = self.compiled(source.template, rows, rows)
        if step.exact is not None:
            return self._one_by_one(self._exact_batches(source, first, last), hooks)
        return self._native_steps(step, source, first, last, hooks)

    def _native_steps(
        self,
        step: CompiledStep,
        source: ArraySource,
        first: int,
        last: int,
        hooks: Hooks,
    ) -> Any:
        offset = first
        data = [leaf for leaf in source.leaves if leaf is not None]
        outputs = [
            np.zeros(static_shape(type.shape, source.rows), numpy_dtype(type.dtype))
            for type in step.output_types
        ]
        stop_on = None
        if self.stop_nan and self.model._loss_tracker is not None:
            stop_on = step.place_of(self.model._loss_tracker.variables[0])
        result: Any = None
        while first < last:
            if hooks.each:
                hooks.begin(first - offset)
            until = min(last, first + hooks.every) if hooks.each else last
            while first < until:
                with self.held(step):
                    finished = step.executable.steps(
                        data,
                        step.traced.states(),
                        batch_size=source.batch_size,
                        order=self._order,
                        first=first,
                        last=until,
                        outputs=outputs,
                        stop_on=stop_on,
                    )
                first += finished
                self._cursor = first
                result = step.results(outputs)
                hooks.done(first - 1 - offset, result)
                if hooks.stopped():
                    break
            if hooks.each:
                hooks.end(first - 1 - offset, result)
            if hooks.stopped():
                break
        return result

    def _exact_batches(self, source: ArraySource, first: int, last: int) -> Iterator[Any]:
        for number in range(first, last):
            yield gathered(source, self._order, number)
            self._cursor = number + 1

    # --------------------------------------------------------------------- batches

    def _batches(self) -> Iterator[Any]:
        if isinstance(self.source, BatchSource):
            yield from self.source.epoch()
            return
        order = self.source.order()
        for number in range(min(self.source.steps, self.source.batches)):
            yield gathered(self.source, order, number)

    def _one_by_one(self, batches: Iterator[Any], hooks: Hooks) -> Any:
        """Steps on batches that come singly; begin and end stand around every `every` of them."""
        result: Any = None
        open_since: int | None = None
        number = -1
        for number, batch in enumerate(batches):
            if hooks.each and open_since is None:
                hooks.begin(number)
                open_since = number
            result = self.on_batch(batch)
            hooks.done(number, result)
            if open_since is not None and number + 1 - open_since >= hooks.every:
                hooks.end(number, result)
                open_since = None
            if hooks.stopped():
                break
        if open_since is not None:
            hooks.end(number, result)
        return result

    def on_batch(self, batch: Any) -> Any:
        """What the step gives for one batch of nested arrays."""
        if self.model.run_eagerly:
            with recording():
                returned = self.step_function(as_given(tensors_of(batch)))
                return tree.map_structure(
                    lambda leaf: np.asarray(leaf) if hasattr(leaf, "node") else leaf, returned
                )
        leaves = tree.flatten(batch)
        rows = next(len(leaf) for leaf in leaves if leaf is not None)
        step = self.compiled(batch, rounded_capacity(rows), rows)
        with self.held(step):
            return step.results(step.call(leaves))


def gathered(source: ArraySource, order: np.ndarray | None, number: int) -> Any:
    """Batch `number` of the source's arrays in this order."""
    start = number * source.batch_size
    stop = min(start + source.batch_size, source.rows)
    rows: Any = slice(start, stop) if order is None else order[start:stop]
    return tree.map_structure(lambda leaf: None if leaf is None else leaf[rows], source.template)


def logs_of(result: Any) -> dict[str, Any]:
    """The logs that a step returned, as callbacks get them."""
    return {} if result is None else pythonic(result)
