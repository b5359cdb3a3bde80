"""The plain interpreter: every op by its NumPy meaning, values dropped after their last reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.errors import ShapeError
from lamina.ir.graph import Input, Node, Op, Pick, Rows, apply, constant, rebuilt, toposort


def resolved(roots: Sequence[Node], rows: int) -> list[Node]:
    """The same graph for exactly `rows` rows: no batch dimension and no `Rows` is left in it.

    Inputs keep their number, so that `input.op.at(rows)` finds them again.
    """
    new: dict[Node, Node] = {}
    for node in toposort(roots):
        inputs = tuple(new[parent] for parent in node.inputs)
        if isinstance(node.op, Rows):
            new[node] = constant(node.op.factor * rows, node.op.dtype)
            continue
        op = node.op.at(rows)
        if op != node.op:
            new[node] = apply(op, *inputs)
        elif all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            new[node] = node
        else:
            new[node] = rebuilt(node, inputs)
    return [new[root] for root in roots]


@dataclass(frozen=True)
class _Step:
    op: Op
    sources: tuple[int, ...]
    target: int
    finished: tuple[int, ...]


class Schedule:
    """A graph without batch dimensions, ready to run on arrays in the order of `feeds`."""

    def __init__(self, roots: Sequence[Node], feeds: Sequence[Node]) -> None:
        order = toposort(roots)
        place = {node: number for number, node in enumerate(order)}
        last = dict(place)
        for node in order:
            for parent in node.inputs:
                last[parent] = place[node]
        kept = set(roots)
        self._steps: list[_Step] = []
        self._feeds = [place.get(node) for node in feeds]
        self._roots = [place[root] for root in roots]
        self._count = len(order)
        given = set(feeds)
        for node in order:
            if node in given:
                continue
            if isinstance(node.op, Input):
                raise ShapeError(f"nothing feeds the input {node.op.label or node}")
            here = place[node]
            done = {p for p in (*node.inputs, node) if last[p] == here and p not in kept}
            self._steps.append(
                _Step(
                    node.op,
                    tuple(place[parent] for parent in node.inputs),
                    here,
                    tuple(sorted(place[parent] for parent in done)),
                )
            )

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        values: list[Any] = [None] * self._count
        for position, array in zip(self._feeds, arrays, strict=True):
            if position is not None:
                values[position] = array
        with np.errstate(all="ignore"):
            for step in self._steps:
                operands = [values[source] for source in step.sources]
                if isinstance(step.op, Pick):
                    values[step.target] = operands[0][step.op.index]
                else:
                    values[step.target] = step.op.numpy(*operands)
                for position in step.finished:
                    values[position] = None
        return [values[root] for root in self._roots]


def interpret(
    roots: Sequence[Node], feed: Mapping[Node, Any], rows: int | None = None
) -> list[Any]:
    """The values of `roots`, given the inputs' arrays; `rows` where a batch dimension occurs."""
    feeds = list(feed)
    if rows is not None:
        count = len(roots)
        together = resolved([*roots, *feeds], rows)
        roots, feeds = together[:count], together[count:]
    return Schedule(roots, feeds)(list(feed.values()))
