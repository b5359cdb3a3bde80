"""Convolutions and pooling over one, two or three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina import config
from lamina.errors import BatchError, ShapeError, layout
from lamina.ir import contractions, movement
from lamina.ir.graph import apply
from lamina.ops.dispatch import operation
from lamina.ops.nn import floating
from lamina.ops.reductions import max as max_of
from lamina.ops.reductions import mean as mean_of
from lamina.ops.shaping import concatenate, expand_dims, pad, stack, transpose
from lamina.tensor import Tensor, convert, operands
from lamina.types import Batch

Pairs = tuple[tuple[int, int], ...]


def per_axis(value: Any, count: int, what: str) -> tuple[int, ...]:
    """One number for all spatial axes, or one each."""
    numbers = (value,) * count if isinstance(value, int) else tuple(int(v) for v in value)
    if len(numbers) != count or any(number < 1 for number in numbers):
        raise ShapeError(f"{what} must be a positive integer or {count} of them, got {value!r}")
    return numbers


def _to_last(x: Tensor, data_format: str | None) -> tuple[Tensor, bool]:
    """x with its channels on the last axis, and whether they were on axis 1."""
    form = data_format or config.image_data_format()
    if form not in ("channels_last", "channels_first"):
        raise ShapeError(f"data_format is 'channels_last' or 'channels_first', got {form!r}")
    if form == "channels_last":
        return x, False
    return transpose(x, (0, *range(2, x.ndim), 1)), True


def _from_last(x: Tensor, first: bool) -> Tensor:
    return transpose(x, (0, x.ndim - 1, *range(1, x.ndim - 1))) if first else x


def _static(x: Tensor, what: str) -> tuple[int, ...]:
    """The spatial sizes and channels; the batch may only stand on axis 0."""
    sizes = x.shape[1:]
    if any(isinstance(size, Batch) for size in sizes):
        raise BatchError(f"{what}: the batch of {x.node.type} must be axis 0")
    return sizes  # type: ignore[return-value]  # checked


def padding_of(
    padding: Any,
    image: Sequence[int],
    size: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int] | None = None,
) -> Pairs:
    """(before, after) for each spatial axis: of "valid", "same", "causal", numbers or pairs.

    "same" gives ceil(n / stride) positions, and puts the odd cell behind, as TensorFlow does.
    """
    dilations = dilation or (1,) * len(size)
    if not isinstance(padding, str):
        pairs = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
        return tuple((int(low), int(high)) for low, high in pairs)
    kind = padding.lower()
    if kind == "valid":
        return ((0, 0),) * len(size)
    result = []
    for n, k, stride, spread in zip(image, size, strides, dilations, strict=True):
        reach = (k - 1) * spread + 1
        if kind == "causal":
            result.append((reach - 1, 0))
            continue
        if kind != "same":
            raise ShapeError(f"padding is 'valid', 'same' or 'causal', got {padding!r}")
        total = max((-(-n // stride) - 1) * stride + reach - n, 0)
        result.append((total // 2, total - total // 2))
    return tuple(result)


@operation
def conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: Any = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Tensor:
    """Convolution (without flipping the kernel) over 1, 2 or 3 spatial axes.

    inputs (B, spatial..., C), kernel (spatial..., C / groups, F). Returns (B, spatial..., F).
    The number of groups follows from the kernel.
    """
    a, b = (Tensor(node) for node in operands(inputs, kernel, floating=True))
    x, first = _to_last(a, data_format)
    count = b.ndim - 2
    if x.ndim != b.ndim:
        raise ShapeError(
            layout(
                f"conv: the inputs must have {b.ndim} axes (batch, {count} spatial, channels).",
                [("inputs", str(a.node.type)), ("kernel", str(b.node.type))],
            )
        )
    *image, channels = _static(x, "conv")
    *size, per_group, _ = (int(s) for s in b.shape)  # type: ignore[arg-type]
    if channels % per_group:
        raise ShapeError(
            layout(
                f"conv: the kernel takes {per_group} channels a group, got {channels}.",
                [("inputs", str(a.node.type)), ("kernel", str(b.node.type))],
            )
        )
    stride = per_axis(strides, count, "strides")
    dilation = per_axis(dilation_rate, count, "dilation_rate")
    pads = padding_of(padding, image, size, stride, dilation)
    groups = channels // per_group
    return _from_last(
        Tensor(contractions.conv(x.node, b.node, stride, pads, dilation, groups)), first
    )


@operation
def depthwise_conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: Any = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Tensor:
    """Each channel convolved by itself: kernel (spatial..., C, M), result (B, spatial..., C M)."""
    w = floating(kernel)
    *size, channels, multiplier = w.shape
    grouped = w.reshape((*size, 1, channels * multiplier))
    return conv(inputs, grouped, strides, padding, data_format, dilation_rate)


@operation
def separable_conv(
    inputs: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: Any = 1,
    padding: Any = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Tensor:
    """A depthwise convolution, then one by a kernel of size 1 that mixes the channels."""
    middle = depthwise_conv(inputs, depthwise_kernel, strides, padding, data_format, dilation_rate)
    return conv(middle, pointwise_kernel, 1, "valid", data_format, 1)


def transposed_sizes(
    image: Sequence[int],
    size: Sequence[int],
    strides: Sequence[int],
    padding: str,
    output_padding: Any,
    dilation: Sequence[int],
) -> tuple[tuple[int, ...], Pairs]:
    """Spatial sizes of a transposed convolution, and the padding of the convolution it undoes."""
    extra = (
        (None,) * len(size)
        if output_padding is None
        else (output_padding,) * len(size)
        if isinstance(output_padding, int)
        else tuple(output_padding)
    )
    sizes, pads = [], []
    for n, k, stride, more, spread in zip(image, size, strides, extra, dilation, strict=True):
        reach = (k - 1) * spread + 1
        # Cells in front of and behind the image, once it has `stride - 1` zeros between its own.
        if padding == "valid":
            before = reach - 1
            behind = reach - 1 + (max(stride - reach, 0) if more is None else more)
        else:
            total = reach - 2 + (stride if more is None else reach % 2 + more)
            before = min(total // 2 + total % 2, reach - 1)
            behind = total - before
        length = (n - 1) * stride + before + behind + 2 - reach
        sizes.append(length)
        # The convolution that this undoes comes from `length` cells to exactly n positions.
        low = reach - 1 - before
        pads.append((low, (n - 1) * stride + reach - length - low))
    return tuple(sizes), tuple(pads)


@operation
def conv_transpose(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Tensor:
    """The transpose (not the inverse) of a convolution: what its input gradient computes.

    inputs (B, spatial..., C), kernel (spatial..., F, C). Returns (B, larger spatial..., F).
    """
    a, b = (Tensor(node) for node in operands(inputs, kernel, floating=True))
    x, first = _to_last(a, data_format)
    count = b.ndim - 2
    if x.ndim != b.ndim or x.shape[-1] != b.shape[-1]:
        raise ShapeError(
            layout(
                "conv_transpose: the kernel (spatial..., out, in) does not fit the inputs.",
                [("inputs", str(a.node.type)), ("kernel", str(b.node.type))],
            )
        )
    *image, _ = _static(x, "conv_transpose")
    size = [int(s) for s in b.shape[:count]]  # type: ignore[arg-type]
    stride = per_axis(strides, count, "strides")
    dilation = per_axis(dilation_rate, count, "dilation_rate")
    sizes, pads = transposed_sizes(image, size, stride, padding.lower(), output_padding, dilation)
    # A negative padding behind means that the last cells of the result get nothing.
    cut = tuple(max(-high, 0) for _, high in pads)
    held = tuple((low, max(high, 0)) for low, high in pads)
    inside = tuple(length - less for length, less in zip(sizes, cut, strict=True))
    op = contractions.ConvInputGrad(inside, stride, held, dilation, 1)
    result = Tensor(apply(op, x.node, b.node))
    if any(cut):
        result = _longer(result, cut)
    return _from_last(result, first)


def _longer(x: Tensor, by: tuple[int, ...]) -> Tensor:
    """x with zeros behind each spatial axis."""
    return pad(x, ((0, 0), *((0, more) for more in by), (0, 0)))


def _pool(
    kind: str, inputs: Any, pool_size: Any, strides: Any, padding: str, data_format: str | None
) -> Tensor:
    x, first = _to_last(floating(inputs), data_format)
    count = x.ndim - 2
    size = per_axis(pool_size, count, "pool_size")
    stride = size if strides is None else per_axis(strides, count, "strides")
    *image, _ = _static(x, f"{kind} pooling")
    pads = padding_of(padding, image, size, stride)
    return _from_last(Tensor(contractions.window(x.node, kind, size, stride, pads)), first)


@operation
def max_pool(
    inputs: Any,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """The largest element of each window; strides default to the window's size."""
    return _pool("max", inputs, pool_size, strides, padding, data_format)


