"""Sorting, and the largest k."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.errors import ShapeError, layout
from lamina.ir.elementary import HALVES, table
from lamina.ir.graph import Node, Op, Vjp, apply, picks
from lamina.ir.indexing import gather, scatter
from lamina.ir.movement import inverse, iota, transpose
from lamina.ir.scalar import zeros_like
from lamina.types import Batch, Type


def _order(keys: Any, axis: int, *, descending: bool) -> Any:
    """The stable order of the keys along an axis, NaN last in both directions."""
    if keys.dtype.name in HALVES:
        keys = keys.astype(np.float32)
    if descending:
        keys = ~keys if keys.dtype.kind in "iub" else -keys
    return np.argsort(keys, axis=axis, kind="stable")


@dataclass(frozen=True)
class Sort(Op):
    """Sort keys along `axis`, carrying values of the same shape along; stable, NaN last."""

    axis: int
    descending: bool = False

    def infer(self, keys: Type, *values: Type) -> tuple[Type, ...]:
        types = (keys, *values)
        if any(type.shape != keys.shape for type in types):
            raise ShapeError(layout("sort: keys and values have different shapes.", table(types)))
        if not 0 <= self.axis < keys.rank:
            raise ShapeError(layout(f"sort: there is no axis {self.axis}.", table(types)))
        if isinstance(keys.shape[self.axis], Batch):
            raise ShapeError(layout("sort: the run-time batch cannot be sorted.", table(types)))
        return types

    def vjp(self, gradient: Any, out: Node, *inputs: Node) -> Vjp:
        keys = inputs[0]
        gradients = gradient if len(inputs) > 1 else (gradient,)
        order = sort(keys, iota(keys.shape, self.axis), axis=self.axis, descending=self.descending)
        back = sort(order[1], iota(keys.shape, self.axis), axis=self.axis)[1]
        last = keys.type.rank - 1
        perm = [axis for axis in range(keys.type.rank) if axis != self.axis] + [self.axis]
        return [
            None
            if g is None
            else transpose(
                gather(transpose(g, perm), transpose(back, perm), last, last), inverse(perm)
            )
            for g in gradients
        ]

    def numpy(self, keys: Any, *values: Any) -> Any:
        order = _order(keys, self.axis, descending=self.descending)
        found = tuple(np.take_along_axis(array, order, self.axis) for array in (keys, *values))
        return found if values else found[0]


@dataclass(frozen=True)
class TopK(Op):
    """The k largest along the last axis, in descending order, and where they stand (int32).

    Of equal elements the first comes first; NaN comes last.
    """

    k: int

    def infer(self, x: Type) -> tuple[Type, Type]:
        if not x.rank or isinstance(x.shape[-1], Batch) or not 0 < self.k <= x.shape[-1]:
            raise ShapeError(
                layout(f"top_k: the last axis must hold at least {self.k}.", [("input", str(x))])
            )
        shape = (*x.shape[:-1], self.k)
        return Type(shape, x.dtype), Type(shape, "int32")

    def vjp(self, gradient: Any, out: Node, x: Node) -> Vjp:
        values, last = gradient[0], x.type.rank - 1
        if values is None:
            return (None,)
        places = picks(out)[1]
        return (scatter("add", zeros_like(x), places, values, axis=last, batch=last),)

    def numpy(self, x: Any) -> Any:
        order = _order(x, -1, descending=True)[..., : self.k]
        return np.take_along_axis(x, order, -1), order.astype(np.int32)


def sort(keys: Node, *values: Node, axis: int = -1, descending: bool = False) -> tuple[Node, ...]:
    """Keys sorted along `axis`, then the values in the same order."""
    return picks(apply(Sort(axis % keys.type.rank, descending), keys, *values))


def arg_sort(keys: Node, axis: int = -1, *, descending: bool = False) -> Node:
    """The places (int32) from which sorted keys come."""
    return sort(keys, iota(keys.shape, axis), axis=axis, descending=descending)[1]


def top_k(x: Node, k: int) -> tuple[Node, ...]:
    """The k largest along the last axis, descending, and their places (int32)."""
    return picks(apply(TopK(k), x))


Sort.samples = (
    (Sort(1), "float32 (batch, 5)"),
    (Sort(0), "float32 (5, batch)", "float32 (5, batch)"),
    (Sort(2), "float32 (2, batch, 5)"),
    (Sort(0, descending=True), "float32 (5, 2)", "float32 (5, 2)"),
    (Sort(1, descending=True), "int32 (batch, 6)<3", "float32 (batch, 6)"),
)
TopK.samples = (
    (TopK(2), "float32 (batch, 5)"),
    (TopK(2), "float32 (2, batch, 5)"),
    (TopK(3), "int32 (2, 5)<3"),
)
