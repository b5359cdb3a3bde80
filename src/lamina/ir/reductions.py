"""Reductions: sums, products, extremes and their positions, running sums; and the mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.errors import DtypeError, ShapeError, layout
from lamina.ir.elementary import (
    HALVES,
    Reduce,
    broadcast,
    normal_axes,
    reduce_max,
    reduce_min,
    reduce_prod,
    reduce_sum,
)
from lamina.ir.graph import Node, Op, Vjp, apply, constant, rows
from lamina.ir.indexing import scatter
from lamina.ir.movement import flip, iota, pad, take_range, transpose
from lamina.ir.scalar import add, cast, div, gt, lift, mul, square, sub, where, zeros_like
from lamina.types import Batch, Type

__all__ = ["Reduce", "normal_axes", "reduce_max", "reduce_min", "reduce_prod", "reduce_sum"]

_RUNNING: dict[str, Any] = {"sum": np.add, "prod": np.multiply, "max": np.maximum}


@dataclass(frozen=True)
class ArgReduce(Op):
    """Where the maximum ("max") or minimum ("min") along `axis` stands: int32.

    Of several the first is taken; a NaN counts as the extreme, as in NumPy.
    """

    kind: str
    axis: int

    def infer(self, x: Type) -> Type:
        if not 0 <= self.axis < x.rank or x.shape[self.axis] == 0:
            raise ShapeError(
                layout(
                    f"arg{self.kind}: axis {self.axis} is missing or empty.", [("input", str(x))]
                )
            )
        kept = (*x.shape[: self.axis], *x.shape[self.axis + 1 :])
        return Type(kept, "int32")

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        return (None,)

    def numpy(self, x: Any) -> Any:
        if x.dtype.name in HALVES:
            x = x.astype(np.float32)
        find = np.argmax if self.kind == "max" else np.argmin
        return np.asarray(find(x, axis=self.axis)).astype(np.int32)


@dataclass(frozen=True)
class Cumulative(Op):
    """Running "sum", "prod" or "max" along `axis`, inclusive; `reverse` from the end."""

    kind: str
    axis: int
    reverse: bool = False

    def infer(self, x: Type) -> Type:
        if self.kind not in _RUNNING:
            raise ShapeError(f"cumulative: unknown kind {self.kind!r}; known: sum, prod, max")
        if not 0 <= self.axis < x.rank:
            raise ShapeError(
                layout(f"cumulative: there is no axis {self.axis}.", [("input", str(x))])
            )
        if x.dtype == "bool":
            raise DtypeError(
                layout("cumulative: takes numbers.", [("input", str(x))], hint="cast it")
            )
        return x

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        if self.kind == "sum":
            return (cumulative(gradient, "sum", self.axis, reverse=not self.reverse),)
        if isinstance(x.shape[self.axis], Batch):
            raise ShapeError(
                layout(
                    f"cumulative {self.kind}: has no gradient along the batch.",
                    [("input", str(x.type))],
                )
            )
        if self.reverse:
            forward = Cumulative(self.kind, self.axis)
            sides = (flip(node, self.axis) for node in (gradient, out, x))
            (back,) = forward.vjp(*sides)
            assert back is not None
            return (flip(back, self.axis),)
        return (self._product_vjp if self.kind == "prod" else self._maximum_vjp)(gradient, out, x)

    def _product_vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        """Exact also where factors are 0, because nothing is divided.

        dx_i = (product before i) * r_i with r_i = g_i + x_{i+1} r_{i+1}: a linear recurrence,
        solved by doubling (Hillis & Steele 1986).
        """
        total, factor = gradient, _moved(x, self.axis, -1)
        distance = 1
        while distance < x.shape[self.axis]:
            total = add(total, mul(factor, _moved(total, self.axis, -distance)))
            factor = mul(factor, _moved(factor, self.axis, -distance))
            distance *= 2
        return (mul(_moved(out, self.axis, 1, fill=1), total),)

    def _maximum_vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        """The gradient goes to the element that first reached the maximum of its prefix."""
        last = x.type.rank - 1
        order = [i for i in range(x.type.rank) if i != self.axis] + [self.axis]
        before = _moved(out, self.axis, 1, fill=-math.inf if x.type.is_float else 0)
        position = iota(x.shape, self.axis)
        fresh = where(gt(x, before), position, zeros_like(position))
        winner = transpose(cumulative(fresh, "max", self.axis), order)
        moved = transpose(gradient, order)
        back = scatter("add", zeros_like(moved), winner, moved, axis=last, batch=last)
        return (transpose(back, sorted(range(last + 1), key=lambda axis: order[axis])),)

    def numpy(self, x: Any) -> Any:
        wide = x.astype(np.float32) if x.dtype.name in HALVES else x
        wide = np.flip(wide, self.axis) if self.reverse else wide
        total = _RUNNING[self.kind].accumulate(wide, axis=self.axis, dtype=wide.dtype)
        total = np.flip(total, self.axis) if self.reverse else total
        return total.astype(x.dtype, copy=False)


def _moved(x: Node, axis: int, distance: int, fill: float = 0) -> Node:
    """`x` moved along `axis` by `distance` places, `fill` coming in behind it."""
    size = x.shape[axis]
    low, high = [0] * x.type.rank, [0] * x.type.rank
    if distance > 0:
        low[axis] = min(distance, size)
        return pad(take_range(x, axis, 0, max(0, size - distance)), low, high, fill)
    high[axis] = min(-distance, size)
    return pad(take_range(x, axis, min(-distance, size), size), low, high, fill)


def arg_max(x: Node, axis: int = -1) -> Node:
    """Where the maximum along `axis` stands: int32, the first of several."""
    return apply(ArgReduce("max", axis % x.type.rank), x)


def arg_min(x: Node, axis: int = -1) -> Node:
    """Where the minimum along `axis` stands: int32, the first of several."""
    return apply(ArgReduce("min", axis % x.type.rank), x)


def cumulative(x: Node, kind: str = "sum", axis: int = -1, *, reverse: bool = False) -> Node:
    """Running "sum", "prod" or "max" along `axis`."""
    return apply(Cumulative(kind, axis % x.type.rank, reverse), x)


def count(x: Node, axes: Sequence[int] | int | None, dtype: str) -> Node:
    """How many elements of `x` lie along `axes`, as a scalar node."""
    sizes = [x.shape[axis] for axis in normal_axes(axes, x.type.rank)]
    static = math.prod(size for size in sizes if isinstance(size, int))
    factor = next((size.factor for size in sizes if isinstance(size, Batch)), 0)
    return rows(static * factor, dtype) if factor else constant(static, dtype)


def mean(x: Node, axes: Sequence[int] | int | None = None) -> Node:
    """The mean along `axes` (None: all) of a float value; a batch counts the rows that are there.

    Half precision is summed and divided in float32.
    """
    if not x.type.is_float:
        raise DtypeError(
            layout("mean: takes floats.", [("input", str(x.type))], hint="cast it first")
        )
    if x.dtype in HALVES:
        return cast(mean(cast(x, "float32"), axes), x.dtype)
    total = reduce_sum(x, axes)
    return div(total, lift(count(x, axes, x.dtype), total))


@dataclass(frozen=True)
class Variance(Op):
    """The mean square of the deviations from the mean along `axes`, which disappear.

    An op of its own for its gradient. Deviations add up to zero, so none of it flows through the
    mean, and the sum over all elements that would find this out is never taken.
    """

    axes: tuple[int, ...]

    def infer(self, x: Type) -> Type:
        if not x.is_float:
            raise DtypeError(
                layout("variance: takes floats.", [("input", str(x))], hint="cast it first")
            )
        return Reduce("sum", self.axes).infer(x)

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        if x.dtype in HALVES:
            (wide,) = self.vjp(cast(gradient, "float32"), out, cast(x, "float32"))
            return (wide and cast(wide, x.dtype),)
        slope = div(add(gradient, gradient), lift(count(x, self.axes, x.dtype), gradient))
        return (mul(_spread(slope, x, self.axes), deviations(x, self.axes)),)

    def numpy(self, x: Any) -> Any:
        wide = x.astype(np.float32) if x.dtype.name in HALVES else x
        centred = wide - wide.mean(self.axes, keepdims=True)
        return np.asarray(np.square(centred).mean(self.axes)).astype(x.dtype)


def _spread(reduced: Node, x: Node, axes: tuple[int, ...]) -> Node:
    kept = tuple(axis for axis in range(x.type.rank) if axis not in axes)
    return broadcast(reduced, x.shape, kept)


def deviations(x: Node, axes: tuple[int, ...]) -> Node:
    """`x` without its mean along `axes`."""
    return sub(x, _spread(mean(x, axes), x, axes))


def variance(x: Node, axes: Sequence[int] | int | None = None) -> Node:
    """The variance along `axes` (None: all) of a float value, divided by the count."""
    return apply(Variance(normal_axes(axes, x.type.rank)), x)


def mean_square(x: Node, axes: tuple[int, ...]) -> Node:
    """What a `Variance` is, in other ops."""
    if x.dtype in HALVES:
        return cast(mean_square(cast(x, "float32"), axes), x.dtype)
    return mean(square(deviations(x, axes)), axes)


ArgReduce.samples = (
    (ArgReduce("max", 1), "float32 (batch, 4)"),
    (ArgReduce("min", 0), "float32 (3, 4)"),
    (ArgReduce("max", 0), "int32 (5)<3"),
    (ArgReduce("max", 0), "float32 (4, batch, 2)"),
)
Variance.samples = (
    (Variance((0, 2)), "float32 (batch, 3, 4)"),
    (Variance((1,)), "float32 (3, 5)"),
    (Variance((0,)), "float32 (6)"),
)
Cumulative.samples = (
    *(
        (Cumulative(kind, axis, reverse), "float32 (3, 5)")
        for kind in _RUNNING
        for axis in (0, 1)
        for reverse in (False, True)
    ),
    (Cumulative("sum", 1), "int32 (batch, 5)<9"),
    (Cumulative("prod", 0), "float32 (4, batch, 2)"),
    (Cumulative("max", 2, reverse=True), "float32 (2, batch, 5)"),
)
