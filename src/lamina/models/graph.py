"""The graph of calls between symbolic inputs and outputs, in the order in which Keras keeps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lamina import tree
from lamina.errors import LaminaError, layout
from lamina.layers.symbolic import KerasTensor, Node, Operation, any_symbolic, is_keras_tensor
from lamina.naming import unique_name


class GraphError(LaminaError, ValueError):
    """Inputs and outputs of a functional model do not hang together."""


class CallGraph:
    """Every call on the way from `inputs` to `outputs`.

    inputs, outputs   nested symbolic tensors
    operations        layers and ops in topological order: by depth, then by first meeting from
                      the outputs, which is Keras's order (weights files count layers in it)
    nodes             the calls, each after those that it needs

    raises            GraphError if an output does not depend on the inputs alone
    """

    def __init__(self, inputs: Any, outputs: Any) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.flat_inputs: list[KerasTensor] = tree.flatten(inputs)
        self.flat_outputs: list[KerasTensor] = tree.flatten(outputs)
        _check(self.flat_inputs, self.flat_outputs)
        finished, met = self._walk()
        self.nodes = finished
        self.depths = self._depths(finished)
        self.operations = self._ordered(met)

    def _walk(self) -> tuple[list[Node], list[Operation]]:
        """Calls with inputs first, and operations in the order met from the outputs."""
        given = {id(tensor) for tensor in self.flat_inputs}
        finished: list[Node] = []
        met: list[Operation] = []
        seen: set[int] = set()
        for output in self.flat_outputs:
            stack: list[tuple[KerasTensor, bool]] = [(output, False)]
            while stack:
                tensor, done = stack.pop()
                node = _node_of(tensor)
                if done:
                    finished.append(node)
                    continue
                if id(node) in seen:
                    continue
                seen.add(id(node))
                if not any(node.operation is known for known in met):
                    met.append(node.operation)
                if id(tensor) in given:
                    finished.append(node)
                    continue
                if node.is_input:
                    raise GraphError(_disconnected(node, self.flat_inputs))
                stack.append((tensor, True))
                stack.extend((parent, False) for parent in reversed(node.input_tensors))
        return finished, met

    def _depths(self, finished: list[Node]) -> dict[int, int]:
        """The greatest distance of each call from an output."""
        ends = {id(_node_of(tensor)) for tensor in self.flat_inputs}
        depths: dict[int, int] = {}
        of_operation: dict[int, int] = {}
        for node in reversed(finished):
            depth = max(depths.get(id(node), 0), of_operation.get(id(node.operation), 0))
            depths[id(node)] = of_operation[id(node.operation)] = depth
            if id(node) in ends:
                continue
            for parent in node.parent_nodes:
                depths[id(parent)] = max(depths.get(id(parent), 0), depth + 1)
        return depths

    def _ordered(self, met: list[Operation]) -> list[Operation]:
        depth: dict[int, int] = {}
        for node in self.nodes:
            key = id(node.operation)
            depth[key] = max(depth.get(key, 0), self.depths[id(node)])
        order = {id(operation): place for place, operation in enumerate(met)}
        operations = list(met)
        for tensor in self.flat_inputs:  # inputs that no output needs
            operation = _node_of(tensor).operation
            if id(operation) not in order:
                order[id(operation)] = -1
                depth[id(operation)] = 0
                operations.append(operation)
        return sorted(operations, key=lambda one: (-depth[id(one)], order[id(one)]))

    def run(self, inputs: Sequence[Any], call: Callable[[Node, Any, Any], Any]) -> Any:
        """Go through the calls with values for the inputs.

        inputs    one value for each flat input
        call      `call(node, args, kwargs)` makes a call with values
        returns   values nested like the outputs
        """
        values = {id(tensor): value for tensor, value in zip(self.flat_inputs, inputs, strict=True)}
        for node in self.nodes:
            if all(id(tensor) in values for tensor in node.outputs):
                continue
            args, kwargs = node.fill(values)
            results = tree.flatten(call(node, args, kwargs))
            wanted = [value for value in results if value is not None]
            for tensor, value in zip(node.outputs, wanted, strict=False):
                values[id(tensor)] = value
        return tree.pack(self.outputs, [values[id(tensor)] for tensor in self.flat_outputs])

    def node_indexes(self) -> dict[tuple[int, int], int]:
        """(operation, its call) -> the number of the call among those that belong to the graph."""
        mine = {id(node) for node in self.nodes}
        mine.update(id(_node_of(tensor)) for tensor in self.flat_inputs)
        numbers: dict[tuple[int, int], int] = {}
        for operation in self.operations:
            own = [node for node in operation._inbound_nodes if id(node) in mine]
            for number, node in enumerate(own):
                index = next(i for i, one in enumerate(operation._inbound_nodes) if one is node)
                numbers[id(operation), index] = number
        return numbers

    def is_sequential(self) -> bool:
        """Whether every call stands behind the one before it, with no second input or use."""
        used = [id(node.operation) for node in self.nodes]
        depths = [self.depths[id(node)] for node in self.nodes]
        single = all(len(node.input_tensors) <= 1 for node in self.nodes)
        return single and len(set(depths)) == len(depths) and len(set(used)) == len(used)


def _check(inputs: list[Any], outputs: list[Any]) -> None:
    for what, tensors in (("inputs", inputs), ("outputs", outputs)):
        if not tensors:
            raise GraphError(f"a functional model needs {what}.")
        for tensor in tensors:
            if not is_keras_tensor(tensor) or tensor._keras_history is None:
                raise GraphError(
                    layout(
                        f"the {what} of a functional model are symbolic tensors, "
                        f"got {type(tensor).__name__}.",
                        hint="begin with x = lamina.Input(shape=...), and call layers on it",
                    )
                )
    if len({id(tensor) for tensor in inputs}) != len(inputs):
        raise GraphError("an input stands twice among the inputs of the model.")


def _node_of(tensor: KerasTensor) -> Node:
    history = tensor._keras_history
    if history is None:
        raise GraphError(f"{tensor!r} was not made by a layer or an Input.")
    node: Node = history.operation._inbound_nodes[history.node_index]
    return node


def _disconnected(node: Node, inputs: list[KerasTensor]) -> str:
    known = ", ".join(_node_of(tensor).operation.name for tensor in inputs)
    return layout(
        f"an output depends on {node.operation.name!r}, which is not among the inputs.",
        [("inputs", known)],
        hint=f"pass {node.operation.name} as an input of the model too",
    )


class Function(Operation):
    """A callable made of calls on symbolic tensors: `Function(inputs, outputs)(values)`.

    A `Model` made of inputs and outputs is the same, and learns.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None) -> None:
        super().__init__(name or unique_name("function"))
        self.graph = CallGraph(inputs, outputs)

    @property
    def inputs(self) -> list[KerasTensor]:
        return self.graph.flat_inputs

    @property
    def outputs(self) -> list[KerasTensor]:
        return self.graph.flat_outputs

    def __call__(self, inputs: Any) -> Any:
        if any_symbolic(inputs):
            return self.symbolic_call(inputs)
        flat = tree.flatten(inputs)
        if len(flat) != len(self.graph.flat_inputs):
            raise GraphError(
                f"{self.name}: expected {len(self.graph.flat_inputs)} inputs, got {len(flat)}."
            )
        return self.graph.run(flat, lambda node, args, kwargs: node.operation(*args, **kwargs))
