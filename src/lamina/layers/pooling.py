"""Pooling: the largest value, the mean or the sum of windows, or of whole sequences and images."""

from __future__ import annotations

from typing import Any, ClassVar

from lamina import config, ops
from lamina.layers.convolution import FORMATS
from lamina.layers.layer import Layer
from lamina.layers.spec import InputSpec
from lamina.ops.conv import per_axis, sum_pool


def _data_format(layer: Layer, given: str | None) -> str:
    form = given or config.image_data_format()
    if form not in FORMATS:
        raise ValueError(f"{layer.name}: data_format is one of {', '.join(FORMATS)}, got {form!r}.")
    return form


class Pooling(Layer):
    """What is computed for each window of a tensor (batch, spatial..., channels).

    pool_size     size of the window
    strides       step of the window; None: its size
    padding       "valid" or "same"; padding cells count nothing
    data_format   "channels_last" or "channels_first"
    """

    RANK: ClassVar[int]

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.pool_size = per_axis(pool_size, self.RANK, f"{self.name}: pool_size")
        steps = pool_size if strides is None else strides
        self.strides = per_axis(steps, self.RANK, f"{self.name}: strides")
        self.padding = padding.lower()
        if self.padding not in {"valid", "same"}:
            raise ValueError(f"{self.name}: padding is 'valid' or 'same', got {padding!r}.")
        self.data_format = _data_format(self, data_format)
        self.input_spec = InputSpec(ndim=self.RANK + 2)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "padding": self.padding,
            "strides": self.strides,
            "data_format": self.data_format,
        }


class _Max(Pooling):
    def call(self, inputs: Any) -> Any:
        return ops.max_pool(inputs, self.pool_size, self.strides, self.padding, self.data_format)


class _Average(Pooling):
    def call(self, inputs: Any) -> Any:
        return ops.average_pool(
            inputs, self.pool_size, self.strides, self.padding, self.data_format
        )


class _Sum(Pooling):
    def call(self, inputs: Any) -> Any:
        return sum_pool(inputs, self.pool_size, self.strides, self.padding, self.data_format)


class MaxPooling1D(_Max):
    """The largest value of each window of a sequence (batch, steps, channels).

    >>> import numpy as np
    >>> MaxPooling1D(2)(np.arange(6.0).reshape(1, 6, 1)).numpy().ravel().tolist()
    [1.0, 3.0, 5.0]
    """

    RANK = 1


class MaxPooling2D(_Max):
    """The largest value of each window of an image (batch, height, width, channels)."""

    RANK = 2


class MaxPooling3D(_Max):
    """The largest value of each window of a volume (batch, a, b, c, channels)."""

    RANK = 3


class AveragePooling1D(_Average):
    """The mean of each window of a sequence (batch, steps, channels)."""

    RANK = 1


class AveragePooling2D(_Average):
    """The mean of each window of an image (batch, height, width, channels)."""

    RANK = 2


class AveragePooling3D(_Average):
    """The mean of each window of a volume (batch, a, b, c, channels)."""

    RANK = 3


class SumPooling1D(_Sum):
    """The sum of each window of a sequence; lamina's own, for counts and energies."""

    RANK = 1


class SumPooling2D(_Sum):
    """The sum of each window of an image; lamina's own, for counts and energies."""

    RANK = 2


class GlobalPooling(Layer):
    """One value per channel of a tensor (batch, spatial..., channels): (batch, channels).

    keepdims   keep the spatial axes, with size one
    """

    RANK: ClassVar[int]

    def __init__(
        self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.data_format = _data_format(self, data_format)
        self.keepdims = keepdims
        self.input_spec = InputSpec(ndim=self.RANK + 2)

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes."""
        first = 2 if self.data_format == "channels_first" else 1
        return tuple(range(first, first + self.RANK))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "data_format": self.data_format,
            "keepdims": self.keepdims,
        }


class _GlobalMax(GlobalPooling):
    def call(self, inputs: Any) -> Any:
        return ops.max(inputs, axis=self.axes, keepdims=self.keepdims)


class _GlobalAverage(GlobalPooling):
    def call(self, inputs: Any) -> Any:
        return ops.mean(inputs, axis=self.axes, keepdims=self.keepdims)


class GlobalMaxPooling1D(_GlobalMax):
    """The largest value of each channel of a sequence."""

    RANK = 1


class GlobalMaxPooling2D(_GlobalMax):
    """The largest value of each channel of an image."""

    RANK = 2


class GlobalMaxPooling3D(_GlobalMax):
    """The largest value of each channel of a volume."""

    RANK = 3


class GlobalAveragePooling1D(_GlobalAverage):
    """The mean of each channel of a sequence; steps that a mask leaves out do not count."""

    RANK = 1
    supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is None:
            return super().call(inputs)
        (steps,) = self.axes
        kept = ops.expand_dims(ops.cast(mask, inputs.dtype), 2 if steps == 1 else 1)
        total = ops.sum(inputs * kept, axis=steps, keepdims=self.keepdims)
        return total / ops.sum(kept, axis=steps, keepdims=self.keepdims)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None


class GlobalAveragePooling2D(_GlobalAverage):
    """The mean of each channel of an image."""

    RANK = 2


class GlobalAveragePooling3D(_GlobalAverage):
    """The mean of each channel of a volume."""

    RANK = 3


class AdaptivePooling(Layer):
    """Pooling over windows that are laid out so that exactly `output_size` come out."""

    RANK: ClassVar[int]

    def __init__(self, output_size: Any, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_size = per_axis(output_size, self.RANK, f"{self.name}: output_size")
        self.data_format = _data_format(self, data_format)
        self.input_spec = InputSpec(ndim=self.RANK + 2)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "data_format": self.data_format,
        }


class _AdaptiveMax(AdaptivePooling):
    def call(self, inputs: Any) -> Any:
        return ops.adaptive_max_pool(inputs, self.output_size, self.data_format)


class _AdaptiveAverage(AdaptivePooling):
    def call(self, inputs: Any) -> Any:
        return ops.adaptive_average_pool(inputs, self.output_size, self.data_format)


class AdaptiveMaxPooling1D(_AdaptiveMax):
    """The largest values of `output_size` windows of a sequence."""

    RANK = 1


class AdaptiveMaxPooling2D(_AdaptiveMax):
    """The largest values of `output_size` windows of an image."""

    RANK = 2


class AdaptiveMaxPooling3D(_AdaptiveMax):
    """The largest values of `output_size` windows of a volume."""

    RANK = 3


class AdaptiveAveragePooling1D(_AdaptiveAverage):
    """The means of `output_size` windows of a sequence."""

    RANK = 1


class AdaptiveAveragePooling2D(_AdaptiveAverage):
    """The means of `output_size` windows of an image."""

    RANK = 2


class AdaptiveAveragePooling3D(_AdaptiveAverage):
    """The means of `output_size` windows of a volume."""

    RANK = 3


MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
GlobalMaxPool1D, GlobalMaxPool2D = GlobalMaxPooling1D, GlobalMaxPooling2D
GlobalMaxPool3D = GlobalMaxPooling3D
GlobalAvgPool1D, GlobalAvgPool2D = GlobalAveragePooling1D, GlobalAveragePooling2D
GlobalAvgPool3D = GlobalAveragePooling3D
