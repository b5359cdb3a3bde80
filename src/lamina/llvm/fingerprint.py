"""A digest of a program: equal for programs that compute the same in the same way.

Inputs and random sites are numbered by first use, so that two traces of one model agree, in this
process and in the next. Names, layers and lines of the user's code do not count.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from lamina.ir.graph import Input, Node, toposort
from lamina.ir.program import Program


def fingerprint(program: Program) -> str:
    """A hexadecimal digest of everything that the compiled step depends on."""
    writer = _Writer()
    writer.nodes([*program.states, *program.inputs, *program.roots])
    writer.line("states", [writer.number[node] for node in program.states])
    writer.line("inputs", [writer.number[node] for node in program.inputs])
    writer.line("outputs", [writer.number[node] for node in program.outputs])
    updates = [None if node is None else writer.number[node] for node in program.updates]
    writer.line("updates", updates)
    return writer.digest.hexdigest()


class _Writer:
    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=20)
        self.number: dict[Node, int] = {}

    def line(self, *parts: object) -> None:
        self.digest.update(repr(parts).encode() + b"\n")

    def nodes(self, roots: list[Node]) -> None:
        for node in toposort(roots):
            if node not in self.number:
                fields = self.attributes(node.op)
                inputs = [self.number[parent] for parent in node.inputs]
                self.number[node] = len(self.number)
                self.line(type(node.op).__name__, fields, inputs, str(node.types))

    def attributes(self, value: Any) -> object:
        """The fields of an op, with nodes inside (a loop's body) replaced by their numbers."""
        if isinstance(value, Input):
            return str(value.type)
        if isinstance(value, Node):
            self.nodes([value])
            return self.number[value]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return [
                (field.name, self.attributes(getattr(value, field.name)))
                for field in dataclasses.fields(value)
            ]
        if isinstance(value, tuple):
            return [self.attributes(item) for item in value]
        return repr(value)
