"""The different numbers among many: what a batch of words asks of its table, each row once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.errors import DtypeError, ShapeError, layout
from lamina.ir.graph import Node, Op, Vjp, apply, picks
from lamina.types import Type


@dataclass(frozen=True)
class Distinct(Op):
    """The rows of a table that an index names, each once, in the order of their first place.

    table   the rows of the table; numbers outside are clamped into it
    room    for how many different rows there is room

    Returns rows (room,) int32, the first one again behind the last; the place of each element of
    the index among them, int32 in the index's shape; and how many there are, an int32 scalar. So
    `rows[places]` is the index.
    """

    table: int
    room: int

    def infer(self, index: Type) -> tuple[Type, Type, Type]:
        if not index.is_integer:
            raise DtypeError(layout("distinct: takes integers.", [("index", str(index))]))
        if index.batch_axis not in {None, 0}:
            raise ShapeError(
                layout("distinct: the batch must be the first axis.", [("index", str(index))])
            )
        return Type((self.room,), "int32"), Type(index.shape, "int32"), Type((), "int32")

    def vjp(self, gradient: Any, out: Node, index: Node) -> Vjp:
        return (None,)

    def numpy(self, index: Any) -> Any:
        flat = np.clip(index.reshape(-1), 0, self.table - 1)
        numbers, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rows = np.full(self.room, flat[0] if flat.size else 0, np.int32)
        rows[: len(order)] = numbers[order]
        places = np.argsort(order)[inverse].reshape(index.shape).astype(np.int32)
        return rows, places, np.int32(len(order))


def distinct(index: Node, table: int, room: int) -> tuple[Node, ...]:
    """(rows, places, count): the different rows of a table that `index` names, see `Distinct`."""
    return picks(apply(Distinct(table, room), index))


Distinct.samples = (
    (Distinct(7, 20), "int32 (batch, 2)<9"),
    (Distinct(300, 70), "int64 (batch, 5)<300"),
    (Distinct(5, 5), "int32 (4, 3)<5"),
)
