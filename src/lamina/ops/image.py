"""Ops on images (batch, height, width, channels), or one image without the batch axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina import config
from lamina.errors import ShapeError, layout
from lamina.ops.conv import depthwise_conv, padding_of, per_axis
from lamina.ops.creation import array, iota
from lamina.ops.dispatch import operation
from lamina.ops.elementwise import abs, cast, clip, floor, logical_and, round, where
from lamina.ops.linear import einsum
from lamina.ops.reductions import max as max_of
from lamina.ops.reductions import min as min_of
from lamina.ops.shaping import concatenate, expand_dims, pad, stack, transpose
from lamina.tensor import Tensor, convert
from lamina.types import FLOATS, SIGNED, UNSIGNED

Images = tuple[Tensor, bool, bool]


def _entered(images: Any, data_format: str | None) -> Images:
    """(batch of images with channels last, whether one image was given, whether first)."""
    x = convert(images)
    first = (data_format or config.image_data_format()) == "channels_first"
    if x.ndim not in (3, 4):
        raise ShapeError(f"images have 3 axes, or 4 with the batch; got {x.node.type}")
    single = x.ndim == 3
    if single:
        x = expand_dims(x, 0)
    return (transpose(x, (0, 2, 3, 1)) if first else x), single, first


def _left(x: Tensor, single: bool, first: bool) -> Tensor:
    if first:
        x = transpose(x, (0, 3, 1, 2))
    return x.reshape(x.shape[1:]) if single else x


def _kernel(name: str) -> tuple[Any, float]:
    """The weight of a pixel by its distance, and how far it reaches."""

    def cubic(t: Any) -> Any:  # Keys 1981, with a = -0.5
        near = ((1.5 * t - 2.5) * t) * t + 1.0
        far = ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
        return np.where(t < 1, near, np.where(t < 2, far, 0.0))

    def lanczos(radius: float) -> Any:
        return lambda t: np.where(t < radius, np.sinc(t) * np.sinc(t / radius), 0.0)

    table: dict[str, tuple[Any, float]] = {
        "bilinear": (lambda t: np.maximum(0.0, 1.0 - t), 1.0),
        "bicubic": (cubic, 2.0),
        "lanczos3": (lanczos(3.0), 3.0),
        "lanczos5": (lanczos(5.0), 5.0),
    }
    if name not in table:
        known = ", ".join(["nearest", *table])
        raise ShapeError(f"resize: unknown interpolation {name!r}; known: {known}")
    return table[name]


def _weights(size: int, wanted: int, name: str, antialias: bool) -> np.ndarray:
    """(wanted, size): how much of each old pixel goes into each new one, rows summing to 1."""
    if name == "nearest":
        taken = np.floor((np.arange(wanted) + 0.5) * size / wanted).astype(int)
        chosen: np.ndarray = np.eye(size)[np.minimum(taken, size - 1)]
        return chosen
    kernel, _ = _kernel(name)
    scale = max(size / wanted, 1.0) if antialias else 1.0
    centre = (np.arange(wanted) + 0.5) * size / wanted - 0.5
    distance = np.abs(centre[:, None] - np.arange(size)[None, :]) / scale
    weight = kernel(distance)
    total = weight.sum(1, keepdims=True)
    inside = ((centre >= -0.5) & (centre <= size - 0.5))[:, None]
    return np.where(inside, weight / np.where(np.abs(total) > 1e-8, total, 1.0), 0.0)


def _sides(x: Tensor) -> tuple[int, int]:
    """Height and width, which are known numbers."""
    height, width = x.shape[1:3]
    return int(height), int(width)  # type: ignore[arg-type]  # the batch stands on axis 0


@operation
def resize(
    images: Any,
    size: Any,
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Tensor:
    """Images in another size (height, width): "nearest", "bilinear", "bicubic", "lanczos3" or 5.

    antialias               widen the filter when the image becomes smaller
    crop_to_aspect_ratio    cut the longer side first, instead of distorting
    pad_to_aspect_ratio     lengthen the shorter side first with `fill_value`

    Two matrix products with constant matrices; differentiable.
    """
    x, single, first = _entered(images, data_format)
    height, width = (int(s) for s in (size if not isinstance(size, int) else (size, size)))
    rows, columns = _sides(x)
    if crop_to_aspect_ratio:
        less_rows = min(rows, int(float(columns * height) / width))
        less_columns = min(columns, int(float(rows * width) / height))
        top, left = (rows - less_rows) // 2, (columns - less_columns) // 2
        x = x[:, top : top + less_rows, left : left + less_columns]
    elif pad_to_aspect_ratio:
        more_rows = max(rows, int(float(columns * height) / width))
        more_columns = max(columns, int(float(rows * width) / height))
        top, left = (more_rows - rows) // 2, (more_columns - columns) // 2
        widths = (
            (0, 0),
            (top, top),
            (left, left),
            (0, 0),
        )
        x = pad(x, widths, constant_values=fill_value)
    dtype = x.dtype
    if interpolation == "nearest":
        result = _picked(_picked(x, height, 1), width, 2)
    else:
        work = cast(x, dtype if dtype in FLOATS else config.floatx())
        for axis, wanted, letters in ((1, height, "bhwc,oh->bowc"), (2, width, "bhwc,ow->bhoc")):
            here = int(work.shape[axis])  # type: ignore[arg-type]
            if here != wanted:
                matrix = convert(_weights(here, wanted, interpolation, antialias), work.dtype)
                work = einsum(letters, work, matrix)
        result = work if dtype in FLOATS else _rounded(work, dtype)
    return _left(result, single, first)


def _rounded(x: Tensor, dtype: str) -> Tensor:
    if dtype in SIGNED or dtype in UNSIGNED:
        limits = np.iinfo(dtype)
        x = clip(round(x), float(limits.min), float(limits.max))
    return cast(x, dtype)


def _picked(x: Tensor, wanted: int, axis: int) -> Tensor:
    size = int(x.shape[axis])  # type: ignore[arg-type]
    if size == wanted:
        return x
    taken = np.minimum(np.floor((np.arange(wanted) + 0.5) * size / wanted), size - 1)
    return x[(*(slice(None),) * axis, taken.astype(np.int32))]


@operation
def rgb_to_grayscale(images: Any, data_format: str | None = None) -> Tensor:
    """Luma of RGB images, with one channel (weights of ITU-R BT.601)."""
    x, single, first = _entered(images, data_format)
    if x.shape[-1] != 3:
        raise ShapeError(f"rgb_to_grayscale: three channels are expected, got {x.node.type}")
    dtype = x.dtype
    work = x if dtype in FLOATS else cast(x, config.floatx())
    gray = work @ array([0.2989, 0.5870, 0.1140], work.dtype)
    return _left(cast(expand_dims(gray, -1), dtype), single, first)


@operation
def rgb_to_hsv(images: Any, data_format: str | None = None) -> Tensor:
    """RGB in [0, 1] as hue, saturation and value in [0, 1]."""
    x, single, first = _entered(images, data_format)
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = max_of(x, -1)
    spread = value - min_of(x, -1)
    saturation = where(value > 0, spread / where(value > 0, value, 1.0), 0.0)
    part = 1.0 / 6.0 / where(spread > 0, spread, 1.0)
    hue = where(
        red == value,
        part * (green - blue),
        where(green == value, part * (blue - red) + 2.0 / 6.0, part * (red - green) + 4.0 / 6.0),
    )
    hue = where(spread > 0, hue, 0.0)
    hue = where(hue < 0, hue + 1.0, hue)
    return _left(stack([hue, saturation, value], -1), single, first)


@operation
def hsv_to_rgb(images: Any, data_format: str | None = None) -> Tensor:
    """Hue, saturation and value in [0, 1] as RGB in [0, 1]."""
    x, single, first = _entered(images, data_format)
    hue, saturation, value = x[..., 0], x[..., 1], x[..., 2]
    sixth = hue * 6.0
    factors = [
        clip(abs(sixth - 3.0) - 1.0, 0.0, 1.0),
        clip(2.0 - abs(sixth - 2.0), 0.0, 1.0),
        clip(2.0 - abs(sixth - 4.0), 0.0, 1.0),
    ]
    parts = [((1.0 - saturation) + saturation * factor) * value for factor in factors]
    return _left(stack(parts, -1), single, first)


@operation
def crop_images(
    images: Any,
    top_cropping: int | None = None,
    left_cropping: int | None = None,
    bottom_cropping: int | None = None,
    right_cropping: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Tensor:
    """A rectangle of each image: two of (before, behind, size) for each side."""
    x, single, first = _entered(images, data_format)
    rows, columns = _sides(x)
    top, _ = _margins(rows, top_cropping, bottom_cropping, target_height, "height", -1)
    left, _ = _margins(columns, left_cropping, right_cropping, target_width, "width", -1)
    height = target_height or rows - top - (bottom_cropping or 0)
    width = target_width or columns - left - (right_cropping or 0)
    return _left(x[:, top : top + height, left : left + width], single, first)


def _margins(
    size: Any, before: int | None, behind: int | None, target: int | None, what: str, sign: int
) -> tuple[int, int]:
    if sum(value is not None for value in (before, behind, target)) != 2:
        raise ShapeError(
            layout(
                f"{what}: exactly two of the margin before, the margin behind and the target size "
                "must be given.",
                [("before", str(before)), ("behind", str(behind)), ("target", str(target))],
            )
        )
    change = 0 if target is None else (target - size) * sign
    if before is None:
        before = change - (behind or 0)
    if behind is None:
        behind = change - before
    if before < 0 or behind < 0:
        raise ShapeError(f"{what}: a margin would be negative ({before}, {behind})")
    return before, behind


@operation
def pad_images(
    images: Any,
    top_padding: int | None = None,
    left_padding: int | None = None,
    bottom_padding: int | None = None,
    right_padding: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Tensor:
    """Zeros around each image: two of (before, behind, size) for each side."""
    x, single, first = _entered(images, data_format)
    rows = _margins(x.shape[1], top_padding, bottom_padding, target_height, "height", 1)
    columns = _margins(x.shape[2], left_padding, right_padding, target_width, "width", 1)
    return _left(pad(x, ((0, 0), rows, columns, (0, 0))), single, first)


@operation
def extract_patches(
    images: Any,
    size: Any,
    strides: Any = None,
    dilation_rate: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """Sliding windows, flattened into channels: (B, h, w, size[0] * size[1] * C)."""
    x, single, first = _entered(images, data_format)
    height, width = per_axis(size, 2, "size")
    stride = (height, width) if strides is None else per_axis(strides, 2, "strides")
    dilation = per_axis(dilation_rate, 2, "dilation_rate")
    rows, columns = int(x.shape[1]), int(x.shape[2])  # type: ignore[arg-type]
    pads = padding_of(padding, (rows, columns), (height, width), stride, dilation)
    padded = pad(x, ((0, 0), *pads, (0, 0)))
    parts = []
    for i in range(height):
        for j in range(width):
            ends = [
                offset * spread + (count - 1) * step + 1
                for offset, spread, step, count in zip(
                    (i, j),
                    dilation,
                    stride,
                    _counts(padded, (height, width), stride, dilation),
                    strict=True,
                )
            ]
            parts.append(
                padded[
                    :,
                    i * dilation[0] : ends[0] : stride[0],
                    j * dilation[1] : ends[1] : stride[1],
                ]
            )
    return _left(concatenate(parts, -1), single, first)


def _counts(
    x: Tensor, size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> list[int]:
    return [
        (int(n) - (k - 1) * d - 1) // s + 1  # type: ignore[arg-type]
        for n, k, s, d in zip(x.shape[1:3], size, stride, dilation, strict=True)
    ]


@operation
def gaussian_blur(
    images: Any, kernel_size: Any = (3, 3), sigma: Any = (1.0, 1.0), data_format: str | None = None
) -> Tensor:
    """Blurred by a Gaussian of `sigma` pixels (x, y), cut off at `kernel_size` (x, y)."""
    x, single, first = _entered(images, data_format)
    sizes = per_axis(kernel_size, 2, "kernel_size")
    spreads = (sigma, sigma) if isinstance(sigma, (int, float)) else tuple(sigma)
    curves = []
    for count, spread in zip(sizes, spreads, strict=True):
        place = np.arange(count) - (count - 1) / 2
        curve = np.exp(-0.5 * (place / float(spread)) ** 2)
        curves.append(curve / curve.sum())
    channels = int(x.shape[-1])  # type: ignore[arg-type]
    work = x if x.dtype in FLOATS else cast(x, config.floatx())
    for axis, curve in enumerate(curves):
        shape = (1, len(curve)) if axis == 0 else (len(curve), 1)
        kernel = np.broadcast_to(curve.reshape((*shape, 1, 1)), (*shape, channels, 1))
        work = depthwise_conv(
            work, convert(kernel, work.dtype), padding="same", data_format="channels_last"
        )
    return _left(cast(work, x.dtype), single, first)


@operation
def map_coordinates(
    inputs: Any, coordinates: Any, order: int, fill_mode: str = "constant", fill_value: float = 0
) -> Tensor:
    """Values of inputs at places between its elements.

    coordinates   (rank, ...): one row of places for each axis
    order         0: the nearest element, 1: linear between neighbours
    fill_mode     outside: "constant", "nearest", "reflect", "mirror" or "wrap"
    """
    x = convert(inputs)
    places = convert(coordinates)
    places = places if places.dtype in FLOATS else cast(places, config.floatx())
    if order not in (0, 1):
        raise ShapeError(f"map_coordinates: order is 0 or 1, got {order}")
    result: Any = None
    axes = [places[axis] for axis in range(x.ndim)]
    corners: list[tuple[list[Tensor], Any]] = [([], None)]
    for at in axes:
        if order == 0:
            corners = [([*where_, round(at)], weight) for where_, weight in corners]
            continue
        low = floor(at)
        upper = at - low
        corners = [
            ([*where_, low + step], share if weight is None else weight * share)
            for where_, weight in corners
            for step, share in ((0.0, 1.0 - upper), (1.0, upper))
        ]
    work = x if x.dtype in FLOATS else cast(x, places.dtype)
    for where_, weight in corners:
        value = _at(work, where_, fill_mode, fill_value)
        value = value if weight is None else value * weight
        result = value if result is None else result + value
    return result if x.dtype in FLOATS else cast(round(result), x.dtype)


def _at(x: Tensor, places: list[Tensor], fill_mode: str, fill_value: float) -> Tensor:
    inside: Any = None
    indices = []
    for axis, at in enumerate(places):
        size = int(x.shape[axis])  # type: ignore[arg-type]
        index = cast(at, "int32")
        if fill_mode == "constant":
            good = logical_and(index >= 0, index < size)
            inside = good if inside is None else logical_and(inside, good)
            index = clip(index, 0, size - 1)
        else:
            index = _folded(index, size, fill_mode)
        indices.append(index)
    found = x[tuple(indices)]
    return found if inside is None else where(inside, found, fill_value)


def _folded(index: Tensor, size: int, fill_mode: str) -> Tensor:
    if fill_mode == "nearest":
        return clip(index, 0, size - 1)
    if fill_mode == "wrap":
        return index % size
    if fill_mode == "mirror":
        period = max(2 * (size - 1), 1)
        turned = index % period
        return where(turned >= size, period - turned, turned)
    if fill_mode == "reflect":
        turned = index % (2 * size)
        return where(turned >= size, 2 * size - 1 - turned, turned)
    raise ShapeError(f"map_coordinates: unknown fill_mode {fill_mode!r}")


@operation
def affine_transform(
    images: Any,
    transform: Any,
    interpolation: str = "bilinear",
    fill_mode: str = "constant",
    fill_value: float = 0,
    data_format: str | None = None,
) -> Tensor:
    """Images whose pixel (x, y) comes from (a0 x + a1 y + a2, b0 x + b1 y + b2).

    transform   (8,) or (batch, 8): a0 a1 a2 b0 b1 b2 c0 c1 (the last two are not read)
    """
    x, single, first = _entered(images, data_format)
    matrix = convert(transform)
    if matrix.ndim == 1:
        matrix = expand_dims(matrix, 0)
    if interpolation not in ("nearest", "bilinear"):
        raise ShapeError(f"affine_transform: 'nearest' or 'bilinear', got {interpolation!r}")
    rows, columns = x.shape[1:3]
    grid = (1, rows, columns)
    vertical, horizontal = (cast(iota(grid, axis), config.floatx()) for axis in (1, 2))
    part = [matrix[:, i].reshape((-1, 1, 1)) for i in range(6)]
    across = part[0] * horizontal + part[1] * vertical + part[2]
    down = part[3] * horizontal + part[4] * vertical + part[5]
    order = 0 if interpolation == "nearest" else 1
    return _left(_sampled(x, down, across, order, fill_mode, fill_value), single, first)


def _sampled(
    x: Tensor, down: Tensor, across: Tensor, order: int, fill_mode: str, fill_value: float
) -> Tensor:
    """Pixels of each image at (down, across), each (batch or 1, h, w)."""
    batch, _, _, channels = x.shape
    shape = (batch, *down.shape[1:], channels)
    image, colour = (cast(iota(shape, axis), down.dtype) for axis in (0, 3))
    places = [image, image * 0 + expand_dims(down, -1), image * 0 + expand_dims(across, -1), colour]
    return map_coordinates(x, stack(places, 0), order, fill_mode, fill_value)


@operation
def perspective_transform(
    images: Any,
    start_points: Any,
    end_points: Any,
    interpolation: str = "bilinear",
    fill_value: float = 0,
    data_format: str | None = None,
) -> Tensor:
    """Images in which the corners `start_points` (4, 2) have come to `end_points` (4, 2)."""
    x, single, first = _entered(images, data_format)
    source, target = (
        np.asarray(convert(p).numpy(), np.float64) for p in (start_points, end_points)
    )
    source, target = (p.reshape((-1, 4, 2)) for p in (source, target))
    coefficients = np.stack([_homography(b, a) for a, b in zip(source, target, strict=True)])
    part = [convert(coefficients[:, i], config.floatx()).reshape((-1, 1, 1)) for i in range(8)]
    rows, columns = x.shape[1:3]
    grid = (1, rows, columns)
    vertical, horizontal = (cast(iota(grid, axis), config.floatx()) for axis in (1, 2))
    scale = part[6] * horizontal + part[7] * vertical + 1.0
    across = (part[0] * horizontal + part[1] * vertical + part[2]) / scale
    down = (part[3] * horizontal + part[4] * vertical + part[5]) / scale
    order = 0 if interpolation == "nearest" else 1
    return _left(_sampled(x, down, across, order, "constant", fill_value), single, first)


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The eight numbers of the projective map that takes four points to four points."""
    rows: list[list[float]] = []
    right: list[float] = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
        right.extend((u, v))
    return np.linalg.solve(np.array(rows), np.array(right))


@operation
def sobel_edges(images: Any, data_format: str | None = None) -> Tensor:
    """Vertical and horizontal edges (Sobel), on a new last axis of size 2."""
    x, single, first = _entered(images, data_format)
    padded = pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    channels = int(x.shape[-1])  # type: ignore[arg-type]
    down = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], np.float32)
    edges = [
        depthwise_conv(
            padded,
            np.broadcast_to(kernel[:, :, None, None], (3, 3, channels, 1)).copy(),
            data_format="channels_last",
        )
        for kernel in (down, down.T)
    ]
    result = [_left(edge, single, first) for edge in edges]
    return stack(result, -1)
