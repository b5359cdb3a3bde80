"""Map, Broadcast and Reduce: the three ops whose gradients need one another.

The rows of the scalar table, which `Map` applies, are filled in by `lamina.ir.scalar`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.errors import DtypeError, ShapeError, layout
from lamina.ir.graph import Node, Op, Vjp, apply, constant
from lamina.types import FLOATS, SIGNED, UNSIGNED, Shape, Type, static_shape

HALVES = ("float16", "bfloat16")

_KINDS: dict[str, tuple[str, ...]] = {
    "float": FLOATS,
    "number": (*FLOATS, *SIGNED, *UNSIGNED),
    "integer": (*SIGNED, *UNSIGNED),
    "bits": (*SIGNED, *UNSIGNED, "bool"),
    "any": (*FLOATS, *SIGNED, *UNSIGNED, "bool"),
}


@dataclass(frozen=True)
class Row:
    """One scalar function: all that an executor, a fusion pass or a gradient needs to know.

    numpy    its meaning on arrays of one dtype
    vjp      `(gradient, out, *inputs)` to one gradient (None: zero) per input; None: no gradient
    result   "same" (the dtype of its last operand) or "bool"
    cost     roughly, in floating-point additions: what recomputing it instead of storing costs
    kinds    operands it takes: "float", "number", "integer", "bits" (integer or bool) or "any"
    """

    name: str
    arity: int
    numpy: Callable[..., Any]
    vjp: Callable[..., Vjp] | None
    result: str
    cost: int
    kinds: str

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes it takes."""
        return _KINDS[self.kinds]


SCALARS: dict[str, Row] = {}


def table(types: Sequence[Type]) -> list[tuple[str, str]]:
    """The operands' types as the detail lines of an error."""
    return [(f"input {number}", str(type)) for number, type in enumerate(types)]


# ------------------------------------------------------------------------------------- Map


@dataclass(frozen=True)
class Map(Op):
    """One scalar function applied at every element; all inputs share one shape and one dtype.

    `where` is the exception: its first input, the condition, is bool.
    """

    fn: str

    def infer(self, *types: Type) -> Type:
        row = SCALARS[self.fn]
        if len(types) != row.arity:
            raise ShapeError(f"{self.fn}: takes {row.arity} operands, got {len(types)}.")
        if len({type.shape for type in types}) > 1:
            raise ShapeError(
                layout(
                    f"{self.fn}: the shapes of its operands differ.",
                    table(types),
                    hint="broadcasting is explicit here: use broadcast(x, shape, axes)",
                )
            )
        operands = types[1:] if self.fn == "where" else types
        if self.fn == "where" and types[0].dtype != "bool":
            raise DtypeError(
                layout("where: the condition must be bool.", table(types), hint="compare it with 0")
            )
        if len({type.dtype for type in operands}) > 1:
            raise DtypeError(
                layout(
                    f"{self.fn}: the dtypes of its operands differ.",
                    table(types),
                    hint="cast one of them",
                )
            )
        last = operands[-1]
        if last.dtype not in row.dtypes:
            raise DtypeError(
                layout(f"{self.fn}: takes {row.kinds} operands, not {last.dtype}.", table(types))
            )
        return Type(last.shape, "bool" if row.result == "bool" else last.dtype)

    def vjp(self, gradient: Node, out: Node, *inputs: Node) -> Vjp:
        rule = SCALARS[self.fn].vjp
        return rule(gradient, out, *inputs) if rule else (None,) * len(inputs)

    def numpy(self, *arrays: Any) -> Any:
        row = SCALARS[self.fn]
        dtype = arrays[-1].dtype
        if dtype.name in HALVES:  # computed in single precision, rounded once
            arrays = tuple(a.astype(np.float32) if a.dtype == dtype else a for a in arrays)
        result = row.numpy(*arrays)
        return np.asarray(result, "bool" if row.result == "bool" else dtype)


def map_(fn: str, *nodes: Node) -> Node:
    """The scalar function `fn` at every element of nodes of one shape."""
    return apply(Map(fn), *nodes)


