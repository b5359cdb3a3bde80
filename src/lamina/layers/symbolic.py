"""Symbolic tensors: shapes without values, which record how they were made.

Calling a layer or an op on a `KerasTensor` makes a `Node` that remembers the arguments; a
functional model is the graph of these nodes. The shape of the result is found by abstract tracing:
the call runs once on tensors without values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lamina import ops, tree
from lamina.errors import BatchError, ShapeError, TraceError
from lamina.ir.graph import input_node
from lamina.naming import to_snake_case, unique_name
from lamina.tensor import Tensor, Variable, as_dtype
from lamina.trace import abstract
from lamina.types import Batch, Type

# Stand-ins for sizes that are not known; divisible by 32, so that networks which halve their image
# five times and double it again meet themselves.
STAND_INS = (96, 160)


class KerasHistory(NamedTuple):
    """How a symbolic tensor was made: by which call of which operation, as which output."""

    operation: Any
    node_index: int
    tensor_index: int


class KerasTensor:
    """A value that is only a shape and a dtype; None stands for a size that is not known.

    Made by `lamina.Input`; layers and ops called on it give symbolic tensors again.
    """

    __array_priority__ = 1001

    def __init__(
        self,
        shape: Sequence[int | None],
        dtype: Any = "float32",
        sparse: bool = False,
        ragged: bool = False,
        record_history: bool = True,
        name: str | None = None,
    ) -> None:
        self.shape = tuple(None if size is None else int(size) for size in shape)
        self.dtype = as_dtype(dtype)
        self.sparse = sparse
        self.ragged = ragged
        self.name = name or unique_name("keras_tensor")
        self.record_history = record_history
        self._keras_history: KerasHistory | None = None

    @staticmethod
    def __lamina_symbolic__(
        function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What a public op does when it meets a symbolic tensor: record itself."""
        return OpOperation(function).symbolic_call(*args, **kwargs)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<KerasTensor shape={self.shape}, dtype={self.dtype}, name={self.name}>"

    def _no_value(self, *ignored: Any, **more: Any) -> Any:
        raise TraceError(
            f"a symbolic tensor {self.shape} has no value: it stands for what a model will be "
            "given.\n  hint     use lamina.ops on it, or put Python code into a Layer's call()"
        )

    __bool__ = __int__ = __float__ = __index__ = __iter__ = __len__ = __array__ = _no_value
    numpy = _no_value

    def reshape(self, *shape: Any) -> Any:
        given = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return ops.reshape(self, given)

    def astype(self, dtype: Any) -> Any:
        return ops.cast(self, dtype)

    def __getitem__(self, key: Any) -> Any:
        return ops.get_item(self, key)

    def __add__(self, other: Any) -> Any:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Any:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Any:
        return ops.subtract(self, other)

    def __rsub__(self, other: Any) -> Any:
        return ops.subtract(other, self)

    def __mul__(self, other: Any) -> Any:
        return ops.multiply(self, other)

    def __rmul__(self, other: Any) -> Any:
        return ops.multiply(other, self)

    def __truediv__(self, other: Any) -> Any:
        return ops.divide(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return ops.divide(other, self)

    def __floordiv__(self, other: Any) -> Any:
        return ops.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return ops.floor_divide(other, self)

    def __mod__(self, other: Any) -> Any:
        return ops.mod(self, other)

    def __rmod__(self, other: Any) -> Any:
        return ops.mod(other, self)

    def __pow__(self, other: Any) -> Any:
        return ops.power(self, other)

    def __rpow__(self, other: Any) -> Any:
        return ops.power(other, self)

    def __matmul__(self, other: Any) -> Any:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return ops.matmul(other, self)

    def __neg__(self) -> Any:
        return ops.negative(self)

    def __abs__(self) -> Any:
        return ops.absolute(self)

    def __invert__(self) -> Any:
        return ops.logical_not(self)

    def __and__(self, other: Any) -> Any:
        return ops.logical_and(self, other)

    def __or__(self, other: Any) -> Any:
        return ops.logical_or(self, other)

    def __xor__(self, other: Any) -> Any:
        return ops.logical_xor(self, other)

    def __lt__(self, other: Any) -> Any:
        return ops.less(self, other)

    def __le__(self, other: Any) -> Any:
        return ops.less_equal(self, other)

    def __gt__(self, other: Any) -> Any:
        return ops.greater(self, other)

    def __ge__(self, other: Any) -> Any:
        return ops.greater_equal(self, other)


def is_keras_tensor(value: Any) -> bool:
    """Whether this is a symbolic tensor."""
    return isinstance(value, KerasTensor)


def any_symbolic(*structures: Any) -> bool:
    """Whether a symbolic tensor stands anywhere in these."""
    return any(isinstance(leaf, KerasTensor) for leaf in tree.flatten(structures))


class Node:
    """One call of an operation on symbolic tensors.

    operation      what was called
    args, kwargs   its arguments, symbolic tensors in their places
    outputs        what it gave, flattened; each knows this node by its `_keras_history`
    """

    def __init__(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any
    ) -> None:
        self.operation = operation
        self.args = args
        self.kwargs = kwargs
        self.outputs = [leaf for leaf in tree.flatten(outputs) if isinstance(leaf, KerasTensor)]
        self.input_tensors = [
            leaf for leaf in tree.flatten([args, kwargs]) if isinstance(leaf, KerasTensor)
        ]
        operation._inbound_nodes.append(self)
        index = len(operation._inbound_nodes) - 1
        for position, tensor in enumerate(self.outputs):
            if tensor._keras_history is None:
                tensor._keras_history = KerasHistory(operation, index, position)

    @property
    def output_tensors(self) -> list[KerasTensor]:
        return self.outputs

    @property
    def is_input(self) -> bool:
        return not self.input_tensors

    @property
    def parent_nodes(self) -> list[Node]:
        """The nodes that made the inputs, each once."""
        found: dict[int, Node] = {}
        for tensor in self.input_tensors:
            if tensor._keras_history is not None:
                operation, index, _ = tensor._keras_history
                node = operation._inbound_nodes[index]
                found[id(node)] = node
        return list(found.values())

    def fill(self, values: dict[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with each symbolic tensor replaced by `values[id(tensor)]`."""

        def value_of(leaf: Any) -> Any:
            return values[id(leaf)] if isinstance(leaf, KerasTensor) else leaf

        args, kwargs = tree.map_structure(value_of, [list(self.args), self.kwargs])
        return tuple(args), kwargs


class Operation:
    """What can be called on symbolic tensors: a layer, or an op with its arguments."""

    _inbound_nodes: list[Node]

    def __init__(self, name: str | None = None) -> None:
        self.name = name or unique_name(to_snake_case(type(self).__name__))
        self._inbound_nodes = []

    def symbolic_call(self, *args: Any, **kwargs: Any) -> Any:
        """Record a call, and give symbolic tensors for its outputs."""
        outputs = self.compute_output_spec(*args, **kwargs)
        given = {id(leaf) for leaf in tree.flatten([args, kwargs])}
        # An operation that hands an argument through must still give a tensor of its own.
        outputs = tree.map_structure(
            lambda leaf: (
                KerasTensor(leaf.shape, leaf.dtype)
                if isinstance(leaf, KerasTensor) and id(leaf) in given
                else leaf
            ),
            outputs,
        )
        Node(self, args, kwargs, outputs)
        return outputs

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """The symbolic tensors that a call with these arguments gives, found by tracing it."""
        return infer(self, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    @property
    def input(self) -> Any:
        """The symbolic input of the only call (several: a list)."""
        return _single(self._only_node().input_tensors)

    @property
    def output(self) -> Any:
        """The symbolic output of the only call (several: a list)."""
        return _single(self._only_node().outputs)

    def _only_node(self) -> Node:
        if len(self._inbound_nodes) != 1:
            raise ValueError(
                f"{self.name} has been called on symbolic tensors {len(self._inbound_nodes)} "
                "times, so that its input and output are not defined"
            )
        return self._inbound_nodes[0]


def _single(tensors: list[KerasTensor]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


class OpOperation(Operation):
    """A public op as part of a functional model."""

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        super().__init__(name or unique_name(function.__name__))
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any_symbolic(args, kwargs):
            return self.symbolic_call(*args, **kwargs)
        return self.function(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "function": self.function.__name__}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> OpOperation:
        return cls(ops.dispatch.OPERATIONS[config["function"]], config.get("name"))


# ------------------------------------------------------------------- shapes by abstract tracing


def infer(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a function gives for symbolic arguments: its result with symbolic tensors.

    The batch (a None on axis 0) is the run-time batch; other sizes that are not known are tried
    with two stand-ins, and where the results differ the size is not known either.
    """
    symbolic = [leaf for leaf in tree.flatten([args, kwargs]) if isinstance(leaf, KerasTensor)]
    open_sizes = any(None in tensor.shape[1:] for tensor in symbolic)
    try:
        first = _tried(function, args, kwargs, Batch(1), STAND_INS[0])
        second = _tried(function, args, kwargs, Batch(1), STAND_INS[1]) if open_sizes else first
    except BatchError:
        first = _tried(function, args, kwargs, 3, STAND_INS[0])
        second = _tried(function, args, kwargs, 5, STAND_INS[1])
    except TraceError:
        # Code that looks at values runs on zeros; whether it can be compiled is another matter.
        first = _tried(function, args, kwargs, 3, STAND_INS[0], known=True)
        second = _tried(function, args, kwargs, 5, STAND_INS[1], known=True)
    return tree.map_structure(_symbolic_of, first, second)


def _tried(
    function: Callable[..., Any],
    args: Any,
    kwargs: Any,
    rows: Any,
    stand_in: int,
    *,
    known: bool = False,
) -> Any:
    def value_of(leaf: Any) -> Any:
        if not isinstance(leaf, KerasTensor):
            return leaf
        shape = tuple(
            size if size is not None else rows if axis == 0 else stand_in
            for axis, size in enumerate(leaf.shape)
        )
        if known:
            return ops.zeros(shape, leaf.dtype)
        return Tensor(input_node(Type(shape, leaf.dtype), leaf.name))

    with abstract(known=known):
        filled_args, filled_kwargs = tree.map_structure(value_of, [list(args), kwargs])
        return function(*filled_args, **filled_kwargs)


def _symbolic_of(one: Any, other: Any) -> Any:
    if not isinstance(one, (Tensor, Variable)):
        return one
    if len(one.shape) != len(other.shape):
        raise ShapeError("the number of axes of a result depends on a size that is not known")
    shape = tuple(
        None if isinstance(a, Batch) or a != b else a
        for a, b in zip(one.shape, other.shape, strict=True)
    )
    return KerasTensor(shape, one.dtype)
