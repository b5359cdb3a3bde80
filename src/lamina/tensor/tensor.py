"""Tensors: what users hold. A tensor is a node of the graph, and its value when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lamina import config
from lamina.errors import BatchError, DtypeError, ShapeError, layout
from lamina.ir import contractions, elementary, movement, scalar
from lamina.ir.graph import Node, constant, rows
from lamina.tensor import indexing, values
from lamina.tensor.broadcasting import broadcast_all, broadcast_shape, broadcast_to, elementwise
from lamina.types import DTYPES, FLOATS, Batch, Shape, numpy_dtype, promote


class Operators:
    """The arithmetic of tensors and variables: NumPy's broadcasting, Keras's promotion."""

    __slots__ = ()
    __array_priority__ = 1000

    def __add__(self, other: Any) -> Tensor:
        return _binary("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _binary("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _binary("sub", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _binary("sub", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _binary("mul", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _binary("mul", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _binary("div", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _binary("div", other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return _binary("floordiv", self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return _binary("floordiv", other, self)

    def __mod__(self, other: Any) -> Tensor:
        return _binary("mod", self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return _binary("mod", other, self)

    def __pow__(self, other: Any) -> Tensor:
        return _binary("pow", self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return _binary("pow", other, self)

    def __matmul__(self, other: Any) -> Tensor:
        if is_symbolic(other):
            return NotImplemented
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return matmul(other, self)

    def __lt__(self, other: Any) -> Tensor:
        return _binary("lt", self, other)

    def __le__(self, other: Any) -> Tensor:
        return _binary("le", self, other)

    def __gt__(self, other: Any) -> Tensor:
        return _binary("gt", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return _binary("ge", self, other)

    def __and__(self, other: Any) -> Tensor:
        return _binary("and", self, other)

    def __rand__(self, other: Any) -> Tensor:
        return _binary("and", other, self)

    def __or__(self, other: Any) -> Tensor:
        return _binary("or", self, other)

    def __ror__(self, other: Any) -> Tensor:
        return _binary("or", other, self)

    def __xor__(self, other: Any) -> Tensor:
        return _binary("xor", self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return _binary("xor", other, self)

    def __lshift__(self, other: Any) -> Tensor:
        return _binary("shl", self, other)

    def __rshift__(self, other: Any) -> Tensor:
        return _binary("shr", self, other)

    def __neg__(self) -> Tensor:
        return unary("neg", self)

    def __pos__(self) -> Tensor:
        return convert(self)

    def __abs__(self) -> Tensor:
        return unary("abs", self)

    def __invert__(self) -> Tensor:
        return unary("not", self)

    def __getitem__(self, key: Any) -> Tensor:
        x = convert(self)
        parts = key if isinstance(key, tuple) else (key,)
        return Tensor(indexing.index(x.node, tuple(_index_part(part) for part in parts)))

    def __len__(self) -> int:
        x = convert(self)
        if not x.shape:
            raise TypeError("a scalar tensor has no length")
        if isinstance(x.shape[0], Batch):
            raise BatchError("the number of rows is known only when the step runs")
        return x.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        x = convert(self)
        return (x[i] for i in range(len(x)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = convert(self).numpy()
        return array if dtype is None else array.astype(dtype)

    def __bool__(self) -> bool:
        return bool(convert(self)._value())

    def __int__(self) -> int:
        return int(convert(self)._scalar())

    def __float__(self) -> float:
        return float(convert(self)._scalar())

    def __index__(self) -> int:
        value = convert(self)._scalar()
        if not np.issubdtype(value.dtype, np.integer):
            raise TypeError(f"a tensor of {convert(self).node.type} is not an integer")
        return int(value)

    def __format__(self, specification: str) -> str:
        tensor = convert(self)
        if specification and not tensor.shape:
            return format(tensor.numpy().item(), specification)
        return format(str(self), specification)

    @property
    def T(self) -> Tensor:  # noqa: N802  # NumPy's name
        """The tensor with its axes in reverse order."""
        node = convert(self).node
        return Tensor(movement.transpose(node, tuple(reversed(range(len(node.shape))))))


class Tensor(Operators):
    """An immutable array: a node of the graph, computed when its value is asked for.

    Outside a trace, `numpy()`, printing, `bool()`, `float()` and the like compute the value with
    the reference executor. Inside a trace (in `fit`, or in a function given to `lamina.function`)
    a tensor stands for a value that the compiled step will compute.

    >>> x = convert([[1.0, 2.0], [3.0, 4.0]])
    >>> (x + 1.0).numpy().tolist()
    [[2.0, 3.0], [4.0, 5.0]]
    """

    __slots__ = ("__weakref__", "_keras_logits", "_keras_mask", "node")
    _keras_logits: Tensor  # what a softmax or sigmoid was made of, for cross-entropies
    _keras_mask: Tensor  # which time steps are there
    __hash__ = None  # type: ignore[assignment]  # `==` compares element by element

    def __init__(self, node: Node) -> None:
        self.node = node
        if (
            not values.is_tracing()
            and not values.is_recording()
            and values.chain_length(node) > values.LONGEST_CHAIN
        ):
            self._value()

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]  # element by element
        return _binary("eq", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return _binary("ne", self, other)

    @property
    def shape(self) -> Shape:
        """Sizes of the axes; inside a trace one of them may be the run-time `Batch`."""
        return self.node.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> str:
        return self.node.dtype

    @property
    def ndim(self) -> int:
        return len(self.node.shape)

    @property
    def size(self) -> int:
        """The number of elements.

        raises   BatchError where it depends on the batch
        """
        sizes = [size for size in self.shape if isinstance(size, int)]
        if len(sizes) != len(self.shape):
            raise BatchError("the number of elements is known only when the step runs")
        return int(np.prod(sizes, dtype=np.int64))

    def numpy(self) -> np.ndarray:
        """The value, as an array that is the caller's own.

        raises   TraceError inside a trace
        """
        return self._value().copy()

    def item(self) -> Any:
        """The value of a tensor with one element, as a Python number."""
        return self._value().item()

    def tolist(self) -> Any:
        return self._value().tolist()

    def astype(self, dtype: Any) -> Tensor:
        return cast(self, dtype)

    def reshape(self, *shape: Any) -> Tensor:
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return reshape(self, wanted)

    def _value(self) -> np.ndarray:
        known = values.known_value(self.node)
        if known is not None:
            return known
        (value,) = values.evaluate([self.node])
        if values.is_recording():
            values.set_value(self.node, value)
        elif not values.is_tracing():
            self.node = values.leaf(value)
        return value

    def _scalar(self) -> np.ndarray:
        value = self._value()
        if value.size != 1:
            raise TypeError(f"only a tensor with one element is a number, got {self.node.type}")
        return value.reshape(())

    def __repr__(self) -> str:
        if values.is_tracing() and values.known_value(self.node) is None:
            return f"<lamina.Tensor {self.node.type}, traced>"
        try:
            value = self._value()
        except TypeError:
            return f"<lamina.Tensor {self.node.type}, traced>"
        return f"<lamina.Tensor {self.node.type}\n{value}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return convert, (self.numpy(),)

    def __copy__(self) -> Tensor:
        return Tensor(self.node)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return Tensor(self.node)


def is_symbolic(value: Any) -> bool:
    """Whether this is a symbolic tensor of a functional model, which records what is done to it."""
    return hasattr(type(value), "__lamina_symbolic__")


def is_tensor(value: Any) -> bool:
    """Whether this is a tensor."""
    return isinstance(value, Tensor)


def as_dtype(dtype: Any) -> str:
    """The name of a dtype given as a name, a NumPy dtype or type, or a Python type.

    raises   DtypeError for anything else
    """
    if dtype is None:
        return config.floatx()
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    if dtype is float:
        return config.floatx()
    if dtype is int:
        return "int32"
    if dtype is bool:
        return "bool"
    try:
        name = str(np.dtype(dtype))
    except TypeError:
        name = str(getattr(dtype, "name", dtype))
    if name not in DTYPES:
        raise DtypeError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    return name


def convert(value: Any, dtype: Any = None) -> Tensor:
    """A tensor of anything that holds numbers: a tensor, variable, array, list, number, or Batch.

    Arrays keep their dtype; Python floats (and lists of them) become `config.floatx()`, integers
    int32, truth values bool.

    raises   DtypeError for what holds no numbers (text, objects, None)
    """
    if isinstance(value, Tensor):
        tensor = value
    elif isinstance(value, Operators):
        tensor = value.value  # type: ignore[attr-defined]  # every other Operators is a Variable
    elif isinstance(value, _NUMBERS):
        return Tensor(constant(value, _number_dtype(value) if dtype is None else as_dtype(dtype)))
    elif isinstance(value, Batch):
        return Tensor(rows(value.factor, "int32" if dtype is None else as_dtype(dtype)))
    elif is_symbolic(value):
        raise DtypeError(
            "a symbolic tensor (made by Input) has no value; give it to a layer or to lamina.ops"
        )
    else:
        tensor = _from_array(value, dtype)
    return tensor if dtype is None else cast(tensor, dtype)


# NumPy's functions give float64 and int64 scalars where Python has plain numbers: `np.sqrt(2)`
# must not make a float32 tensor float64, so they adapt like Python's.
_NUMBERS = (bool, int, float, np.int64)


def _number_dtype(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, np.integer)):
        return "int32" if -(2**31) <= value < 2**31 else "int64"
    return config.floatx()


def _from_array(value: Any, dtype: Any) -> Tensor:
    if isinstance(value, (list, tuple)) and any(_holds_tensor(part) for part in value):
        return stack([convert(part) for part in value])
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and str(array.dtype) not in DTYPES:
        given = "None" if value is None else f"{type(value).__name__} of {array.dtype}"
        raise DtypeError(f"a tensor holds numbers or truth values, got {given}")
    if not hasattr(value, "dtype"):
        if array.dtype == np.float64:
            array = array.astype(numpy_dtype(config.floatx()))
        elif array.dtype == np.int64 and not (array.size and np.abs(array).max() >= 2**31):
            array = array.astype(np.int32)
    if array.ndim == 0:
        name = str(array.dtype) if dtype is None else as_dtype(dtype)
        return Tensor(constant(array, name))
    wanted = array.dtype if dtype is None else numpy_dtype(as_dtype(dtype))
    return Tensor(values.leaf(np.array(array, dtype=wanted, order="C")))


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_tensor(part) for part in value)
    return isinstance(value, (Operators, Batch))


def _index_part(part: Any) -> Any:
    """One part of an index: arrays and lists become integer nodes, masks their positions."""
    if part is None or part is Ellipsis or isinstance(part, (slice, int, np.integer)):
        if isinstance(part, bool):
            raise ShapeError("indexing with a bare True or False is not supported")
        return part
    if isinstance(part, Batch):
        return part
    tensor = convert(part)
    if tensor.dtype == "bool":
        positions = np.nonzero(tensor._value())
        if len(positions) != 1:
            raise ShapeError("a mask used as an index must have one axis; use ops.where")
        return values.leaf(positions[0].astype(np.int32))
    if tensor.dtype in FLOATS:
        raise DtypeError(f"an index must hold integers or truth values, got {tensor.node.type}")
    return tensor.node


# ------------------------------------------------------------------- mixed operands


def _strong_dtype(value: Any) -> str | None:
    """The dtype that an operand insists on; None for Python numbers, which adapt."""
    if isinstance(value, Operators):
        return value.dtype  # type: ignore[attr-defined, no-any-return]
    dtype = None if isinstance(value, _NUMBERS) else getattr(value, "dtype", None)
    return None if dtype is None else as_dtype(dtype)


def result_dtype(*operands: Any) -> str:
    """The dtype that operands of these kinds are brought to, as in Keras.

    A Python number takes the dtype of the tensor beside it, unless it is a float beside an
    integer tensor: then the result is `config.floatx()`.
    """
    strong: list[str] = []
    weak: list[Any] = []
    for operand in operands:
        dtype = _strong_dtype(operand)
        if dtype is not None:
            strong.append(dtype)
        elif isinstance(operand, _NUMBERS):
            weak.append(operand)
        elif isinstance(operand, Batch):
            weak.append(1)
        else:
            strong.append(convert(operand).dtype)
    dtype = promote(*strong) if strong else "bool"
    for number in weak:
        if isinstance(number, bool):
            continue
        if isinstance(number, float):
            dtype = dtype if dtype in FLOATS else config.floatx()
        elif dtype == "bool":
            dtype = _number_dtype(number)
    return dtype


def operands(*given: Any, dtype: str | None = None, floating: bool = False) -> list[Node]:
    """The nodes of operands, brought to one dtype (a floating one if `floating`)."""
    tensors = [
        value if isinstance(value, (*_NUMBERS, Batch)) else convert(value) for value in given
    ]
    dtype = dtype or result_dtype(*tensors)
    if floating and dtype not in FLOATS:
        dtype = config.floatx()
    return [convert(tensor, dtype).node for tensor in tensors]


_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
_LOGICAL = {"and", "or", "xor", "shl", "shr"}


def _binary(name: str, one: Any, other: Any) -> Tensor:
    """`binary` for operators, which leave what they do not know to the other operand."""
    if is_symbolic(one) or is_symbolic(other):
        return NotImplemented  # type: ignore[no-any-return]  # Python's protocol
    try:
        return binary(name, one, other)
    except DtypeError:
        if isinstance(other, (str, bytes, dict)) or other is None:
            return NotImplemented  # type: ignore[no-any-return]  # Python's protocol
        raise


def binary(name: str, one: Any, other: Any) -> Tensor:
    """A row of the scalar table with two arguments, broadcasting and promoting."""
    if name == "pow":
        short = _whole_power(one, other)
        if short is not None:
            return short
    a, b = operands(one, other, floating=name in ("div", "atan2"))
    if name == "pow" and a.dtype not in FLOATS:
        return _integer_power(a, b)
    if a.dtype == "bool" and name not in _COMPARISONS | {"and", "or", "xor"}:
        if name in ("add", "maximum"):
            name = "or"
        elif name in ("mul", "minimum"):
            name = "and"
        else:
            a, b = scalar.cast(a, "int32"), scalar.cast(b, "int32")
    if name in _LOGICAL and a.dtype in FLOATS:
        raise DtypeError(f"{name!r} works on integers and truth values, got {a.type} and {b.type}")
    return Tensor(elementwise(name, a, b))


def _whole_power(base: Any, exponent: Any) -> Tensor | None:
    """Small powers known by number, as products: exact, and cheaper than a power."""
    if type(exponent) not in (int, float) or exponent not in (1, 2, 3, 4, 0.5, -1):
        return None
    x = convert(base)
    if x.dtype not in FLOATS:
        if type(exponent) is not int or exponent < 0 or x.dtype == "bool":
            return None
    elif exponent == 0.5:
        return unary("sqrt", x)
    elif exponent == -1:
        return unary("reciprocal", x)
    squared = unary("square", x) if exponent != 1 else x
    if exponent == 3:
        return squared * x
    return squared if exponent in (1, 2) else unary("square", squared)


def _integer_power(a: Node, b: Node) -> Tensor:
    """Integer powers by squaring over the bits of the exponent; negative exponents count as 0."""
    dtype = "int32" if a.dtype == "bool" else a.dtype
    base, exponent = cast(Tensor(a), dtype), cast(Tensor(b), dtype)
    base, exponent = (Tensor(node) for node in broadcast_all([base.node, exponent.node]))
    one = convert(1, dtype)
    result = convert(1, dtype) + exponent * 0
    # A base of at least 2 overflows 64 bits before its exponent needs a seventh bit.
    for bit in range(7):
        chosen = ((exponent >> bit) & 1) == 1
        factor = Tensor(elementwise("where", chosen.node, base.node, one.node))
        result = result * factor
        base = base * base
    return result


def unary(name: str, x: Any, *, floating: bool = False) -> Tensor:
    """A row of the scalar table with one argument; integers become floats if `floating`."""
    node = convert(x).node
    if floating and node.dtype not in FLOATS:
        node = scalar.cast(node, config.floatx())
    return Tensor(elementary.map_(name, node))


def cast(x: Any, dtype: Any) -> Tensor:
    """The same values in another dtype."""
    tensor = convert(x)
    name = as_dtype(dtype)
    return tensor if tensor.dtype == name else Tensor(scalar.cast(tensor.node, name))


def target_shape(x: Node, shape: Any) -> Shape:
    """The shape that a reshape of `x` means, with one -1 or None filled in."""
    wanted = (shape,) if isinstance(shape, (int, Batch, np.integer)) else tuple(shape)
    sizes: list[Any] = []
    for size in wanted:
        if isinstance(size, Tensor):
            size = int(size)
        sizes.append(-1 if size is None else size if isinstance(size, Batch) else int(size))
    open_axes = [axis for axis, size in enumerate(sizes) if size == -1]
    if len(open_axes) > 1:
        raise ShapeError(f"reshape can infer one dimension, got {wanted}")
    static, factor = _linear(x.shape)
    if not open_axes:
        if factor and not any(isinstance(size, Batch) for size in sizes):
            raise BatchError(f"a value of {x.type} can have the shape {wanted} for some rows only")
        return tuple(sizes)
    known, known_factor = _linear(size for size in sizes if size != -1)
    if known == 0 or static % known:
        raise (BatchError if factor else ShapeError)(
            f"a value of {x.type} cannot be reshaped to {wanted}"
        )
    if factor and not known_factor:
        sizes[open_axes[0]] = Batch(static // known)
    elif bool(known_factor) == bool(factor):
        sizes[open_axes[0]] = static // known
    else:
        raise ShapeError(f"a value of {x.type} cannot be reshaped to {wanted}")
    return tuple(sizes)


def _linear(shape: Any) -> tuple[int, bool]:
    """(number of elements for one row, whether it grows with the rows)."""
    static, grows = 1, False
    for size in shape:
        if isinstance(size, Batch):
            static, grows = static * size.factor, True
        else:
            static *= size
    return static, grows


def reshape(x: Any, shape: Any) -> Tensor:
    """The same elements in another shape; one size may be -1."""
    node = convert(x).node
    wanted = target_shape(node, shape)
    return Tensor(node if wanted == node.shape else movement.reshape(node, wanted))


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    nodes = operands(*tensors)
    rank = len(nodes[0].shape) + 1
    at = axis % rank
    expanded = [movement.expand(node, at) for node in nodes]
    return Tensor(movement.concat(expanded, at))


def matmul(one: Any, other: Any) -> Tensor:
    """NumPy's matrix product: the last two axes are matrices, the axes before them broadcast."""
    a, b = operands(one, other)
    if a.dtype == "bool":
        a, b = scalar.cast(a, "int32"), scalar.cast(b, "int32")
    if not a.shape or not b.shape:
        raise ShapeError(f"matmul needs at least one axis on both sides, got {a.type}, {b.type}")
    inner = -2 if len(b.shape) > 1 else -1
    if a.shape[-1] != b.shape[inner]:
        mixed = isinstance(a.shape[-1], Batch) != isinstance(b.shape[inner], Batch)
        raise (BatchError if mixed else ShapeError)(
            layout(
                f"matmul: {a.shape[-1]} columns do not match {b.shape[inner]} rows.",
                [("first", str(a.type)), ("second", str(b.type)), *values.where_called()],
            )
        )
    if len(a.shape) == len(b.shape) == 1:
        return Tensor(elementary.reduce_sum(elementary.map_("mul", a, b), (0,)))
    if len(b.shape) <= 2:
        return Tensor(contractions.dot(a, b, contract=((len(a.shape) - 1, len(b.shape) + inner),)))
    if len(a.shape) == 1:
        product = matmul(Tensor(movement.expand(a, 0)), Tensor(b))
        return Tensor(movement.squeeze(product.node, len(product.shape) - 2))
    lead = broadcast_shape(a.shape[:-2], b.shape[:-2])
    a = broadcast_to(a, (*lead, *a.shape[-2:]))
    b = broadcast_to(b, (*lead, *b.shape[-2:]))
    batch = tuple((axis, axis) for axis in range(len(lead)))
    return Tensor(contractions.dot(a, b, contract=((len(lead) + 1, len(lead)),), batch=batch))
