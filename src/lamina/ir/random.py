"""Random bits from a counter: the same key gives the same bits, whatever runs beside.

Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.errors import DtypeError, ShapeError, layout
from lamina.ir.graph import Node, Op, Vjp, apply
from lamina.ir.scalar import cast, lift, mul, shr
from lamina.types import Batch, Dimension, Shape, Type, static_shape

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry(key: tuple[int, int], first: Any, second: Any) -> Any:
    """The first output word of Threefry-2x32-20 for counters (first, second), uint32 arrays."""
    keys = [np.uint32(key[0]), np.uint32(key[1])]
    keys.append(keys[0] ^ keys[1] ^ np.uint32(PARITY))
    with np.errstate(over="ignore"):
        a, b = first + keys[0], second + keys[1]
        for block in range(5):
            for turn in ROTATIONS[block % 2]:
                a = a + b
                b = ((b << np.uint32(turn)) | (b >> np.uint32(32 - turn))) ^ a
            a = a + keys[(block + 1) % 3]
            b = b + keys[(block + 2) % 3] + np.uint32(block + 1)
    return a


@dataclass(frozen=True)
class RandomBits(Op):
    """Uniform uint32 of `shape` from a key (uint32 (2,)); `site` tells uses of one key apart.

    The counter is (index on the batch axis, row-major index over the other axes), so the bits of a
    row depend neither on the rows beside it nor on the capacity. `rows_axis` is the axis that was
    the batch, once the shape has been resolved.
    """

    shape: Shape
    site: int
    rows_axis: int | None = None

    @property
    def counted(self) -> int | None:
        """The axis that the first counter word walks, None if there is none."""
        return self.rows_axis if self.rows_axis is not None else Type(self.shape).batch_axis

    def infer(self, key: Type) -> Type:
        if key.shape != (2,) or key.dtype != "uint32":
            raise ShapeError(layout("random: the key must be uint32 (2).", [("key", str(key))]))
        return Type(self.shape, "uint32")

    def vjp(self, gradient: Node, out: Node, key: Node) -> Vjp:
        return (None,)

    def numpy(self, key: Any) -> Any:
        shape = static_shape(self.shape, 0)
        axis = self.counted
        others = [size for i, size in enumerate(shape) if i != axis]
        rest = np.arange(math.prod(others), dtype=np.uint64).astype(np.uint32).reshape(others)
        if axis is None:
            first = np.zeros((), np.uint32)
        else:
            rest = np.expand_dims(rest, axis)
            column = [-1 if i == axis else 1 for i in range(len(shape))]
            first = np.arange(shape[axis], dtype=np.uint32).reshape(column)
        site = self.site & 0xFFFFFFFF
        bits = threefry((int(key[0]), int(key[1]) ^ site), first, rest)
        return np.broadcast_to(bits, shape).astype(np.uint32)

    def at(self, rows: int) -> RandomBits:
        return RandomBits(static_shape(self.shape, rows), self.site, self.counted)


def random_bits(key: Node, shape: Sequence[Dimension], site: int = 0) -> Node:
    """Uniform uint32 of `shape`."""
    return apply(RandomBits(tuple(shape), site), key)


def uniform(key: Node, shape: Sequence[Dimension], site: int = 0, dtype: str = "float32") -> Node:
    """Uniform floats in [0, 1), multiples of 2**-24."""
    if not Type((), dtype).is_float:
        raise DtypeError(f"uniform: makes floats, not {dtype}.")
    bits = random_bits(key, shape, site)
    wide = "float64" if dtype == "float64" else "float32"
    high = cast(shr(bits, lift(8, bits)), wide)
    return cast(mul(high, lift(2.0**-24, high)), dtype)


RandomBits.samples = (
    (RandomBits((3, 4), 0), "uint32 (2)<99"),
    (RandomBits((2, Batch(1), 3), 5), "uint32 (2)<99"),
)
