"""Branches and named sub-graphs, written out before the graph is cut into kernels.

A branch computes both sides and selects: sides are pure, and a kernel's loop has no room for a
decision. A composite becomes its body, a variance the mean of squares that it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina.ir.control import Body, Composite, Cond, Scan, While, inline
from lamina.ir.elementary import broadcast
from lamina.ir.graph import Node, Pick, apply, in_scope_of, rewrite
from lamina.ir.reductions import Variance, mean_square
from lamina.ir.scalar import where


def write_out(roots: Sequence[Node]) -> list[Node]:
    """The same values without `Cond`, `Composite` and `Variance`, inside of loops too."""
    results: dict[Node, tuple[Node, ...]] = {}

    def visit(node: Node) -> Node:
        match node.op:
            case Composite(body=body):
                values = tuple(write_out(inline(body, node.inputs)))
            case Variance(axes=axes):
                with in_scope_of(node):
                    values = (mean_square(node.inputs[0], axes),)
            case Cond(then=then, otherwise=otherwise):
                flag, *inputs = node.inputs
                yes = write_out(inline(then, inputs))
                no = write_out(inline(otherwise, inputs))
                values = tuple(
                    where(broadcast(flag, a.shape, ()), a, b) for a, b in zip(yes, no, strict=True)
                )
            case Scan(body=body):
                inner = _written_out(body)
                if inner == body:
                    return node
                op = Scan(inner, node.op.length, node.op.reverse, node.op.carries, node.op.elements)
                return apply(op, *node.inputs)
            case While(test=test, body=body):
                loop = While(_written_out(test), _written_out(body), node.op.carries)
                return node if loop == node.op else apply(loop, *node.inputs)
            case Pick(index=index) if node.inputs[0] in results:
                return results[node.inputs[0]][index]
            case _:
                return node
        if len(values) == 1:
            return values[0]
        results[node] = values
        return node

    return rewrite(roots, visit)


def _written_out(body: Body) -> Body:
    return Body(body.parameters, tuple(write_out(body.results)))
