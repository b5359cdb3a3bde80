"""Control flow over tensors: branches, loops, maps, and functions with their own gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lamina import tree
from lamina.errors import ShapeError
from lamina.ir import control, scalar
from lamina.ir.graph import Const, Node, apply, input_node, rewrite, toposort
from lamina.ops.creation import arange, ones_like, zeros_like
from lamina.ops.dispatch import operation
from lamina.ops.shaping import concatenate, flip
from lamina.tensor import Tensor, cast, convert, values
from lamina.tensor.broadcasting import broadcast_all
from lamina.tensor.marks import Mark, Transparent
from lamina.transform.gradient import gradients
from lamina.types import Type


@dataclass(frozen=True)
class Closed:
    """A body, the outer nodes that it reads beside its parameters, and what it returned."""

    body: control.Body
    constants: list[Node]
    structure: Any


def closed(
    function: Callable[..., Any], types: Sequence[Type], packs: Any, own: tuple[type, ...] = ()
) -> Closed:
    """Run `function` on fresh parameters and close the graph over the outer nodes it read.

    packs   gives the arguments of the function from the list of parameter tensors
    own     ops that stay inside, although they do not depend on the parameters
    """
    parameters = [input_node(type) for type in types]
    # Parameters have no values, so that nothing may be realised while the body is built.
    with values.recording():
        returned = function(*packs([Tensor(node) for node in parameters]))
    leaves = [convert(leaf).node for leaf in tree.flatten(returned)]
    inner = set(parameters)
    free: dict[Node, None] = {}
    order = toposort(leaves)
    for node in order:
        if isinstance(node.op, own) or any(parent in inner for parent in node.inputs):
            inner.add(node)
    for node in order:
        if node in inner:
            for parent in node.inputs:
                if parent not in inner and not isinstance(parent.op, Const):
                    free[parent] = None
    for leaf in leaves:
        if leaf not in inner and not isinstance(leaf.op, Const):
            free[leaf] = None
    outside = list(free)
    inside = [input_node(node.type) for node in outside]
    known = dict(zip(outside, inside, strict=True))
    results = rewrite(leaves, lambda node: node, {**known, **{p: p for p in parameters}})
    return Closed(control.Body((*parameters, *inside), tuple(results)), outside, returned)


def _tensors(structure: Any) -> list[Tensor]:
    return [convert(leaf) for leaf in tree.flatten(structure)]


def _packed(structure: Any, nodes: Sequence[Node]) -> Any:
    return tree.pack(structure, [Tensor(node) for node in nodes])


def cond(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """`true_fn()` where the scalar `pred` holds, `false_fn()` where not; both give the same types.

    Outside a trace, only the branch that is taken runs.
    """
    flag = convert(pred)
    flag = flag if flag.dtype == "bool" else flag != 0
    known = values.known_value(flag.node)
    if known is None and not values.is_tracing():
        known = flag._value()
    if known is not None:
        return true_fn() if bool(known) else false_fn()
    yes, no = (_branch(function) for function in (true_fn, false_fn))
    tree.assert_same_structure(yes.structure, no.structure)
    inputs = list(dict.fromkeys([*yes.constants, *no.constants]))
    bodies = [_widened(side, inputs) for side in (yes, no)]
    return _packed(yes.structure, control.cond(flag.reshape(()).node, bodies[0], bodies[1], inputs))


def _branch(function: Callable[[], Any]) -> Closed:
    """A side of a branch. A loop in it may be one that ends only where the side is taken."""
    return closed(function, [], lambda _: (), own=(control.While,))


def _widened(side: Closed, inputs: list[Node]) -> control.Body:
    """The body of a branch with a parameter for every input of both."""
    own = dict(zip(side.constants, side.body.parameters, strict=True))
    parameters = tuple(own.get(node) or input_node(node.type) for node in inputs)
    return control.Body(parameters, side.body.results)


@operation
def while_loop(
    cond: Callable[..., Any],
    body: Callable[..., Any],
    loop_vars: Any,
    maximum_iterations: int | None = None,
) -> Any:
    """Repeat `loop_vars = body(*loop_vars)` while `cond(*loop_vars)` holds.

    The variables keep their shapes and dtypes. There is no gradient through it; use `scan` or
    `fori_loop` for that.
    """
    single = not isinstance(loop_vars, (list, tuple))
    start = (loop_vars,) if single else tuple(loop_vars)
    tensors = _tensors(start)
    if maximum_iterations is not None:
        tensors.append(convert(0))
    types = [tensor.node.type for tensor in tensors]

    def unpacked(given: list[Tensor]) -> tuple[Any, ...]:
        return tuple(tree.pack(start, given[: len(given) - (maximum_iterations is not None)]))

    def test(*given: Tensor) -> Any:
        holds = convert(cond(*unpacked(list(given)))).reshape(())
        if maximum_iterations is not None:
            holds = holds & (given[-1] < maximum_iterations)
        return holds

    def step(*given: Tensor) -> Any:
        result = body(*unpacked(list(given)))
        flat = tree.flatten(
            result if isinstance(result, (list, tuple)) and not single else (result,)
        )
        kept = [cast(new, old.dtype) for new, old in zip(flat, given, strict=False)]
        return [*kept, given[-1] + 1] if maximum_iterations is not None else kept

    checks, steps = (closed(function, types, lambda given: given) for function in (test, step))
    constants = list(dict.fromkeys([*checks.constants, *steps.constants]))
    bodies = []
    for side in (checks, steps):
        own = dict(zip(side.constants, side.body.parameters[len(types) :], strict=True))
        extra = tuple(own.get(node) or input_node(node.type) for node in constants)
        bodies.append(
            control.Body((*side.body.parameters[: len(types)], *extra), side.body.results)
        )
    nodes = control.while_(bodies[0], bodies[1], [tensor.node for tensor in tensors], constants)
    if maximum_iterations is not None:
        nodes = nodes[:-1]
    result = _packed(start, nodes)
    return result[0] if single else result


@operation
def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: Any = 1,
) -> tuple[Any, Any]:
    """`carry, y = f(carry, x)` for each x along axis 0 of xs; returns (last carry, stacked ys).

    init, xs and ys may be nested structures; the carry keeps its shapes and dtypes.
    """
    carry, elements = _tensors(init), _tensors(xs) if xs is not None else []
    steps = int(elements[0].shape[0]) if elements else length  # type: ignore[arg-type]
    if steps is None:
        raise ShapeError("scan needs `xs` or `length`")
    count = len(carry)
    types = [tensor.node.type for tensor in carry]
    types += [Type(tensor.shape[1:], tensor.dtype) for tensor in elements]
    shape_of_y: list[Any] = []

    def step(*given: Tensor) -> Any:
        before = tree.pack(init, given[:count])
        x = tree.pack(xs, given[count:]) if xs is not None else None
        after, y = f(before, x)
        shape_of_y.append(y)
        flat = tree.flatten(after)
        kept = [cast(new, old.dtype) for new, old in zip(flat, given[:count], strict=True)]
        return [*kept, *(leaf for leaf in tree.flatten(y) if leaf is not None)]

    made = closed(step, types, lambda given: given)
    nodes = control.scan(
        made.body,
        steps,
        [tensor.node for tensor in carry],
        [tensor.node for tensor in elements],
        made.constants,
        reverse=reverse,
    )
    stacked = iter(nodes[count:])
    ys = tree.map_structure(
        lambda leaf: None if leaf is None else Tensor(next(stacked)), shape_of_y[0]
    )
    return _packed(init, nodes[:count]), ys


@operation
def fori_loop(lower: int, upper: int, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """`value = body_fun(i, value)` for i from `lower` to `upper` - 1."""
    first, last = int(lower), int(upper)
    if last <= first:
        return init_val
    numbers = arange(first, last)
    carry, _ = scan(lambda value, i: (body_fun(i, value), None), init_val, numbers)
    return carry


@operation
def map(f: Callable[[Any], Any], xs: Any) -> Any:
    """f applied to each slice along axis 0, one after the other, results stacked."""
    _, ys = scan(lambda carry, x: (carry, f(x)), (), xs)
    return ys


@operation
def vectorized_map(function: Callable[[Any], Any], elements: Any) -> Any:
    """f applied to each slice along axis 0, results stacked."""
    return map(function, elements)


@operation
def associative_scan(
    f: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0
) -> Any:
    """All prefixes combined by an associative function, in about log2(n) rounds.

    source   Hillis & Steele 1986, "Data parallel algorithms"
    """
    leaves = _tensors(elems)
    at = axis % leaves[0].ndim
    if reverse:
        leaves = [flip(leaf, at) for leaf in leaves]
    length = int(leaves[0].shape[at])  # type: ignore[arg-type]
    lead = (slice(None),) * at
    distance = 1
    while distance < length:
        early = [leaf[(*lead, slice(0, length - distance))] for leaf in leaves]
        late = [leaf[(*lead, slice(distance, None))] for leaf in leaves]
        joined = tree.flatten(f(tree.pack(elems, early), tree.pack(elems, late)))
        leaves = [
            concatenate([leaf[(*lead, slice(0, distance))], part], at)
            for leaf, part in zip(leaves, joined, strict=True)
        ]
        distance *= 2
    if reverse:
        leaves = [flip(leaf, at) for leaf in leaves]
    return tree.pack(elems, leaves)


@operation
def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """`branches[index](*operands)`; an index outside takes the nearest branch."""
    at = convert(index)
    known = values.known_value(at.node)
    if known is not None or not values.is_tracing():
        number = min(max(int(at), 0), len(branches) - 1)
        return branches[number](*operands)
    result = branches[-1](*operands)
    for number in range(len(branches) - 2, -1, -1):
        branch = branches[number]
        result = cond(
            at <= number, functools.partial(branch, *operands), functools.partial(_same, result)
        )
    return result


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class OwnGradient(Transparent):
    """The identity on its first input; the gradient is what a user's function says.

    inputs   the value, then what the function was called with, which get the gradients
    """

    gradient: Callable[..., Any]

    def vjp(self, gradient: Node, out: Node, value: Node, *arguments: Node) -> Any:
        given = self.gradient(Tensor(gradient))
        flat = tree.flatten(given)
        found = [None if leaf is None else convert(leaf).node for leaf in flat]
        if len(found) != len(arguments):
            raise ShapeError(
                f"a custom gradient must give {len(arguments)} gradients, got {len(found)}"
            )
        return [None, *found]


def custom_gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function with its own gradient: `f(*args)` returns (value, gradient function).

    The gradient function takes the gradient of the value (also as `upstream`) and gives one
    gradient for each argument.

    >>> @custom_gradient
    ... def straight(x):
    ...     return x * 0.0, lambda upstream: upstream
    """

    @functools.wraps(f)
    def public(*args: Any, **kwargs: Any) -> Any:
        given = [convert(arg) for arg in args]
        value, gradient = f(*given, **kwargs)
        node = apply(
            OwnGradient(gradient),
            scalar.stop_gradient(convert(value).node),
            *(tensor.node for tensor in given),
        )
        return Tensor(node)

    return public


