"""Activations, normalisations and cross-entropies."""

from __future__ import annotations

import math
from typing import Any

from lamina import config
from lamina.errors import ShapeError, layout
from lamina.ops.creation import iota
from lamina.ops.dispatch import normal_axis, operation
from lamina.ops.elementwise import (
    abs,
    clip,
    erf,
    exp,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    rsqrt,
    sigmoid,
    sqrt,
    stop_gradient,
    tanh,
    where,
)
from lamina.ops.indexing import one_hot
from lamina.ops.reductions import cumsum, max, mean, sum, var
from lamina.ops.shaping import repeat, split, squeeze, transpose
from lamina.ops.sorting import sort
from lamina.tensor import Tensor, cast, convert, unary
from lamina.types import FLOATS, Batch


def floating(x: Any) -> Tensor:
    """x as a tensor of floats (integers become `config.floatx()`)."""
    tensor = convert(x)
    return tensor if tensor.dtype in FLOATS else cast(tensor, config.floatx())


@operation
def relu(x: Any) -> Tensor:
    """`max(x, 0)`; its slope at 0 is 0."""
    return unary("relu", x)


@operation
def relu6(x: Any) -> Tensor:
    """`min(max(x, 0), 6)`."""
    return clip(x, 0, 6)


@operation
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Tensor:
    """x where positive, `negative_slope * x` elsewhere."""
    tensor = floating(x)
    return where(tensor < 0, tensor * negative_slope, tensor)


@operation
def softplus(x: Any) -> Tensor:
    """`log(1 + exp(x))` without overflow."""
    tensor = floating(x)
    return maximum(tensor, 0) + log1p(exp(-abs(tensor)))


@operation
def softsign(x: Any) -> Tensor:
    """`x / (1 + |x|)`."""
    tensor = floating(x)
    return tensor / (1 + abs(tensor))


@operation
def silu(x: Any) -> Tensor:
    """`x * sigmoid(x)` (Elfwing et al. 2017; Ramachandran et al. 2017)."""
    tensor = floating(x)
    return tensor * sigmoid(tensor)


swish = silu


@operation
def log_sigmoid(x: Any) -> Tensor:
    """`log(sigmoid(x))` without overflow."""
    return -softplus(-floating(x))


@operation
def hard_sigmoid(x: Any) -> Tensor:
    """`min(max(x / 6 + 0.5, 0), 1)`."""
    return clip(floating(x) / 6.0 + 0.5, 0, 1)


@operation
def hard_silu(x: Any) -> Tensor:
    """`x * hard_sigmoid(x)`."""
    tensor = floating(x)
    return tensor * hard_sigmoid(tensor)


hard_swish = hard_silu


@operation
def hard_tanh(x: Any) -> Tensor:
    """x held within [-1, 1]."""
    return clip(x, -1, 1)


@operation
def hard_shrink(x: Any, threshold: float = 0.5) -> Tensor:
    """x where `|x| > threshold`, 0 elsewhere."""
    tensor = floating(x)
    return where(abs(tensor) > threshold, tensor, 0.0)


@operation
def soft_shrink(x: Any, threshold: float = 0.5) -> Tensor:
    """x moved towards 0 by `threshold`, 0 within it."""
    tensor = floating(x)
    return where(
        tensor > threshold,
        tensor - threshold,
        where(tensor < -threshold, tensor + threshold, 0.0),
    )


@operation
def tanh_shrink(x: Any) -> Tensor:
    """`x - tanh(x)`."""
    tensor = floating(x)
    return tensor - tanh(tensor)


@operation
def threshold(x: Any, threshold: float, default_value: float) -> Tensor:
    """x where it exceeds `threshold`, `default_value` elsewhere."""
    tensor = floating(x)
    return where(tensor > threshold, tensor, default_value)


@operation
def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """x where positive, `alpha * (exp(x) - 1)` elsewhere (Clevert et al. 2015)."""
    tensor = floating(x)
    return where(tensor > 0, tensor, alpha * expm1(minimum(tensor, 0)))


@operation
def celu(x: Any, alpha: float = 1.0) -> Tensor:
    """`max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0)` (Barron 2017)."""
    tensor = floating(x)
    return maximum(tensor, 0) + alpha * expm1(minimum(tensor, 0) / alpha)


