"""Tracing: a Python function over tensors and variables becomes a program; gradients of both.

Inside a trace, reading a variable gives a node that stands for its state, and assigning records
the state that the step leaves behind. The trace is kept in a ContextVar, so that threads may trace
at the same time.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina import config, tree
from lamina.errors import ShapeError, TraceError, layout
from lamina.executor import Executable
from lamina.ir import scalar
from lamina.ir.control import Cond, bodies, endless
from lamina.ir.graph import Input, Node, apply, constant, input_node, toposort
from lamina.ir.program import Program
from lamina.reference import compile_reference
from lamina.tensor import values
from lamina.tensor.broadcasting import broadcast_to
from lamina.tensor.marks import Interpreted, Mark, unmarked
from lamina.tensor.tensor import Tensor, convert
from lamina.tensor.variable import Variable
from lamina.transform.gradient import gradients
from lamina.types import Type


class Trace:
    """The variables that a trace has met: the input node of each, and its value so far."""

    def __init__(self) -> None:
        self.states: dict[Variable, Node] = {}
        self.current: dict[Variable, Node] = {}
        self._sites: Counter[Variable] = Counter()

    def read(self, variable: Variable) -> Node:
        """The node of the variable's value at this point of the step."""
        if variable not in self.states:
            type = Type(variable.shape, variable.dtype)
            self.states[variable] = self.current[variable] = input_node(type, variable.path)
        return self.current[variable]

    def write(self, variable: Variable, node: Node) -> None:
        """Record what the step assigns to the variable."""
        self.read(variable)
        self.current[variable] = node

    def first_key(self, variable: Variable) -> Node:
        """The node of the value with which the step begins."""
        self.read(variable)
        return self.states[variable]

    def next_site(self, variable: Variable) -> int:
        """0 for the first draw from this random state, then 1, 2, ..."""
        site = self._sites[variable]
        self._sites[variable] += 1
        return site


class Trial(Trace):
    """A trace in which variables have their values, so that code may look at them."""

    def read(self, variable: Variable) -> Node:
        if variable not in self.states:
            node = values.leaf(variable.buffer.copy(), variable.path)
            self.states[variable] = self.current[variable] = node
        return self.current[variable]


@dataclass(frozen=True)
class Traced:
    """A traced function.

    program     reads `variables` as its states, in the same order
    variables   every variable that the function read or assigned, and an anonymous one for each
                array that it captured, in the order of first use
    structure   what the function returned, with a `Place` where a tensor stood
    """

    program: Program
    variables: tuple[Variable, ...]
    structure: Any

    def unflatten(self, outputs: Sequence[Any]) -> Any:
        """What the function returned, with `outputs` (arrays or tensors) as its tensors."""
        leaves = [
            outputs[leaf.index] if isinstance(leaf, Place) else leaf
            for leaf in tree.flatten(self.structure)
        ]
        return tree.pack(self.structure, leaves)

    def states(self) -> list[np.ndarray]:
        """The buffers of the variables, to be handed to an executable."""
        return [variable.buffer for variable in self.variables]


@dataclass(frozen=True)
class Place:
    """Where output `index` of the program stood in what a traced function returned."""

    index: int


@contextlib.contextmanager
def abstract(*, known: bool = False) -> Iterator[None]:
    """Run code for the shapes of its results only; assignments are forgotten.

    known   variables have their values, so that code that looks at values runs, too
    """
    token = values.active_trace.set(Trial() if known else Trace())
    try:
        yield
    finally:
        values.active_trace.reset(token)


def trace(
    function: Callable[..., Any],
    *input_types: Any,
    labels: Sequence[str] = (),
    rows: int | None = None,
) -> Traced:
    """Run `function` once on tensors without values, and give the program that it describes.

    input_types   one Type, or nested structure of Types, for each argument of the function;
                  None for an argument that is None. A run-time batch is `Type((Batch(1), ...))`
    labels        names of the arguments in messages
    rows          trace for exactly this many rows: `Batch` in the types becomes a number. This is
                  what a caller does after a BatchError, which says that the function needs the
                  number of rows (it compares rows with one another, or indexes them)

    raises   TraceError if the function asks for a value that only a running step knows;
             BatchError if it needs the number of rows
    """
    outer = values.active_trace.get()
    names = [*labels, *(f"argument {i + 1}" for i in range(len(labels), len(input_types)))]
    inputs: list[Node] = []

    def enter(type: Type | None, name: str) -> Tensor | None:
        if type is None:
            return None
        inputs.append(input_node(type if rows is None else type.at(rows), name))
        return Tensor(inputs[-1])

    token = values.active_trace.set(now := Trace())
    try:
        arguments = [
            tree.pack(types, [enter(leaf, name) for leaf in tree.flatten(types)])
            for types, name in zip(input_types, names, strict=True)
        ]
        returned = function(*arguments)
        leaves = tree.flatten(returned)
        outputs: list[Node] = []
        placed: list[Any] = []
        for item in leaves:
            if isinstance(item, (Tensor, Variable)):
                placed.append(Place(len(outputs)))
                outputs.append(item.node)
            else:
                placed.append(item)
    finally:
        values.active_trace.reset(token)
    structure = tree.pack(returned, placed)
    return _closed(now, inputs, outputs, structure, nested=outer is not None)


