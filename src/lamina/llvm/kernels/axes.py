"""Simplify the axes of a contraction before code is generated for it.

Axes of extent one disappear, and neighbours that lie in line for every access become one axis:
the (kw, c) of a convolution without dilation is one contiguous run, (batch, time) of a dense
layer is one axis of rows. Neither changes the order in which any sum is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lamina.llvm.kernel import (
    Access,
    Contraction,
    Guard,
    Inside,
    Instruction,
    Load,
    Lookup,
    Position,
    Random,
)
from lamina.types import Batch, Dimension

Strides = tuple[int, ...]
Change = Callable[[Strides], Strides]


@dataclass(frozen=True)
class Nest:
    """A contraction, and what its axes are counted in.

    scale   how many steps of its split axis one step of the original's stands for
    source  where a copy of `a` comes from, if there is one; its strides follow the axes
    """

    kernel: Contraction
    scale: int = 1
    source: Access | None = None

    @property
    def sizes(self) -> tuple[Dimension, ...]:
        return (*self.kernel.space, *self.kernel.reduced)

    def change(self, every: Change, space: Change) -> Nest:
        """Apply `every` to strides over all axes, and `space` to those of the epilogue."""
        kernel = self.kernel
        changed = replace(
            kernel,
            a=_access(kernel.a, every),
            b=_access(kernel.b, every),
            body=tuple(_instruction(one, space) for one in kernel.body),
            stores=tuple(replace(one, strides=space(one.strides)) for one in kernel.stores),
        )
        source = self.source and _access(self.source, every)
        return Nest(changed, self.scale, source)


def simplify(nest: Nest) -> Nest:
    """Drop axes of extent one and merge neighbours that lie in line.

    Before: space (batch, time, features), reduced (inputs,), split 0
    After:  space (time * batch, features), reduced (inputs,), split 0, scale = time
    """
    nest = _drop_unit_axes(nest)
    axis = 0
    while axis + 1 < len(nest.sizes):
        if _in_line(nest, axis):
            nest = _merge(nest, axis)
        else:
            axis += 1
    return nest


def _drop_unit_axes(nest: Nest) -> Nest:
    """Remove axes of extent one, except the split axis and the column axis."""
    kernel, count = nest.kernel, len(nest.kernel.space)
    kept = [
        axis
        for axis, size in enumerate(nest.sizes)
        if size != 1 or axis in {kernel.split, count - 1}
    ]
    if len(kept) == len(nest.sizes):
        return nest
    inside = [axis for axis in kept if axis < count]
    changed = nest.change(
        lambda strides: tuple(strides[axis] for axis in kept),
        lambda strides: tuple(strides[axis] for axis in inside),
    )
    dropped = replace(
        changed.kernel,
        space=tuple(kernel.space[axis] for axis in inside),
        reduced=tuple(kernel.reduced[axis - count] for axis in kept if axis >= count),
        split=kept.index(kernel.split),
    )
    return replace(changed, kernel=dropped)


def _in_line(nest: Nest, axis: int) -> bool:
    """Whether `axis` and the next can be one axis: neither order nor any address changes."""
    count = len(nest.kernel.space)
    inner = nest.sizes[axis + 1]
    if axis == count - 1 or nest.kernel.split == axis + 1 or isinstance(inner, Batch):
        return False
    found: list[Strides] = []

    def note(strides: Strides) -> Strides:
        found.append(strides)
        return strides

    nest.change(note, note if axis + 1 < count else _same)
    return all(strides[axis] == strides[axis + 1] * inner for strides in found)


def _merge(nest: Nest, axis: int) -> Nest:
    """Replace `axis` and the next by one axis with the stride of the inner one."""
    kernel, sizes, count = nest.kernel, nest.sizes, len(nest.kernel.space)
    inner = sizes[axis + 1]
    assert isinstance(inner, int)

    def without(strides: Strides) -> Strides:
        return (*strides[:axis], *strides[axis + 1 :])

    in_space = axis + 1 < count
    changed = nest.change(without, without if in_space else _same)
    merged = (*sizes[:axis], sizes[axis] * inner, *sizes[axis + 2 :])
    spaces = count - 1 if in_space else count
    joined = replace(
        changed.kernel,
        space=merged[:spaces],
        reduced=merged[spaces:],
        split=kernel.split - (kernel.split > axis),
    )
    scale = nest.scale * (inner if kernel.split == axis else 1)
    return Nest(joined, scale, changed.source)


def _same(strides: Strides) -> Strides:
    return strides


def _guards(guards: tuple[Guard, ...], change: Change) -> tuple[Guard, ...]:
    return tuple(replace(guard, strides=change(guard.strides)) for guard in guards)


def _access(access: Access, change: Change) -> Access:
    return replace(access, strides=change(access.strides), guards=_guards(access.guards, change))


def _instruction(one: Instruction, change: Change) -> Instruction:
    match one:
        case Load() | Lookup():
            return replace(one, strides=change(one.strides), guards=_guards(one.guards, change))
        case Position():
            return replace(one, strides=change(one.strides))
        case Inside():
            return replace(one, guards=_guards(one.guards, change))
        case Random():
            return replace(one, row=change(one.row), within=change(one.within))
        case _:
            return one
