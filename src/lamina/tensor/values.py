"""Values of nodes outside a trace: which nodes have one, and how the others get one.

Outside a trace nothing is computed when an operation is written; a node is realised when somebody
asks for its value. The value of a node lives exactly as long as the node.
"""

from __future__ import annotations

import contextlib
import linecache
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lamina.errors import TraceError, layout
from lamina.ir.graph import Input, Node, Pick, Rows, input_node, user_line
from lamina.types import Type, dtype_name

LONGEST_CHAIN = 500

_values: weakref.WeakKeyDictionary[Node, np.ndarray] = weakref.WeakKeyDictionary()
_depths: weakref.WeakKeyDictionary[Node, int] = weakref.WeakKeyDictionary()


class StateKeeper(Protocol):
    """What a trace does for variables: `lamina.trace.Trace`."""

    def read(self, variable: Any) -> Node: ...

    def write(self, variable: Any, node: Node) -> None: ...

    def first_key(self, variable: Any) -> Node: ...

    def next_site(self, variable: Any) -> int: ...


active_trace: ContextVar[StateKeeper | None] = ContextVar("lamina_trace", default=None)
_recording: ContextVar[bool] = ContextVar("lamina_recording", default=False)


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """Keep the history of realised tensors, so that gradients can be taken through them.

    Outside a trace and outside this block, a tensor whose value was asked for forgets how it was
    made. `lamina.grad` and an eager `train_step` run inside such a block.
    """
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


@contextlib.contextmanager
def outside_trace() -> Iterator[None]:
    """Compute with values for a while, as when a layer is built inside a trace."""
    token = active_trace.set(None)
    try:
        yield
    finally:
        active_trace.reset(token)


def is_tracing() -> bool:
    """Whether a trace is in progress in this thread."""
    return active_trace.get() is not None


def is_recording() -> bool:
    """Whether realised tensors keep their history."""
    return _recording.get()


def leaf(array: np.ndarray, label: str = "") -> Node:
    """A fresh input node that has this value; nobody may write into the array afterwards."""
    node = input_node(Type(array.shape, dtype_name(array.dtype)), label)
    _values[node] = array
    return node


def known_value(node: Node) -> np.ndarray | None:
    """The value of a node, if it has one already."""
    return _values.get(node)


def set_value(node: Node, value: np.ndarray) -> None:
    """Remember the value of a node for as long as the node lives."""
    _values[node] = value


def unrealised(roots: Sequence[Node]) -> list[Node]:
    """The nodes that must be computed for the roots, inputs before users."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, inputs_done = stack.pop()
        if inputs_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            if node in _values:
                continue
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(node.inputs))
    return order


def evaluate(roots: Sequence[Node]) -> list[np.ndarray]:
    """The values of all roots, computed together by the reference executor.

    raises   TraceError where a root depends on a value that is known only when a step runs
    """
    order = unrealised(roots)
    for node in order:
        if isinstance(node.op, (Input, Rows)):
            raise unknown_value_error(node)
    keep = _recording.get()
    found = _computed(order, set(roots), keep=keep)
    return [found[root] if root in found else _values[root] for root in roots]


def _computed(order: list[Node], roots: set[Node], *, keep: bool) -> dict[Node, np.ndarray]:
    """The values of the nodes in order; those that nobody needs any more are dropped, or kept."""
    readers: Counter[Node] = Counter(parent for node in order for parent in node.inputs)
    found: dict[Node, Any] = {}
    with np.errstate(all="ignore"):
        for node in order:
            operands = [
                found[parent] if parent in found else _values[parent] for parent in node.inputs
            ]
            if isinstance(node.op, Pick):
                found[node] = operands[0][node.op.index]
            else:
                found[node] = node.op.numpy(*operands)
            if len(node.types) == 1:
                found[node] = np.asarray(found[node])
                if keep:
                    _values[node] = found[node]
            for parent in node.inputs:
                readers[parent] -= 1
                if not readers[parent] and parent not in roots:
                    found.pop(parent, None)
    return found


def where_called() -> list[tuple[str, str]]:
    """The user's line as a row of a message: `("at", "train.py:41   y = model(x)")`."""
    line = user_line()
    if line is None:
        return []
    text = linecache.getline(*line).strip()
    return [("at", f"{Path(line[0]).name}:{line[1]}   {text}".rstrip())]


def unknown_value_error(node: Node) -> TraceError:
    """The error for asking for the value of something that only a running step knows."""
    what = node.op.label if isinstance(node.op, Input) and node.op.label else "a traced value"
    details = [("needs", f"{what}, {node.types[0]}"), *where_called()]
    hint = (
        "use lamina.ops.where or lamina.ops.cond instead of `if`, lamina.ops.while_loop or scan "
        "instead of a loop over values, or compile(run_eagerly=True) to run with real values"
    )
    return TraceError(
        layout(
            "this code is being compiled: the value it asks for is known only when the step runs.",
            details,
            hint=hint,
        )
    )


def chain_length(node: Node) -> int:
    """How many unrealised nodes stand one behind the other on the way to this one."""
    stack = [node]
    while stack:
        top = stack[-1]
        if top in _depths:
            stack.pop()
            continue
        if not top.inputs or top in _values:
            _depths[top] = 0
            stack.pop()
            continue
        unknown = [parent for parent in top.inputs if parent not in _depths]
        if unknown:
            stack.extend(unknown)
            continue
        _depths[top] = 1 + max(_depths[parent] for parent in top.inputs)
        stack.pop()
    return _depths[node]
