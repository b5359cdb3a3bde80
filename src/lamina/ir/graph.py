"""Nodes, ops, and walks over the graph.

A `Node` applies an `Op` to other nodes. Nodes are immutable and interned: applying an equal op to
the same inputs gives the same node, so common sub-expressions are one object and `is` compares.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from lamina.errors import ShapeError
from lamina.locks import process_lock
from lamina.types import Type, numpy_dtype, static_shape

Vjp = Sequence["Node | None"]


@dataclass(frozen=True)
class Op:
    """What a node computes: attributes are fields; shape rule, gradient and meaning are methods.

    `infer` maps input types to the output type (a tuple of types for several results, which are
    read through `Pick`) or raises an error that names the shapes. `vjp(gradient, out, *inputs)`
    gives one node or None per input, written in ops. `numpy` is the meaning. `samples` are lists
    of input specifications, one string per input, from which the tests of every op are driven:
    `"float32 (7, 3)"`, `"int32 (4, 2)<7"` (integers in [0, 7)), `"float32 (5)>0"` (positive).
    """

    samples: ClassVar[Sequence[tuple[Any, ...]]] = ()

    def infer(self, *types: Any) -> Type | tuple[Type, ...]:
        raise NotImplementedError(f"{type(self).__name__} has no shape rule")

    def vjp(self, gradient: Any, out: Node, *inputs: Any) -> Vjp:
        raise NotImplementedError(f"{type(self).__name__} has no gradient")

    def numpy(self, *arrays: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no NumPy meaning")

    def at(self, rows: int) -> Op:
        """This op with every batch dimension among its attributes resolved to `rows` rows."""
        return self

    @property
    def name(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True, eq=False, weakref_slot=True, slots=True)
class Node:
    """One value of the graph. `type` is a tuple of types where the op has several results."""

    op: Op
    inputs: tuple[Node, ...]
    types: tuple[Type, ...]
    scope: str = ""
    line: tuple[str, int] | None = None

    @property
    def type(self) -> Type:
        if len(self.types) != 1:
            raise ShapeError(f"{self.op.name} has {len(self.types)} results; pick one")
        return self.types[0]

    @property
    def shape(self) -> Any:
        return self.type.shape

    @property
    def dtype(self) -> str:
        return self.type.dtype

    def __repr__(self) -> str:
        kinds = ", ".join(map(str, self.types))
        return f"<{self.op.name} {kinds}>"


_table: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()
_lock = process_lock()
_scope: ContextVar[str] = ContextVar("lamina_scope", default="")
_HERE = __file__.rsplit("/ir/", 1)[0].rsplit("\\ir\\", 1)[0]


@contextlib.contextmanager
def scope(name: str) -> Iterator[None]:
    """Nodes created inside carry `outer/name` as the layer that made them."""
    outer = _scope.get()
    token = _scope.set(f"{outer}/{name}" if outer else name)
    try:
        yield
    finally:
        _scope.reset(token)


@contextlib.contextmanager
def in_scope_of(node: Node) -> Iterator[None]:
    """Nodes created inside carry the same layer as `node`: its gradient, its rewritten form."""
    token = _scope.set(node.scope)
    try:
        yield
    finally:
        _scope.reset(token)


def current_scope() -> str:
    """The path of the layers whose code is running, as in `encoder/dense`."""
    return _scope.get()


def user_line() -> tuple[str, int] | None:
    """File and line of the nearest caller outside lamina."""
    frame = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not filename.startswith(_HERE) and not filename.startswith("<"):
            return filename, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]  # ends with None at the outermost frame
    return None


def apply(op: Op, *inputs: Node) -> Node:
    """The node that applies `op` to `inputs`: made once, then always the same object."""
    key = (op, *map(id, inputs))
    with _lock:
        known = _table.get(key)
    if known is not None:
        return known
    inferred = op.infer(*(node.types if len(node.types) > 1 else node.types[0] for node in inputs))
    types = inferred if isinstance(inferred, tuple) else (inferred,)
    node = Node(op, inputs, types, _scope.get(), user_line())
    with _lock:
        return _table.setdefault(key, node)


# ---------------------------------------------------------------------------------- leaves


_uids = itertools.count()


@dataclass(frozen=True)
class Input(Op):
    """A value fed from outside: a batch of data, a variable's value, a parameter of a body."""

    type: Type
    label: str = ""
    uid: int = field(default_factory=lambda: next(_uids))

    def infer(self) -> Type:
        return self.type

    def at(self, rows: int) -> Input:
        return Input(self.type.at(rows), self.label, self.uid)


