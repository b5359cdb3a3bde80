"""predict: outputs for any number of rows, written where they belong."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lamina import tree
from lamina.data import ArraySource, Source
from lamina.training.runs import Hooks, Pass
from lamina.training.steps import CompiledStep, rounded_capacity
from lamina.types import numpy_dtype, static_shape


class Prediction:
    """One call of `predict`: a model, and the data whose outputs are wanted."""

    def __init__(self, model: Any, source: Source) -> None:
        self.model = model
        self.source = source
        self.run_pass = Pass(model, "predict", source)

    def run(self, hooks: Hooks) -> Any:
        """The outputs for all samples, nested like the outputs of the model."""
        source = self.source
        if isinstance(source, ArraySource) and not self.model.run_eagerly:
            rows = min(source.batch_size, source.rows)
            capacity = rounded_capacity(rows)
            step = self.run_pass.compiled(source.template, capacity, rows)
            if step.exact is None and step.by_row:
                return self._into_place(step, source, hooks)
        return self._joined(hooks)

    def _into_place(self, step: CompiledStep, source: ArraySource, hooks: Hooks) -> Any:
        data = [leaf for leaf in source.leaves if leaf is not None]
        last = min(source.steps, source.batches)
        total = min(last * source.batch_size, source.rows)
        outputs = [
            np.empty(static_shape(type.shape, total), numpy_dtype(type.dtype))
            for type in step.output_types
        ]
        first = 0
        while first < last:
            until = min(last, first + hooks.every) if hooks.each else last
            begun = first
            if hooks.each:
                hooks.begin(first)
            while first < until:
                with self.run_pass.held(step):
                    first += step.executable.steps(
                        data,
                        step.traced.states(),
                        batch_size=source.batch_size,
                        order=None,
                        first=first,
                        last=until,
                        outputs=outputs,
                    )
                hooks.done(first - 1, None)
                if hooks.stopped():
                    break
            if hooks.each:
                rows = slice(begun * source.batch_size, first * source.batch_size)
                hooks.end(first - 1, step.results([output[rows] for output in outputs]))
            if hooks.stopped():
                break
        if first < last:
            outputs = [output[: first * source.batch_size] for output in outputs]
        return step.results(outputs)

    def _joined(self, hooks: Hooks) -> Any:
        """Batch by batch, put together at the end: for batches that come one by one."""
        parts: list[Any] = []

        def keep(batch: int, result: Any) -> None:
            parts.append(result)
            hooks.done(batch, result)

        self.run_pass.one_by_one(dataclasses.replace(hooks, done=keep))
        if not parts:
            return None
        if len(parts) == 1:
            return parts[0]
        columns = zip(*(tree.flatten(part) for part in parts), strict=True)
        return tree.pack(parts[0], [_concatenated(column) for column in columns])


def _concatenated(column: tuple[Any, ...]) -> Any:
    if column[0] is None or np.ndim(column[0]) == 0:
        return column[-1]
    return np.concatenate([np.asarray(part) for part in column])
