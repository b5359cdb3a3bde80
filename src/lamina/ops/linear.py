"""Products of tensors: matmul, einsum, tensordot and their relatives."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lamina.errors import ShapeError, layout
from lamina.ir import contractions, elementary, movement, scalar
from lamina.ir.graph import Node
from lamina.ops.dispatch import normal_axis, operation
from lamina.ops.shaping import moveaxis
from lamina.tensor import Tensor, operands
from lamina.tensor import matmul as matmul_tensor
from lamina.tensor.broadcasting import broadcast_to


@operation
def matmul(x1: Any, x2: Any) -> Tensor:
    """The matrix product of the last two axes; the axes before them broadcast."""
    return matmul_tensor(x1, x2)


def _contracted(a: Node, b: Node, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    """Products summed over pairs of axes; of two vectors an ordinary sum, which fuses."""
    if len(a.shape) == len(b.shape) == len(pairs) == 1 and a.shape == b.shape:
        return matmul_tensor(Tensor(a), Tensor(b))
    return Tensor(contractions.dot(a, b, contract=pairs))


@operation
def dot(x1: Any, x2: Any) -> Tensor:
    """NumPy's dot: the last axis of x1 with the last but one of x2 (or its only one)."""
    a, b = operands(x1, x2)
    if not a.shape or not b.shape:
        return Tensor(a) * Tensor(b)
    inner = len(b.shape) - 2 if len(b.shape) > 1 else 0
    return _contracted(a, b, ((len(a.shape) - 1, inner),))


@operation
def vdot(x1: Any, x2: Any) -> Tensor:
    """The sum of the products of all elements."""
    a, b = operands(x1, x2)
    return dot(Tensor(a).reshape((-1,)), Tensor(b).reshape((-1,)))


@operation
def inner(x1: Any, x2: Any) -> Tensor:
    """The product over the last axes of both."""
    a, b = operands(x1, x2)
    if not a.shape or not b.shape:
        return Tensor(a) * Tensor(b)
    return _contracted(a, b, ((len(a.shape) - 1, len(b.shape) - 1),))


@operation
def outer(x1: Any, x2: Any) -> Tensor:
    """Every element of x1 times every element of x2: (n, m)."""
    a, b = (Tensor(node).reshape((-1,)) for node in operands(x1, x2))
    return a.reshape((-1, 1)) * b


@operation
def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Tensor:
    """The sum of products over pairs of axes.

    axes   a number n: the last n of x1 with the first n of x2; or two lists of axes
    """
    a, b = operands(x1, x2)
    if isinstance(axes, int):
        left = list(range(len(a.shape) - axes, len(a.shape)))
        right = list(range(axes))
    else:
        left, right = ([one] if isinstance(one, int) else list(one) for one in axes)
    if len(left) != len(right):
        raise ShapeError(f"tensordot: {len(left)} axes of the first against {len(right)}")
    pairs = tuple(
        (normal_axis(i, len(a.shape)), normal_axis(j, len(b.shape)))
        for i, j in zip(left, right, strict=True)
    )
    if not pairs:
        shape = (*a.shape, *b.shape)
        rank = len(a.shape)
        return Tensor(elementary.broadcast(a, shape, range(rank))) * Tensor(
            elementary.broadcast(b, shape, range(rank, len(shape)))
        )
    return _contracted(a, b, pairs)


@operation
def einsum(subscripts: str, *xs: Any) -> Tensor:
    """Sums of products by Einstein's convention: `einsum("bij,jk->bik", a, b)`.

    `...` stands for axes that broadcast. Operands are joined two at a time, from the left.

    raises   ShapeError where the subscripts do not fit the operands
    """
    nodes = operands(*xs)
    terms, result = _parsed(subscripts, nodes)
    sizes: dict[str, Any] = {}
    for term, node in zip(terms, nodes, strict=True):
        for letter, size in zip(term, node.shape, strict=True):
            known = sizes.setdefault(letter, size)
            if known == 1:
                sizes[letter] = size
            elif size not in (1, known):
                raise ShapeError(
                    layout(
                        f"einsum: axis {letter!r} of {subscripts!r} has sizes {known} and {size}.",
                        [(f"x{i + 1}", str(node.type)) for i, node in enumerate(nodes)],
                    )
                )
    term, node = _clean(terms[0], nodes[0], set("".join(terms[1:])) | set(result), sizes)
    for position in range(1, len(terms)):
        later = set("".join(terms[position + 1 :])) | set(result)
        other, right = _clean(terms[position], nodes[position], set(term) | later, sizes)
        term, node = _pair(term, node, other, right, later)
    return Tensor(_ordered(term, node, result))


