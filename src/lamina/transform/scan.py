"""The gradient of a loop over time.

The backward pass of a `Scan` is another one that runs the other way. The forward loop is run
again with more results, the values that the backward pass would find expensive to recompute: the
carries that each step began with, and the results of contractions. (A later pass merges the two
forward loops into one.) The gradient of a constant is a sum over time; where each term is a
product of two values of the step, both leave the loop and one `Dot` contracts time and batch
together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from lamina.ir.contractions import (
    Conv,
    ConvFilterGrad,
    ConvInputGrad,
    Dot,
    Window,
    WindowGrad,
)
from lamina.ir.control import Body, Composite, Cond, Scan, While, scan
from lamina.ir.elementary import Broadcast, Map, Reduce, reduce_sum
from lamina.ir.graph import Const, Node, Op, Pick, apply, input_node, rewrite, toposort
from lamina.ir.indexing import Scatter
from lamina.ir.movement import Slice, Transpose, transpose
from lamina.ir.order import Sort, TopK
from lamina.ir.scalar import add, zeros_like
from lamina.transform.lift import summed_over_time

Gradients = list[Node | None]
Differentiate = Callable[[Sequence[Node], Sequence[Node | None], Sequence[Node]], Gradients]

# Worth storing for every step rather than computing again in the backward pass.
EXPENSIVE = (
    Conv,
    ConvFilterGrad,
    ConvInputGrad,
    Composite,
    Cond,
    Dot,
    Scan,
    Sort,
    TopK,
    While,
    Window,
    WindowGrad,
)


@dataclass
class _Stack:
    """Values of a step that leave the loop, each stacked over time once."""

    nodes: list[Node] = field(default_factory=list)

    def place(self, node: Node) -> int:
        if node not in self.nodes:
            self.nodes.append(node)
        return self.nodes.index(node)


def depends(roots: Iterable[Node], on: Iterable[Node]) -> set[Node]:
    """All nodes below the roots that read one of `on`, those themselves included."""
    found = set(on)
    for node in toposort(roots):
        if any(parent in found for parent in node.inputs):
            found.add(node)
    return found


def is_zero(node: Node) -> bool:
    """Whether this is a constant 0 of some shape."""
    source = node.inputs[0] if isinstance(node.op, Broadcast) else node
    return isinstance(source.op, Const) and source.op.value == 0


def terms(node: Node) -> list[Node]:
    """The summands of a sum."""
    found, stack = [], [node]
    while stack:
        top = stack.pop()
        if isinstance(top.op, Map) and top.op.fn == "add":
            stack.extend(reversed(top.inputs))
        else:
            found.append(top)
    return found


def is_expensive(node: Node) -> bool:
    """Whether this is a result of an op that is worth storing, or moving out of a loop."""
    source = node.inputs[0] if isinstance(node.op, Pick) else node
    return isinstance(source.op, EXPENSIVE) and len(node.types) == 1


def scan_gradient(
    node: Node, slots: Gradients, needed: Sequence[bool], differentiate: Differentiate
) -> Gradients:
    """The gradients of a scan's inputs: carries, elements, constants.

    slots   the gradient of each result, None for zero
    needed  for each input, whether its gradient is asked for
    """
    return _Backward(node, slots, needed, differentiate).gradients()


class _Backward:
    """The backward loop of one scan while it is put together.

    Its carries are the gradients of the forward carries, and running sums for those constants
    whose gradient cannot leave the loop. Its elements are the gradients of the stacked results,
    the stored values of the forward loop, and the forward elements.
    """

    def __init__(
        self, node: Node, slots: Gradients, needed: Sequence[bool], differentiate: Differentiate
    ) -> None:
        assert isinstance(node.op, Scan)
        self.node, self.op, self.slots = node, node.op, slots
        self.body = node.op.body
        # What arrives in the body of the backward loop: the gradient of each result.
        self.feeds = [input_node(root.type) for root in self.body.results]
        self.stacked = [k for k in range(self.op.carries, len(slots)) if slots[k] is not None]
        self.carried, inner = self._differentiated(_active(self.op, needed), differentiate)
        self.inner_carry, inner_elements, inner_constants = self.op.split(inner)
        self.stack = _Stack()
        self.element_places = [None if g is None else self.stack.place(g) for g in inner_elements]
        leaving = [_leaving(gradient, self.stack) for gradient in inner_constants]
        self.finishes = [finishes for finishes, _ in leaving]
        self.sums = {k: _together(rest) for k, (_, rest) in enumerate(leaving) if rest}

    def _differentiated(
        self, active: Sequence[bool], differentiate: Differentiate
    ) -> tuple[list[int], Gradients]:
        """Which carries' gradients go round, and the gradients of the body's parameters."""
        parameters = [p for p, a in zip(self.body.parameters, active, strict=True) if a]
        flowing = [slot is not None for slot in self.slots[: self.op.carries]]
        while True:  # until no further carry receives a gradient from a later step
            arriving: Gradients = [None] * len(self.feeds)
            for k in (*(k for k, flows in enumerate(flowing) if flows), *self.stacked):
                arriving[k] = self.feeds[k]
            found = iter(differentiate(self.body.results, arriving, parameters))
            inner = [next(found) if a else None for a in active]
            more = [held or inner[k] is not None for k, held in enumerate(flowing)]
            if more == flowing:
                return [k for k, flows in enumerate(flowing) if flows], inner
            flowing = more

    def gradients(self) -> Gradients:
        """The gradient of each input of the forward scan, over the backward one."""
        op, count = self.op, self.op.carries
        last, totals, outside = self._run()
        result: Gradients = [None] * len(self.node.inputs)
        for k, value in zip(self.carried, last, strict=True):
            result[k] = value
        for k, place in enumerate(self.element_places):
            result[count + k] = None if place is None else outside[place]
        for k, finishes in enumerate(self.finishes):
            parts = [finish(outside) for finish in finishes]
            parts += [totals[k]] if k in totals else []
            result[count + op.elements + k] = _together(parts) if parts else None
        return result

    def _run(self) -> tuple[Sequence[Node], dict[int, Node], Sequence[Node]]:
        """(gradients of the first carries, sums by constant, stacked values) of the new loop."""
        op, node = self.op, self.node
        carry_results = [_or_zero(self.inner_carry[k], self.feeds[k]) for k in self.carried]
        totals = {k: input_node(value.type) for k, value in self.sums.items()}
        sums = [add(totals[k], value) for k, value in self.sums.items()]
        results = [*carry_results, *sums, *self.stack.nodes]

        saved = _saved(op, results)
        forward = self._forward(saved)
        own_carry, own_elements, own_constants = op.split(self.body.parameters)
        restored = {value: input_node(value.type) for value in saved if value not in own_carry}
        results = rewrite(results, lambda same: same, dict(restored))

        parameters = (
            *(self.feeds[k] for k in self.carried),
            *totals.values(),
            *(self.feeds[k] for k in self.stacked),
            *(restored.get(value, value) for value in saved),
            *own_elements,
            *own_constants,
        )
        _, elements, constants = op.split(node.inputs)
        first = [_or_zero(self.slots[k], node.inputs[k]) for k in self.carried]
        back = scan(
            Body(parameters, tuple(results)),
            op.length,
            [*first, *(zeros_like(total) for total in totals.values())],
            [*(_given(self.slots[k]) for k in self.stacked), *forward, *elements],
            constants,
            reverse=not op.reverse,
        )
        end = len(self.carried) + len(totals)
        return (
            back[: len(self.carried)],
            dict(zip(totals, back[len(self.carried) : end], strict=True)),
            back[end:],
        )

    def _forward(self, saved: Sequence[Node]) -> Sequence[Node]:
        """The saved values of every step, from a forward loop that also gives these."""
        body = Body(self.body.parameters, (*self.body.results, *saved))
        inputs = self.op.split(self.node.inputs)
        found = scan(body, self.op.length, *inputs, reverse=self.op.reverse)
        return found[len(self.body.results) :]


def _or_zero(gradient: Node | None, like: Node) -> Node:
    return zeros_like(like) if gradient is None else gradient


def _given(gradient: Node | None) -> Node:
    assert gradient is not None
    return gradient


def _active(op: Scan, needed: Sequence[bool]) -> list[bool]:
    """Which parameters of the body an asked-for gradient can flow through."""
    active = list(needed)
    parameters = op.body.parameters
    while True:
        touched = depends(
            op.body.results, [p for p, a in zip(parameters, active, strict=True) if a]
        )
        more = [
            a or (k < op.carries and op.body.results[k] in touched) for k, a in enumerate(active)
        ]
        if more == active:
            return [a and p.type.is_float for a, p in zip(active, parameters, strict=True)]
        active = more


def _together(parts: Sequence[Node]) -> Node:
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    return total


Finish = Callable[[Sequence[Node]], Node]


def _leaving(gradient: Node | None, stack: _Stack) -> tuple[list[Finish], list[Node]]:
    """Cut a constant's gradient into what is done after the loop, and what is summed inside it."""
    if gradient is None:
        return [], []
    leaving: list[Finish] = []
    rest: list[Node] = []
    for term in terms(gradient):
        finish = _outside(term, stack)
        if finish is None:
            rest.append(term)
        else:
            leaving.append(finish)
    return leaving, rest