@operation
def average_pool(
    inputs: Any,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """The mean of each window; padding does not count."""
    return _pool("mean", inputs, pool_size, strides, padding, data_format)


@operation
def sum_pool(
    inputs: Any,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """The sum of each window; lamina's own."""
    return _pool("sum", inputs, pool_size, strides, padding, data_format)


def _adaptive(kind: str, inputs: Any, output_size: Any, data_format: str | None) -> Tensor:
    x, first = _to_last(floating(inputs), data_format)
    count = x.ndim - 2
    wanted = per_axis(output_size, count, "output_size")
    *image, _ = _static(x, "adaptive pooling")
    reduce = max_of if kind == "max" else mean_of
    for axis, (n, parts) in enumerate(zip(image, wanted, strict=True), start=1):
        lead = (slice(None),) * axis
        if n % parts == 0:
            shape = (*x.shape[:axis], parts, n // parts, *x.shape[axis + 1 :])
            x = reduce(x.reshape(shape), axis + 1)
            continue
        bounds = [(i * n // parts, -(-(i + 1) * n // parts)) for i in range(parts)]
        pieces = [reduce(x[(*lead, slice(low, high))], axis) for low, high in bounds]
        x = concatenate([expand_dims(piece, axis) for piece in pieces], axis)
    return _from_last(x, first)


@operation
def adaptive_average_pool(inputs: Any, output_size: Any, data_format: str | None = None) -> Tensor:
    """Means over windows that are laid out so that exactly `output_size` come out."""
    return _adaptive("mean", inputs, output_size, data_format)


@operation
def adaptive_max_pool(inputs: Any, output_size: Any, data_format: str | None = None) -> Tensor:
    """Maxima over windows that are laid out so that exactly `output_size` come out."""
    return _adaptive("max", inputs, output_size, data_format)


@operation
def unfold(
    x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Sliding windows of (B, C, H, W) as columns: (B, C * kernel cells, windows)."""
    tensor = convert(x)
    batch, channels, *image = tensor.shape
    size, spread, step = (per_axis(v, 2, "unfold") for v in (kernel_size, dilation, stride))
    pads = (padding, padding) if isinstance(padding, int) else tuple(padding)
    padded = pad(tensor, ((0, 0), (0, 0), *((p, p) for p in pads)))
    counts = _window_counts(image, size, spread, step, pads)
    parts = [
        padded[
            :, :, _every(i, spread[0], step[0], counts[0]), _every(j, spread[1], step[1], counts[1])
        ]
        for i in range(size[0])
        for j in range(size[1])
    ]
    cells = stack(parts, 2)
    return cells.reshape((batch, channels * len(parts), counts[0] * counts[1]))


def _window_counts(image: Any, size: Any, spread: Any, step: Any, pads: Any) -> list[int]:
    return [
        (int(n) + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, s, p in zip(image, size, spread, step, pads, strict=True)
    ]


def _every(first: int, spread: int, step: int, count: int) -> slice:
    begin = first * spread
    return slice(begin, begin + (count - 1) * step + 1, step)


@operation
def fold(
    x: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Columns of `unfold` added up where they overlap: (B, C, *output_size)."""
    tensor = convert(x)
    image = per_axis(output_size, 2, "output_size")
    size, spread, step = (per_axis(v, 2, "fold") for v in (kernel_size, dilation, stride))
    pads = (padding, padding) if isinstance(padding, int) else tuple(padding)
    counts = _window_counts(image, size, spread, step, pads)
    batch, rows, _ = tensor.shape
    channels = int(rows) // (size[0] * size[1])  # type: ignore[arg-type]
    cells = tensor.reshape((batch, channels, size[0], size[1], *counts))
    whole = [n + 2 * p for n, p in zip(image, pads, strict=True)]
    total: Any = None
    for i in range(size[0]):
        for j in range(size[1]):
            part = cells[:, :, i, j].node
            low = (i * spread[0], j * spread[1])
            reach = [(c - 1) * s + 1 for c, s in zip(counts, step, strict=True)]
            high = [n - a - r for n, a, r in zip(whole, low, reach, strict=True)]
            gaps = (0, 0, *(s - 1 for s in step))
            spread_out = Tensor(movement.pad(part, (0, 0, *low), (0, 0, *high), 0, gaps))
            total = spread_out if total is None else total + spread_out
    return total[:, :, pads[0] : pads[0] + image[0], pads[1] : pads[1] + image[1]]  # type: ignore[no-any-return]
