"""Linear algebra: factorisations, solutions, determinants, norms.

The factorisations are computed by NumPy. They have gradients, but are not compiled: a step with one
of them runs on the reference executor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina import config
from lamina.errors import ShapeError
from lamina.ir.graph import Node, apply, picks
from lamina.ops.creation import diagonal, eye, iota
from lamina.ops.dispatch import normal_axes, operation
from lamina.ops.elementwise import abs, maximum, sqrt, where
from lamina.ops.reductions import max, mean, min, sum
from lamina.ops.shaping import expand_dims, swapaxes, transpose
from lamina.tensor import Tensor, cast, convert, matmul, operands
from lamina.tensor.marks import Interpreted
from lamina.types import FLOATS, Type, numpy_dtype


def _floating(x: Any) -> Tensor:
    tensor = convert(x)
    return tensor if tensor.dtype in FLOATS else cast(tensor, config.floatx())


@dataclass(frozen=True)
class Factorisation(Interpreted):
    """A function of NumPy's linear algebra over the last two axes, for each matrix of a stack."""

    kind: str
    option: bool = False

    @property
    def name(self) -> str:
        return self.kind

    def infer(self, x: Type, *others: Type) -> Any:
        if x.rank < 2 or any(not isinstance(size, int) for size in x.shape[-2:]):
            raise ShapeError(f"{self.kind}: matrices of a known size are expected, got {x}")
        *lead, m, n = x.shape
        if self.kind in _SQUARE and m != n:
            raise ShapeError(f"{self.kind}: the matrices must be square, got {x}")

        def like(*shape: Any) -> Type:
            return Type((*lead, *shape), x.dtype)

        least: Any = n if _exceeds(m, n) else m
        if self.kind in ("cholesky", "inv"):
            return x
        if self.kind in ("solve", "solve_triangular"):
            return others[0]
        if self.kind == "det":
            return like()
        if self.kind == "slogdet":
            return like(), like()
        if self.kind == "eigh":
            return like(n), x
        if self.kind == "qr":
            return like(m, m if self.option else least), like(m if self.option else least, n)
        return (
            like(m, m if self.option else least),
            like(least),
            like(n if self.option else least, n),
        )

    def numpy(self, x: Any, *others: Any) -> Any:
        dtype = x.dtype
        wide = x.astype(np.float32) if dtype.itemsize < 4 else x
        found = _MEANINGS[self.kind](self, wide, *others)
        if isinstance(found, tuple):
            return tuple(part.astype(dtype) for part in found)
        return np.asarray(found).astype(dtype)

    def vjp(self, gradient: Any, out: Node, x: Node, *others: Node) -> Any:
        rule = _GRADIENTS.get(self.kind)
        if rule is None:
            raise NotImplementedError(f"{self.kind} has no gradient")
        several = gradient if isinstance(gradient, (tuple, list)) else [gradient]
        gradients = [None if one is None else Tensor(one) for one in several]
        results = [Tensor(node) for node in picks(out)]
        found = rule(self, gradients, results, Tensor(x), *(Tensor(o) for o in others))
        return [None if one is None else one.node for one in found]


def _exceeds(m: Any, n: Any) -> bool:
    return bool(m > n)


_SQUARE = ("cholesky", "inv", "det", "slogdet", "eigh", "solve", "solve_triangular")


def _triangular(op: Factorisation, a: Any, b: Any) -> Any:
    kept = np.tril(a) if op.option else np.triu(a)
    return np.linalg.solve(kept, b)


_MEANINGS: dict[str, Callable[..., Any]] = {
    "cholesky": lambda op, x: np.linalg.cholesky(x),
    "inv": lambda op, x: np.linalg.inv(x),
    "det": lambda op, x: np.linalg.det(x),
    "slogdet": lambda op, x: tuple(np.linalg.slogdet(x)),
    "eigh": lambda op, x: tuple(np.linalg.eigh(x)),
    "qr": lambda op, x: tuple(np.linalg.qr(x, "complete" if op.option else "reduced")),
    "svd": lambda op, x: tuple(np.linalg.svd(x, full_matrices=op.option)),
    "solve": lambda op, a, b: np.linalg.solve(a, b),
    "solve_triangular": _triangular,
}


