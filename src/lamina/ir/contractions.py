"""Contractions: products of matrices and convolutions, and pooling windows.

Images have the batch first and channels last; one, two or three spatial axes stand between.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.errors import DtypeError, ShapeError, layout
from lamina.ir.elementary import HALVES
from lamina.ir.graph import Node, Op, Vjp, apply
from lamina.ir.movement import inverse, pad, take_range, transpose
from lamina.ir.scalar import cast, gt, where
from lamina.types import Batch, Dimension, Shape, Type, numpy_dtype

Pairs = tuple[tuple[int, int], ...]


def _wide(array: Any) -> Any:
    return array.astype(np.float32) if array.dtype.name in HALVES else array


# ------------------------------------------------------------------------------------- Dot


@dataclass(frozen=True)
class Dot(Op):
    """The sum of products of two values along pairs of axes (a matrix product and its kin).

    batch      pairs (axis of a, axis of b) that are walked together and kept
    contract   pairs that are summed over
    out_dtype  of the result; half precision and int8 are summed wide before they become that

    The result has the batch axes, then a's remaining axes, then b's. Contracting over the run-time
    batch, as every weight gradient does, is ordinary.

    A third input counts the rows of a, on its first axis, that are there (int32, see `Distinct`).
    Where they are summed over, the others are left out; else what becomes of them is left open.
    """

    batch: Pairs
    contract: Pairs
    out_dtype: str

    def free(self, a: Type, b: Type) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The axes of a, and those of b, that are neither batch nor contracted."""
        pairs = (*self.batch, *self.contract)
        left, right = {i for i, _ in pairs}, {j for _, j in pairs}
        return (
            tuple(i for i in range(a.rank) if i not in left),
            tuple(j for j in range(b.rank) if j not in right),
        )

    def infer(self, a: Type, b: Type, *count: Type) -> Type:
        details = [("a", str(a)), ("b", str(b)), *(("count", str(one)) for one in count)]
        if any(one != Type((), "int32") for one in count):
            raise DtypeError(layout("dot: rows are counted by one int32.", details))
        if a.dtype != b.dtype:
            raise DtypeError(layout("dot: the dtypes differ.", details, hint="cast one of them"))
        if a.dtype == "bool":
            raise DtypeError(layout("dot: takes numbers.", details, hint="cast first"))
        pairs = (*self.batch, *self.contract)
        for i, j in pairs:
            if not (0 <= i < a.rank and 0 <= j < b.rank):
                raise ShapeError(layout(f"dot: there is no pair of axes ({i}, {j}).", details))
            if a.shape[i] != b.shape[j]:
                raise ShapeError(
                    layout(
                        f"dot: axis {i} of a has size {a.shape[i]}, axis {j} of b {b.shape[j]}.",
                        details,
                    )
                )
        if len({i for i, _ in pairs}) < len(pairs) or len({j for _, j in pairs}) < len(pairs):
            raise ShapeError(layout("dot: an axis appears twice.", details))
        left, right = self.free(a, b)
        shape = (
            *(a.shape[i] for i, _ in self.batch),
            *(a.shape[i] for i in left),
            *(b.shape[j] for j in right),
        )
        return Type(shape, self.out_dtype)

    def vjp(self, gradient: Node, out: Node, a: Node, b: Node, *count: Node) -> Vjp:
        if count:
            raise ShapeError("dot: a product of counted rows has no gradient; take it before.")
        if not a.type.is_float:
            return None, None
        left, right = self.free(a.type, b.type)
        kept = len(self.batch)
        shared = tuple(range(kept))
        left_out = range(kept, kept + len(left))
        right_out = range(kept + len(left), kept + len(left) + len(right))
        wide = gradient.dtype
        # For a: result axes are batch, a's free axes, then the contracted axes in b's order.
        da = dot(
            gradient,
            cast(b, wide),
            contract=tuple(zip(right_out, right, strict=True)),
            batch=tuple((i, j) for i, (_, j) in zip(shared, self.batch, strict=True)),
        )
        by_b = sorted(self.contract, key=lambda pair: pair[1])
        da_axes = [*(i for i, _ in self.batch), *left, *(i for i, _ in by_b)]
        # For b: batch, the contracted axes in a's order, then b's free axes.
        db = dot(
            cast(a, wide),
            gradient,
            contract=tuple(zip(left, left_out, strict=True)),
            batch=tuple((i, k) for k, (i, _) in zip(shared, self.batch, strict=True)),
        )
        by_a = sorted(self.contract)
        db_axes = [*(j for _, j in self.batch), *(j for _, j in by_a), *right]
        return (
            cast(transpose(da, inverse(da_axes)), a.dtype),
            cast(transpose(db, inverse(db_axes)), b.dtype),
        )

    def numpy(self, a: Any, b: Any, *count: Any) -> Any:
        target = numpy_dtype(self.out_dtype)
        a, b = _wide(a), _wide(b)
        for axis in (j for i, j in self.contract if i == 0 and count):
            a, b = a[: int(count[0])], b.take(range(int(count[0])), axis)
        if a.dtype.kind in "iu" and target.itemsize > a.dtype.itemsize:
            a, b = a.astype(target), b.astype(target)
        pairs = (*self.batch, *self.contract)
        left = [i for i in range(a.ndim) if i not in {i for i, _ in pairs}]
        right = [j for j in range(b.ndim) if j not in {j for _, j in pairs}]
        shared = [a.shape[i] for i, _ in self.batch]
        depth = math.prod(a.shape[i] for i, _ in self.contract)
        rows, columns = [a.shape[i] for i in left], [b.shape[j] for j in right]
        first = a.transpose([*(i for i, _ in self.batch), *left, *(i for i, _ in self.contract)])
        second = b.transpose([*(j for _, j in self.batch), *(j for _, j in self.contract), *right])
        product = np.matmul(
            first.reshape([*shared, math.prod(rows), depth]),
            second.reshape([*shared, depth, math.prod(columns)]),
        )
        return product.reshape([*shared, *rows, *columns]).astype(target, copy=False)


