"""Loops, branches and named sub-graphs: ops that hold a closed graph."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lamina.errors import DtypeError, ShapeError, layout
from lamina.ir.elementary import table
from lamina.ir.graph import Input, Node, Op, apply, input_node, picks, toposort
from lamina.ir.interpret import Schedule, resolved
from lamina.types import Type, numpy_dtype, static_shape


@dataclass(frozen=True)
class Body:
    """A closed graph: results computed from parameters (input nodes) and from nothing else."""

    parameters: tuple[Node, ...]
    results: tuple[Node, ...]

    def __post_init__(self) -> None:
        known = set(self.parameters)
        for node in self.nodes():
            if isinstance(node.op, Input) and node not in known:
                raise ShapeError(
                    f"a body reads {node.op.label or node.type}, which is none of its parameters"
                )

    @property
    def types(self) -> tuple[Type, ...]:
        return tuple(node.type for node in self.results)

    def nodes(self) -> list[Node]:
        return toposort(self.results)

    def at(self, rows: int) -> Body:
        """The same body for exactly `rows` rows."""
        return _body_at(self, rows)

    def __call__(self, *arrays: Any) -> list[Any]:
        """Its results by NumPy; of a body without batch dimensions."""
        return _schedule(self)(arrays)

    def check(self, what: str, types: Sequence[Type]) -> None:
        """Raise ShapeError unless arguments of these types fit the parameters."""
        expected = [node.type for node in self.parameters]
        if list(types) != expected:
            raise ShapeError(
                layout(
                    f"{what}: its inputs do not fit the parameters of its body.",
                    [*table(types), *((f"expects {i}", str(t)) for i, t in enumerate(expected))],
                )
            )


@functools.lru_cache(maxsize=64)
def _body_at(body: Body, rows: int) -> Body:
    nodes = resolved([*body.parameters, *body.results], rows)
    count = len(body.parameters)
    return Body(tuple(nodes[:count]), tuple(nodes[count:]))


@functools.lru_cache(maxsize=64)
def _schedule(body: Body) -> Schedule:
    return Schedule(body.results, body.parameters)


def body_of(function: Callable[..., Node | Sequence[Node]], types: Sequence[Type]) -> Body:
    """The body that a function of nodes builds for parameters of these types."""
    parameters = tuple(input_node(type) for type in types)
    results = function(*parameters)
    several = (results,) if isinstance(results, Node) else tuple(results)
    return Body(parameters, several)


def inline(body: Body, arguments: Sequence[Node]) -> tuple[Node, ...]:
    """The results of a body as ordinary nodes over the arguments."""
    new: dict[Node, Node] = dict(zip(body.parameters, arguments, strict=True))
    for node in body.nodes():
        if node not in new:
            new[node] = (
                apply(node.op, *(new[parent] for parent in node.inputs)) if node.inputs else node
            )
    return tuple(new[root] for root in body.results)


# ------------------------------------------------------------------------------------ Scan


@dataclass(frozen=True)
class Scan(Op):
    """A loop over time: `(carry..., x_t..., constants...) -> (carry..., y_t...)`, `length` times.

    inputs    `carries` first values, then `elements` values with time on axis 0, then constants
    results   the last carries, then for each further result of the body all its values, time on
              axis 0, in the order of time whichever way the loop runs
    reverse   start at the last step
    """

    body: Body
    length: int
    reverse: bool
    carries: int
    elements: int

    def split(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """(carries, elements, constants) of its inputs or of its body's parameters."""
        end = self.carries + self.elements
        return values[: self.carries], values[self.carries : end], values[end:]

    def infer(self, *types: Any) -> tuple[Type, ...]:
        carry, elements, constants = self.split(types)
        for type in elements:
            if not type.rank or type.shape[0] != self.length:
                raise ShapeError(
                    layout(
                        f"scan: what it walks over must have {self.length} steps on axis 0.",
                        [("input", str(type))],
                    )
                )
        sliced = [Type(type.shape[1:], type.dtype) for type in elements]
        self.body.check("scan", [*carry, *sliced, *constants])
        results = self.body.types
        if list(results[: self.carries]) != list(carry):
            raise ShapeError(
                layout(
                    "scan: a carry must keep its type.",
                    [
                        (f"carry {i}", f"{before} becomes {after}")
                        for i, (before, after) in enumerate(zip(carry, results, strict=False))
                    ],
                )
            )
        stacked = [Type((self.length, *t.shape), t.dtype) for t in results[self.carries :]]
        return (*carry, *stacked)

    def numpy(self, *arrays: Any) -> Any:
        carry, elements, constants = self.split(arrays)
        types = self.body.types[self.carries :]
        stacked = [
            np.empty((self.length, *static_shape(type.shape, 0)), numpy_dtype(type.dtype))
            for type in types
        ]
        steps = range(self.length)
        for t in reversed(steps) if self.reverse else steps:
            results = self.body(*carry, *(x[t] for x in elements), *constants)
            carry = results[: self.carries]
            for whole, part in zip(stacked, results[self.carries :], strict=True):
                whole[t] = part
        found = (*carry, *stacked)
        return found if len(found) > 1 else found[0]

    def at(self, rows: int) -> Scan:
        return replace(self, body=self.body.at(rows))