# ------------------------------------------------------------------------------- Broadcast


@dataclass(frozen=True)
class Broadcast(Op):
    """Repeat a value along new axes; `axes[i]` is the output axis of input axis i (ascending)."""

    shape: Shape
    axes: tuple[int, ...]

    def infer(self, x: Type) -> Type:
        details = [("input", str(x)), ("shape", str(Type(self.shape, x.dtype)))]
        if len(self.axes) != x.rank or list(self.axes) != sorted(set(self.axes)):
            raise ShapeError(
                layout(f"broadcast: axes {self.axes} must be {x.rank} ascending axes.", details)
            )
        if any(not 0 <= axis < len(self.shape) for axis in self.axes):
            raise ShapeError(layout(f"broadcast: axes {self.axes} leave the shape.", details))
        for size, axis in zip(x.shape, self.axes, strict=True):
            if size != self.shape[axis]:
                raise ShapeError(
                    layout(
                        f"broadcast: axis {axis} has size {self.shape[axis]}, its input {size}.",
                        details,
                        hint="axes of size 1 are not stretched: drop them first",
                    )
                )
        return Type(self.shape, x.dtype)

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        new = tuple(axis for axis in range(len(self.shape)) if axis not in self.axes)
        return (reduce_sum(gradient, new),)

    def numpy(self, x: Any) -> Any:
        shape = static_shape(self.shape, 0)
        expanded = [1] * len(shape)
        for axis, size in zip(self.axes, np.shape(x), strict=True):
            expanded[axis] = size
        return np.broadcast_to(np.reshape(x, expanded), shape)

    def at(self, rows: int) -> Broadcast:
        return Broadcast(static_shape(self.shape, rows), self.axes)


def broadcast(x: Node, shape: Sequence[Any], axes: Sequence[int]) -> Node:
    """`x` repeated to `shape`; `axes[i]` is the axis of `shape` on which axis i of x lies."""
    if tuple(shape) == x.shape:
        return x
    return apply(Broadcast(tuple(shape), tuple(axes)), x)


def full(shape: Sequence[Any], value: Any, dtype: str = "float32") -> Node:
    """A value of `shape` that holds one number everywhere."""
    return broadcast(constant(value, dtype), shape, ())


def lift(number: Node | float, like: Node) -> Node:
    """A Python number, or a scalar node, spread to the shape (and for numbers dtype) of `like`."""
    if isinstance(number, Node):
        return number if number.shape == like.shape else broadcast(number, like.shape, ())
    return full(like.shape, number, like.dtype)


def zeros_like(x: Node) -> Node:
    """0 everywhere, with the type of `x`."""
    return full(x.shape, 0, x.dtype)


def ones_like(x: Node) -> Node:
    """1 everywhere, with the type of `x`."""
    return full(x.shape, 1, x.dtype)


# ---------------------------------------------------------------------------------- Reduce


_REDUCTIONS: dict[str, Any] = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