@operation
def selu(x: Any) -> Tensor:
    """The self-normalising ELU (Klambauer et al. 2017)."""
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return scale * elu(x, alpha)


@operation
def gelu(x: Any, approximate: bool = True) -> Tensor:
    """`x * P(X <= x)` for a standard normal X, by tanh or exactly (Hendrycks & Gimpel 2016)."""
    tensor = floating(x)
    if approximate:
        inner = math.sqrt(2.0 / math.pi) * (tensor + 0.044715 * tensor * tensor * tensor)
        return 0.5 * tensor * (1.0 + tanh(inner))
    return 0.5 * tensor * (1.0 + erf(tensor * math.sqrt(0.5)))


@operation
def mish(x: Any) -> Tensor:
    """`x * tanh(softplus(x))` (Misra 2019)."""
    tensor = floating(x)
    return tensor * tanh(softplus(tensor))


@operation
def squareplus(x: Any, b: float = 4) -> Tensor:
    """`(x + sqrt(x ** 2 + b)) / 2` (Barron 2021)."""
    tensor = floating(x)
    return (tensor + sqrt(tensor * tensor + b)) / 2


@operation
def sparse_plus(x: Any) -> Tensor:
    """0 below -1, x above 1, `(x + 1) ** 2 / 4` between."""
    tensor = floating(x)
    middle = (tensor + 1.0) * (tensor + 1.0) / 4.0
    return where(tensor <= -1, 0.0, where(tensor < 1, middle, tensor))


@operation
def sparse_sigmoid(x: Any) -> Tensor:
    """0 below -1, 1 above 1, `(x + 1) / 2` between."""
    return clip((floating(x) + 1.0) / 2.0, 0, 1)


@operation
def glu(x: Any, axis: int = -1) -> Tensor:
    """The first half of an axis times the sigmoid of the second (Dauphin et al. 2016)."""
    tensor = floating(x)
    if tensor.shape[axis] % 2:  # type: ignore[operator]
        raise ShapeError(f"glu: axis {axis} of {tensor.node.type} cannot be halved")
    value, gate = split(tensor, 2, axis)
    return value * sigmoid(gate)


@operation
def softmax(x: Any, axis: Any = -1) -> Tensor:
    """`exp(x)` divided by its sum over `axis` (or several axes)."""
    tensor = floating(x)
    shifted = exp(tensor - stop_gradient(max(tensor, axis, keepdims=True)))
    return shifted / sum(shifted, axis, keepdims=True)


@operation
def log_softmax(x: Any, axis: Any = -1) -> Tensor:
    """`log(softmax(x))` without overflow."""
    tensor = floating(x)
    shifted = tensor - stop_gradient(max(tensor, axis, keepdims=True))
    return shifted - log(sum(exp(shifted), axis, keepdims=True))


@operation
def sparsemax(x: Any, axis: int = -1) -> Tensor:
    """The projection onto the simplex (Martins & Astudillo 2016)."""
    tensor = floating(x)
    at = normal_axis(axis, tensor.ndim)
    ordered = -sort(-tensor, at)
    running = cumsum(ordered, at)
    shape = [1] * tensor.ndim
    shape[at] = -1
    length = int(tensor.shape[at])  # type: ignore[arg-type]
    count = convert([float(k) for k in range(1, length + 1)], tensor.dtype).reshape(shape)
    inside = cast(1.0 + count * ordered > running, tensor.dtype)
    support = sum(inside, at, keepdims=True)
    tau = (sum(ordered * inside, at, keepdims=True) - 1.0) / support
    return maximum(tensor - tau, 0)


# ------------------------------------------------------------------------ normalisations