def _closed(
    now: Trace, inputs: list[Node], outputs: list[Node], structure: Any, *, nested: bool
) -> Traced:
    variables = list(now.states)
    states = [now.states[variable] for variable in variables]
    updates = [
        None if now.current[variable] is state else now.current[variable]
        for variable, state in zip(variables, states, strict=True)
    ]
    roots = unmarked([*outputs, *(node for node in updates if node is not None)])
    feed = iter(roots)
    outputs = [next(feed) for _ in outputs]
    updates = [None if node is None else next(feed) for node in updates]
    known = {*inputs, *states}
    for node in toposort(roots):
        if isinstance(node.op, Input) and node not in known:
            value = values.known_value(node)
            if value is None:
                raise TraceError(
                    layout(
                        "a tensor of another trace was used in this one.",
                        [("tensor", f"{node.op.label or 'unnamed'}, {node.type}")],
                        hint="a tensor lives as long as the step that made it; keep values in a "
                        "Variable, or return them" + (" from the outer function" * nested),
                    )
                )
            known.add(node)
            variables.append(captured(value))
            states.append(node)
            updates.append(None)
    program = Program(tuple(inputs), tuple(states), tuple(outputs), tuple(updates))
    return Traced(program, tuple(variables), structure)


def captured(value: np.ndarray) -> Variable:
    """An anonymous variable for an array that a traced function captured."""
    variable = Variable(0.0, trainable=False, name="captured")
    variable.buffer = np.ascontiguousarray(value)
    return variable


def executor_for(program: Program, capacity: int) -> Executable:
    """Compile a program for up to `capacity` rows, with the executor of the configuration.

    A program with an op that only NumPy can compute (a factorisation, a `while_loop` inside of a
    branch) runs on the reference executor, with a warning.
    """
    if config.executor() == "reference":
        return compile_reference(program, capacity)
    uncompiled = sorted(interpreted(program.roots))
    if uncompiled:
        warnings.warn(
            f"this step runs uncompiled, on the reference executor, because of "
            f"{', '.join(uncompiled)}",
            stacklevel=3,
        )
        return compile_reference(program, capacity)
    # Resolved at the first compilation, so that tensors can be used without loading a compiler.
    llvm = importlib.import_module("lamina.llvm.executor")
    executable: Executable = llvm.compile_llvm(program, capacity)
    return executable


def interpreted(roots: Sequence[Node]) -> set[str]:
    """The names of the ops that have a meaning in NumPy, but no kernel.

    Native code computes both sides of a branch, so a side with a loop that need not end is none
    for it.
    """
    found: set[str] = set()
    for node in toposort(roots):
        if isinstance(node.op, Interpreted):
            found.add(node.op.name)
        for body in bodies(node.op).values():
            found |= interpreted(body.results)
            if isinstance(node.op, Cond) and endless(body.results):
                found.add("a while_loop inside of cond")
    return found


# ------------------------------------------------------------------------------- gradients


def gradient_nodes(loss: Any, variables: Sequence[Any]) -> list[Tensor]:
    """The gradient of a scalar with respect to each variable (or tensor), zero where unrelated.

    For a variable, the derivative is taken with respect to its value at this point: what a read
    gives now. Outside a trace, run the forward pass inside `lamina.tensor.recording()`.

    raises   ShapeError if `loss` is not a scalar
    """
    root = convert(loss).node
    if root.shape != ():
        raise ShapeError(
            layout(
                f"a gradient is taken of a scalar, got {root.type}.",
                hint="reduce it first: lamina.ops.mean(loss) or lamina.ops.sum(loss)",
            )
        )
    nodes = [variable.node for variable in variables]
    found = gradients([root], [constant(1.0, root.dtype)], nodes)
    return [
        Tensor(_zeros_like(node) if gradient is None else gradient)
        for node, gradient in zip(nodes, found, strict=True)
    ]


def _zeros_like(node: Node) -> Node:
    return broadcast_to(constant(0, node.dtype), node.shape)


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that gives `(function(...), gradient)`.

    argnums   which argument (or arguments, then the gradients come as a tuple) to differentiate
              by; an argument may be a tensor, an array, a number, a Variable, or a list, tuple or
              dict of these, and its gradient has the same structure
    has_aux   the function returns `(loss, anything)`, and only the loss is differentiated

    >>> value, slope = value_and_grad(lambda x: x * x)(3.0)
    >>> float(value), float(slope)
    (9.0, 6.0)
    """
    many = not isinstance(argnums, int)
    positions = tuple(argnums) if not isinstance(argnums, int) else (argnums,)

    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        with values.recording():
            marked = list(args)
            for position in positions:
                marked[position] = tree.map_structure(_mark, args[position])
            result = function(*marked, **kwargs)
            loss = result[0] if has_aux else result
            leaves = [tree.flatten(marked[position]) for position in positions]
            found = iter(gradient_nodes(loss, [leaf for group in leaves for leaf in group]))
            slopes = [
                tree.pack(marked[position], [next(found) for _ in group])
                for position, group in zip(positions, leaves, strict=True)
            ]
        return result, tuple(slopes) if many else slopes[0]

    return differentiated


def grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives the gradient of `function`, a scalar; see `value_and_grad`.

    Gradients nest: `grad(grad(f))` is the second derivative. With `has_aux`, the result is
    `(gradient, anything)`.

    >>> float(grad(grad(lambda x: x * x * x))(2.0))
    12.0
    """
    both = value_and_grad(function, argnums, has_aux)

    def differentiated(*args: Any, **kwargs: Any) -> Any:
        result, slopes = both(*args, **kwargs)
        return (slopes, result[1]) if has_aux else slopes

    return differentiated


def _mark(leaf: Any) -> Any:
    if isinstance(leaf, Variable):
        return leaf
    tensor = convert(leaf)
    if not tensor.node.type.is_float:
        tensor = Tensor(scalar.cast(tensor.node, config.floatx()))
    return Tensor(apply(Mark(), tensor.node))
