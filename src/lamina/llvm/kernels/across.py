"""Contractions with one to three columns: vectors lie along the sum instead.

A convolution to one channel would fill one lane of a vector. Where the last reduced axis is
contiguous in both operands it becomes the column axis, each lane sums its own terms, and the
lanes are added in a fixed tree before the epilogue.
"""

from __future__ import annotations

from dataclasses import replace

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

MOST_COLUMNS = 3


def along_the_sum(kernel: Contraction, lanes: int) -> Contraction | None:
    """The contraction with an axis of lanes behind its space, on which only its operands move.

    None where there are more columns, the last reduced axis is no multiple of the lanes or not
    contiguous, or the sum is partial.
    """
    columns = kernel.space[-1]
    count = len(kernel.space)
    if not isinstance(columns, int) or not 0 < columns <= MOST_COLUMNS or not kernel.reduced:
        return None
    last = kernel.reduced[-1]
    if not isinstance(last, int) or last % lanes or last == 0:
        return None
    if kernel.split >= count or kernel.accumulate:
        return None
    sides = (kernel.a, kernel.b)
    if any(side.strides[-1] != 1 for side in sides):
        return None
    if any(guard.strides[-1] for side in sides for guard in side.guards):
        return None

    def turned(strides: tuple[int, ...]) -> tuple[int, ...]:
        return (*strides[:count], strides[-1], *strides[count:-1], strides[-1] * lanes)

    def access(side: Access) -> Access:
        guards = tuple(replace(guard, strides=turned(guard.strides)) for guard in side.guards)
        return replace(side, strides=turned(side.strides), guards=guards)

    return replace(
        kernel,
        space=(*kernel.space, lanes),
        reduced=(*kernel.reduced[:-1], last // lanes),
        a=access(kernel.a),
        b=access(kernel.b),
        body=tuple(_longer(one) for one in kernel.body),
        stores=tuple(replace(one, strides=(*one.strides, 0)) for one in kernel.stores),
    )


def _guards(guards: tuple[Guard, ...]) -> tuple[Guard, ...]:
    return tuple(replace(guard, strides=(*guard.strides, 0)) for guard in guards)


def _longer(one: Instruction) -> Instruction:
    """An instruction of the epilogue, which does not move with the lanes."""
    match one:
        case Load() | Lookup():
            return replace(one, strides=(*one.strides, 0), guards=_guards(one.guards))
        case Position():
            return replace(one, strides=(*one.strides, 0))
        case Inside():
            return replace(one, guards=_guards(one.guards))
        case Random():
            return replace(one, row=(*one.row, 0), within=(*one.within, 0))
        case _:
            return one
