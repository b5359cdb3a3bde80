"""The same program with less in it: folded constants, movements merged, loops cut down."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lamina.ir.control import Body, Composite, Cond, Scan, While
from lamina.ir.elementary import Broadcast, Map, Reduce, broadcast, full, map_
from lamina.ir.graph import Const, Node, Op, apply, rebuilt, rewrite
from lamina.ir.movement import (
    Concat,
    Pad,
    Reshape,
    Slice,
    Transpose,
    concat,
    reshape,
    slice_,
    transpose,
)
from lamina.ir.program import Program
from lamina.ir.scalar import Cast, StopGradient, cast, square
from lamina.transform.loops import merge_scans, prune_scans, split_scans
from lamina.transform.scan import terms
from lamina.types import FLOATS, itemsize

Rule = Callable[[Node], Node | None]


def simplify(program: Program) -> Program:
    """A program that computes the same: bit for bit, but for sums over time and signs of zeros.

    Constants are folded, movements merged, and gradients no longer stopped (so differentiate
    first); loops over the same body are merged, and what does not belong into a loop leaves it.
    """
    return program.with_roots(simplified(program.roots))


def simplified(roots: Sequence[Node]) -> list[Node]:
    """The passes in their order. Equal loops are found before anything changes one of them."""
    merged = merge_scans(roots)
    small = local(merged)
    cut = prune_scans(split_scans(prune_scans(small)))
    return small if cut == small else local(cut)


def local(roots: Sequence[Node]) -> list[Node]:
    """Apply the rules below everywhere, in the bodies of loops and branches too."""
    return rewrite(roots, _visit)


def _visit(node: Node) -> Node:
    for _ in range(100):  # rules only ever shrink a graph; the bound guards against a mistake
        for rule in RULES.get(type(node.op), ()):
            found = rule(node)
            if found is not None and found is not node:
                node = found
                break
        else:
            return node
    return node


# ---------------------------------------------------------------------------------- constants


def number_of(node: Node) -> Any:
    """The number that a node holds everywhere, as a NumPy scalar, or None."""
    if isinstance(node.op, Broadcast):
        node = node.inputs[0]
    return node.op.value if isinstance(node.op, Const) else None


def _filled(node: Node, value: Any) -> Node:
    return full(node.shape, value, node.dtype)


def fold_constants(node: Node) -> Node | None:
    """Compute what depends on numbers alone.

    Before: mul(full(2), full(3))    After: full(6)
    """
    if not isinstance(node.op, (Map, Cast)):
        return None
    numbers = [number_of(x) for x in node.inputs]
    if any(number is None for number in numbers):
        return None
    with np.errstate(all="ignore"):
        return _filled(node, node.op.numpy(*map(np.asarray, numbers)))


def move_constants(node: Node) -> Node | None:
    """A constant is the same wherever it is moved to.

    Before: transpose(full((2, 3), 1))    After: full((3, 2), 1)
    """
    if not isinstance(node.op, (Reshape, Transpose, Slice, Broadcast, StopGradient)):
        return None
    value = number_of(node.inputs[0])
    if value is None or (isinstance(node.op, Broadcast) and not node.inputs[0].shape):
        return None
    return _filled(node, value)


# --------------------------------------------------------------------------------- arithmetic


def _is(number: Any, wanted: float) -> bool:
    """Whether a number is exactly `wanted`; zeros are told apart by their sign."""
    if number is None or number.dtype.name == "bool" or number != wanted:
        return False
    return wanted != 0 or number.dtype.kind in "iu" or np.signbit(number) == np.signbit(wanted)


def neutral_elements(node: Node) -> Node | None:
    """Drop what changes nothing, to the last bit (so x + 0.0 stays: it turns -0.0 into 0.0).

    Before: mul(x, full(1))    After: x
    """
    if not isinstance(node.op, Map) or len(node.inputs) != 2:
        return None
    a, b = node.inputs
    left, right = number_of(a), number_of(b)
    match node.op.fn:
        case "mul" if _is(right, 1.0):
            return a
        case "mul" if _is(left, 1.0):
            return b
        case "div" if _is(right, 1.0):
            return a
        case "add" if _is(right, -0.0):
            return a
        case "add" if _is(left, -0.0):
            return b
        case "sub" if _is(right, 0.0):
            return a
        case "pow" if _is(right, 1.0):
            return a
        case "pow" if _is(right, 2.0):
            return square(a)
    return None


def halving(node: Node) -> Node | None:
    """Divide by a power of two by multiplying, which is as exact and much quicker.

    Before: div(x, full(4))    After: mul(x, full(0.25))
    """
    if node.op != Map("div"):
        return None
    value = number_of(node.inputs[1])
    if value is None or not np.isfinite(value) or value == 0:
        return None
    mantissa, exponent = math.frexp(float(value))
    if abs(mantissa) != 0.5 or abs(exponent) > 13:
        return None
    return map_("mul", node.inputs[0], _filled(node, 1.0 / float(value)))


def double_inverses(node: Node) -> Node | None:
    """Undo what undoes itself.

    Before: neg(neg(x)), where(c, x, x)    After: x
    """
    match node:
        case Node(op=Map(fn="neg" | "not" as fn), inputs=(Node(op=Map(fn=inner), inputs=(x,)),)):
            return x if fn == inner else None
        case Node(op=Map(fn="where"), inputs=(_, a, b)) if a is b:
            return a
    return None


def casts(node: Node) -> Node | None:
    """Drop casts to the dtype that is there, and casts to a wider float and back.

    Before: cast(cast(x: float32, float64), float32)    After: x
    """
    match node:
        case Node(op=Cast(dtype=dtype), inputs=(x,)) if x.dtype == dtype:
            return x
        case Node(op=Cast(dtype=dtype), inputs=(Node(op=Cast(dtype=middle), inputs=(x,)),)):
            exact = x.dtype in FLOATS and middle in FLOATS and dtype in FLOATS
            if exact and (middle == "float64" or (middle == "float32" and itemsize(x.dtype) == 2)):
                return cast(x, dtype)
    return None


def unstopped(node: Node) -> Node | None:
    """Gradients have been taken: nothing is left to stop."""
    return node.inputs[0] if isinstance(node.op, StopGradient) else None


# ----------------------------------------------------------------------------------- movement


def movements(node: Node) -> Node | None:
    """Merge two movements of the same kind, and drop those that move nothing.

    Before: transpose[1,0](transpose[1,0](x))    After: x
    """
    match node:
        case Node(op=Transpose(perm=outer), inputs=(Node(op=Transpose(perm=inner), inputs=(x,)),)):
            return transpose(x, [inner[axis] for axis in outer])
        case Node(op=Transpose(perm=perm), inputs=(x,)) if perm == tuple(range(len(perm))):
            return x
        case Node(op=Reshape(), inputs=(Node(op=Reshape(), inputs=(x,)),)):
            return reshape(x, node.shape)
        case Node(op=Reshape(shape=shape), inputs=(x,)) if shape == x.shape:
            return x
        case Node(
            op=Broadcast(shape=shape, axes=outer),
            inputs=(Node(op=Broadcast(axes=inner), inputs=(x,)),),
        ):
            return broadcast(x, shape, [outer[axis] for axis in inner])
        case Node(op=Broadcast(shape=shape), inputs=(x,)) if shape == x.shape:
            return x
        case Node(op=Pad(low=low, high=high, interior=interior), inputs=(x,)):
            return None if any((*low, *high, *interior)) else x
    return None


def extremes_of_extremes(node: Node) -> Node | None:
    """Reduce once over all axes.

    Before: reduce_max[0](reduce_max[1](x))    After: reduce_max[0, 1](x)
    """
    match node:
        case Node(
            op=Reduce(kind=kind, axes=outer),
            inputs=(Node(op=Reduce(kind=also, axes=inner), inputs=(x,)),),
        ) if kind == also and kind in {"max", "min"}:
            kept = [axis for axis in range(x.type.rank) if axis not in inner]
            return apply(Reduce(kind, tuple(sorted({*inner, *(kept[a] for a in outer)}))), x)
    return None


def reductions_of_one(node: Node) -> Node | None:
    """Combine nothing where there is one element to combine.

    Before: reduce_sum[1](x: 32 x 1)    After: reshape(x, 32)
    """
    match node:
        case Node(op=Reduce(axes=axes), inputs=(x,)) if x.dtype == node.dtype:
            return reshape(x, node.shape) if all(x.shape[axis] == 1 for axis in axes) else None
    return None


def slices_of_joined(node: Node) -> Node | None:
    """Take a slice from the one part in which it lies.

    Before: slice[0:3](concat(a: 3 wide, b))    After: a
    """
    match node:
        case Node(op=Slice() as cut, inputs=(Node(op=Concat(axis=axis), inputs=parts),)):
            start, stop, step = cut.start[axis], cut.stop[axis], cut.step[axis]
            if stop is None or step < 1 or stop <= start:
                return None
            position = 0
            for part in parts:
                size = part.shape[axis]
                if position <= start and stop <= position + size:
                    starts, stops = list(cut.start), list(cut.stop)
                    starts[axis], stops[axis] = start - position, stop - position
                    return slice_(part, starts, stops, cut.step)
                position += size
    return None


def joined_pads(node: Node) -> Node | None:
    """Put parts side by side instead of adding them up, each padded with zeros to the full size.

    The gradients of slices that cut a value into parts come as such a sum.

    Before: add(pad[0, 3](a), pad[3, 0](b)), both 6 wide    After: concat(a, b)
    """
    if node.op != Map("add"):
        return None
    parts = terms(node)
    found: dict[int, dict[int, Node]] = {}
    for part in parts:
        place = _padded_along_one_axis(part)
        if place is None:
            return None
        axis, low = place
        if low in found.setdefault(axis, {}):
            return None
        found[axis][low] = part.inputs[0]
    if len(found) != 1:
        return None
    ((axis, pieces),) = found.items()
    position = 0
    for low in sorted(pieces):
        if low != position:
            return None
        position += pieces[low].shape[axis]
    whole = position == node.shape[axis]
    return concat([pieces[low] for low in sorted(pieces)], axis) if whole else None


def _padded_along_one_axis(node: Node) -> tuple[int, int] | None:
    """(axis, zeros in front) where a node only puts zeros around a part along one axis."""
    op = node.op
    if not isinstance(op, Pad) or any(op.interior) or any(op.value):
        return None
    axes = [i for i, sides in enumerate(zip(op.low, op.high, strict=True)) if any(sides)]
    return (axes[0], op.low[axes[0]]) if len(axes) == 1 else None


# ------------------------------------------------------------------------------------- bodies


def bodies(node: Node) -> Node | None:
    """Simplify the graphs inside loops, branches and composites."""
    match node.op:
        case Scan(body=body):
            op: Any = replace(node.op, body=_simplified(body))
        case Composite(body=body):
            op = replace(node.op, body=_simplified(body))
        case Cond(then=then, otherwise=otherwise):
            op = Cond(_simplified(then), _simplified(otherwise))
        case While(test=test, body=body):
            op = replace(node.op, test=_simplified(test), body=_simplified(body))
        case _:
            return None
    return None if op == node.op else rebuilt(replace(node, op=op), node.inputs)


def _simplified(body: Body) -> Body:
    return Body(body.parameters, tuple(simplified(body.results)))


# Which rules can say something about which op.
RULES: dict[type[Op], tuple[Rule, ...]] = {
    Broadcast: (move_constants, movements),
    Cast: (casts, fold_constants),
    Composite: (bodies,),
    Cond: (bodies,),
    Map: (fold_constants, neutral_elements, halving, double_inverses, joined_pads),
    Pad: (movements,),
    Reduce: (extremes_of_extremes, reductions_of_one),
    Reshape: (move_constants, movements),
    Scan: (bodies,),
    Slice: (move_constants, slices_of_joined),
    StopGradient: (unstopped,),
    Transpose: (move_constants, movements),
    While: (bodies,),
}