def _outside(term: Node, stack: _Stack) -> Finish | None:
    """How to sum this term over time after the loop, from values stacked by the loop."""
    match term.op:
        case Dot() | ConvFilterGrad():
            places = [stack.place(x) for x in term.inputs]
            return lambda outside: _summed(term.op, [outside[place] for place in places])
        case Scatter(kind="add", axis=0, batch=0):
            base, *step = term.inputs
            if not is_zero(base):
                return None
            places = [stack.place(x) for x in step]
            return lambda outside: apply(term.op, base, *(outside[place] for place in places))
        case Transpose(perm=perm):
            inner = _outside(term.inputs[0], stack)
            return None if inner is None else lambda outside: transpose(inner(outside), perm)
        case Reduce(kind="sum", axes=axes):
            place = stack.place(term.inputs[0])
            return lambda outside: reduce_sum(outside[place], [0, *(axis + 1 for axis in axes)])
    return None


def _summed(op: Op, inputs: Sequence[Node]) -> Node:
    total = summed_over_time(op, inputs)
    assert total is not None
    return total


def _saved(op: Scan, results: Sequence[Node]) -> list[Node]:
    """What the backward pass reads of the forward one: carries, and what is expensive.

    A stored value that is read only through one elementwise function gives way to its result: the
    sum of two products instead of both. One that is read in slices only gives way to them: the
    gates of a cell instead of what they are computed from.
    """
    body = op.body
    carry, elements, _ = op.split(body.parameters)
    forward = depends(body.results, [*carry, *elements]) - set(body.parameters)
    met, passed = _walk(results, lambda node: node in forward and is_expensive(node))
    stored = set(met)
    readers: dict[Node, set[Node]] = {}
    for node in passed:
        for parent in node.inputs:
            readers.setdefault(parent, set()).add(node)
    roots = set(results)

    def follower(node: Node) -> Node | None:
        """The elementwise function that alone reads a node, if there is one."""
        after = readers.get(node, set())
        if node in roots or len(after) != 1:
            return None
        (reader,) = after
        fits = isinstance(reader.op, Map) and reader.type == node.type and reader in forward
        return reader if fits else None

    pending = list(met)
    while pending:
        node = pending.pop()
        reader = follower(node)
        instead = [reader] if reader else []
        slices = readers.get(node, set())
        if node not in roots and _cut_up(node, slices) and any(map(follower, slices)):
            instead = [part for part in passed if part in slices]
        if instead:
            stored.discard(node)
            pending.extend(other for other in instead if other not in stored)
            stored.update(instead)
    return _walk(results, lambda node: node in stored or node in carry)[0]


def _cut_up(node: Node, readers: set[Node]) -> bool:
    """Whether a value is read in slices only, which are no more than it is together."""
    if not readers or not all(isinstance(reader.op, Slice) for reader in readers):
        return False
    return sum(reader.type.size_at(1) for reader in readers) <= node.type.size_at(1)


def _walk(results: Sequence[Node], stop: Callable[[Node], bool]) -> tuple[list[Node], list[Node]]:
    """Walk down from the results: (the nodes at which to stop, the nodes walked through)."""
    met: dict[Node, None] = {}
    passed: dict[Node, None] = {}
    pending = list(results)
    while pending:
        node = pending.pop()
        if node in met or node in passed:
            continue
        if stop(node):
            met[node] = None
        else:
            passed[node] = None
            pending.extend(node.inputs)
    return list(met), list(passed)