def vectorize(pyfunc: Callable[..., Any], *, excluded: Any = None, signature: Any = None) -> Any:
    """A function of scalars as one of tensors, applied to each element in turn."""
    if excluded or signature:
        raise NotImplementedError("vectorize: excluded and signature are not supported")

    def whole(*args: Any) -> Any:
        tensors = [Tensor(node) for node in broadcast_all([convert(arg).node for arg in args])]
        flat = tuple(tensor.reshape((-1,)) for tensor in tensors)
        ys = map(lambda parts: pyfunc(*parts), flat)
        return tree.map_structure(lambda y: y.reshape((*tensors[0].shape, *y.shape[1:])), ys)

    return whole


def jvp(
    fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> Any:
    """(value, derivative along the tangents), by two reverse sweeps.

    The gradient of `<v, f(x)>` is linear in v; its own gradient along v is the derivative wanted.
    """
    with values.recording():
        marks = [Tensor(apply(Mark(), convert(primal).node)) for primal in primals]
        result = fun(*marks)
        value, aux = result if has_aux else (result, None)
        flat = [convert(leaf) for leaf in tree.flatten(value)]
        weights = [Tensor(apply(Mark(), ones_like(leaf).node)) for leaf in flat]
        back = gradients(
            [leaf.node for leaf in flat],
            [weight.node for weight in weights],
            [mark.node for mark in marks],
        )
        pairs = [
            (node, convert(tangent).node)
            for node, tangent in zip(back, tangents, strict=True)
            if node is not None
        ]
        forward = gradients(
            [node for node, _ in pairs],
            [cotangent for _, cotangent in pairs],
            [weight.node for weight in weights],
        )
    slopes = [
        zeros_like(leaf) if node is None else Tensor(node)
        for node, leaf in zip(forward, flat, strict=True)
    ]
    packed = tree.pack(value, slopes)
    return (value, packed, aux) if has_aux else (value, packed)
