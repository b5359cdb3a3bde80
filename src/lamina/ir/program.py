"""A program: a pure function from states and inputs to outputs and new states."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.errors import ShapeError
from lamina.ir.graph import Input, Node, toposort


@dataclass(frozen=True)
class Program:
    """`(states, inputs) -> (outputs, new states)`; every leaf input node is in one of the two.

    states    input nodes whose buffers live across calls (weights, slots, accumulators, keys)
    inputs    input nodes fed at each call; those with a batch axis are rows of a data array
    outputs   nodes returned
    updates   the new value of each state, or None where the program leaves it alone
    """

    inputs: tuple[Node, ...]
    states: tuple[Node, ...]
    outputs: tuple[Node, ...]
    updates: tuple[Node | None, ...]

    def __post_init__(self) -> None:
        if len(self.states) != len(self.updates):
            raise ShapeError(f"{len(self.states)} states, but {len(self.updates)} updates")
        for state, update in zip(self.states, self.updates, strict=True):
            if update is not None and update.type != state.type:
                raise ShapeError(f"a state of {state.type} cannot be updated to {update.type}")
        known = {*self.inputs, *self.states}
        for node in self.nodes():
            if isinstance(node.op, Input) and node not in known:
                raise ShapeError(f"the program reads {node.op.label or node}, which nothing feeds")

    @property
    def roots(self) -> list[Node]:
        """Outputs, then the updates that are there."""
        return [*self.outputs, *(node for node in self.updates if node is not None)]

    def nodes(self) -> list[Node]:
        return toposort(self.roots)

    def with_roots(self, roots: list[Node]) -> Program:
        """The same program computing `roots` (same order and number as `self.roots`)."""
        feed = iter(roots)
        outputs = tuple(next(feed) for _ in self.outputs)
        updates = tuple(None if node is None else next(feed) for node in self.updates)
        return Program(self.inputs, self.states, outputs, updates)