def _parsed(subscripts: str, nodes: list[Node]) -> tuple[list[str], str]:
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(nodes):
        raise ShapeError(f"einsum: {subscripts!r} names {len(terms)} operands, got {len(nodes)}")
    if not arrow:
        counts = Counter(letter for letter in left if letter.isalpha())
        right = "..." * ("..." in left) + "".join(sorted(x for x, n in counts.items() if n == 1))
    ranks = [
        len(node.shape) - len(term.replace("...", ""))
        for term, node in zip(terms, nodes, strict=True)
    ]
    spare = [chr(0x2200 + i) for i in range(max(ranks, default=0))]
    full: list[str] = []
    for term, rank, node in zip(terms, ranks, nodes, strict=True):
        if rank < 0 or (rank and "..." not in term):
            raise ShapeError(f"einsum: {term!r} of {subscripts!r} does not fit {node.type}")
        full.append(term.replace("...", "".join(spare[len(spare) - rank :])))
    return full, right.replace("...", "".join(spare))


def _clean(term: str, node: Node, wanted: set[str], sizes: dict[str, Any]) -> tuple[str, Node]:
    """Without repeated letters (diagonals) and without letters that nobody else wants (sums)."""
    while len(set(term)) < len(term):
        letter = next(x for x in term if term.count(x) > 1)
        i = term.index(letter)
        j = term.index(letter, i + 1)
        node = _diagonal(node, i, j)
        term = (
            term.replace(letter, "") + letter
            if term.count(letter) == 2
            else ("".join(x for k, x in enumerate(term) if k not in (i, j)) + letter)
        )
    gone = tuple(i for i, letter in enumerate(term) if letter not in wanted)
    if gone:
        node = elementary.reduce_sum(node, gone)
        term = "".join(letter for letter in term if letter in wanted)
    thin = tuple(i for i, letter in enumerate(term) if node.shape[i] == 1 and sizes[letter] != 1)
    if thin:
        kept = tuple(size for i, size in enumerate(node.shape) if i not in thin)
        node = movement.reshape(node, kept)
        term = "".join(letter for i, letter in enumerate(term) if i not in thin)
    return term, node


def _diagonal(node: Node, i: int, j: int) -> Node:
    size = node.shape[i]
    rank = len(node.shape)
    rows = movement.iota(node.shape, i, "int32")
    columns = movement.iota(node.shape, j, "int32")
    on = scalar.cast(elementary.map_("eq", rows, columns), node.dtype)
    masked = elementary.map_("mul", node, on)
    summed = elementary.reduce_sum(masked, (i,))
    order = [axis for axis in range(rank - 1) if axis != j - 1] + [j - 1]
    if size != node.shape[j]:
        raise ShapeError(f"einsum: a diagonal needs two equal axes, got {node.type}")
    return summed if order == list(range(rank - 1)) else movement.transpose(summed, order)


def _pair(a: str, x: Node, b: str, y: Node, later: set[str]) -> tuple[str, Node]:
    shared = [letter for letter in a if letter in b]
    batch = [letter for letter in shared if letter in later]
    summed = [letter for letter in shared if letter not in later]

    def pairs(letters: list[str]) -> tuple[tuple[int, int], ...]:
        return tuple((a.index(one), b.index(one)) for one in letters)

    term = (
        "".join(batch)
        + "".join(letter for letter in a if letter not in shared)
        + "".join(letter for letter in b if letter not in shared)
    )
    alone = all(letter in shared for letter in a + b)
    if not summed or alone:
        # A product with broadcasting, and at most a plain sum of it: these fuse, a contraction
        # would not pay.
        term += "".join(summed)
        shape = tuple(
            (x.shape[a.index(one)] if one in a else y.shape[b.index(one)]) for one in term
        )
        sides = [broadcast_to(_spread(side, node, term), shape) for side, node in ((a, x), (b, y))]
        product = elementary.map_("mul", *sides)
        if not summed:
            return term, product
        last = range(len(term) - len(summed), len(term))
        return term[: -len(summed)], elementary.reduce_sum(product, tuple(last))
    return term, contractions.dot(x, y, contract=pairs(summed), batch=pairs(batch))


