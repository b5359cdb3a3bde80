"""The small inputs that every op carries: what the tests of each executor are driven from.

An op's `samples` are tuples of an op and one specification per input, such as
`"float32 (batch, 3)"`, `"int32 (4, 2)<7"` (integers in [0, 7)), `"float32 (5)>0"` (larger than 0)
or `"float32 (5)~1"` (in (-1, 1)). `batch` and `2*batch` stand for the run-time batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from lamina.ir import contractions, control, distinct, order, random, reductions
from lamina.ir.graph import Op
from lamina.types import FLOATS, Batch, Dimension, Type, numpy_dtype, static_shape

# Importing a module defines its ops: these reach all the others.
ROOMS = (contractions, control, distinct, order, random, reductions)
_SPECIFICATION = re.compile(r"(\w+) \(([^)]*)\)(?:([<>~])(.+))?")


def every_sample() -> Iterator[tuple[Op, tuple[str, ...]]]:
    """(op, specifications of its inputs) for all samples of all ops, in a fixed order."""
    for kind in sorted(_kinds(Op), key=lambda kind: (kind.__module__, kind.__name__)):
        for op, *specifications in kind.__dict__.get("samples", ()):
            yield op, tuple(specifications)


def _kinds(kind: type[Op]) -> Iterator[type[Op]]:
    for inner in kind.__subclasses__():
        # Ops that others define for themselves, in tests for instance, have samples of their own.
        if inner.__module__.startswith("lamina.ir."):
            yield inner
        yield from _kinds(inner)


def parse(specification: str) -> tuple[Type, str, float]:
    """The type, and the range as a sign ("<", ">", "~" or "") and a bound.

    >>> parse("int32 (2*batch, 3)<7")
    (Type(shape=(2*batch, 3), dtype='int32'), '<', 7.0)
    """
    match = _SPECIFICATION.fullmatch(specification)
    if match is None:
        raise ValueError(f"no specification of an input: {specification!r}")
    dtype, sizes, sign, bound = match.groups()
    shape = tuple(_dimension(size.strip()) for size in sizes.split(",") if size.strip())
    return Type(shape, dtype), sign or "", float(bound or 0)


def _dimension(size: str) -> Dimension:
    if size.endswith("batch"):
        return Batch(int(size.removesuffix("*batch") if "*" in size else 1))
    return int(size)


def draw(
    specification: str, random: np.random.Generator, rows: int = 3, dtype: str | None = None
) -> np.ndarray[Any, Any]:
    """An array as specified, for `rows` rows; `dtype` replaces that of a float."""
    type, sign, bound = parse(specification)
    shape = static_shape(type.shape, rows)
    if type.dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if type.dtype not in FLOATS:
        high = int(bound) if sign == "<" else 9
        return random.integers(0, high, shape).astype(numpy_dtype(type.dtype))
    values = random.standard_normal(shape)
    if sign == ">":
        values = bound + 0.1 + np.abs(values)
    elif sign == "~":
        values = bound * 0.9 * np.tanh(values)
    return np.asarray(values).astype(numpy_dtype(dtype or type.dtype))
