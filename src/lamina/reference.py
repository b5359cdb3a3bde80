"""The reference executor: a plain NumPy interpreter, the oracle for every other executor."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from lamina.executor import Array, Executable
from lamina.ir.interpret import Schedule, resolved
from lamina.ir.program import Program
from lamina.types import static_shape

# A program is resolved once for each number of rows it meets; so many are kept.
KEPT = 8


class ReferenceExecutable(Executable):
    """A program run by NumPy, node by node, in the dtype of each node."""

    def __init__(self, program: Program, capacity: int) -> None:
        super().__init__(program, capacity)
        self._schedules: OrderedDict[int, Schedule] = OrderedDict()

    def _schedule(self, rows: int) -> Schedule:
        schedule = self._schedules.get(rows)
        if schedule is None:
            feeds = [*self.program.inputs, *self.program.states]
            nodes = resolved([*self.program.roots, *feeds], rows)
            count = len(self.program.roots)
            schedule = Schedule(nodes[:count], nodes[count:])
            self._schedules[rows] = schedule
            while len(self._schedules) > KEPT:
                self._schedules.popitem(last=False)
        else:
            self._schedules.move_to_end(rows)
        return schedule

    def __call__(self, inputs: Sequence[Array], states: Sequence[Array]) -> list[Array]:
        arrays, rows = self.checked(inputs, states)
        values = self._schedule(rows)([*arrays, *states])
        count = len(self.program.outputs)
        # Outputs are copied before states change: they may be views of them.
        outputs = [
            np.array(value).reshape(static_shape(node.shape, rows))
            for value, node in zip(values[:count], self.program.outputs, strict=True)
        ]
        fresh = iter([np.array(value) for value in values[count:]])
        for state, update in zip(states, self.program.updates, strict=True):
            if update is not None:
                state[...] = next(fresh)
        return outputs


def compile_reference(program: Program, capacity: int) -> Executable:
    """The program as a callable that NumPy runs; `capacity` bounds the rows of one call."""
    return ReferenceExecutable(program, capacity)