def _spread(letters: str, node: Node, term: str) -> Node:
    """node with its axes in the order of `term`, and size 1 where it has no such axis."""
    order = [letters.index(one) for one in term if one in letters]
    if order != list(range(len(order))):
        node = movement.transpose(node, order)
    sizes = iter(node.shape)
    return movement.reshape(node, tuple(next(sizes) if one in letters else 1 for one in term))


def _ordered(term: str, node: Node, result: str) -> Node:
    if sorted(term) != sorted(result):
        raise ShapeError("einsum: the result names an axis that no operand has")
    order = [term.index(letter) for letter in result]
    return node if order == list(range(len(order))) else movement.transpose(node, order)


@operation
def kron(x1: Any, x2: Any) -> Tensor:
    """The Kronecker product of two tensors with equally many axes."""
    a, b = (Tensor(node) for node in operands(x1, x2))
    rank = max(a.ndim, b.ndim)
    a, b = (x.reshape((*(1,) * (rank - x.ndim), *x.shape)) for x in (a, b))
    left = a.reshape([size for pair in zip(a.shape, (1,) * rank, strict=True) for size in pair])
    right = b.reshape([size for pair in zip((1,) * rank, b.shape, strict=True) for size in pair])
    shape = [m * n for m, n in zip(a.shape, b.shape, strict=True)]
    return (left * right).reshape(shape)


@operation
def cross(
    x1: Any, x2: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Tensor:
    """The cross product of vectors of 3 (or 2, with a third component of 0)."""
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = (Tensor(node) for node in operands(x1, x2))
    a, b = moveaxis(a, axisa, -1), moveaxis(b, axisb, -1)
    if a.shape[-1] not in (2, 3) or b.shape[-1] not in (2, 3):
        raise ShapeError(f"cross: vectors have 2 or 3 components, got {a.node.type}, {b.node.type}")
    flat = a.shape[-1] == b.shape[-1] == 2
    a0, a1 = a[..., 0], a[..., 1]
    b0, b1 = b[..., 0], b[..., 1]
    last = a0 * b1 - a1 * b0
    if flat:
        return last
    zero = last * 0
    a2 = a[..., 2] if a.shape[-1] == 3 else zero
    b2 = b[..., 2] if b.shape[-1] == 3 else zero
    parts = [a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, last]
    joined = movement.concat([movement.expand(part.node, last.ndim) for part in parts], last.ndim)
    return moveaxis(Tensor(joined), -1, axisc)


@operation
def correlate(x1: Any, x2: Any, mode: str = "valid") -> Tensor:
    """The cross-correlation of two vectors, as NumPy's."""
    a, b = (Tensor(node) for node in operands(x1, x2, floating=True))
    n, m = int(a.shape[0]), int(b.shape[0])  # type: ignore[arg-type]
    sides = {"valid": (0, 0), "full": (m - 1, m - 1), "same": (m // 2, (m - 1) - m // 2)}
    if mode not in sides:
        raise ShapeError(f"correlate: unknown mode {mode!r}; known: valid, same, full")
    if m > n and mode == "valid":
        return correlate(b, a, mode)[::-1]
    low, high = sides[mode]
    if mode == "same" and m > n:
        whole = correlate(a, b, "full")
        begin = (min(n, m) - 1) // 2
        return whole[begin : begin + max(n, m)]
    x = a.reshape((1, n, 1)).node
    w = b.reshape((m, 1, 1)).node
    result = contractions.conv(x, w, padding=((low, high),))
    return Tensor(result).reshape((-1,))
