"""Layers that move elements: reshape, transpose, repeat, pad, crop, enlarge."""

from __future__ import annotations

from typing import Any

from lamina import config, ops
from lamina.errors import ShapeError
from lamina.layers.layer import Layer
from lamina.layers.spec import InputSpec


def _data_format(layer: Layer, given: str | None) -> str:
    """The checked `data_format` argument of a layer; None: as configured."""
    form = given or config.image_data_format()
    if form not in ("channels_last", "channels_first"):
        raise ValueError(
            f"{layer.name}: data_format is 'channels_last' or 'channels_first', got {given!r}"
        )
    return form


class Flatten(Layer):
    """(batch, a, b, ...) to (batch, a * b * ...).

    data_format   "channels_first" moves the channels behind first, as Keras does
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = _data_format(self, data_format)
        self.input_spec = InputSpec(min_ndim=1)
        self.built = True

    def call(self, inputs: Any) -> Any:
        rank = len(inputs.shape)
        if self.data_format == "channels_first" and rank > 2:
            inputs = ops.transpose(inputs, (0, *range(2, rank), 1))
        if rank == 1:
            return ops.reshape(inputs, (-1, 1))
        return ops.reshape(inputs, (inputs.shape[0], -1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


class Reshape(Layer):
    """(batch, ...) to (batch, *target_shape); one size may be -1."""

    def __init__(self, target_shape: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(-1 if s is None else int(s) for s in target_shape)
        if sum(size == -1 for size in self.target_shape) > 1:
            raise ShapeError(f"{self.name}: one size may be -1, got {self.target_shape}")
        self.built = True

    def call(self, inputs: Any) -> Any:
        return ops.reshape(inputs, (inputs.shape[0], *self.target_shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "target_shape": self.target_shape}


class Permute(Layer):
    """The axes behind the batch in another order; `dims` counts them from 1."""

    def __init__(self, dims: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ShapeError(f"{self.name}: dims orders the axes from 1, got {self.dims}")
        self.input_spec = InputSpec(ndim=len(self.dims) + 1)
        self.built = True

    def call(self, inputs: Any) -> Any:
        return ops.transpose(inputs, (0, *self.dims))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dims": self.dims}


class RepeatVector(Layer):
    """(batch, features) to (batch, n, features)."""

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(n, int):
            raise TypeError(f"{self.name}: n is an integer, got {type(n).__name__}")
        self.n = n
        self.input_spec = InputSpec(ndim=2)
        self.built = True

    def call(self, inputs: Any) -> Any:
        return ops.repeat(ops.expand_dims(inputs, 1), self.n, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n": self.n}


def _pairs(name: str, value: Any, count: int) -> tuple[tuple[int, int], ...]:
    """(before, after) for each spatial axis: of one number, one each, or one pair each."""
    given = (value,) * count if isinstance(value, int) else tuple(value)
    if count == 1 and len(given) == 2 and all(isinstance(v, int) for v in given):
        given = (given,)
    if len(given) != count:
        raise ShapeError(f"{name}: expected an integer, or {count} integers or pairs, got {value}")
    pairs = tuple((v, v) if isinstance(v, int) else (int(v[0]), int(v[1])) for v in given)
    if any(side < 0 for pair in pairs for side in pair):
        raise ShapeError(f"{name}: the numbers of cells cannot be negative, got {value}")
    return pairs


class _Spatial(Layer):
    """A layer over `count` spatial axes, with the channels on either side of them."""

    count = 2

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = _data_format(self, data_format)
        self.input_spec = InputSpec(ndim=self.count + 2)
        self.built = True

    @property
    def first_axis(self) -> int:
        """The first spatial axis."""
        return 2 if self.count > 1 and self.data_format == "channels_first" else 1


class _ZeroPadding(_Spatial):
    def __init__(self, padding: Any = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self.padding = _pairs(self.name, padding, self.count)

    def call(self, inputs: Any) -> Any:
        widths = [(0, 0)] * (self.count + 2)
        widths[self.first_axis : self.first_axis + self.count] = self.padding
        return ops.pad(inputs, widths)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "padding": self.padding}
        if self.count == 1:
            config["padding"] = self.padding[0]
        return {**config, "data_format": self.data_format}


class ZeroPadding1D(_ZeroPadding):
    """Zeros before and behind the time axis of (batch, time, channels)."""

    count = 1


class ZeroPadding2D(_ZeroPadding):
    """Zeros around images: one number, (vertical, horizontal), or a pair for each."""


class ZeroPadding3D(_ZeroPadding):
    """Zeros around volumes: one number, one for each axis, or a pair for each."""

    count = 3


class _Cropping(_Spatial):
    def __init__(self, cropping: Any, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self.cropping = _pairs(self.name, cropping, self.count)

    def call(self, inputs: Any) -> Any:
        key: list[Any] = [slice(None)] * (self.count + 2)
        for axis, (before, after) in enumerate(self.cropping, start=self.first_axis):
            size = inputs.shape[axis]
            if before + after >= size:
                raise ShapeError(
                    f"{self.name}: cropping {before} + {after} leaves nothing of size {size} on "
                    f"axis {axis}"
                )
            key[axis] = slice(before, size - after)
        return inputs[tuple(key)]

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "cropping": self.cropping}
        if self.count == 1:
            return {**config, "cropping": self.cropping[0]}
        return {**config, "data_format": self.data_format}


class Cropping1D(_Cropping):
    """Steps cut off both ends of the time axis of (batch, time, channels)."""

    count = 1

    def __init__(self, cropping: Any = (1, 1), **kwargs: Any) -> None:
        super().__init__(cropping, **kwargs)


class Cropping2D(_Cropping):
    """Rows and columns cut off images: one number, one for each axis, or a pair for each."""

    def __init__(
        self, cropping: Any = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(cropping, data_format, **kwargs)


class Cropping3D(_Cropping):
    """Cells cut off volumes: one number, one for each axis, or a pair for each."""

    count = 3

    def __init__(
        self,
        cropping: Any = ((1, 1), (1, 1), (1, 1)),
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cropping, data_format, **kwargs)


class _UpSampling(_Spatial):
    def __init__(self, size: Any, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        sizes = (size,) * self.count if isinstance(size, int) else tuple(int(s) for s in size)
        if len(sizes) != self.count or min(sizes) < 1:
            raise ShapeError(f"{self.name}: size is {self.count} positive integers, got {size}")
        self.size = sizes

    def call(self, inputs: Any) -> Any:
        for axis, times in enumerate(self.size, start=self.first_axis):
            if times != 1:
                inputs = ops.repeat(inputs, times, axis=axis)
        return inputs

    def get_config(self) -> dict[str, Any]:
        if self.count == 1:
            return {**super().get_config(), "size": self.size[0]}
        return {**super().get_config(), "size": self.size, "data_format": self.data_format}


class UpSampling1D(_UpSampling):
    """Each time step repeated `size` times."""

    count = 1

    def __init__(self, size: Any = 2, **kwargs: Any) -> None:
        super().__init__(size, **kwargs)


class UpSampling2D(_UpSampling):
    """Images enlarged `size` times.

    interpolation   "nearest" repeats pixels; "bilinear" and others as `ops.image.resize`
    """

    def __init__(
        self,
        size: Any = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ) -> None:
        super().__init__(size, data_format, **kwargs)
        self.interpolation = interpolation.lower()

    def call(self, inputs: Any) -> Any:
        if self.interpolation == "nearest":
            return super().call(inputs)
        axis = self.first_axis
        wanted = (inputs.shape[axis] * self.size[0], inputs.shape[axis + 1] * self.size[1])
        return ops.image.resize(
            inputs, wanted, interpolation=self.interpolation, data_format=self.data_format
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "interpolation": self.interpolation}


class UpSampling3D(_UpSampling):
    """Volumes enlarged `size` times."""

    count = 3

    def __init__(
        self, size: Any = (2, 2, 2), data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(size, data_format, **kwargs)
