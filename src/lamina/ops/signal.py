"""Fourier transforms and short-time spectra; a complex tensor is a pair (real, imaginary)."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina import config
from lamina.errors import ShapeError
from lamina.ops.creation import zeros_like
from lamina.ops.dispatch import operation
from lamina.ops.elementwise import cos, sin
from lamina.ops.elementwise import where as where_
from lamina.ops.linear import matmul
from lamina.ops.shaping import concatenate, flip, pad, swapaxes
from lamina.tensor import Tensor, cast, convert
from lamina.types import FLOATS

Complex = tuple[Tensor, Tensor]


def _floating(x: Any) -> Tensor:
    tensor = convert(x)
    return tensor if tensor.dtype in FLOATS else cast(tensor, config.floatx())


def _waves(length: int, outputs: int, dtype: str, sign: float) -> Complex:
    """The matrices (length, outputs) of cosines and sines of the transform."""
    # The angle is reduced in whole numbers first, so that long transforms keep their precision.
    turns = np.outer(np.arange(length), np.arange(outputs)) % length
    angle = sign * 2.0 * np.pi * turns / length
    return convert(np.cos(angle), dtype), convert(np.sin(angle), dtype)


def _transform(real: Tensor, imaginary: Tensor | None, sign: float) -> Complex:
    """The transform of the last axis: by halves while its length is even, then as a product."""
    length = int(real.shape[-1])  # type: ignore[arg-type]
    if length % 2 or length <= 32:
        cosine, sine = _waves(length, length, real.dtype, sign)
        if imaginary is None:
            return matmul(real, cosine), matmul(real, sine)
        return (
            matmul(real, cosine) - matmul(imaginary, sine),
            matmul(real, sine) + matmul(imaginary, cosine),
        )
    # Cooley & Tukey 1965: even and odd places apart.
    parts = [
        _transform(real[..., k::2], None if imaginary is None else imaginary[..., k::2], sign)
        for k in (0, 1)
    ]
    angle = sign * 2.0 * np.pi * np.arange(length // 2) / length
    cosine, sine = convert(np.cos(angle), real.dtype), convert(np.sin(angle), real.dtype)
    (even, even_), (odd, odd_) = parts
    turned, turned_ = odd * cosine - odd_ * sine, odd * sine + odd_ * cosine
    return (
        concatenate([even + turned, even - turned], -1),
        concatenate([even_ + turned_, even_ - turned_], -1),
    )


def _pair(x: Any) -> Complex:
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise ShapeError("a complex tensor is a pair (real, imaginary)")
    return _floating(x[0]), _floating(x[1])


@operation
def fft(x: Any) -> Complex:
    """The discrete Fourier transform of the last axis of a pair (real, imaginary)."""
    return _transform(*_pair(x), -1.0)


def _inverse(x: Complex) -> Complex:
    real, imaginary = _transform(*x, 1.0)
    length = int(real.shape[-1])  # type: ignore[arg-type]
    return real / length, imaginary / length


def _second(x: Complex, transform: Any) -> Complex:
    real, imaginary = transform((swapaxes(x[0], -1, -2), swapaxes(x[1], -1, -2)))
    return swapaxes(real, -1, -2), swapaxes(imaginary, -1, -2)


@operation
def fft2(x: Any) -> Complex:
    """The Fourier transform of the last two axes."""
    return _second(fft(x), fft)


@operation
def ifft2(x: Any) -> Complex:
    """The inverse Fourier transform of the last two axes."""
    return _second(_inverse(_pair(x)), _inverse)


def _fitted(x: Tensor, length: int) -> Tensor:
    """The last axis cut or filled with zeros to `length`."""
    here = int(x.shape[-1])  # type: ignore[arg-type]
    if here >= length:
        return x[..., :length]
    return pad(x, [(0, 0)] * (x.ndim - 1) + [(0, length - here)])


@operation
def rfft(x: Any, fft_length: int | None = None) -> Complex:
    """The first n / 2 + 1 terms of the Fourier transform of real numbers."""
    real = _floating(x)
    length = int(real.shape[-1]) if fft_length is None else int(fft_length)  # type: ignore[arg-type]
    whole, whole_ = _transform(_fitted(real, length), None, -1.0)
    half = length // 2 + 1
    return whole[..., :half], whole_[..., :half]


@operation
def irfft(x: Any, fft_length: int | None = None) -> Tensor:
    """The real numbers whose `rfft` is x."""
    real, imaginary = _pair(x)
    length = 2 * (int(real.shape[-1]) - 1) if fft_length is None else int(fft_length)  # type: ignore[arg-type]
    half = length // 2 + 1
    real, imaginary = _fitted(real, half), _fitted(imaginary, half)
    # The imaginary parts of the first and, for an even length, the last term do not count.
    count = half - 1 if length % 2 == 0 else half
    inner = imaginary[..., 1:count]
    edge = zeros_like(imaginary[..., :1])
    last = [edge] if length % 2 == 0 else []
    whole = concatenate([real, flip(real[..., 1:count], -1)], -1)
    whole_ = concatenate([edge, inner, *last, -flip(inner, -1)], -1)
    return _transform(whole, whole_, 1.0)[0] / length


@operation
def extract_sequences(x: Any, sequence_length: int, sequence_stride: int) -> Tensor:
    """Windows of the last axis: (..., samples) to (..., frames, sequence_length)."""
    tensor = convert(x)
    samples = int(tensor.shape[-1])  # type: ignore[arg-type]
    if samples < sequence_length:
        raise ShapeError(
            f"extract_sequences: {samples} samples hold no window of {sequence_length}"
        )
    frames = 1 + (samples - sequence_length) // sequence_stride
    places = np.arange(frames)[:, None] * sequence_stride + np.arange(sequence_length)[None, :]
    return tensor[..., places.astype(np.int32)]


def _window(window: Any, length: int, width: int, dtype: str) -> Tensor:
    """A window of `length` points in the middle of `width`."""
    if window is None:
        curve = np.ones(length)
    elif isinstance(window, str):
        if window not in ("hann", "hamming"):
            raise ShapeError(f"stft: the window is 'hann', 'hamming' or an array, got {window!r}")
        a = 0.5 if window == "hann" else 0.54
        curve = a - (1 - a) * np.cos(2 * np.pi * np.arange(length) / length)
    else:
        curve = np.asarray(convert(window).numpy(), np.float64)
    left = (width - length) // 2
    return convert(np.pad(curve, (left, width - length - left)), dtype)


@operation
def stft(
    x: Any,
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    window: Any = "hann",
    center: bool = True,
) -> Complex:
    """The short-time Fourier transform: (..., samples) to pairs (..., frames, fft_length / 2 + 1).

    window   "hann" or "hamming" (periodic), an array, or None
    center   reflect the ends, so that frame k has its middle at sample k * sequence_stride
    """
    tensor = _floating(x)
    if center:
        widths = [(0, 0)] * (tensor.ndim - 1) + [(fft_length // 2, fft_length // 2)]
        tensor = pad(tensor, widths, mode="reflect")
    frames = extract_sequences(tensor, fft_length, sequence_stride)
    return rfft(frames * _window(window, sequence_length, fft_length, tensor.dtype), fft_length)


@operation
def istft(
    x: Any,
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    length: int | None = None,
    window: Any = "hann",
    center: bool = True,
) -> Tensor:
    """The samples whose `stft` is x, by weighted overlap-add (Griffin & Lim 1984)."""
    real, imaginary = _pair(x)
    curve = _window(window, sequence_length, fft_length, real.dtype)
    frames = irfft((real, imaginary), fft_length) * curve
    total = _overlapped(frames, sequence_stride)
    count = int(frames.shape[-2])  # type: ignore[arg-type]
    weight = _overlapped(
        (curve * curve).reshape((1, -1)) * _ones(count, real.dtype), sequence_stride
    )
    result = where_(weight > 1e-8, total / where_(weight > 1e-8, weight, 1.0), total)
    start = fft_length // 2 if center else 0
    stop = (
        start + length
        if length is not None
        else (
            int(result.shape[-1]) - start  # type: ignore[arg-type]
        )
    )
    return _fitted(result[..., start:stop], stop - start)


def _ones(count: int, dtype: str) -> Tensor:
    return convert(np.ones((count, 1)), dtype)


def _overlapped(frames: Tensor, stride: int) -> Tensor:
    """Frames (..., n, width) added up, each `stride` samples behind the one before."""
    count, width = (int(size) for size in frames.shape[-2:])  # type: ignore[arg-type]
    samples = (count - 1) * stride + width
    pieces = -(-width // stride)
    padded = pad(frames, [(0, 0)] * (frames.ndim - 2) + [(0, pieces), (0, pieces * stride - width)])
    lead = frames.shape[:-2]
    blocks = padded.reshape((*lead, count + pieces, pieces, stride))
    total: Any = None
    for k in range(pieces):
        part = blocks[..., :, k, :].reshape((*lead, (count + pieces) * stride))
        shifted = pad(part, [(0, 0)] * len(lead) + [(k * stride, 0)])[..., :samples]
        shifted = _fitted(shifted, samples)
        total = shifted if total is None else total + shifted
    return total  # type: ignore[no-any-return]  # there is at least one piece


@operation
def polar(abs_: Any, angle: Any) -> Complex:
    """The complex numbers of these sizes and angles, as a pair."""
    size, turn = _floating(abs_), _floating(angle)
    return size * cos(turn), size * sin(turn)