@dataclass(frozen=True)
class Const(Op):
    """A scalar constant, compared by its bits (so 0.0 and -0.0, and NaNs, stay apart)."""

    bits: bytes
    dtype: str

    def infer(self) -> Type:
        return Type((), self.dtype)

    @property
    def value(self) -> Any:
        return np.frombuffer(self.bits, numpy_dtype(self.dtype))[0]

    def numpy(self) -> Any:
        return self.value


@dataclass(frozen=True)
class Rows(Op):
    """The number of rows present at run time, times `factor`, as a scalar: what means divide by."""

    factor: int = 1
    dtype: str = "float32"

    def infer(self) -> Type:
        return Type((), self.dtype)


@dataclass(frozen=True)
class Pick(Op):
    """Result `index` of an op that has several."""

    index: int

    def infer(self, types: tuple[Type, ...]) -> Type:
        return types[self.index]

    def numpy(self, values: Sequence[Any]) -> Any:
        return values[self.index]


def input_node(type: Type, label: str = "") -> Node:
    """A fresh input: every call makes another one."""
    return apply(Input(type, label))


def constant(value: Any, dtype: str = "float32") -> Node:
    """A scalar constant of the given dtype."""
    return apply(Const(np.asarray(value).astype(numpy_dtype(dtype)).tobytes(), dtype))


def rows(factor: int = 1, dtype: str = "float32") -> Node:
    """The number of rows present, times `factor`, as a scalar that is known at run time."""
    return apply(Rows(factor, dtype))


def pick(node: Node, index: int) -> Node:
    """The result at place `index` of a node that has several."""
    return apply(Pick(index), node)


def picks(node: Node) -> tuple[Node, ...]:
    """All results of a node that has several; a node with one result gives itself."""
    if len(node.types) == 1:
        return (node,)
    return tuple(pick(node, index) for index in range(len(node.types)))


# ---------------------------------------------------------------------------------- walks


def toposort(roots: Iterable[Node]) -> list[Node]:
    """Every node that the roots need, inputs before users; iterative, so depth is no limit."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, inputs_done = stack.pop()
        if inputs_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(node.inputs))
    return order


def rewrite(
    roots: Sequence[Node],
    visit: Callable[[Node], Node],
    known: Mapping[Node, Node] | None = None,
) -> list[Node]:
    """Rebuild the graph from its leaves, passing each rebuilt node through `visit`.

    `known` maps nodes to replacements that are taken as they are (their inputs are not walked
    into through them).
    """
    new: dict[Node, Node] = dict(known or {})
    order: list[Node] = []
    seen: set[Node] = set(new)
    stack = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, inputs_done = stack.pop()
        if inputs_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(node.inputs))
    for node in order:
        inputs = tuple(new[parent] for parent in node.inputs)
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        new[node] = visit(node if same else rebuilt(node, inputs))
    return [new[root] for root in roots]


def rebuilt(node: Node, inputs: tuple[Node, ...], op: Op | None = None) -> Node:
    """The same op (or another) on other inputs, with the original's layer and line."""
    op = op or node.op
    key = (op, *map(id, inputs))
    with _lock:
        known = _table.get(key)
    if known is not None:
        return known
    inferred = op.infer(*(i.types if len(i.types) > 1 else i.types[0] for i in inputs))
    types = inferred if isinstance(inferred, tuple) else (inferred,)
    fresh = Node(op, inputs, types, node.scope, node.line)
    with _lock:
        return _table.setdefault(key, fresh)


def users(order: Iterable[Node]) -> dict[Node, list[Node]]:
    """For each node of the order, the nodes that read it (once per reading input)."""
    readers: dict[Node, list[Node]] = {}
    for node in order:
        readers.setdefault(node, [])
        for parent in node.inputs:
            readers.setdefault(parent, []).append(node)
    return readers


def shape_at(node: Node, count: int) -> tuple[int, ...]:
    """The node's shape when `count` rows are present."""
    return static_shape(node.shape, count)


def float_bits(value: float) -> bytes:
    """The eight bytes of a float64, by which constants are compared."""
    return struct.pack("<d", value)
