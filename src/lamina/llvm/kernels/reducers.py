"""How a kind of reduction starts, takes a term, and joins partial results, lane by lane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lamina.llvm import maths
from lamina.llvm.emit import I32, REGISTER, Emit, Value, vector
from lamina.llvm.expression import KernelError
from lamina.types import FLOATS, UNSIGNED, numpy_dtype

State = tuple[Value, ...]


@dataclass(frozen=True)
class Reducer:
    """One result of a reduction: sum, prod, max, min, argmax or argmin of values of `dtype`.

    A state is a value, with its position behind it for argmax and argmin. The order in which
    states are joined decides the bits of float sums, so callers fix it by the shape alone.
    """

    kind: str
    dtype: str

    @property
    def positional(self) -> bool:
        return self.kind.startswith("arg")

    @property
    def inexact(self) -> bool:
        """Whether the order of terms shows in the result."""
        return self.dtype in FLOATS and self.kind in {"sum", "prod"}

    def identity(self) -> float:
        """The value that changes nothing."""
        match self.kind:
            case "sum":
                return 0
            case "prod":
                return 1
            case "max" | "argmax":
                return self._limit(-math.inf, highest=False)
            case "min" | "argmin":
                return self._limit(math.inf, highest=True)
            case _:
                raise KernelError(f"unknown kind of reduction {self.kind!r}")

    def _limit(self, real: float, *, highest: bool) -> float:
        if self.dtype in FLOATS:
            return real
        if self.dtype == "bool":
            return int(highest)
        info = np.iinfo(numpy_dtype(self.dtype))
        return int(info.max if highest else info.min)

    def start(self, emit: Emit, lanes: int) -> State:
        value = emit.value(self.identity(), vector(REGISTER[self.dtype], lanes))
        # Where every element equals the identity, the first of them is at position 0.
        return (value, emit.zeros(vector(I32, lanes))) if self.positional else (value,)

    def take(
        self, emit: Emit, state: State, value: Value, position: Value | None, mask: Value | None
    ) -> State:
        """The state with one more term in every lane of the mask."""
        if mask is not None:
            value = emit.select(mask, value, self.identity())
        if not self.positional:
            return (self._combine(emit, state[0], value),)
        assert position is not None
        old = state[0]
        if self.dtype in FLOATS:
            kept = old.compare("", "oge" if self.kind == "argmax" else "ole", value)
            better = ~(kept | old.is_nan())
        else:
            better = self._beats(value, old)
        return emit.select(better, value, old), emit.select(better, position, state[1])

    def _beats(self, value: Value, old: Value) -> Value:
        unsigned = self.dtype in UNSIGNED or self.dtype == "bool"
        names = ("ugt", "ult") if unsigned else ("sgt", "slt")
        if self.kind.endswith("max"):
            return value.compare(names[0], "ogt", old)
        return value.compare(names[1], "olt", old)

    def _combine(self, emit: Emit, a: Value, b: Value) -> Value:
        fn = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}[self.kind]
        dtype = "float32" if self.dtype in maths.NARROW else self.dtype
        return maths.apply(emit, fn, [a, b], [dtype, dtype], dtype)

    def join(self, emit: Emit, a: State, b: State) -> State:
        """Both states as one; on a tie the lower position."""
        if not self.positional:
            return (self._combine(emit, a[0], b[0]),)
        better = self._beats(b[0], a[0])
        tie = b[0].equal(a[0])
        if self.dtype in FLOATS:
            better = better | (b[0].is_nan() & ~a[0].is_nan())
            tie = tie | (b[0].is_nan() & a[0].is_nan())
        better = better | (tie & (b[1] < a[1]))
        return emit.select(better, b[0], a[0]), emit.select(better, b[1], a[1])

    def across(self, emit: Emit, state: State) -> State:
        """All lanes as one, the lower half with the upper half until one is left."""
        while state[0].lanes > 1:
            half = state[0].lanes // 2
            low = tuple(emit.shuffle(v, v, range(half)) for v in state)
            high = tuple(emit.shuffle(v, v, range(half, 2 * half)) for v in state)
            state = self.join(emit, low, high)
        return state

    def result(self, emit: Emit, state: State, dtype: str) -> Value:
        """The value that `Core` stands for, in the register form of its dtype."""
        if self.positional:
            return maths.convert(emit, state[1], "int32", dtype)
        value = state[0]
        if self.dtype in maths.NARROW and self.kind in {"sum", "prod"}:
            value = maths.quantised(emit, value, self.dtype)
        return maths.convert(emit, value, self.dtype, dtype)


def flatten(states: Sequence[State]) -> list[Value]:
    """States as the values that a loop carries."""
    return [value for state in states for value in state]


def unflatten(values: Sequence[Value], reducers: Sequence[Reducer]) -> list[State]:
    """The reverse of `flatten`, for states of these reducers, over and over."""
    states: list[State] = []
    rest = list(values)
    while rest:
        for reducer in reducers:
            size = 2 if reducer.positional else 1
            states.append(tuple(rest[:size]))
            rest = rest[size:]
    return states