@dataclass(frozen=True)
class Reduce(Op):
    """Combine all elements along `axes` (ascending), which disappear.

    kind   "sum", "prod", "max" or "min". A maximum reached several times shares its gradient
           evenly, as in Keras on JAX; NaN wins over every number.
    """

    kind: str
    axes: tuple[int, ...]

    def infer(self, x: Type) -> Type:
        if self.kind not in _REDUCTIONS:
            raise ShapeError(f"reduce: unknown kind {self.kind!r}; known: sum, prod, max, min")
        check_axes(f"reduce {self.kind}", self.axes, x)
        if x.dtype == "bool" and self.kind in {"sum", "prod"}:
            raise DtypeError(
                layout(f"reduce {self.kind}: takes numbers.", [("input", str(x))], hint="cast it")
            )
        if self.kind in {"max", "min"} and any(x.shape[axis] == 0 for axis in self.axes):
            raise ShapeError(
                layout(f"reduce {self.kind}: nothing to choose from.", [("input", str(x))])
            )
        kept = (size for axis, size in enumerate(x.shape) if axis not in self.axes)
        return Type(tuple(kept), x.dtype)

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        kept = tuple(axis for axis in range(x.type.rank) if axis not in self.axes)

        def spread(node: Node) -> Node:
            return broadcast(node, x.shape, kept)

        one, zero = ones_like(x), zeros_like(x)
        if self.kind == "sum":
            return (spread(gradient),)
        if self.kind == "prod":
            # The product without a factor is out / factor, but for factors that are 0.
            is_zero = map_("eq", x, zero)
            rest = reduce_prod(map_("where", is_zero, one, x), self.axes)
            zeros = spread(reduce_sum(map_("where", is_zero, one, zero), self.axes))
            none, single = map_("eq", zeros, zero), map_("eq", zeros, one)
            others = map_("div", spread(out), map_("where", is_zero, one, x))
            only = map_("where", map_("and", is_zero, single), spread(rest), zero)
            return (map_("mul", spread(gradient), map_("where", none, others, only)),)
        winners = map_("where", map_("eq", x, spread(out)), one, zero)
        share = map_("div", gradient, reduce_sum(winners, self.axes))
        return (map_("mul", winners, spread(share)),)

    def numpy(self, x: Any) -> Any:
        if x.dtype.name in HALVES:
            wide = _REDUCTIONS[self.kind].reduce(x.astype(np.float32), axis=self.axes)
            return np.asarray(wide, x.dtype)
        return np.asarray(_REDUCTIONS[self.kind].reduce(x, axis=self.axes, dtype=x.dtype))


def check_axes(what: str, axes: Sequence[int], x: Type) -> None:
    """Raise ShapeError unless the axes are ascending axes of `x`."""
    if list(axes) != sorted(set(axes)) or any(not 0 <= axis < x.rank for axis in axes):
        raise ShapeError(
            layout(f"{what}: axes {tuple(axes)} are not ascending axes.", [("input", str(x))])
        )


def normal_axes(axes: Sequence[int] | int | None, rank: int) -> tuple[int, ...]:
    """Axes counted from the front, ascending; None means all of them."""
    if axes is None:
        return tuple(range(rank))
    several = (axes,) if isinstance(axes, int) else tuple(axes)
    for axis in several:
        if not -rank <= axis < rank:
            raise ShapeError(f"axis {axis} is out of range for a value of {rank} axes.")
    return tuple(sorted({axis % rank for axis in several}))


def _reduce(kind: str, x: Node, axes: Sequence[int] | int | None) -> Node:
    normal = normal_axes(axes, x.type.rank)
    return apply(Reduce(kind, normal), x) if normal else x


def reduce_sum(x: Node, axes: Sequence[int] | int | None = None) -> Node:
    """The sum along `axes` (None: all), which disappear."""
    return _reduce("sum", x, axes)


def reduce_prod(x: Node, axes: Sequence[int] | int | None = None) -> Node:
    """The product along `axes` (None: all), which disappear."""
    return _reduce("prod", x, axes)


def reduce_max(x: Node, axes: Sequence[int] | int | None = None) -> Node:
    """The maximum along `axes` (None: all), which disappear; NaN if one is there."""
    return _reduce("max", x, axes)


def reduce_min(x: Node, axes: Sequence[int] | int | None = None) -> Node:
    """The minimum along `axes` (None: all), which disappear; NaN if one is there."""
    return _reduce("min", x, axes)


Broadcast.samples = (
    (Broadcast((4, 3), (1,)), "float32 (3)"),
    (Broadcast((2, 3, 4), (0, 2)), "float32 (2, 4)"),
    (Broadcast((2, 2), ()), "float32 ()"),
)
Reduce.samples = (
    *((Reduce(kind, (1,)), "float32 (3, 4)") for kind in ("sum", "prod", "max", "min")),
    (Reduce("sum", (0,)), "float32 (batch, 4)"),
    (Reduce("max", (0, 2)), "float32 (batch, 3, 2)"),
    (Reduce("prod", (0, 1)), "float32 (2, 3)"),
    (Reduce("sum", (0, 2)), "int32 (2, 3, 4)<9"),
    (Reduce("max", (1,)), "bool (3, 4)"),
)
