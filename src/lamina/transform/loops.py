"""Passes over the loops of a graph: merge equal ones, drop what is unused, split off the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lamina.ir.control import Body, Scan, scan
from lamina.ir.elementary import Broadcast
from lamina.ir.graph import (
    Node,
    Pick,
    apply,
    input_node,
    pick,
    picks,
    rebuilt,
    rewrite,
    toposort,
)
from lamina.transform.lift import over_time
from lamina.transform.scan import depends, is_expensive
from lamina.types import Type

Replace = Callable[[Node, tuple[Node, ...]], Sequence[Node] | None]


def replaced_scans(roots: Sequence[Node], replace_scan: Replace) -> list[Node]:
    """The graph with each scan replaced by the results that `replace_scan(node, inputs)` gives.

    None, for a scan or for one of its results, leaves it as it is.
    """
    new: dict[Node, Node] = {}
    results: dict[Node, Sequence[Node]] = {}
    for node in toposort(roots):
        if isinstance(node.op, Pick) and node.inputs[0] in results:
            new[node] = results[node.inputs[0]][node.op.index]
            continue
        inputs = tuple(new[parent] for parent in node.inputs)
        if isinstance(node.op, Scan):
            found = replace_scan(node, inputs)
            if found is not None:
                results[node] = found
                new[node] = found[0]  # only read where there is one result, which is not picked
                continue
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        new[node] = node if same else rebuilt(node, inputs)
    return [new[root] for root in roots]


# ----------------------------------------------------------------------------------- merge


def merge_scans(roots: Sequence[Node]) -> list[Node]:
    """Run scans over the same body, inputs and direction as one.

    Differentiating a scan asks for a second forward loop that gives more results than the first:
    this makes them one.

    Before: scan(body -> h, y), scan(body -> h, y, saved)    After: scan(body -> h, y, saved)
    """
    groups: dict[tuple[object, ...], list[Node]] = {}
    for node in toposort(roots):
        if isinstance(node.op, Scan):
            body = node.op.body
            key = (
                node.inputs,
                replace(node.op, body=Body((), ())),
                body.parameters,
                body.results[: node.op.carries],
            )
            groups.setdefault(key, []).append(node)
    together: dict[Node, Body] = {}
    for nodes in groups.values():
        if len(nodes) < 2:
            continue
        bodies = [node.op.body for node in nodes if isinstance(node.op, Scan)]
        results = dict.fromkeys(result for body in bodies for result in body.results)
        carries = nodes[0].op.carries if isinstance(nodes[0].op, Scan) else 0
        last = bodies[0].results[:carries]
        further = [result for result in results if result not in set(last)]
        further += [result for result in last if any(result in b.results[carries:] for b in bodies)]
        together.update((node, Body(bodies[0].parameters, (*last, *further))) for node in nodes)

    def replacement(node: Node, inputs: tuple[Node, ...]) -> Sequence[Node] | None:
        op = node.op
        if node not in together or not isinstance(op, Scan):
            return None
        body = together[node]
        found = picks(apply(replace(op, body=body), *inputs))
        stacked = dict(zip(body.results[op.carries :], found[op.carries :], strict=True))
        return [*found[: op.carries], *(stacked[r] for r in op.body.results[op.carries :])]

    return replaced_scans(roots, replacement) if together else list(roots)


# ----------------------------------------------------------------------------------- prune


def prune_scans(roots: Sequence[Node]) -> list[Node]:
    """Drop results that nobody reads, and carries, elements and constants that only they need."""
    order = toposort(roots)
    alive = set(roots)
    used: dict[Node, set[int]] = {}
    plans: dict[Node, _Needs] = {}
    for node in reversed(order):
        if node not in alive:
            continue
        if isinstance(node.op, Pick) and isinstance(node.inputs[0].op, Scan):
            used.setdefault(node.inputs[0], set()).add(node.op.index)
            alive.add(node.inputs[0])
        elif isinstance(node.op, Scan):
            needs = _Needs(node.op, used.get(node, {0}))
            plans[node] = needs
            alive.update(node.inputs[number] for number in needs.inputs)
        else:
            alive.update(node.inputs)

    def replacement(node: Node, inputs: tuple[Node, ...]) -> Sequence[Node] | None:
        plan = plans.get(node)
        return None if plan is None or plan.everything else plan.apply(node, inputs)

    if all(plan.everything for plan in plans.values()):
        return list(roots)
    return replaced_scans(roots, replacement)


class _Needs:
    """Which inputs and results of a scan are needed for the results that are used."""

    def __init__(self, op: Scan, used: set[int]) -> None:
        parameters, results = op.body.parameters, op.body.results
        carries = {k for k in range(op.carries) if k in used}
        while True:
            wanted = [results[k] for k in sorted(carries | used)]
            below = set(toposort(wanted))
            more = carries | {k for k in range(op.carries) if parameters[k] in below}
            if more == carries:
                break
            carries = more
        others = [k for k in range(op.carries, len(parameters)) if parameters[k] in below]
        self.op = op
        self.carries = sorted(carries)
        self.inputs = [*self.carries, *others]
        self.results = [k for k in sorted(used) if k >= op.carries]
        distinct = dict.fromkeys(results[k] for k in self.results)
        self.stacked = list(distinct)
        self.everything = len(self.inputs) == len(parameters) and (
            len(self.carries) + len(self.stacked) == len(results)
        )

    def apply(self, node: Node, inputs: tuple[Node, ...]) -> Sequence[Node]:
        op, body = self.op, self.op.body
        results = [body.results[k] for k in self.carries] + self.stacked
        end = op.carries + op.elements
        elements = sum(op.carries <= k < end for k in self.inputs)
        pruned = Body(tuple(body.parameters[k] for k in self.inputs), tuple(results))
        small = Scan(pruned, op.length, op.reverse, len(self.carries), elements)
        found = picks(apply(small, *(inputs[k] for k in self.inputs)))
        places = {k: found[i] for i, k in enumerate(self.carries)}
        stacks = dict(zip(self.stacked, found[len(self.carries) :], strict=True))
        places.update((k, stacks[body.results[k]]) for k in self.results)
        # Results that nobody reads still have a place; any node will do there.
        return [places.get(k, found[0]) for k in range(len(node.types))]


# ----------------------------------------------------------------------------------- split


def split_scans(roots: Sequence[Node]) -> list[Node]:
    """Move out of every scan what is not on the cycle of its carries, if a contraction is in it.

    Before: h = scan(t: tanh(x[t] @ W + h @ U))
    After:  p = x @ W for all t at once;  h = scan(t: tanh(p[t] + h @ U))
    """
    return replaced_scans(roots, lambda node, inputs: _Split(node, inputs).results())


class _Split:
    """One scan, cut into what runs before it, inside it and after it."""

    def __init__(self, node: Node, inputs: tuple[Node, ...]) -> None:
        assert isinstance(node.op, Scan)
        self.op = node.op
        self.body = node.op.body
        self.inputs = inputs
        self.order = self.body.nodes()
        carry, elements, constants = self.op.split(self.body.parameters)
        first, walked, same = self.op.split(inputs)
        self.first = first
        last = self.body.results[: self.op.carries]
        self.cycle = set(toposort(last))  # what a carry needs
        self.on_carry = depends(self.body.results, carry)  # what needs a carry
        self.per_step = depends(self.body.results, [*carry, *elements])
        # Values outside: of nodes that are the same in every step, and stacked over time.
        self.fixed: dict[Node, Node] = dict(zip(constants, same, strict=True))
        self.outside: dict[Node, Node] = dict(zip(elements, walked, strict=True))
        self.before: list[Node] = []

    def results(self) -> Sequence[Node] | None:
        """The scan's results, or None if nothing can be moved."""
        for node in self.order:
            if node not in self.on_carry and node in self.per_step:
                self._try_outside(node)
        heavy = {n for n in self.outside if is_expensive(n)}
        after = self._after()
        stacks = self.body.results[self.op.carries :]
        inside = [node for node in stacks if node not in after and node not in self.outside]
        taken = {parent for node in after for parent in node.inputs} - after
        emitted = [node for node in taken if node in self.on_carry]
        inner = dict.fromkeys([*inside, *emitted])
        kept = set(toposort([*self.body.results[: self.op.carries], *inner]))
        moved = [node for node in self.order if node in heavy and node in kept]
        steady = self._steady(kept)
        if not moved and not steady and not after and len(inside) == len(stacks):
            return None
        found = self._run(list(inner), moved, steady)
        last, stacked = found[: self.op.carries], found[self.op.carries :]
        self.outside.update(zip(inner, stacked, strict=True))
        for node in self.order:
            if node in after:
                lifted = self._lifted(node)
                assert lifted is not None
                self.outside[node] = lifted
        return [*last, *(self._stacked(node) for node in stacks)]

    def _steady(self, kept: set[Node]) -> list[Node]:
        """Values that are the same in every step, yet cost something: once before is enough."""
        constants = self.op.split(self.body.parameters)[2]
        steady = depends(self.body.results, constants) - self.per_step - set(constants)
        steady = {node for node in steady & kept if not isinstance(node.op, Broadcast)}
        read = {parent for node in kept - steady for parent in node.inputs}
        read.update(self.body.results[: self.op.carries])
        return [node for node in self.order if node in steady & read and len(node.types) == 1]

    def _run(
        self, inner: Sequence[Node], moved: Sequence[Node], steady: Sequence[Node]
    ) -> tuple[Node, ...]:
        """What is left of the loop, reading the moved values from outside."""
        carry, elements, constants = self.op.split(self.body.parameters)
        fresh = {node: input_node(node.type) for node in moved}
        once = {node: input_node(node.type) for node in steady}
        results = rewrite(
            [*self.body.results[: self.op.carries], *inner],
            lambda node: node,
            {**fresh, **once},
        )
        body = Body(
            (*carry, *elements, *fresh.values(), *constants, *once.values()), tuple(results)
        )
        _, walked, same = self.op.split(self.inputs)
        return scan(
            body,
            self.op.length,
            self.first,
            [*walked, *(self.outside[node] for node in moved)],
            [*same, *map(self._fixed, steady)],
            reverse=self.op.reverse,
        )

    def _try_outside(self, node: Node) -> None:
        """Compute a node that reads no carry before the loop, if that can be written."""
        per_step = [parent for parent in node.inputs if parent in self.per_step]
        if node in self.outside or not all(parent in self.outside for parent in per_step):
            return
        lifted = self._lifted(node)
        if lifted is not None:
            self.outside[node] = lifted

    def _lifted(self, node: Node) -> Node | None:
        if isinstance(node.op, Pick):
            return pick(self.outside[node.inputs[0]], node.op.index)
        walks = [parent in self.per_step for parent in node.inputs]
        inputs = [
            self.outside[parent] if walk else self._fixed(parent)
            for parent, walk in zip(node.inputs, walks, strict=True)
        ]
        return over_time(node.op, inputs, walks, self.op.length)

    def _fixed(self, node: Node) -> Node:
        """A value that is the same in every step, computed outside."""
        return rewrite([node], lambda same: same, dict(self.fixed))[0]

    def _stacked(self, node: Node) -> Node:
        if node in self.outside:
            return self.outside[node]
        fixed = self._fixed(node)
        shape = (self.op.length, *fixed.shape)
        return apply(Broadcast(shape, tuple(range(1, len(shape)))), fixed)

    def _after(self) -> set[Node]:
        """Nodes that no carry needs and that can wait: contractions and all that reads them."""
        readers: dict[Node, list[Node]] = {}
        for node in self.order:
            for parent in node.inputs:
                readers.setdefault(parent, []).append(node)
        moved: set[Node] = set()
        for node in self.order:
            late = node in self.on_carry and node not in self.cycle
            if not late or not is_expensive(node) or node in moved:
                continue
            cone, pending = set(), [node]
            while pending:
                top = pending.pop()
                if top not in cone:
                    cone.add(top)
                    pending.extend(readers.get(top, ()))
            if all(self._can_wait(member, cone) for member in cone):
                moved |= cone
        return moved

    def _can_wait(self, node: Node, cone: set[Node]) -> bool:
        """Whether a node can be computed after the loop from what the loop emits."""
        if isinstance(node.op, Pick):
            return node.inputs[0] in cone
        if len(node.types) > 1 or any(len(parent.types) > 1 for parent in node.inputs):
            return False
        for parent in node.inputs:
            walks = parent in self.per_step
            if walks and parent not in self.on_carry and parent not in self.outside:
                return False
        stand_ins = [
            input_node(Type((self.op.length, *parent.shape), parent.dtype))
            if parent in self.per_step
            else parent
            for parent in node.inputs
        ]
        walks_all = [parent in self.per_step for parent in node.inputs]
        return over_time(node.op, stand_ins, walks_all, self.op.length) is not None
