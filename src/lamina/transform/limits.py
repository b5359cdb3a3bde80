"""Which inputs of a program are used as indexes, and how large their tables are."""

from __future__ import annotations

from lamina.ir.graph import Input, Node
from lamina.ir.indexing import Gather, Scatter
from lamina.ir.movement import Broadcast, Reshape, Slice, Transpose
from lamina.ir.program import Program
from lamina.ir.scalar import Cast
from lamina.types import Batch

_THROUGH = (Reshape, Transpose, Slice, Broadcast)


def index_limits(program: Program) -> dict[Node, int]:
    """The table size for each integer input that indexes a table, the smallest of several.

    An index is followed back through casts between integers, reshapes, transposes and slices;
    what is computed on the way (an offset, a clip) is the program's own business and is clamped.

    >>> from lamina.ir.graph import input_node
    >>> from lamina.ir.indexing import gather
    >>> from lamina.types import Type
    >>> table, tokens = input_node(Type((7, 2))), input_node(Type((3,), "int32"))
    >>> list(index_limits(Program((tokens, table), (), (gather(table, tokens),), ())).values())
    [7]
    """
    known = set(program.inputs)
    found: dict[Node, int] = {}
    for node in program.nodes():
        if not isinstance(node.op, (Gather, Scatter)):
            continue
        table, index = node.inputs[0], node.inputs[1]
        size = table.shape[node.op.axis]
        source = _source(index)
        if source in known and not isinstance(size, Batch):
            found[source] = min(size, found.get(source, size))
    return found


def _source(node: Node) -> Node:
    while not isinstance(node.op, Input):
        through = isinstance(node.op, _THROUGH) or (
            isinstance(node.op, Cast) and node.type.is_integer and node.inputs[0].type.is_integer
        )
        if not through:
            return node
        node = node.inputs[0]
    return node