def scan(
    body: Body,
    length: int,
    carry: Sequence[Node],
    elements: Sequence[Node],
    constants: Sequence[Node] = (),
    *,
    reverse: bool = False,
) -> tuple[Node, ...]:
    """The last carries, then the stacked further results of a body over `length` steps."""
    op = Scan(body, length, reverse, len(carry), len(elements))
    return picks(apply(op, *carry, *elements, *constants))


# --------------------------------------------------------------------- While, Cond, Composite


@dataclass(frozen=True)
class While(Op):
    """Repeat `body` on the carries while `test` holds; both also read the constants. No gradient.

    inputs    `carries` first values, then constants
    test      one bool scalar
    """

    test: Body
    body: Body
    carries: int

    def infer(self, *types: Any) -> tuple[Type, ...]:
        self.test.check("while", types)
        self.body.check("while", types)
        if self.test.types != (Type((), "bool"),):
            raise DtypeError("while: the test must give one bool scalar.")
        if self.body.types != tuple(types[: self.carries]):
            raise ShapeError(
                layout("while: carries must keep their types.", table(self.body.types))
            )
        return self.body.types

    def numpy(self, *arrays: Any) -> Any:
        carry, constants = arrays[: self.carries], arrays[self.carries :]
        while self.test(*carry, *constants)[0]:
            carry = tuple(self.body(*carry, *constants))
        return tuple(carry) if self.carries > 1 else carry[0]

    def at(self, rows: int) -> While:
        return replace(self, test=self.test.at(rows), body=self.body.at(rows))


def bodies(op: Op) -> dict[str, Body]:
    """The closed graphs inside an op (a loop, a branch), by the names of its fields."""
    found = {name.name: getattr(op, name.name) for name in dataclasses.fields(op)}
    return {name: value for name, value in found.items() if isinstance(value, Body)}


def endless(roots: Sequence[Node]) -> bool:
    """Whether a loop of unknown length is among what the roots need, or inside of a body there."""
    return any(
        isinstance(node.op, While)
        or any(endless(body.results) for body in bodies(node.op).values())
        for node in toposort(roots)
    )


@dataclass(frozen=True)
class Cond(Op):
    """`then` where the flag (a bool scalar, the first input) holds, `otherwise` where not."""

    then: Body
    otherwise: Body

    def infer(self, flag: Type, *types: Any) -> tuple[Type, ...]:
        if flag != Type((), "bool"):
            raise DtypeError(layout("cond: the flag must be a bool scalar.", [("flag", str(flag))]))
        self.then.check("cond", types)
        self.otherwise.check("cond", types)
        if self.then.types != self.otherwise.types:
            raise ShapeError(
                layout(
                    "cond: both branches must give the same types.",
                    [
                        ("then", ", ".join(map(str, self.then.types))),
                        ("else", ", ".join(map(str, self.otherwise.types))),
                    ],
                )
            )
        return self.then.types

    def numpy(self, flag: Any, *arrays: Any) -> Any:
        results = (self.then if flag else self.otherwise)(*arrays)
        return tuple(results) if len(results) > 1 else results[0]

    def at(self, rows: int) -> Cond:
        return Cond(self.then.at(rows), self.otherwise.at(rows))


@dataclass(frozen=True)
class Composite(Op):
    """A named sub-graph that an executor may compute in its own way; it must equal its body."""

    label: str
    body: Body

    def infer(self, *types: Any) -> tuple[Type, ...]:
        self.body.check(self.label, types)
        return self.body.types

    def numpy(self, *arrays: Any) -> Any:
        results = self.body(*arrays)
        return tuple(results) if len(results) > 1 else results[0]

    def at(self, rows: int) -> Composite:
        return Composite(self.label, self.body.at(rows))


def while_(
    test: Body, body: Body, carry: Sequence[Node], constants: Sequence[Node] = ()
) -> tuple[Node, ...]:
    """The carries after the last iteration."""
    return picks(apply(While(test, body, len(carry)), *carry, *constants))


def cond(flag: Node, then: Body, otherwise: Body, inputs: Sequence[Node]) -> tuple[Node, ...]:
    """The results of one of two bodies on the same inputs."""
    return picks(apply(Cond(then, otherwise), flag, *inputs))


def composite(label: str, body: Body, inputs: Sequence[Node]) -> tuple[Node, ...]:
    """The results of a body, kept together under a name."""
    return picks(apply(Composite(label, body), *inputs))