def _transposed(x: Tensor) -> Tensor:
    return swapaxes(x, -1, -2)


def _half(x: Tensor) -> Tensor:
    """The lower triangle, with half of the diagonal (Murray 2016, "Differentiation of the
    Cholesky decomposition").
    """
    rows, columns = iota(x.shape[-2:], 0), iota(x.shape[-2:], 1)
    return where(rows > columns, x, where(rows == columns, x * 0.5, 0.0))


def _cholesky_gradient(op: Any, g: Any, out: Any, x: Tensor) -> Any:
    low = out[0]
    inverse = inv(low)
    inner = _half(matmul(_transposed(low), g[0]))
    whole = matmul(matmul(_transposed(inverse), inner), inverse)
    return [(whole + _transposed(whole)) * 0.5]


def _inverse_gradient(op: Any, g: Any, out: Any, x: Tensor) -> Any:
    turned = _transposed(out[0])
    return [-matmul(matmul(turned, g[0]), turned)]


def _det_gradient(op: Any, g: Any, out: Any, x: Tensor) -> Any:
    factor = expand_dims(expand_dims(g[0] * out[0], -1), -1)
    return [factor * _transposed(inv(x))]


def _slogdet_gradient(op: Any, g: Any, out: Any, x: Tensor) -> Any:
    if g[1] is None:
        return [None]
    return [expand_dims(expand_dims(g[1], -1), -1) * _transposed(inv(x))]


def _solve_gradient(op: Any, g: Any, out: Any, a: Tensor, b: Tensor) -> Any:
    if op.kind == "solve":
        back = solve(_transposed(a), g[0])
    else:
        back = solve_triangular(_transposed(a), g[0], lower=not op.option)
    inner = -matmul(back, _transposed(out[0]))
    if op.kind == "solve_triangular":
        rows, columns = iota(inner.shape[-2:], 0), iota(inner.shape[-2:], 1)
        inner = where(rows >= columns if op.option else rows <= columns, inner, 0.0)
    return [inner, back]


def _eigh_gradient(op: Any, g: Any, out: Any, x: Tensor) -> Any:
    value, vector = out
    inner: Any = 0.0
    if g[0] is not None:
        inner = expand_dims(g[0], -1) * eye(int(value.shape[-1]), dtype=value.dtype)
    if g[1] is not None:
        gap = expand_dims(value, -2) - expand_dims(value, -1)
        safe = where(gap == 0, 1.0, gap)
        inner = inner + matmul(_transposed(vector), g[1]) * where(gap == 0, 0.0, 1.0 / safe)
    whole = matmul(matmul(vector, inner), _transposed(vector))
    return [(whole + _transposed(whole)) * 0.5]


_GRADIENTS: dict[str, Callable[..., Any]] = {
    "cholesky": _cholesky_gradient,
    "inv": _inverse_gradient,
    "det": _det_gradient,
    "slogdet": _slogdet_gradient,
    "solve": _solve_gradient,
    "solve_triangular": _solve_gradient,
    "eigh": _eigh_gradient,
}


def _apply(kind: str, *xs: Any, option: bool = False) -> tuple[Tensor, ...]:
    nodes = operands(*xs, floating=True)
    return tuple(Tensor(node) for node in picks(apply(Factorisation(kind, option), *nodes)))


@operation
def cholesky(x: Any, upper: bool = False) -> Tensor:
    """The lower triangular L with `L L' = x` (or the upper one); x symmetric, positive."""
    (low,) = _apply("cholesky", x)
    return _transposed(low) if upper else low


@operation
def cholesky_inverse(x: Any, upper: bool = False) -> Tensor:
    """The inverse of `L L'`, given L (or its transpose, if `upper`)."""
    inverse = inv(_transposed(convert(x)) if upper else x)
    return matmul(_transposed(inverse), inverse)