@operation
def moments(
    x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean and variance over `axes`."""
    tensor = floating(x)
    return mean(tensor, axes, keepdims), var(tensor, axes, keepdims)


@operation
def normalize(x: Any, axis: Any = -1, order: float = 2, epsilon: float | None = None) -> Tensor:
    """x divided by its norm of the given order over `axis`."""
    tensor = floating(x)
    small = config.epsilon() if epsilon is None else epsilon
    if order == 2:
        return tensor * rsqrt(maximum(sum(tensor * tensor, axis, keepdims=True), small**2))
    size = abs(tensor)
    if order == math.inf:
        length = max(size, axis, keepdims=True)
    else:
        length = sum(size**order, axis, keepdims=True) ** (1.0 / order)
    return tensor / maximum(length, small)


@operation
def batch_normalization(
    x: Any,
    mean: Any,
    variance: Any,
    axis: int,
    offset: Any = None,
    scale: Any = None,
    epsilon: float = 1e-3,
) -> Tensor:
    """`(x - mean) / sqrt(variance + epsilon) * scale + offset`, each (C,) along `axis`."""
    tensor = floating(x)
    shape = [1] * tensor.ndim
    shape[axis] = -1

    def over(value: Any) -> Tensor:
        return cast(value, tensor.dtype).reshape(shape)

    factor = rsqrt(over(variance) + epsilon)
    if scale is not None:
        factor = factor * over(scale)
    result = (tensor - over(mean)) * factor
    return result if offset is None else result + over(offset)


@operation
def layer_normalization(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    axis: Any = -1,
    epsilon: float | None = None,
) -> Tensor:
    """x brought to mean 0 and variance 1 over `axis`, then scaled and shifted."""
    tensor = floating(x)
    centre, spread = moments(tensor, axis, keepdims=True)
    result = (tensor - centre) * rsqrt(spread + (config.epsilon() if epsilon is None else epsilon))
    if gamma is not None:
        result = result * cast(gamma, tensor.dtype)
    return result if beta is None else result + cast(beta, tensor.dtype)


@operation
def rms_normalization(
    x: Any, scale: Any = None, axis: Any = -1, epsilon: float | None = None
) -> Tensor:
    """x divided by its root mean square over `axis`, then scaled (Zhang & Sennrich 2019)."""
    tensor = floating(x)
    power = mean(tensor * tensor, axis, keepdims=True)
    result = tensor * rsqrt(power + (config.epsilon() if epsilon is None else epsilon))
    return result if scale is None else result * cast(scale, tensor.dtype)


# ------------------------------------------------------------------------ cross-entropies


@operation
def categorical_crossentropy(
    target: Any, output: Any, from_logits: bool = False, axis: int = -1
) -> Tensor:
    """`-sum(target * log(output))` over the class axis.

    target, output   the same shape; output holds logits, or probabilities, which are scaled to
                     sum to 1 and held within [epsilon, 1 - epsilon]
    """
    predicted = floating(output)
    truth = cast(target, predicted.dtype)
    _same_shape("categorical_crossentropy", truth, predicted)
    if from_logits:
        logs = log_softmax(predicted, axis)
    else:
        scaled = predicted / sum(predicted, axis, keepdims=True)
        logs = log(clip(scaled, config.epsilon(), 1.0 - config.epsilon()))
    return -sum(truth * logs, axis)


@operation
def sparse_categorical_crossentropy(
    target: Any, output: Any, from_logits: bool = False, axis: int = -1
) -> Tensor:
    """`-log(output[class])` over the class axis; target holds class numbers.

    target   integers, the shape of output without the class axis (or with size 1 there)
    """
    predicted = floating(output)
    at = normal_axis(axis, predicted.ndim)
    labels = convert(target)
    if labels.ndim == predicted.ndim and labels.shape[at] == 1:
        labels = squeeze(labels, at)
    labels = cast(labels, "int64" if labels.dtype == "int64" else "int32")
    rest = tuple(size for a, size in enumerate(predicted.shape) if a != at)
    if labels.shape != rest:
        raise ShapeError(
            layout(
                "sparse_categorical_crossentropy: there must be one class number for each row "
                "of the output.",
                [
                    ("target", f"{labels.node.type}, expected {rest}"),
                    ("output", str(predicted.node.type)),
                ],
                hint="for one-hot targets use categorical_crossentropy",
            )
        )
    if from_logits:
        logs = log_softmax(predicted, at)
    else:
        logs = log(clip(predicted, config.epsilon(), 1.0 - config.epsilon()))
    chosen = one_hot(labels, int(predicted.shape[at]), at, predicted.dtype)  # type: ignore[arg-type]
    return -sum(chosen * logs, at)


@operation
def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Tensor:
    """`-(t log(p) + (1 - t) log(1 - p))`, element by element.

    output   logits, or probabilities, which are held within [epsilon, 1 - epsilon]
    """
    predicted = floating(output)
    truth = cast(target, predicted.dtype)
    _same_shape("binary_crossentropy", truth, predicted)
    if from_logits:
        return maximum(predicted, 0) - predicted * truth + log1p(exp(-abs(predicted)))
    held = clip(predicted, config.epsilon(), 1.0 - config.epsilon())
    return -(truth * log(held) + (1.0 - truth) * log(1.0 - held))


def _same_shape(name: str, target: Tensor, output: Tensor) -> None:
    if target.ndim != output.ndim or any(
        a != b and not isinstance(a, Batch) and not isinstance(b, Batch)
        for a, b in zip(target.shape, output.shape, strict=True)
    ):
        raise ShapeError(
            layout(
                f"{name}: target and output must have the same shape.",
                [("target", str(target.node.type)), ("output", str(output.node.type))],
            )
        )


# ------------------------------------------------------------------------ attention


@operation
def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
    attn_logits_soft_cap: float | None = None,
) -> Tensor:
    """`softmax(q k' * scale + bias) v` for each head (Vaswani et al. 2017).

    query (B, T, N, H), key and value (B, S, K, H) with N a multiple of K; bias and mask broadcast
    to (B, N, T, S), mask is true where attention is allowed. Returns (B, T, N, H).
    """
    q, k, v = floating(query), floating(key), floating(value)
    heads, width = int(q.shape[2]), int(q.shape[3])  # type: ignore[arg-type]
    groups = heads // int(k.shape[2])  # type: ignore[arg-type]
    if groups > 1:
        k, v = (_repeat_heads(x, groups) for x in (k, v))
    from_heads = (0, 2, 1, 3)
    q, k, v = (transpose(x, from_heads) for x in (q, k, v))
    scores = (q @ transpose(k, (0, 1, 3, 2))) * (1.0 / math.sqrt(width) if scale is None else scale)
    if attn_logits_soft_cap is not None:
        scores = tanh(scores / attn_logits_soft_cap) * attn_logits_soft_cap
    if bias is not None:
        scores = scores + cast(bias, scores.dtype)
    least = -0.7 * 3.4e38 if scores.dtype != "float16" else -0.7 * 65504.0
    if mask is not None:
        scores = where(mask, scores, least)
    if is_causal:
        rows, columns = scores.shape[-2:]
        scores = where(_causal(rows, columns), scores, least)
    return transpose(softmax(scores) @ v, from_heads)


def _repeat_heads(x: Tensor, groups: int) -> Tensor:
    return repeat(x, groups, 2)


def _causal(rows: Any, columns: Any) -> Tensor:
    return iota((rows, columns), 1) <= iota((rows, columns), 0)


@operation
def depth_to_space(x: Any, block_size: int, data_format: str | None = None) -> Tensor:
    """Blocks of channels moved into a grid: (B, H, W, C) to (B, H b, W b, C / b ** 2)."""
    tensor = convert(x)
    first = data_format == "channels_first"
    if first:
        tensor = transpose(tensor, (0, 2, 3, 1))
    batch, height, width, channels = tensor.shape
    b = int(block_size)
    depth = channels // (b * b)
    grid = tensor.reshape((batch, height, width, b, b, depth))
    spread = transpose(grid, (0, 1, 3, 2, 4, 5)).reshape((batch, height * b, width * b, depth))
    return transpose(spread, (0, 3, 1, 2)) if first else spread


@operation
def space_to_depth(x: Any, block_size: int, data_format: str | None = None) -> Tensor:
    """Grids of pixels moved into channels: (B, H, W, C) to (B, H / b, W / b, C b ** 2)."""
    tensor = convert(x)
    first = data_format == "channels_first"
    if first:
        tensor = transpose(tensor, (0, 2, 3, 1))
    batch, height, width, channels = tensor.shape
    b = int(block_size)
    grid = tensor.reshape((batch, height // b, b, width // b, b, channels))
    packed = transpose(grid, (0, 1, 3, 2, 4, 5))
    packed = packed.reshape((batch, height // b, width // b, b * b * channels))
    return transpose(packed, (0, 3, 1, 2)) if first else packed


@operation
def psnr(x1: Any, x2: Any, max_val: float) -> Tensor:
    """The peak signal-to-noise ratio in decibels of two images with values up to `max_val`."""
    difference = floating(x1) - floating(x2)
    error = mean(difference * difference)
    return 20.0 * math.log10(max_val) - 10.0 / math.log(10.0) * log(error)
