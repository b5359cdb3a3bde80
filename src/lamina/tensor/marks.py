"""Ops of this floor: marks, which vanish when a program is closed, and what only NumPy computes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lamina.ir.control import Body, bodies
from lamina.ir.graph import Node, Op, apply, rewrite, toposort
from lamina.types import Type

_uids = itertools.count()


@dataclass(frozen=True)
class Transparent(Op):
    """The identity on its first input; only its gradient, or its being apart, matters."""

    def infer(self, value: Type, *others: Type) -> Type:
        return value

    def numpy(self, value: Any, *others: Any) -> Any:
        return value


@dataclass(frozen=True)
class Mark(Transparent):
    """The identity, apart from every other node: what a gradient is taken with respect to.

    Equal expressions are one node, so an argument of `grad` would otherwise be mixed up with an
    equal expression inside the function.
    """

    uid: int = field(default_factory=lambda: next(_uids))

    def vjp(self, gradient: Node, out: Node, *inputs: Node) -> list[Node | None]:
        return [gradient]


@dataclass(frozen=True)
class Interpreted(Op):
    """An op that only NumPy computes: a program with one runs on the reference executor."""


def _has_marks(roots: Sequence[Node]) -> bool:
    return any(
        isinstance(node.op, Transparent)
        or any(_has_marks(body.results) for body in bodies(node.op).values())
        for node in toposort(roots)
    )


def unmarked(roots: Sequence[Node]) -> list[Node]:
    """The same graph without transparent nodes, also inside the bodies of loops and branches."""
    if not _has_marks(roots):
        return list(roots)

    def visit(node: Node) -> Node:
        if isinstance(node.op, Transparent):
            return node.inputs[0]
        cleaned = {
            name: Body(body.parameters, tuple(unmarked(body.results)))
            for name, body in bodies(node.op).items()
            if _has_marks(body.results)
        }
        if cleaned:
            return apply(dataclasses.replace(node.op, **cleaned), *node.inputs)
        return node

    return rewrite(list(roots), visit)