@operation
def inv(x: Any) -> Tensor:
    """The inverse of each matrix."""
    return _apply("inv", x)[0]


@operation
def det(x: Any) -> Tensor:
    """The determinant of each matrix."""
    return _apply("det", x)[0]


@operation
def slogdet(x: Any) -> tuple[Tensor, Tensor]:
    """The sign of the determinant, and the logarithm of its size."""
    sign, size = _apply("slogdet", x)
    return sign, size


@operation
def logdet(x: Any) -> Tensor:
    """The logarithm of the size of the determinant."""
    return slogdet(x)[1]


@operation
def eigh(x: Any) -> tuple[Tensor, Tensor]:
    """Eigenvalues, rising, and eigenvectors (columns) of symmetric matrices."""
    found, vectors = _apply("eigh", x)
    return found, vectors


def eig(x: Any) -> Any:
    """Eigenvalues and eigenvectors as complex arrays of NumPy; outside a trace only."""
    return tuple(np.linalg.eig(convert(x).numpy()))


@operation
def qr(x: Any, mode: str = "reduced") -> tuple[Tensor, Tensor]:
    """Q with orthonormal columns and the upper triangular R, with `Q R = x`."""
    if mode not in ("reduced", "complete"):
        raise ShapeError(f"qr: mode is 'reduced' or 'complete', got {mode!r}")
    q, r = _apply("qr", x, option=mode == "complete")
    return q, r


