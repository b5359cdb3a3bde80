"""Layers that add noise while training, and pass their inputs through otherwise."""

from __future__ import annotations

import math
from typing import Any

from lamina import config, ops, random
from lamina.errors import ShapeError
from lamina.layers.layer import Layer
from lamina.layers.spec import InputSpec
from lamina.random import SeedGenerator


class _Noise(Layer):
    """Keeps a random generator; computes `_noisy` while training."""

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    def _is_active(self) -> bool:
        return True

    def _noisy(self, inputs: Any) -> Any:
        raise NotImplementedError

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self._noisy(inputs) if training and self._is_active() else inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


def _share(layer: Layer, rate: Any) -> float:
    if not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
        raise ValueError(f"{layer.name}: rate is a number from 0 to 1, got {rate!r}")
    return float(rate)


class Dropout(_Noise):
    """A share `rate` of the elements set to 0, the others scaled by 1 / (1 - rate).

    noise_shape   the shape of the mask, which broadcasts; None in it: the size of the inputs

    source   Srivastava et al. 2014
    """

    def __init__(
        self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, **kwargs)
        self.rate = _share(self, rate)
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def _is_active(self) -> bool:
        return self.rate > 0

    def _noisy(self, inputs: Any) -> Any:
        return random.dropout(inputs, self.rate, self._mask_shape(inputs), self.seed_generator)

    def _mask_shape(self, inputs: Any) -> Any:
        if self.noise_shape is not None and len(self.noise_shape) != len(inputs.shape):
            raise ShapeError(
                f"{self.name}: noise_shape {self.noise_shape} has not as many axes as the inputs "
                f"{tuple(inputs.shape)}"
            )
        return self.noise_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "noise_shape": self.noise_shape}


class _SpatialDropout(Dropout):
    count = 2

    def __init__(
        self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.data_format = data_format or config.image_data_format()
        self.input_spec = InputSpec(ndim=self.count + 2)

    def _mask_shape(self, inputs: Any) -> Any:
        if self.count > 1 and self.data_format == "channels_first":
            return (None, None, *(1,) * self.count)
        return (None, *(1,) * self.count, None)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("noise_shape")
        config.pop("trainable")  # Keras's constructor takes none here
        return {**config, "data_format": self.data_format}


class SpatialDropout1D(_SpatialDropout):
    """Whole channels of (batch, time, channels) set to 0 (Tompson et al. 2014)."""

    count = 1

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("data_format")
        return config


class SpatialDropout2D(_SpatialDropout):
    """Whole channels of images set to 0."""


class SpatialDropout3D(_SpatialDropout):
    """Whole channels of volumes set to 0."""

    count = 3


class GaussianNoise(_Noise):
    """Normal noise with standard deviation `stddev` added."""

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        if not stddev >= 0:
            raise ValueError(f"{self.name}: stddev is a number of at least 0, got {stddev!r}")
        self.stddev = stddev

    def _is_active(self) -> bool:
        return self.stddev > 0

    def _noisy(self, inputs: Any) -> Any:
        return inputs + random.normal(
            inputs.shape, stddev=self.stddev, dtype=inputs.dtype, seed=self.seed_generator
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stddev": self.stddev}


class GaussianDropout(_Noise):
    """Multiplied by normal noise of mean 1 and variance rate / (1 - rate)."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.rate = _share(self, rate)

    def _is_active(self) -> bool:
        return 0 < self.rate < 1

    def _noisy(self, inputs: Any) -> Any:
        spread = math.sqrt(self.rate / (1.0 - self.rate))
        return inputs * random.normal(
            inputs.shape, 1.0, spread, dtype=inputs.dtype, seed=self.seed_generator
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


class AlphaDropout(_Noise):
    """Dropout that keeps mean and variance, for SELU networks (Klambauer et al. 2017)."""

    def __init__(
        self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, **kwargs)
        self.rate = _share(self, rate)
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def _is_active(self) -> bool:
        return 0 < self.rate < 1

    def _noisy(self, inputs: Any) -> Any:
        alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
        low = -alpha * scale
        shape = (
            inputs.shape
            if self.noise_shape is None
            else tuple(
                here if wanted is None else wanted
                for wanted, here in zip(self.noise_shape, inputs.shape, strict=True)
            )
        )
        kept = random.bernoulli(shape, 1.0 - self.rate, self.seed_generator)
        # The affine map that brings mean and variance back to 0 and 1.
        slope = ((1 - self.rate) * (1 + self.rate * low**2)) ** -0.5
        return slope * ops.where(kept, inputs, low) - slope * low * self.rate

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "noise_shape": self.noise_shape}
