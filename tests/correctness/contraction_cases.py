"""Contraction specifications as the planner writes them, and their meaning in NumPy (float64).

Shared by the tests of the contraction kernels and by `benchmarks/kernels.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lamina.llvm.kernel import (
    Access,
    Body,
    Constant,
    Contraction,
    Convert,
    Core,
    Count,
    Guard,
    Inside,
    Load,
    Position,
    Scalar,
    Store,
)
from lamina.types import Batch, Dimension, numpy_dtype, static_shape

# ------------------------------------------------------------------------- the oracle

FUNCTIONS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "gt": np.greater,
    "lt": np.less,
    "where": np.where,
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "div": np.divide,
}


def affine(offset: int, strides: Sequence[int], grid: Sequence[np.ndarray]) -> np.ndarray:
    """`offset + sum(index * stride)` over a grid of broadcastable index arrays."""
    total = np.int64(offset)
    for stride, index in zip(strides, grid, strict=True):
        if stride:
            total = total + stride * index
    return np.asarray(total)


def inside(guards: Sequence[Guard], grid: Sequence[np.ndarray]) -> np.ndarray:
    """Whether every guard holds, over the grid."""
    result = np.asarray(True)
    for guard in guards:
        coordinate = affine(guard.offset, guard.strides, grid)
        result = result & (coordinate >= guard.low) & (coordinate < guard.high)
    return result


def read(source: Access | Load, arrays: Sequence[np.ndarray], grid: Sequence[np.ndarray]):
    """The elements of an access over the grid, zero outside of its guards."""
    place = affine(source.offset, source.strides, grid)
    if not source.guards:
        return arrays[source.operand].ravel()[place]
    valid = inside(source.guards, grid)
    values = arrays[source.operand].ravel()[np.where(valid, place, 0)]
    return np.where(valid, values, np.zeros((), values.dtype))


def ranges(
    space: Sequence[Dimension], split: int, low: int, high: int, rows: int
) -> list[np.ndarray]:
    """One index array per axis, shaped so that all of them broadcast to the whole grid."""
    extents = static_shape(tuple(space), rows)
    grid = []
    for axis, extent in enumerate(extents):
        index = np.arange(low, high) if axis == split else np.arange(extent)
        grid.append(index.reshape([-1 if i == axis else 1 for i in range(len(extents))]))
    return grid


def evaluate(body: Body, core: np.ndarray, arrays, grid, rows: int) -> list[np.ndarray]:
    """Every instruction of a body, in float64 where the dtype is a float."""
    values: list[np.ndarray] = []
    for instruction in body:
        match instruction:
            case Core():
                value = core
            case Load():
                value = read(instruction, arrays, grid)
            case Constant(bits, dtype):
                value = np.frombuffer(bits, numpy_dtype(dtype))[0]
            case Position(dtype, offset, strides):
                value = affine(offset, strides, grid).astype(numpy_dtype(dtype))
            case Count(factor, dtype):
                value = numpy_dtype(dtype).type(factor * rows)
            case Inside(guards):
                value = inside(guards, grid)
            case Scalar(fn, arguments):
                value = FUNCTIONS[fn](*[values[i] for i in arguments])
            case Convert(argument, dtype):
                value = np.asarray(values[argument])
                value = value.astype(bool if dtype == "bool" else numpy_dtype(dtype))
            case _:
                raise NotImplementedError(type(instruction).__name__)
        value = np.asarray(value)
        values.append(value.astype(np.float64) if value.dtype.kind not in "iub" else value)
    return values


def oracle(kernel: Contraction, arrays: Sequence[np.ndarray], low: int, high: int, rows: int):
    """Run the specification on copies of the arrays and return them as they are afterwards.

    Also returns, per store, the sum of |a * b| behind each element: the scale of its rounding.
    """
    axes = (*kernel.space, *kernel.reduced)
    grid = ranges(axes, kernel.split, low, high, rows)
    exact = np.float64 if kernel.accumulator.startswith("float") else np.int64
    a = read(kernel.a, arrays, grid).astype(exact)
    b = read(kernel.b, arrays, grid).astype(exact)
    shape = np.broadcast_shapes(*(index.shape for index in grid))
    over = tuple(range(len(kernel.space), len(axes)))
    terms = np.broadcast_to(a, shape) * np.broadcast_to(b, shape)
    total, scale = terms.sum(over), np.abs(terms).sum(over)
    place = [index.reshape(index.shape[: len(kernel.space)]) for index in grid[: len(kernel.space)]]
    if kernel.split >= len(kernel.space):
        place = ranges(kernel.space, -1, 0, 0, rows)
    after = [array.copy() for array in arrays]
    scales = {}
    values = evaluate(kernel.body, total, arrays, place, rows)
    for store in kernel.stores:
        target = affine(store.offset, store.strides, place)
        target = np.broadcast_to(target, total.shape)
        value = np.broadcast_to(values[store.argument], total.shape)
        flat = after[store.operand].reshape(-1)
        if kernel.accumulate:
            value = value + flat[target]
        flat[target] = value.astype(flat.dtype)
        weight = scales.setdefault(store.operand, np.zeros(flat.shape))
        weight[target] = scale + np.abs(value)
    return after, scales


# ------------------------------------------------------------------------- specifications


@dataclass
class Case:
    """A kernel, the sizes of its operands in elements, and how to call it."""

    name: str
    kernel: Contraction
    sizes: tuple[int, ...]
    dtypes: tuple[str, ...]
    rows: int = 1
    low: int = 0
    high: int = 0
    flops: int = 0
    repeat: int = 1
    options: dict[str, object] = field(default_factory=dict)

    def arrays(self, seed: int = 0) -> list[np.ndarray]:
        generator = np.random.default_rng(seed)
        made = []
        for size, dtype in zip(self.sizes, self.dtypes, strict=True):
            if dtype.startswith(("int", "uint")):
                made.append(generator.integers(-7 if dtype[0] == "i" else 0, 8, size).astype(dtype))
            else:
                made.append(generator.standard_normal(size).astype(numpy_dtype(dtype)))
        return made


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def number(value: float, dtype: str = "float32") -> Constant:
    return Constant(np.asarray(value).astype(numpy_dtype(dtype)).tobytes(), dtype)


def epilogue(
    kind: str,
    rank: int,
    out: tuple[int, ...],
    dtype: str,
    columns: int,
    size: int,
    out_dtype: str | None = None,
) -> tuple[Body, tuple[Store, ...], list[int], list[str]]:
    """Body, stores, and the sizes and dtypes of operands from number 2 on; the first is the output."""
    out_dtype = out_dtype or dtype
    core = Core(0, dtype)
    along = (0,) * (rank - 1) + (1,)
    match kind:
        case "none":
            body: Body = (core,) if out_dtype == dtype else (core, Convert(0, out_dtype))
            store = Store(len(body) - 1, 2, out_dtype, 0, out)
            return body, (store,), [size], [out_dtype]
        case "bias_relu":
            body = (
                core,
                Load(3, dtype, 0, along),
                Scalar("add", (0, 1), dtype),
                number(0.0, dtype),
                Scalar("maximum", (2, 3), dtype),
            )
            return body, (Store(4, 2, dtype, 0, out),), [size, columns], [dtype, dtype]
        case "residual":
            body = (core, Load(3, dtype, 0, out), Scalar("add", (0, 1), dtype))
            return body, (Store(2, 2, dtype, 0, out),), [size, size], [dtype, dtype]
        case "momentum":
            # velocity = 0.9 * velocity + sum; weight = weight - 0.1 * velocity, both in place
            body = (
                core,
                Load(3, dtype, 0, out),
                number(0.9, dtype),
                Scalar("mul", (1, 2), dtype),
                Scalar("add", (3, 0), dtype),
                Load(2, dtype, 0, out),
                number(0.1, dtype),
                Scalar("mul", (4, 6), dtype),
                Scalar("sub", (5, 7), dtype),
            )
            stores = (Store(4, 3, dtype, 0, out), Store(8, 2, dtype, 0, out))
            return body, stores, [size, size], [dtype, dtype]
    raise ValueError(kind)


def dot(
    m: Dimension,
    n: int,
    k: Dimension,
    *,
    rows: int = 1,
    capacity: int | None = None,
    batch: tuple[int, ...] = (),
    kind: str = "none",
    split: int | None = None,
    part: tuple[int, int] | None = None,
    accumulate: bool = False,
    a_transposed: bool = False,
    b_transposed: bool = False,
    dtype: str = "float32",
    inputs: tuple[str, str] | None = None,
    out_dtype: str | None = None,
) -> Case:
    """(batch..., M, K) @ (batch..., K, N): operands 0 a, 1 b, 2 the result, 3.. of the epilogue."""
    limit = capacity or rows
    full = static_shape((*batch, m, n, k), limit)
    present = static_shape((*batch, m, n, k), rows)
    outer, (fm, fn, fk) = full[: len(batch)], full[len(batch) :]
    a_shape = (*outer, fk, fm) if a_transposed else (*outer, fm, fk)
    b_shape = (*outer, fn, fk) if b_transposed else (*outer, fk, fn)
    a_strides, b_strides = row_major(a_shape), row_major(b_shape)
    am, ak = a_strides[-2:][::-1] if a_transposed else a_strides[-2:]
    bk, bn = b_strides[-2:][::-1] if b_transposed else b_strides[-2:]
    space, reduced = (*batch, m, n), (k,)
    out = row_major((*outer, fm, fn))
    size = math.prod((*outer, fm, fn))
    body, stores, sizes, dtypes = epilogue(kind, len(space), out, dtype, fn, size, out_dtype)
    left, right = inputs or (dtype, dtype)
    axis = len(batch) if split is None else split
    kernel = Contraction(
        space,
        reduced,
        Access(0, left, 0, (*a_strides[:-2], am, 0, ak)),
        Access(1, right, 0, (*b_strides[:-2], 0, bn, bk)),
        body,
        stores,
        axis,
        accumulate,
        dtype,
    )
    low, high = part or (0, present[axis])
    flops = 2 * math.prod(present)
    if part:
        flops = flops // present[axis] * (high - low)
    return Case(
        f"dot {'x'.join(map(str, present))}{' ' + kind if kind != 'none' else ''}",
        kernel,
        (math.prod(a_shape), math.prod(b_shape), *sizes),
        (left, right, *dtypes),
        rows,
        low,
        high,
        flops,
    )


def heads(
    m: int, n: int, k: int, *, heads: int, rows: int, capacity: int, a_transposed: bool = False
) -> Case:
    """Products of several heads: a (batch, heads, M, K) or (batch, heads, K, M), b (batch, K, heads, N).

    The rows of `b` that belong to one head lie far apart.
    """
    case = dot(
        m, n, k, rows=rows, capacity=capacity, batch=(BATCH, heads), split=0,
        a_transposed=a_transposed,
    )  # fmt: skip
    strides = (k * heads * n, n, 0, 1, heads * n)
    case.kernel = replace(case.kernel, b=replace(case.kernel.b, strides=strides))
    case.high = rows
    case.flops = 2 * rows * heads * m * n * k
    case.name = f"heads {heads}x{m}x{n}x{k}{' a transposed' if a_transposed else ''}"
    return case


@dataclass
class Geometry:
    """A two-dimensional convolution: NHWC images, HWIO filters."""

    batch: Dimension
    image: tuple[int, int]
    channels: int
    filters: int
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def output(self) -> tuple[int, int]:
        sizes = []
        for axis in range(2):
            span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            whole = self.image[axis] + sum(self.padding[axis])
            sizes.append((whole - span) // self.strides[axis] + 1)
        return sizes[0], sizes[1]

    def guards(self, order: dict[str, int], count: int) -> tuple[Guard, ...]:
        """Guards of x over axes named oy ox kh kw, where padding makes a coordinate leave."""
        found = []
        for axis, (out, tap) in enumerate((("oy", "kh"), ("ox", "kw"))):
            stride, dilation = self.strides[axis], self.dilation[axis]
            low = self.padding[axis][0]
            last = (self.output[axis] - 1) * stride + (self.kernel[axis] - 1) * dilation - low
            if low == 0 and last < self.image[axis]:
                continue
            strides = [0] * count
            strides[order[out]], strides[order[tap]] = stride, dilation
            found.append(Guard(tuple(strides), -low, 0, self.image[axis]))
        return tuple(found)


def convolution(
    shape: Geometry,
    *,
    rows: int = 1,
    capacity: int | None = None,
    kind: str = "none",
    split: int = 0,
    part: tuple[int, int] | None = None,
) -> Case:
    """Forward: operands 0 x, 1 w, 2 y, 3.. of the epilogue."""
    (h, w), (oh, ow), (kh, kw) = shape.image, shape.output, shape.kernel
    groups, inner, outer = (
        shape.groups,
        shape.channels // shape.groups,
        shape.filters // shape.groups,
    )
    (limit,) = static_shape((shape.batch,), capacity or rows)
    (present,) = static_shape((shape.batch,), rows)
    c, f = shape.channels, shape.filters
    sy, sx = shape.strides
    dy, dx = shape.dilation
    py, px = shape.padding[0][0], shape.padding[1][0]
    x = {"n": h * w * c, "oy": sy * w * c, "ox": sx * c, "kh": dy * w * c, "kw": dx * c, "c": 1}
    k = {"f": 1, "kh": kw * inner * f, "kw": inner * f, "c": f}
    y = {"n": oh * ow * f, "oy": ow * f, "ox": f, "f": 1}
    names = ["n", "oy", "ox", "f", "kh", "kw", "c"]
    sizes: dict[str, Dimension] = {
        "n": shape.batch,
        "oy": oh,
        "ox": ow,
        "f": outer,
        "kh": kh,
        "kw": kw,
        "c": inner,
    }
    spatial = 4
    if groups > 1:
        names.insert(3, "g")
        sizes["g"] = groups
        x["g"], k["g"], y["g"] = inner, outer, outer
        spatial = 5
    order = {name: i for i, name in enumerate(names)}
    out = tuple(y.get(name, 0) for name in names[:spatial])
    body, stores, more, dtypes = epilogue(kind, spatial, out, "float32", outer, limit * oh * ow * f)
    kernel = Contraction(
        tuple(sizes[name] for name in names[:spatial]),
        tuple(sizes[name] for name in names[spatial:]),
        Access(
            0,
            "float32",
            -py * w * c - px * c,
            tuple(x.get(name, 0) for name in names),
            shape.guards(order, len(names)),
        ),
        Access(1, "float32", 0, tuple(k.get(name, 0) for name in names)),
        body,
        stores,
        split,
    )
    low, high = part or (0, static_shape((sizes[names[split]],), rows)[0])
    flops = 2 * present * oh * ow * f * kh * kw * inner
    return Case(
        f"conv {present}x{h}x{w}x{c}->{f} k{kh}x{kw}"
        f"{' same' if shape.guards(order, len(names)) else ''}"
        f"{f' s{sy}' if sy > 1 else ''}{f' d{dy}' if dy > 1 else ''}"
        f"{f' g{groups}' if groups > 1 else ''}{' ' + kind if kind != 'none' else ''}",
        kernel,
        (limit * h * w * c, kh * kw * inner * f, *more),
        ("float32", "float32", *dtypes),
        rows,
        low,
        high,
        flops,
    )


def filter_gradient(
    shape: Geometry,
    *,
    rows: int = 1,
    capacity: int | None = None,
    kind: str = "none",
    split: int = 4,
    part: tuple[int, int] | None = None,
    accumulate: bool = False,
) -> Case:
    """Operands 0 x, 1 dy, 2 dw: space (kh, kw, c, f), reduced (n, oy, ox)."""
    (h, w), (oh, ow), (kh, kw) = shape.image, shape.output, shape.kernel
    (limit,) = static_shape((shape.batch,), capacity or rows)
    (present,) = static_shape((shape.batch,), rows)
    c, f = shape.channels, shape.filters
    sy, sx = shape.strides
    dy, dx = shape.dilation
    py, px = shape.padding[0][0], shape.padding[1][0]
    names = ["kh", "kw", "c", "f", "n", "oy", "ox"]
    order = {name: i for i, name in enumerate(names)}
    sizes: tuple[Dimension, ...] = (kh, kw, c, f, shape.batch, oh, ow)
    x = (dy * w * c, dx * c, 1, 0, h * w * c, sy * w * c, sx * c)
    g = (0, 0, 0, 1, oh * ow * f, ow * f, f)
    out = row_major((kh, kw, c, f))
    body, stores, more, dtypes = epilogue(kind, 4, out, "float32", f, kh * kw * c * f)
    kernel = Contraction(
        sizes[:4],
        sizes[4:],
        Access(0, "float32", -py * w * c - px * c, x, shape.guards(order, 7)),
        Access(1, "float32", 0, g),
        body,
        stores,
        split,
        accumulate,
    )
    low, high = part or (0, static_shape((sizes[split],), rows)[0])
    flops = 2 * present * oh * ow * f * kh * kw * c
    return Case(
        f"filter {present}x{h}x{w}x{c}->{f} k{kh}x{kw}{' same' if py else ''}"
        f"{f' s{sy}' if sy > 1 else ''}{f' split{split}' if split != 4 else ''}"
        f"{' ' + kind if kind != 'none' else ''}",
        kernel,
        (limit * h * w * c, limit * oh * ow * f, *more),
        ("float32", "float32", *dtypes),
        rows,
        low,
        high,
        flops,
    )


def input_gradient(
    shape: Geometry,
    *,
    rows: int = 1,
    capacity: int | None = None,
    transposed: bool = True,
    kind: str = "none",
    part: tuple[int, int] | None = None,
) -> Case:
    """Stride 1: dx[n, iy, ix, c] = sum over kh, kw, f of dy[n, iy + p - kh, ...] * w[kh, kw, c, f].

    With `transposed` operand 1 is a copy of the weights laid out (kh, kw, f, c).
    """
    (h, w), (oh, ow), (kh, kw) = shape.image, shape.output, shape.kernel
    (limit,) = static_shape((shape.batch,), capacity or rows)
    (present,) = static_shape((shape.batch,), rows)
    c, f = shape.channels, shape.filters
    ey, ex = shape.dilation
    py, px = shape.padding[0][0], shape.padding[1][0]
    g = (oh * ow * f, ow * f, f, 0, -ey * ow * f, -ex * f, 1)
    k = (0, 0, 0, 1, kw * f * c, f * c, c) if transposed else (0, 0, 0, f, kw * c * f, c * f, 1)
    guards = (
        Guard((0, 1, 0, 0, -ey, 0, 0), py, 0, oh),
        Guard((0, 0, 1, 0, 0, -ex, 0), px, 0, ow),
    )
    out = row_major((limit, h, w, c))
    body, stores, more, dtypes = epilogue(kind, 4, out, "float32", c, limit * h * w * c)
    kernel = Contraction(
        (shape.batch, h, w, c),
        (kh, kw, f),
        Access(0, "float32", py * ow * f + px * f, g, guards),
        Access(1, "float32", 0, k),
        body,
        stores,
    )
    low, high = part or (0, present)
    return Case(
        f"input {present}x{h}x{w}x{c}->{f} k{kh}x{kw}{' same' if py else ''}"
        f"{'' if transposed else ' gathered'}{' ' + kind if kind != 'none' else ''}",
        kernel,
        (limit * oh * ow * f, kh * kw * c * f, *more),
        ("float32", "float32", *dtypes),
        rows,
        low,
        high,
        2 * present * oh * ow * f * kh * kw * c,
    )


def depthwise(
    shape: Geometry,
    *,
    rows: int = 1,
    capacity: int | None = None,
    kind: str = "none",
    part: tuple[int, int] | None = None,
) -> Case:
    """y[n, oy, ox, c] = sum over kh, kw of x * w[kh, kw, c]; both have stride 1 on the columns."""
    (h, w), (oh, ow), (kh, kw) = shape.image, shape.output, shape.kernel
    (limit,) = static_shape((shape.batch,), capacity or rows)
    (present,) = static_shape((shape.batch,), rows)
    c = shape.channels
    sy, sx = shape.strides
    dy, dx = shape.dilation
    py, px = shape.padding[0][0], shape.padding[1][0]
    names = ["n", "oy", "ox", "c", "kh", "kw"]
    order = {name: i for i, name in enumerate(names)}
    x = (h * w * c, sy * w * c, sx * c, 1, dy * w * c, dx * c)
    k = (0, 0, 0, 1, kw * c, c)
    out = row_major((limit, oh, ow, c))
    body, stores, more, dtypes = epilogue(kind, 4, out, "float32", c, limit * oh * ow * c)
    kernel = Contraction(
        (shape.batch, oh, ow, c),
        (kh, kw),
        Access(0, "float32", -py * w * c - px * c, x, shape.guards(order, 6)),
        Access(1, "float32", 0, k),
        body,
        stores,
    )
    low, high = part or (0, present)
    return Case(
        f"depthwise {present}x{h}x{w}x{c} k{kh}x{kw}{' same' if py else ''}"
        f"{f' s{sy}' if sy > 1 else ''}{' ' + kind if kind != 'none' else ''}",
        kernel,
        (limit * h * w * c, kh * kw * c, *more),
        ("float32", "float32", *dtypes),
        rows,
        low,
        high,
        2 * present * oh * ow * kh * kw * c,
    )


def single_filter(shape: Geometry, *, rows: int = 1) -> Case:
    """The filter gradient for one filter: the columns are channels, dy is a scalar a position."""
    one = filter_gradient(shape, rows=rows, accumulate=True)
    old = one.kernel
    c = shape.channels

    def columns(strides: tuple[int, ...]) -> tuple[int, ...]:
        return (*strides[:2], strides[2], *strides[4:])

    kernel = Contraction(
        (*shape.kernel, c),
        old.reduced,
        Access(1, "float32", 0, columns(old.b.strides)),
        Access(
            0,
            "float32",
            old.a.offset,
            columns(old.a.strides),
            tuple(
                Guard(columns(guard.strides), guard.offset, guard.low, guard.high)
                for guard in old.a.guards
            ),
        ),
        old.body,
        (Store(0, 2, "float32", 0, row_major((*shape.kernel, c))),),
        3,
        accumulate=True,
    )
    return Case(
        f"single {one.name}",
        kernel,
        one.sizes,
        one.dtypes,
        rows,
        one.low,
        one.high,
        one.flops,
    )


def depthwise_filter(shape: Geometry, *, rows: int = 1, split: int = 3) -> Case:
    """dw[kh, kw, c] = sum over n, oy, ox of x * dy: operands 0 x, 1 dy, 2 dw; added to it."""
    (h, w), (oh, ow), (kh, kw) = shape.image, shape.output, shape.kernel
    (present,) = static_shape((shape.batch,), rows)
    c = shape.channels
    sy, sx = shape.strides
    dy, dx = shape.dilation
    py, px = shape.padding[0][0], shape.padding[1][0]
    order = {name: i for i, name in enumerate(["kh", "kw", "c", "n", "oy", "ox"])}
    x = (dy * w * c, dx * c, 1, h * w * c, sy * w * c, sx * c)
    g = (0, 0, 1, oh * ow * c, ow * c, c)
    body, stores, more, dtypes = epilogue("none", 3, (kw * c, c, 1), "float32", c, kh * kw * c)
    kernel = Contraction(
        (kh, kw, c),
        (shape.batch, oh, ow),
        Access(0, "float32", -py * w * c - px * c, x, shape.guards(order, 6)),
        Access(1, "float32", 0, g),
        body,
        stores,
        split,
        accumulate=split == 3,
    )
    high = present if split == 3 else kh
    return Case(
        f"depthwise filter {present}x{h}x{w}x{c} k{kh}x{kw}{' same' if py else ''}",
        kernel,
        (present * h * w * c, present * oh * ow * c, *more),
        ("float32", "float32", *dtypes),
        rows,
        0,
        high,
        2 * present * oh * ow * kh * kw * c,
    )


def same(kernel: int, dilation: int = 1) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding that keeps the size of the image at stride 1."""
    span = dilation * (kernel - 1)
    pad = (span // 2, span - span // 2)
    return pad, pad


BATCH = Batch(1)


def steps_gradient(
    steps: int,
    inner: int,
    columns: int,
    *,
    rows: int,
    capacity: int,
    split: int = 3,
    part: tuple[int, int] | None = None,
    batch_first: bool = False,
) -> Case:
    """The weights' gradient of a time loop: sums over (time, batch) or, `batch_first`, (batch, time).

    Operands 0 h (steps, batch, inner), 1 dz (steps, batch, columns), 2 dw, added to.
    """
    one = dot(
        inner, columns, BATCH * steps, rows=rows, capacity=capacity, a_transposed=True, split=2,
        accumulate=True,
    )  # fmt: skip
    a = (1, 0, capacity * inner, inner)
    b = (0, 1, capacity * columns, columns)
    reduced: tuple[Dimension, ...] = (steps, BATCH)
    if batch_first:
        a, b, reduced = (*a[:2], a[3], a[2]), (*b[:2], b[3], b[2]), reduced[::-1]
    kernel = replace(
        one.kernel,
        reduced=reduced,
        a=replace(one.kernel.a, strides=a),
        b=replace(one.kernel.b, strides=b),
        split=split,
    )
    extent = static_shape((inner, columns, *reduced), rows)[split]
    low, high = part or (0, extent)
    name = f"steps {steps}x{rows}/{capacity} {inner}x{columns} split{split}"
    flops = one.flops // extent * (high - low)
    return replace(one, name=name, kernel=kernel, low=low, high=high, flops=flops)
