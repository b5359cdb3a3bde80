"""Gradients by one reverse sweep over the graph; the result is ordinary graph."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import ShapeError, layout
from lamina.ir.control import Body, Composite, Cond, Scan, While, cond
from lamina.ir.graph import Node, Pick, in_scope_of, input_node, rewrite, toposort
from lamina.ir.scalar import add, zeros_like
from lamina.transform.scan import scan_gradient

Gradients = list[Node | None]


def gradients(
    outputs: Sequence[Node], cotangents: Sequence[Node | None], wrt: Sequence[Node]
) -> Gradients:
    """`sum_k <cotangent_k, d output_k / d x>` for each x of `wrt`; None where nothing flows.

    outputs      float nodes
    cotangents   one per output, of its type; None counts as zero
    wrt          any nodes, not only inputs
    raises       ShapeError where a cotangent does not fit its output, or for a `While` on the way

    >>> from lamina.ir.graph import constant, input_node
    >>> from lamina.ir.scalar import square
    >>> from lamina.types import Type
    >>> x = input_node(Type(()))
    >>> gradients([square(x)], [constant(1.0)], [x])
    [<map float32 ()>]
    """
    sweep: dict[Node, list[Node | None]] = {}
    targets = set(wrt)
    order = toposort(outputs)
    leads: set[Node] = set()  # nodes that some x of wrt flows into
    for node in order:
        if node in targets or any(parent in leads for parent in node.inputs):
            leads.add(node)

    def send(node: Node, gradient: Node) -> None:
        source, index = (node.inputs[0], node.op.index) if isinstance(node.op, Pick) else (node, 0)
        slots = sweep.setdefault(source, [None] * len(source.types))
        held = slots[index]
        slots[index] = gradient if held is None else add(held, gradient)

    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is None or not output.type.is_float:
            continue
        if cotangent.type != output.type:
            raise ShapeError(
                layout(
                    "gradients: a cotangent does not fit its output.",
                    [("output", str(output.type)), ("given", str(cotangent.type))],
                )
            )
        send(output, cotangent)

    for node in reversed(order):
        slots = sweep.get(node)
        if slots is None or node not in leads or not node.inputs or isinstance(node.op, Pick):
            continue
        needed = [parent in leads for parent in node.inputs]
        if not any(needed) or all(slot is None for slot in slots):
            continue
        for parent, wanted, gradient in zip(
            node.inputs, needed, _backward(node, slots, needed), strict=True
        ):
            if gradient is not None and wanted and parent.type.is_float:
                send(parent, gradient)
    return [_found(sweep, x) for x in wrt]


def _found(sweep: dict[Node, list[Node | None]], x: Node) -> Node | None:
    if isinstance(x.op, Pick):
        slots = sweep.get(x.inputs[0])
        return None if slots is None else slots[x.op.index]
    slots = sweep.get(x)
    return None if slots is None else slots[0]


def _backward(node: Node, slots: Gradients, needed: list[bool]) -> Sequence[Node | None]:
    """The gradients of one node's inputs."""
    match node.op:
        case Scan():
            return scan_gradient(node, slots, needed, gradients)
        case Cond():
            return _cond_gradient(node, slots, needed)
        case Composite(body=body):
            inner = gradients(body.results, slots, body.parameters)
            return _over(inner, body, node.inputs, slots)
        case While():
            raise ShapeError(
                layout(
                    "while: has no gradient, because the number of its iterations is unknown.",
                    [("layer", node.scope or "-")],
                    hint="use a scan of fixed length, or stop_gradient",
                )
            )
    with in_scope_of(node):
        if len(node.types) > 1:
            return node.op.vjp(tuple(slots), node, *node.inputs)
        return node.op.vjp(slots[0], node, *node.inputs)


def _over(found: Gradients, body: Body, arguments: Sequence[Node], outer: Gradients) -> Gradients:
    """Gradients of a body, read over the arguments in place of its parameters."""
    known = dict(zip(body.parameters, arguments, strict=True))
    known.update((node, node) for node in outer if node is not None)
    there = [node for node in found if node is not None]
    replaced = iter(rewrite(there, lambda node: node, known))
    return [None if node is None else next(replaced) for node in found]


def _cond_gradient(node: Node, slots: Gradients, needed: list[bool]) -> Gradients:
    """The gradient of a branch is a branch over the gradients."""
    op = node.op
    assert isinstance(op, Cond)
    inputs = node.inputs[1:]
    wanted = [
        number
        for number, (x, need) in enumerate(zip(inputs, needed[1:], strict=True))
        if need and x.type.is_float
    ]
    arriving = [slot for slot in slots if slot is not None]

    def backward(body: Body) -> Body:
        feeds = [input_node(slot.type) for slot in arriving]
        feed = iter(feeds)
        cotangents = [None if slot is None else next(feed) for slot in slots]
        parameters = [body.parameters[number] for number in wanted]
        found = gradients(body.results, cotangents, parameters)
        results = (
            zeros_like(x) if gradient is None else gradient
            for x, gradient in zip(parameters, found, strict=True)
        )
        return Body((*body.parameters, *feeds), tuple(results))

    back = cond(node.inputs[0], backward(op.then), backward(op.otherwise), [*inputs, *arriving])
    result: Gradients = [None] * len(node.inputs)
    for number, gradient in zip(wanted, back, strict=True):
        result[number + 1] = gradient
    return result
