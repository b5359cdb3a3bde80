"""What every executor gives: a program as a callable that updates states in place."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from lamina.errors import IndexRangeError, ShapeError, layout
from lamina.ir.program import Program
from lamina.transform.limits import index_limits
from lamina.types import Batch, Type, numpy_dtype, static_shape

Array = np.ndarray
# `steps` may return after about this many seconds, so that Ctrl-C and callbacks get their turn.
SLICE = 0.1


class Executable(ABC):
    """A compiled program.

    program    what it computes
    capacity   the largest number of rows it takes in one call
    """

    program: Program
    capacity: int

    def __init__(self, program: Program, capacity: int) -> None:
        self.program = program
        self.capacity = capacity
        self._limits = {
            position: limit
            for position, limit in enumerate(map(index_limits(program).get, program.inputs))
            if limit is not None
        }

    @abstractmethod
    def __call__(self, inputs: Sequence[Array], states: Sequence[Array]) -> list[Array]:
        """The outputs; states are updated in place, and left alone if anything goes wrong.

        inputs   one array per input; the number of rows is read off those with a batch axis
        states   one writable array per state
        raises   ShapeError for an array that does not fit, IndexRangeError for an index that
                 lies outside its table
        """

    def steps(
        self,
        data: Sequence[Array],
        states: Sequence[Array],
        *,
        batch_size: int,
        order: Array | None = None,
        first: int = 0,
        last: int | None = None,
        outputs: Sequence[Array] | None = None,
        stop_on: int | None = None,
    ) -> int:
        """Run the steps `first` to `last` (exclusive), and return how many were finished.

        data      one array per input. Of batch inputs all rows; step s takes the rows
                  `order[s * batch_size : (s + 1) * batch_size]` (None: in place). Other inputs
                  are passed whole.
        outputs   one array per output: those with a batch axis receive the rows of each step,
                  the others are overwritten by each step
        stop_on   a float scalar state: stop after the step that made it non-finite

        May return early, after about 0.1 seconds: the caller goes on from there.
        """
        rows = self.rows_in(data) if order is None else len(order)
        end = -(-rows // batch_size) if last is None else last
        deadline = time.perf_counter() + SLICE
        done = 0
        for step in range(first, end):
            begin, stop = step * batch_size, min(rows, (step + 1) * batch_size)
            chosen = slice(begin, stop) if order is None else order[begin:stop]
            batch = [
                array if node.type.batch_axis is None else self._taken(array, node.type, chosen)
                for array, node in zip(data, self.program.inputs, strict=True)
            ]
            results = self(batch, states)
            self._deliver(results, outputs, begin, stop)
            done += 1
            if stop_on is not None and not np.isfinite(states[stop_on]):
                break
            if time.perf_counter() > deadline:
                break
        return done

    @staticmethod
    def _taken(array: Array, type: Type, chosen: slice | Array) -> Array:
        axis = type.batch_axis
        factor = next(size.factor for size in type.shape if isinstance(size, Batch))
        if axis == 0 and factor == 1:
            return array[chosen]
        if factor != 1:
            shape = (*array.shape[:axis], -1, factor, *array.shape[(axis or 0) + 1 :])
            picked = array.reshape(shape)[(slice(None),) * (axis or 0) + (chosen,)]
            return picked.reshape((*array.shape[:axis], -1, *array.shape[(axis or 0) + 1 :]))
        return array[(slice(None),) * (axis or 0) + (chosen,)]

    def _deliver(
        self, results: Sequence[Array], outputs: Sequence[Array] | None, begin: int, stop: int
    ) -> None:
        if outputs is None:
            return
        for node, value, target in zip(self.program.outputs, results, outputs, strict=True):
            axis = node.type.batch_axis
            if axis is None:
                target[...] = value
                continue
            factor = next(size.factor for size in node.shape if isinstance(size, Batch))
            rows = slice(begin * factor, stop * factor)
            target[(slice(None),) * axis + (rows,)] = value

    def rows_in(self, arrays: Sequence[Array]) -> int:
        """The number of rows in the arrays; 1 if no input has a batch axis."""
        found: dict[int, str] = {}
        for array, node in zip(arrays, self.program.inputs, strict=True):
            axis = node.type.batch_axis
            if axis is not None and array.ndim == node.type.rank:
                factor = next(size.factor for size in node.shape if isinstance(size, Batch))
                found.setdefault(array.shape[axis] // factor, getattr(node.op, "label", ""))
        if len(found) > 1:
            raise ShapeError(
                layout(
                    "the inputs hold different numbers of rows.",
                    [(label or "input", f"{count} rows") for count, label in found.items()],
                )
            )
        return next(iter(found), 1)

    def checked(self, inputs: Sequence[Array], states: Sequence[Array]) -> tuple[list[Array], int]:
        """The inputs as arrays of their types, and the number of rows, or an error that says why.

        Indexes are compared with the sizes of their tables here, before anything runs.
        """
        for what, arrays, nodes in (
            ("inputs", inputs, self.program.inputs),
            ("states", states, self.program.states),
        ):
            if len(arrays) != len(nodes):
                raise ShapeError(f"the program takes {len(nodes)} {what}, got {len(arrays)}.")
        converted = [
            np.asarray(array, numpy_dtype(node.dtype))
            for array, node in zip(inputs, self.program.inputs, strict=True)
        ]
        rows = self.rows_in(converted)
        if rows > self.capacity:
            raise ShapeError(f"{rows} rows were given to a program compiled for {self.capacity}.")
        pairs = (
            *zip(converted, self.program.inputs, strict=True),
            *zip(states, self.program.states, strict=True),
        )
        for position, (array, node) in enumerate(pairs):
            expected = static_shape(node.shape, rows)
            if array.shape != expected or array.dtype != numpy_dtype(node.dtype):
                label = getattr(node.op, "label", "") or f"array {position}"
                raise ShapeError(
                    layout(
                        f"{label}: does not fit what the program was traced for.",
                        [
                            ("expected", f"{node.type}"),
                            ("given", f"{array.dtype} {array.shape}"),
                        ],
                    )
                )
        for position, limit in self._limits.items():
            self.check_indexes(position, converted[position], limit)
        return converted, rows

    def check_indexes(self, position: int, array: Array, limit: int) -> None:
        """Raise IndexRangeError if an element of input `position` is not in [0, limit)."""
        bad = (array < 0) | (array >= limit)
        if not bad.any():
            return
        node = self.program.inputs[position]
        place = np.unravel_index(int(np.argmax(bad)), array.shape)
        axis = node.type.batch_axis
        row = f"row {place[axis]}" if axis is not None else f"place {tuple(map(int, place))}"
        label = getattr(node.op, "label", "") or f"input {position}"
        raise IndexRangeError(
            layout(
                f"{label}: {row} holds the index {array[place]}, outside its table of {limit}.",
                [("input", str(node.type)), ("allowed", f"0 to {limit - 1}")],
                hint="check the vocabulary size, or the number of classes",
            )
        )
