"""Types of values: a dtype by name and a shape, one axis of which may be the run-time batch.

A dimension is an integer or `Batch(k)`: k times the number of rows that are present when the
program runs. No rule of any op ever sees that number; it only carries `Batch(k)` along.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lamina.errors import BatchError, DtypeError, ShapeError


@dataclass(frozen=True)
class Batch:
    """k times the rows present at run time; k is the factor that reshapes have folded in."""

    factor: int = 1

    def __mul__(self, other: object) -> Batch:
        if isinstance(other, Batch):
            raise BatchError("a product of two batch dimensions is not a batch dimension")
        if not isinstance(other, (int, np.integer)):
            return NotImplemented
        return Batch(self.factor * int(other))

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> Batch:
        if not isinstance(other, (int, np.integer)):
            return NotImplemented
        if self.factor % int(other):
            raise BatchError(f"the batch dimension {self} cannot be divided by {other}")
        return Batch(self.factor // int(other))

    def rows(self, count: int) -> int:
        """The extent of this dimension when `count` rows are present."""
        return self.factor * count

    def __str__(self) -> str:
        return "batch" if self.factor == 1 else f"{self.factor}*batch"

    __repr__ = __str__


def _needs_rows(*_: object) -> None:
    raise BatchError(
        "the number of rows is known only when the step runs; of a size of the batch there are "
        "multiples, and exact fractions by //, but no sums, comparisons or plain numbers"
    )


# Set from here, because type checkers are right to refuse these on a Batch: user code that needs
# the number gets a BatchError, upon which the caller traces again for exactly as many rows.
for _name in (
    "add",
    "radd",
    "sub",
    "rsub",
    "mod",
    "rmod",
    "truediv",
    "rtruediv",
    "rfloordiv",
    "neg",
):
    setattr(Batch, f"__{_name}__", _needs_rows)
for _name in ("lt", "le", "gt", "ge", "int", "float", "index"):
    setattr(Batch, f"__{_name}__", _needs_rows)


Dimension: TypeAlias = int | Batch
Shape: TypeAlias = tuple[Dimension, ...]

FLOATS = ("float32", "float64", "float16", "bfloat16")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATS, *SIGNED, *UNSIGNED, "bool")


@dataclass(frozen=True)
class Type:
    """What is known of a value before it is computed: `Type((Batch(1), 784), "float32")`."""

    shape: Shape
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise DtypeError(f"unknown dtype {self.dtype!r}; known: {', '.join(DTYPES)}")
        if sum(isinstance(size, Batch) for size in self.shape) > 1:
            raise BatchError(f"the run-time batch may stand on one axis only, got {self.shape}")
        if any(isinstance(size, int) and size < 0 for size in self.shape):
            raise ShapeError(f"a dimension cannot be negative, got {self.shape}")

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    @property
    def is_integer(self) -> bool:
        return self.dtype in SIGNED or self.dtype in UNSIGNED

    @functools.cached_property
    def batch_axis(self) -> int | None:
        """The axis that holds the run-time batch, if one does."""
        return next((i for i, size in enumerate(self.shape) if isinstance(size, Batch)), None)

    def at(self, rows: int) -> Type:
        """The same type with the batch resolved to `rows` rows."""
        return Type(resolve(self.shape, rows), self.dtype)

    def size_at(self, rows: int) -> int:
        """The number of elements when `rows` rows are present."""
        return math.prod(static_shape(self.shape, rows))

    def bytes_at(self, rows: int) -> int:
        return self.size_at(rows) * itemsize(self.dtype)


def resolve(shape: Shape, rows: int) -> Shape:
    """Replace the batch dimension by its extent for `rows` rows."""
    return static_shape(shape, rows)


def static_shape(shape: Shape, rows: int) -> tuple[int, ...]:
    """The shape as integers, for `rows` rows present."""
    return tuple(size.rows(rows) if isinstance(size, Batch) else size for size in shape)


def fixed(size: Dimension) -> int:
    """A dimension that is never the batch: a side of an image, a number of channels."""
    assert isinstance(size, int)
    return size


def split_batch(shape: Shape) -> tuple[int, int]:
    """(product of the static sizes, factor of the batch or 0): the size as a linear form."""
    static = math.prod(size for size in shape if isinstance(size, int))
    factor = next((size.factor for size in shape if isinstance(size, Batch)), 0)
    return static, factor


def same_size(one: Shape, other: Shape) -> bool:
    """Whether both shapes have the same number of elements for every number of rows."""
    (a, j), (b, k) = split_batch(one), split_batch(other)
    return bool(j) == bool(k) and (a * j == b * k if j else a == b)


@functools.cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a name; bfloat16 comes from ml_dtypes, imported at its first use."""
    if name == "bfloat16":
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return dtype
    return np.dtype(name)


@functools.lru_cache(maxsize=64)
def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of a NumPy dtype. NumPy puts it together at every look, which a small call feels."""
    return dtype.name


def itemsize(dtype: str) -> int:
    """The bytes of one element."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


_ORDER = {
    **{name: (0, i) for i, name in enumerate(("bool",))},
    **{name: (1, i) for i, name in enumerate((*UNSIGNED, *SIGNED))},
    **{name: (2, i) for i, name in enumerate(("float16", "bfloat16", "float32", "float64"))},
}


def promote(*dtypes: str) -> str:
    """The dtype of a result of these operands: bool < unsigned < signed < float, wider wins.

    As in Keras, an integer beside a float takes the float's type, whatever its width.

    >>> promote("int64", "float32"), promote("int32", "uint8"), promote("bfloat16", "float16")
    ('float32', 'int32', 'float32')
    """
    kinds = {_ORDER[dtype][0] for dtype in dtypes}
    if 2 in kinds:
        floats = {dtype for dtype in dtypes if dtype in FLOATS}
        if floats >= {"float16", "bfloat16"} and not floats & {"float32", "float64"}:
            return "float32"
        return max(floats, key=lambda name: _ORDER[name])
    integers = [dtype for dtype in dtypes if dtype != "bool"]
    if not integers:
        return "bool"
    bits = max(itemsize(dtype) for dtype in integers)
    signed = [dtype for dtype in integers if dtype in SIGNED]
    if not signed:
        return max(integers, key=lambda name: _ORDER[name])
    wide_unsigned = any(d in UNSIGNED and itemsize(d) >= bits for d in integers)
    widest_signed = max(itemsize(d) for d in signed)
    if wide_unsigned and bits >= widest_signed:
        return f"int{min(64, bits * 16)}"
    return f"int{bits * 8}"