@operation
def svd(x: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """(U, S, V') with `U diag(S) V' = x`, singular values falling; or S alone."""
    u, s, v = _apply("svd", x, option=bool(full_matrices))
    return (u, s, v) if compute_uv else s


@operation
def solve(a: Any, b: Any) -> Tensor:
    """The x with `a x = b`; b holds columns, or is one vector."""
    right = _floating(b)
    if right.ndim == convert(a).ndim - 1:
        return _apply("solve", a, expand_dims(right, -1))[0][..., 0]
    return _apply("solve", a, right)[0]


@operation
def solve_triangular(a: Any, b: Any, lower: bool = False) -> Tensor:
    """The x with `a x = b`, reading only the upper (or lower) triangle of a."""
    right = _floating(b)
    if right.ndim == convert(a).ndim - 1:
        wide = expand_dims(right, -1)
        return _apply("solve_triangular", a, wide, option=lower)[0][..., 0]
    return _apply("solve_triangular", a, right, option=lower)[0]


def lstsq(a: Any, b: Any, rcond: float | None = None) -> Tensor:
    """The x that makes `a x - b` shortest; outside a trace only."""
    left, right = _floating(a), _floating(b)
    return convert(np.linalg.lstsq(left.numpy(), right.numpy(), rcond)[0], left.dtype)


def pinv(x: Any, rcond: float | None = None) -> Tensor:
    """The pseudo-inverse; outside a trace only."""
    tensor = _floating(x)
    limit = 1e-15 if rcond is None else rcond
    return convert(np.linalg.pinv(tensor.numpy(), limit), tensor.dtype)


def matrix_rank(x: Any, tol: float | None = None) -> Tensor:
    """The number of singular values that are not 0, int32; outside a trace only."""
    return convert(np.linalg.matrix_rank(_floating(x).numpy(), tol).astype(np.int32))


def lu_factor(x: Any) -> tuple[Tensor, Tensor]:
    """L and U packed into one matrix, and the row exchanged at each step (int32).

    Outside a trace only; by Gaussian elimination with partial pivoting.
    """
    tensor = _floating(x)
    packed = tensor.numpy().astype(np.float64)
    steps = packed.shape[-2:][int(np.argmin(packed.shape[-2:]))]
    pivots = np.zeros((*packed.shape[:-2], steps), np.int32)
    for index in np.ndindex(*packed.shape[:-2]):
        a = packed[index]
        for k in range(steps):
            best = k + int(np.argmax(np.abs(a[k:, k])))
            pivots[(*index, k)] = best
            a[[k, best]] = a[[best, k]]
            if a[k, k]:
                a[k + 1 :, k] /= a[k, k]
                a[k + 1 :, k + 1 :] -= np.outer(a[k + 1 :, k], a[k, k + 1 :])
    return convert(packed.astype(numpy_dtype(tensor.dtype))), convert(pivots)


@operation
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The norm of vectors (one axis) or of matrices (two), as NumPy's `linalg.norm`.

    ord   None: Euclid, over any number of axes. Vectors: any number or infinity. Matrices:
          "fro", "nuc", 1, -1, 2, -2, infinity or -infinity
    """
    tensor = _floating(x)
    axes = normal_axes(axis, tensor.ndim)
    if axis is not None and not isinstance(axis, int):
        axes = tuple(a % tensor.ndim for a in axis)
    if ord is None or (ord == "fro" and len(axes) == 2) or (ord == 2 and len(axes) == 1):
        return sqrt(sum(tensor * tensor, axes, keepdims))
    if len(axes) == 1:
        return _vector_norm(tensor, ord, axes[0], keepdims)
    if len(axes) != 2:
        raise ShapeError(f"norm: ord {ord!r} needs one axis or two, got {len(axes)}")
    return _matrix_norm(tensor, ord, axes, keepdims)


def _vector_norm(x: Tensor, ord: Any, axis: int, keepdims: bool) -> Tensor:
    size = abs(x)
    if ord == math.inf:
        return max(size, axis, keepdims)
    if ord == -math.inf:
        return min(size, axis, keepdims)
    if ord == 0:
        return sum(cast(x != 0, x.dtype), axis, keepdims)
    if ord == 1:
        return sum(size, axis, keepdims)
    return sum(size ** float(ord), axis, keepdims) ** (1.0 / float(ord))


def _matrix_norm(x: Tensor, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    rows, columns = axes
    if ord in (1, -1, math.inf, -math.inf):
        first, second = (rows, columns) if ord in (1, -1) else (columns, rows)
        sums = sum(abs(x), first, keepdims=True)
        result = (max if ord > 0 else min)(sums, second, keepdims=True)
    elif ord in (2, -2, "nuc"):
        rest = [axis for axis in range(x.ndim) if axis not in axes]
        single = svd(transpose(x, (*rest, rows, columns)), compute_uv=False)
        reduce: Any = sum if ord == "nuc" else max if ord == 2 else min
        found = reduce(single, -1)
        if not keepdims:
            return found  # type: ignore[no-any-return]  # a reduction of a tensor
        return found.reshape([1 if a in axes else x.shape[a] for a in range(x.ndim)])  # type: ignore[no-any-return]
    else:
        raise ShapeError(f"norm: unknown ord {ord!r} of a matrix")
    if keepdims:
        return result
    return result.reshape([size for a, size in enumerate(x.shape) if a not in axes])


@operation
def cdist(x1: Any, x2: Any, p: float = 2.0) -> Tensor:
    """Distances between the rows of x1 (..., n, d) and x2 (..., m, d): (..., n, m)."""
    a, b = (Tensor(node) for node in operands(x1, x2, floating=True))
    gap = expand_dims(a, -2) - expand_dims(b, -3)
    return norm(gap, p, axis=gap.ndim - 1)


@operation
def corrcoef(x: Any) -> Tensor:
    """The correlations of the rows of x (variables, observations)."""
    tensor = _floating(x)
    if tensor.ndim == 1:
        tensor = expand_dims(tensor, 0)
    centred = tensor - mean(tensor, 1, keepdims=True)
    products = matmul(centred, transpose(centred))
    spread = sqrt(diagonal(products))
    result = products / (expand_dims(spread, 1) * expand_dims(spread, 0))
    result = maximum(-1.0, where(result > 1.0, 1.0, result))
    return result.reshape(()) if result.shape == (1, 1) else result