def dot(
    a: Node,
    b: Node,
    contract: Sequence[tuple[int, int]] = ((-1, 0),),
    batch: Sequence[tuple[int, int]] = (),
    out_dtype: str | None = None,
    count: Node | None = None,
) -> Node:
    """Sum of products along `contract` pairs of axes, side by side along `batch` pairs.

    The default is the matrix product `a[..., k] @ b[k, ...]`. Without `out_dtype` floats keep
    their dtype and integers narrower than 32 bits become int32. `count` says how many rows of `a`
    are there.
    """

    def normal(pairs: Sequence[tuple[int, int]]) -> Pairs:
        return tuple((i % max(a.type.rank, 1), j % max(b.type.rank, 1)) for i, j in pairs)

    narrow = a.dtype in {"int8", "int16", "uint8", "uint16"}
    op = Dot(normal(batch), normal(contract), out_dtype or ("int32" if narrow else a.dtype))
    return apply(op, a, b) if count is None else apply(op, a, b, count)


# ------------------------------------------------------------------------------------ Conv


def padding_for(
    padding: str, image: Sequence[int], size: Sequence[int], strides: Sequence[int]
) -> Pairs:
    """(before, after) per spatial axis for "valid" or "same"; `size` counts dilation in.

    "same" gives ceil(image / stride) outputs and puts the odd element behind, as TensorFlow does.
    """
    if padding == "valid":
        return ((0, 0),) * len(image)
    found = []
    for extent, window, stride in zip(image, size, strides, strict=True):
        total = max(0, (-(-extent // stride) - 1) * stride + window - extent)
        found.append((total // 2, total - total // 2))
    return tuple(found)


def _windows(
    what: str,
    x: Type,
    size: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """The spatial sizes of the result of windows that slide over `x`."""
    spatial = x.rank - 2
    if not spatial == len(size) == len(strides) == len(padding) == len(dilation) or not spatial:
        raise ShapeError(
            layout(
                f"{what}: needs (batch, spatial..., channels) with one entry per spatial axis.",
                [("input", str(x)), ("window", str(tuple(size))), ("strides", str(strides))],
            )
        )
    if x.batch_axis not in {None, 0}:
        raise ShapeError(layout(f"{what}: the batch must be the first axis.", [("input", str(x))]))
    found = []
    for axis, (length, k, stride, (low, high), gap) in enumerate(
        zip(x.shape[1:-1], size, strides, padding, dilation, strict=True)
    ):
        reach = (k - 1) * gap + 1
        count = (_whole(length) + low + high - reach) // stride + 1
        if count < 1:
            raise ShapeError(
                layout(
                    f"{what}: a window of {reach} does not fit into spatial axis {axis} of size "
                    f"{length}.",
                    [("input", str(x)), ("padding", str(padding))],
                    hint='use padding="same", a smaller window, or larger images',
                )
            )
        found.append(count)
    return tuple(found)


def _taps(
    size: Sequence[int], strides: Sequence[int], dilation: Sequence[int], out: Sequence[int]
) -> Iterator[tuple[slice, ...]]:
    """For each element of the window, the slices of the padded image that it meets."""
    for tap in itertools.product(*map(range, size)):
        yield tuple(
            slice(k * gap, k * gap + (count - 1) * stride + 1, stride)
            for k, gap, stride, count in zip(tap, dilation, strides, out, strict=True)
        )


def _padded(x: Any, padding: Pairs, value: Any = 0) -> Any:
    if not any(itertools.chain(*padding)):
        return x
    return np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=value)


def _columns(x: Any, size: Sequence[int], conv: Conv | ConvFilterGrad, out: Sequence[int]) -> Any:
    """(batch, *out, groups, taps * channels of a group): what each output looks at."""
    padded = _padded(x, conv.padding)
    taps = _taps(size, conv.strides, conv.dilation, out)
    grouped = (conv.groups, x.shape[-1] // conv.groups)
    parts = [padded[(slice(None), *tap)] for tap in taps]
    return np.concatenate([part.reshape(*part.shape[:-1], *grouped) for part in parts], axis=-1)


@dataclass(frozen=True)
class Conv(Op):
    """Convolution (cross-correlation) of x (batch, spatial..., C) with w (spatial..., C/groups, F).

    strides, dilation   one per spatial axis
    padding             (before, after) per spatial axis, zeros
    groups              channels in, and filters, are cut into that many independent groups
    """

    strides: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int = 1

    def infer(self, x: Type, w: Type) -> Type:
        details = [("input", str(x)), ("kernel", str(w))]
        if x.dtype != w.dtype or not x.is_float:
            raise DtypeError(
                layout("conv: takes an image and a kernel of one float dtype.", details)
            )
        out = _windows("conv", x, _sizes(w.shape[:-2]), self.strides, self.padding, self.dilation)
        channels, filters = x.shape[-1], w.shape[-1]
        if channels != w.shape[-2] * self.groups or _whole(filters) % self.groups:
            raise ShapeError(
                layout(
                    f"conv: {channels} channels and {filters} filters do not fit a kernel of "
                    f"{w.shape[-2]} channels in {self.groups} groups.",
                    details,
                )
            )
        return Type((x.shape[0], *out, filters), x.dtype)

    def vjp(self, gradient: Node, out: Node, x: Node, w: Node) -> Vjp:
        shared = (self.strides, self.padding, self.dilation, self.groups)
        return (
            apply(ConvInputGrad(x.shape[1:-1], *shared), gradient, w),
            apply(ConvFilterGrad(w.shape[:-2], *shared), x, gradient),
        )

    def numpy(self, x: Any, w: Any) -> Any:
        dtype, (x, w) = x.dtype, map(_wide, (x, w))
        size, per_group, filters = w.shape[:-2], w.shape[-2], w.shape[-1]
        out = _counts(x.shape[1:-1], size, self)
        columns = _columns(x, size, self, out)
        kernel = w.reshape(-1, per_group, self.groups, filters // self.groups)
        kernel = kernel.transpose(2, 0, 1, 3).reshape(self.groups, -1, filters // self.groups)
        product = np.matmul(
            np.moveaxis(columns, -2, 0).reshape(self.groups, -1, kernel.shape[1]), kernel
        )
        product = product.reshape(self.groups, x.shape[0], *out, filters // self.groups)
        return np.moveaxis(product, 0, -2).reshape(x.shape[0], *out, filters).astype(dtype)


def _sizes(shape: Shape) -> tuple[int, ...]:
    return tuple(size for size in shape if not isinstance(size, Batch))


def _whole(size: Dimension) -> int:
    """A size that is known not to be the batch."""
    assert isinstance(size, int)
    return size


def _counts(
    image: Sequence[int], size: Sequence[int], conv: Conv | ConvInputGrad | ConvFilterGrad
) -> tuple[int, ...]:
    fields = zip(image, size, conv.strides, conv.padding, conv.dilation, strict=True)
    return tuple(
        (length + low + high - (k - 1) * gap - 1) // stride + 1
        for length, k, stride, (low, high), gap in fields
    )


@dataclass(frozen=True)
class ConvInputGrad(Op):
    """The gradient of `Conv` for its image, and ConvTranspose: (dy, w) -> (batch, *image, C)."""

    image: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int = 1

    def infer(self, dy: Type, w: Type) -> Type:
        details = [("gradient", str(dy)), ("kernel", str(w)), ("image", str(self.image))]
        if dy.dtype != w.dtype or not dy.is_float:
            raise DtypeError(layout("conv input gradient: takes one float dtype.", details))
        x = Type((dy.shape[0], *self.image, w.shape[-2] * self.groups), dy.dtype)
        forward = Conv(self.strides, self.padding, self.dilation, self.groups).infer(x, w)
        if forward.shape != dy.shape:
            raise ShapeError(
                layout(f"conv input gradient: expected a gradient of {forward}.", details)
            )
        return x

    def vjp(self, gradient: Node, out: Node, dy: Node, w: Node) -> Vjp:
        shared = (self.strides, self.padding, self.dilation, self.groups)
        return (
            apply(Conv(*shared), gradient, w),
            apply(ConvFilterGrad(w.shape[:-2], *shared), gradient, dy),
        )

    def numpy(self, dy: Any, w: Any) -> Any:
        dtype, (dy, w) = dy.dtype, map(_wide, (dy, w))
        size, per_group, filters = w.shape[:-2], w.shape[-2], w.shape[-1]
        out, count, groups = dy.shape[1:-1], dy.shape[0], self.groups
        padded = np.zeros(
            (
                count,
                *(n + sum(p) for n, p in zip(self.image, self.padding, strict=True)),
                per_group * groups,
            ),
            dy.dtype,
        )
        grouped = np.moveaxis(dy.reshape(-1, groups, filters // groups), 1, 0)
        kernel = w.reshape(-1, per_group, groups, filters // groups).transpose(0, 2, 3, 1)
        for tap, part in zip(_taps(size, self.strides, self.dilation, out), kernel, strict=True):
            product = np.moveaxis(np.matmul(grouped, part), 0, 1)
            padded[(slice(None), *tap)] += product.reshape(count, *out, per_group * groups)
        inside = (slice(low, low + n) for n, (low, _) in zip(self.image, self.padding, strict=True))
        return padded[(slice(None), *inside)].astype(dtype)


@dataclass(frozen=True)
class ConvFilterGrad(Op):
    """The gradient of `Conv` for its kernel: (x, dy) -> (*kernel, C/groups, F)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int = 1

    def infer(self, x: Type, dy: Type) -> Type:
        details = [("input", str(x)), ("gradient", str(dy)), ("kernel", str(self.kernel))]
        if x.dtype != dy.dtype or not dy.is_float:
            raise DtypeError(layout("conv filter gradient: takes one float dtype.", details))
        channels = x.shape[-1]
        if _whole(channels) % self.groups:
            raise ShapeError(
                layout(
                    f"conv filter gradient: {channels} channels in {self.groups} groups.", details
                )
            )
        w = Type((*self.kernel, _whole(channels) // self.groups, dy.shape[-1]), x.dtype)
        forward = Conv(self.strides, self.padding, self.dilation, self.groups).infer(x, w)
        if forward.shape != dy.shape:
            raise ShapeError(
                layout(f"conv filter gradient: expected a gradient of {forward}.", details)
            )
        return w

    def vjp(self, gradient: Node, out: Node, x: Node, dy: Node) -> Vjp:
        shared = (self.strides, self.padding, self.dilation, self.groups)
        return (
            apply(ConvInputGrad(x.shape[1:-1], *shared), dy, gradient),
            apply(Conv(*shared), x, gradient),
        )

    def numpy(self, x: Any, dy: Any) -> Any:
        dtype, (x, dy) = x.dtype, map(_wide, (x, dy))
        groups, filters = self.groups, dy.shape[-1]
        columns = _columns(x, self.kernel, self, dy.shape[1:-1])
        columns = np.moveaxis(columns, -2, 0).reshape(groups, -1, columns.shape[-1])
        grouped = np.moveaxis(dy.reshape(-1, groups, filters // groups), 1, 0)
        product = np.matmul(columns.transpose(0, 2, 1), grouped)
        shape = (*self.kernel, x.shape[-1] // groups, filters)
        return np.moveaxis(product, 0, 1).reshape(shape).astype(dtype)


def conv(
    x: Node,
    w: Node,
    strides: Sequence[int] | None = None,
    padding: Sequence[tuple[int, int]] | None = None,
    dilation: Sequence[int] | None = None,
    groups: int = 1,
) -> Node:
    """Convolution of x (batch, spatial..., C) with w (spatial..., C/groups, F), not flipped."""
    ones = (1,) * (x.type.rank - 2)
    pads = (
        tuple((low, high) for low, high in padding)
        if padding is not None
        else ((0, 0),) * len(ones)
    )
    return apply(Conv(tuple(strides or ones), pads, tuple(dilation or ones), groups), x, w)


# ---------------------------------------------------------------------------------- Window


@dataclass(frozen=True)
class Window(Op):
    """The "max", "sum" or "mean" over sliding windows of x (batch, spatial..., C): pooling.

    A mean divides by the cells that lie inside the image, so padding does not count, as in Keras.
    """

    kind: str
    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs

    def infer(self, x: Type) -> Type:
        if self.kind not in {"max", "sum", "mean"}:
            raise ShapeError(f"window: unknown kind {self.kind!r}; known: max, sum, mean")
        if not x.is_float:
            raise DtypeError(layout("window: takes floats.", [("input", str(x))], hint="cast it"))
        ones = (1,) * len(self.size)
        out = _windows(f"window {self.kind}", x, self.size, self.strides, self.padding, ones)
        pairs = zip(self.padding, self.size, strict=True)
        if any(max(low, high) >= k for (low, high), k in pairs):
            raise ShapeError(
                layout(f"window {self.kind}: padding reaches past a window.", [("input", str(x))])
            )
        return Type((x.shape[0], *out, x.shape[-1]), x.dtype)

    def vjp(self, gradient: Node, out: Node, x: Node) -> Vjp:
        op = WindowGrad(self.kind, self.size, self.strides, self.padding)
        return (apply(op, x, gradient),)

    def numpy(self, x: Any) -> Any:
        dtype, x = x.dtype, _wide(x)
        ones, out = (1,) * len(self.size), _window_counts(self, x.shape)
        largest = self.kind == "max"
        padded = _padded(x, self.padding, -np.inf if largest else 0)
        total = None
        for tap in _taps(self.size, self.strides, ones, out):
            part = padded[(slice(None), *tap)]
            if total is None:
                total = part.copy()
            else:
                (np.maximum if largest else np.add)(total, part, out=total)
        assert total is not None
        return (total / _cells(self, x) if self.kind == "mean" else total).astype(dtype)


def _window_counts(window: Window | WindowGrad, shape: Sequence[int]) -> tuple[int, ...]:
    fields = zip(shape[1:-1], window.size, window.strides, window.padding, strict=True)
    return tuple((n + low + high - k) // stride + 1 for n, k, stride, (low, high) in fields)


def _cells(window: Window | WindowGrad, x: Any) -> Any:
    """(*out, 1): how many cells of each window lie inside the image."""
    counts = np.ones((), x.dtype)
    fields = zip(
        x.shape[1:-1], window.size, window.strides, window.padding,
        _window_counts(window, x.shape), strict=True,
    )  # fmt: skip
    for length, k, stride, (low, _), count in fields:
        first = np.arange(count) * stride - low
        inside = np.minimum(first + k, length) - np.maximum(first, 0)
        counts = counts[..., None] * inside.astype(x.dtype)
    return counts[..., None]


@dataclass(frozen=True)
class WindowGrad(Op):
    """The gradient of `Window` for its image: (x, g) -> like x.

    For "max" the first of several winners, in row-major order, gets all of it, as in Keras.
    """

    kind: str
    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs

    def infer(self, x: Type, g: Type) -> Type:
        out = Window(self.kind, self.size, self.strides, self.padding).infer(x)
        if out != g:
            raise ShapeError(
                layout(
                    f"window gradient: expected a gradient of {out}.",
                    [("input", str(x)), ("gradient", str(g))],
                )
            )
        return x

    def vjp(self, gradient: Node, out: Node, x: Node, g: Node) -> Vjp:
        if self.kind != "max":
            return None, apply(Window(self.kind, self.size, self.strides, self.padding), gradient)
        # What arrives at each window's winner: walk the taps, keeping the best so far.
        low, high = ([0, *(pair[side] for pair in self.padding), 0] for side in (0, 1))
        image, arriving = pad(x, low, high, -math.inf), pad(gradient, low, high)
        best = found = None
        for tap in _taps(self.size, self.strides, (1,) * len(self.size), _sizes(g.shape[1:-1])):
            value, slope = image, arriving
            for axis, part in enumerate(tap, start=1):
                value = take_range(value, axis, part.start, part.stop, part.step)
                slope = take_range(slope, axis, part.start, part.stop, part.step)
            if best is None or found is None:
                best, found = value, slope
            else:
                better = gt(value, best)
                best, found = where(better, value, best), where(better, slope, found)
        return None, found

    def numpy(self, x: Any, g: Any) -> Any:
        dtype, (x, g) = x.dtype, map(_wide, (x, g))
        ones, out = (1,) * len(self.size), g.shape[1:-1]
        padded = np.zeros_like(_padded(x, self.padding))
        taps = list(_taps(self.size, self.strides, ones, out))
        if self.kind == "max":
            image = _padded(x, self.padding, -np.inf)
            best = image[(slice(None), *taps[0])]
            winner = np.zeros(g.shape, np.int32)
            for number, tap in enumerate(taps[1:], start=1):
                part = image[(slice(None), *tap)]
                better = (part > best) | (np.isnan(part) & ~np.isnan(best))
                best, winner = np.where(better, part, best), np.where(better, number, winner)
            for number, tap in enumerate(taps):
                padded[(slice(None), *tap)] += np.where(winner == number, g, 0)
        else:
            share = g / _cells(self, x) if self.kind == "mean" else g
            for tap in taps:
                padded[(slice(None), *tap)] += share
        spatial = zip(x.shape[1:-1], self.padding, strict=True)
        inside = (slice(low, low + n) for n, (low, _) in spatial)
        return padded[(slice(None), *inside)].astype(dtype)


def window(
    x: Node,
    kind: str,
    size: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Sequence[tuple[int, int]] | None = None,
) -> Node:
    """Pooling of x (batch, spatial..., C): kind "max", "sum" or "mean"; strides default to size."""
    pads = (
        tuple((low, high) for low, high in padding)
        if padding is not None
        else ((0, 0),) * len(size)
    )
    return apply(Window(kind, tuple(size), tuple(strides or size), pads), x)


Dot.samples = (
    (Dot((), ((1, 0),), "float32"), "float32 (batch, 3)", "float32 (3, 4)"),
    (Dot((), ((0, 0),), "float32"), "float32 (batch, 3)", "float32 (batch, 4)"),
    (Dot((), ((1, 1), (0, 0)), "float32"), "float32 (5, batch, 3)", "float32 (5, batch, 4)"),
    (
        Dot(((0, 0), (2, 1)), ((3, 3),), "float32"),
        "float32 (batch, 4, 2, 3)",
        "float32 (batch, 2, 5, 3)",
    ),
    (Dot((), (), "float32"), "float32 (3)", "float32 (4)"),
    (Dot((), ((0, 2), (2, 0)), "float32"), "float32 (3, 2, 4)", "float32 (4, 5, 3)"),
    (Dot((), ((1, 0),), "int32"), "int8 (3, 4)<9", "int8 (4, 2)<9"),
    (Dot((), ((0, 0),), "int32"), "int32 (9, 4)<9", "int32 (9, 2)<9", "int32 ()<10"),
)
_GEOMETRIES: tuple[tuple[Any, ...], ...] = (
    # image, kernel, strides, padding, dilation, groups, channels, filters
    ((6,), (3,), (2,), ((1, 1),), (1,), 1, 2, 3),
    ((5, 6), (3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, 2, 3),
    ((5, 6), (3, 3), (2, 1), ((1, 1), (0, 2)), (1, 2), 1, 1, 2),
    ((4, 4), (2, 2), (1, 1), ((0, 1), (0, 1)), (1, 1), 2, 4, 6),
    ((5, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 3, 3, 3),
    ((3, 4, 3), (2, 2, 2), (1, 2, 1), ((0, 0), (1, 0), (0, 0)), (1, 1, 1), 1, 2, 2),
)


def _conv_samples(kind: str) -> Iterator[tuple[Any, ...]]:
    for image, kernel, strides, padding, dilation, groups, channels, filters in _GEOMETRIES:
        shared = (strides, padding, dilation, groups)
        x = Type((Batch(1), *image, channels))
        w = Type((*kernel, channels // groups, filters))
        y = Conv(*shared).infer(x, w)
        if kind == "conv":
            yield Conv(*shared), str(x), str(w)
        elif kind == "input":
            yield ConvInputGrad(image, *shared), str(y), str(w)
        else:
            yield ConvFilterGrad(kernel, *shared), str(x), str(y)


Conv.samples = tuple(_conv_samples("conv"))
ConvInputGrad.samples = tuple(_conv_samples("input"))
ConvFilterGrad.samples = tuple(_conv_samples("filter"))
_POOLS: tuple[tuple[Any, ...], ...] = (
    ((6,), (2,), (2,), ((0, 0),)),
    ((5, 6), (2, 2), (2, 2), ((0, 0), (0, 0))),
    ((5, 6), (3, 2), (2, 1), ((1, 1), (0, 1))),
    ((3, 4, 3), (2, 2, 2), (1, 2, 1), ((0, 0), (1, 0), (0, 0))),
)


def _window_samples(*, gradient: bool) -> Iterator[tuple[Any, ...]]:
    for kind in ("max", "sum", "mean"):
        for image, size, strides, padding in _POOLS:
            x = Type((Batch(1), *image, 2))
            op = Window(kind, size, strides, padding)
            if gradient:
                yield WindowGrad(kind, size, strides, padding), str(x), str(op.infer(x))
            else:
                yield op, str(x)


Window.samples = tuple(_window_samples(gradient=False))
WindowGrad.samples = tuple(_window_samples(gradient=True))
