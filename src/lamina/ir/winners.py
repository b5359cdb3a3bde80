"""Gradients of a convolution whose result is max-pooled, taken at the pooling's winners alone.

Of the cells of a pooling window only the largest receives gradient. So three quarters of the
gradient of a convolution behind a 2 x 2 pooling are zeros, and these ops never write them down:
they take the gradient of the pooled values and the places of the winners. Behind a maximum over
all positions hardly any cell receives gradient, but several may, because equal maxima share it:
there the gradient is written down, and ops pass over its zeros. All are made by
`transform.winners`, after differentiation, and have no gradients of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.errors import ShapeError, layout
from lamina.ir.graph import Op
from lamina.types import Type


@dataclass(frozen=True)
class WindowArgMax(Op):
    """Where the maximum of each pooling window lies: x (batch, H, W, C) -> int32 like the pooling.

    Windows of `size` stand side by side, without padding. A place is the position in the window,
    row by row; of equal cells the first wins, as in `Window`.
    """

    size: tuple[int, int]

    def infer(self, x: Type) -> Type:
        batch, height, width, channels = x.shape
        shape = (batch, height // self.size[0], width // self.size[1], channels)
        return Type(shape, "int32")

    def numpy(self, x: Any) -> Any:
        rows, columns = self.size
        batch, height, width, channels = x.shape
        high, wide = height // rows, width // columns
        cells = x[:, : high * rows, : wide * columns].reshape(
            batch, high, rows, wide, columns, channels
        )
        cells = cells.transpose(0, 1, 3, 5, 2, 4).reshape(batch, high, wide, channels, -1)
        return cells.argmax(axis=-1).astype(np.int32)


@dataclass(frozen=True)
class WinnerFilterGrad(Op):
    """The filter's gradient: x (batch, H, W, C), places and g (batch, h, w, F) -> (F, *kernel, C).

    `places` are positions in windows of `size`. The convolution has stride 1 and no padding.
    """

    kernel: tuple[int, int]
    size: tuple[int, int]

    def infer(self, x: Type, places: Type, g: Type) -> Type:
        _check("winner filter gradient", places, g)
        return Type((g.shape[-1], *self.kernel, x.shape[-1]), x.dtype)

    def numpy(self, x: Any, places: Any, g: Any) -> Any:
        rows = np.arange(len(x))[:, None, None, None]
        top, left = _cells(places, self.size)
        result = np.zeros((g.shape[-1], *self.kernel, x.shape[-1]), x.dtype)
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                result[:, i, j] = np.einsum("bhwf,bhwfc->fc", g, x[rows, top + i, left + j])
        return result


@dataclass(frozen=True)
class WinnerInputGrad(Op):
    """The input's gradient: places and g (batch, h, w, F), w (F, kh, kw, C) -> (batch, *image, C).

    `places` are positions in windows of `size`.
    """

    image: tuple[int, int]
    size: tuple[int, int]

    def infer(self, places: Type, g: Type, w: Type) -> Type:
        _check("winner input gradient", places, g)
        return Type((g.shape[0], *self.image, w.shape[-1]), g.dtype)

    def numpy(self, places: Any, g: Any, w: Any) -> Any:
        result = np.zeros((len(g), *self.image, w.shape[-1]), g.dtype)
        rows = np.arange(len(g))[:, None, None, None]
        top, left = _cells(places, self.size)
        for i in range(w.shape[1]):
            for j in range(w.shape[2]):
                np.add.at(result, (rows, top + i, left + j), g[..., None] * w[:, i, j])
        return result


@dataclass(frozen=True)
class SparseFilterGrad(Op):
    """The filter's gradient: x (batch, H, W, C), g (batch, h, w, F) of few values but zero.

    The result is (F, *kernel, C). The convolution has stride 1 and no padding.
    """

    kernel: tuple[int, int]

    def infer(self, x: Type, g: Type) -> Type:
        return Type((g.shape[-1], *self.kernel, x.shape[-1]), x.dtype)

    def numpy(self, x: Any, g: Any) -> Any:
        return WinnerFilterGrad(self.kernel, (1, 1)).numpy(x, np.zeros(g.shape, np.int32), g)


@dataclass(frozen=True)
class SparseInputGrad(Op):
    """The input's gradient: g (batch, h, w, F) of few values but zero, w (F, kh, kw, C).

    The result is (batch, *image, C). The convolution has stride 1 and no padding.
    """

    image: tuple[int, int]

    def infer(self, g: Type, w: Type) -> Type:
        return Type((g.shape[0], *self.image, w.shape[-1]), g.dtype)

    def numpy(self, g: Any, w: Any) -> Any:
        return WinnerInputGrad(self.image, (1, 1)).numpy(np.zeros(g.shape, np.int32), g, w)


def _cells(places: Any, size: tuple[int, int]) -> tuple[Any, Any]:
    """(row, column) in the image of positions in windows (batch, h, w, F)."""
    below, beside = np.divmod(places, size[1])
    _, high, wide, _ = places.shape
    return (
        np.arange(high)[:, None, None] * size[0] + below,
        np.arange(wide)[:, None] * size[1] + beside,
    )


def _check(what: str, places: Type, g: Type) -> None:
    if places.dtype != "int32" or places.shape != g.shape:
        raise ShapeError(
            layout(
                f"{what}: places and gradient differ.",
                [("places", str(places)), ("gradient", str(g))],
            )
        )
