"""Images: resizing, cropping, and the random changes that enlarge a training set.

Images are (batch, height, width, channels) or one image without the first axis. The random layers
change images only in training, each image of a batch in its own way, and run inside the compiled
step. As in Keras, calling one by hand trains unless it is told otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lamina import config, ops, random
from lamina.errors import ShapeError, layout
from lamina.ir import indexing
from lamina.layers.layer import Layer
from lamina.tensor import Tensor, convert
from lamina.types import FLOATS

FILLS = ("reflect", "wrap", "constant", "nearest")
INTERPOLATIONS = ("nearest", "bilinear")
FLIPS = ("horizontal", "vertical", "horizontal_and_vertical")


class ImageLayer(Layer):
    """Base: brings images to (batch, height, width, channels) and back."""

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        kwargs.pop("bounding_box_format", None)
        super().__init__(**kwargs)
        self.data_format = data_format or config.image_data_format()
        if self.data_format not in {"channels_last", "channels_first"}:
            raise ValueError(
                f"{self.name}: data_format is 'channels_last' or 'channels_first', "
                f"got {data_format!r}."
            )

    def apply(self, images: Any) -> Any:
        """The changed images; overridden by every layer."""
        raise NotImplementedError

    def changed(self, images: Any) -> Any:
        """`apply` on images in any of the forms that the layer takes."""
        x = convert(images)
        if len(x.shape) not in (3, 4):
            raise ShapeError(
                layout(
                    f"{self.name}: expected images (batch, height, width, channels).",
                    [("inputs", str(x.node.type))],
                )
            )
        single, first = len(x.shape) == 3, self.data_format == "channels_first"
        x = ops.expand_dims(x, 0) if single else x
        x = ops.transpose(x, (0, 2, 3, 1)) if first else x
        x = self.apply(x)
        x = ops.transpose(x, (0, 3, 1, 2)) if first else x
        return ops.squeeze(x, 0) if single else x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


class Resizing(ImageLayer):
    """Images in another size; arguments as for `lamina.ops.image.resize`."""

    def __init__(
        self,
        height: int,
        width: int,
        interpolation: str = "bilinear",
        crop_to_aspect_ratio: bool = False,
        pad_to_aspect_ratio: bool = False,
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        antialias: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.height = height
        self.width = width
        self.interpolation = interpolation
        self.crop_to_aspect_ratio = crop_to_aspect_ratio
        self.pad_to_aspect_ratio = pad_to_aspect_ratio
        self.fill_mode = fill_mode
        self.fill_value = fill_value
        self.antialias = antialias

    def call(self, inputs: Any) -> Any:
        return self.changed(inputs)

    def apply(self, images: Any) -> Any:
        return ops.image.resize(
            images,
            (self.height, self.width),
            self.interpolation,
            self.antialias,
            self.crop_to_aspect_ratio,
            self.pad_to_aspect_ratio,
            self.fill_mode,
            self.fill_value,
            "channels_last",
        )

    def get_config(self) -> dict[str, Any]:
        names = (
            *("height", "width", "interpolation", "crop_to_aspect_ratio", "pad_to_aspect_ratio"),
            *("fill_mode", "fill_value", "antialias"),
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _cut(images: Any, height: int, width: int, top: Any, left: Any) -> Any:
    rows, _, _, channels = images.shape
    return ops.slice(images, (0, top, left, 0), (rows, height, width, channels))


class CenterCrop(ImageLayer):
    """The middle of each image; smaller images are cut to the wanted proportion and resized."""

    def __init__(
        self, height: int, width: int, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.height = height
        self.width = width

    def call(self, inputs: Any) -> Any:
        return self.changed(inputs)

    def apply(self, images: Any) -> Any:
        x: Any = ops.cast(images, self.compute_dtype)
        rows, columns = x.shape[1:3]
        if rows < self.height or columns < self.width:
            size = (self.height, self.width)
            return ops.image.resize(x, size, crop_to_aspect_ratio=True, data_format="channels_last")
        top, left = (rows - self.height) // 2, (columns - self.width) // 2
        return _cut(x, self.height, self.width, top, left)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "height": self.height, "width": self.width}


class RandomImageLayer(ImageLayer):
    """Base of the random ones: a generator, and the rule that only training changes anything."""

    def __init__(self, seed: Any = None, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self.seed = seed
        self.generator = random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = True) -> Any:
        x = convert(inputs)
        x = x if x.dtype in FLOATS else ops.cast(x, self.compute_dtype)
        return self.changed(x) if training else self.still(x)

    def still(self, images: Any) -> Any:
        """What comes out when nothing is to be changed."""
        return images

    def draw(self, images: Any, low: float = 0.0, high: float = 1.0) -> Tensor:
        """One number in [low, high) for each image, (batch, 1, 1, 1)."""
        shape = (images.shape[0], 1, 1, 1)
        return random.uniform(shape, low, high, dtype=images.dtype, seed=self.generator)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


def _range(layer: Layer, name: str, given: Any, low: float, high: float) -> tuple[float, float]:
    """A factor as a range: x means (-x, x), as far as that is allowed."""
    values = tuple(given) if isinstance(given, (tuple, list)) else (-abs(given), abs(given))
    if len(values) == 2:
        lower, upper = sorted(values)
        if not isinstance(given, (tuple, list)):
            lower = max(lower, low)
        if low <= lower and upper <= high:
            return float(lower), float(upper)
    raise ValueError(
        f"{layer.name}: {name} is a number or a pair of numbers in [{low}, {high}], got {given!r}."
    )


class RandomFlip(RandomImageLayer):
    """Mirror half of the images: "horizontal", "vertical", or each with its own chance."""

    def __init__(
        self,
        mode: str = "horizontal_and_vertical",
        seed: Any = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        if mode not in FLIPS:
            raise ValueError(f"{self.name}: mode is one of {', '.join(FLIPS)}, got {mode!r}.")
        self.mode = mode

    def apply(self, images: Any) -> Any:
        for name, axis in (("horizontal", 2), ("vertical", 1)):
            if name in self.mode:
                images = ops.where(self.draw(images) < 0.5, ops.flip(images, axis), images)
        return images

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode}


class RandomBrightness(RandomImageLayer):
    """Add the same random number to all pixels of an image.

    factor        a number, or a pair, in [-1, 1], as a share of `value_range`
    value_range   of the pixels, to which the result is clipped
    """

    def __init__(
        self, factor: Any, value_range: Any = (0, 255), seed: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, **kwargs)
        self.factor = _range(self, "factor", factor, -1.0, 1.0)
        self.value_range = sorted(value_range)

    def apply(self, images: Any) -> Any:
        low, high = self.value_range
        shift = self.draw(images, *self.factor) * (high - low)
        return ops.clip(images + shift, low, high)

    def get_config(self) -> dict[str, Any]:
        known = {"factor": self.factor, "value_range": self.value_range}
        return {**super().get_config(), **known}


class RandomContrast(RandomImageLayer):
    """Move the pixels of each channel towards their mean, or away from it.

    factor   a number, or a pair (lower, upper), in [0, 1]: distances from the mean are multiplied
             by a number in [1 - lower, 1 + upper]
    """

    def __init__(
        self, factor: Any, value_range: Any = (0, 255), seed: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, **kwargs)
        pair = factor if isinstance(factor, (tuple, list)) else (factor, factor)
        if len(pair) != 2 or not all(0.0 <= part <= 1.0 for part in pair):
            raise ValueError(
                f"{self.name}: factor is a number or a pair of numbers in [0, 1], got {factor!r}."
            )
        self.factor = tuple(pair)
        self.value_range = value_range

    def apply(self, images: Any) -> Any:
        strength = self.draw(images, 1.0 - self.factor[0], 1.0 + self.factor[1])
        mean = ops.mean(images, axis=(1, 2), keepdims=True)
        return ops.clip((images - mean) * strength + mean, *self.value_range)

    def get_config(self) -> dict[str, Any]:
        known = {"factor": self.factor, "value_range": self.value_range}
        return {**super().get_config(), **known}


class RandomCrop(RandomImageLayer):
    """A window at a random place, the same for a batch; the middle when not training."""

    def __init__(
        self,
        height: int,
        width: int,
        seed: Any = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.height = height
        self.width = width

    def still(self, images: Any) -> Any:
        return self._middle(images)

    def _middle(self, images: Any) -> Any:
        size = (self.height, self.width)
        return ops.image.resize(
            images, size, crop_to_aspect_ratio=True, data_format=self.data_format
        )

    def apply(self, images: Any) -> Any:
        rows, columns = images.shape[1:3]
        if rows < self.height or columns < self.width:
            size = (self.height, self.width)
            return ops.image.resize(
                images, size, crop_to_aspect_ratio=True, data_format="channels_last"
            )
        top, left = (
            ops.cast(ops.floor(random.uniform((), seed=self.generator) * (more + 1.0)), "int32")
            for more in (rows - self.height, columns - self.width)
        )
        return _cut(images, self.height, self.width, top, left)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "height": self.height, "width": self.width}


class RandomAffine(RandomImageLayer):
    """Base of layers that take each pixel from another place of the same image.

    fill_mode       what lies outside: "reflect" (d c b a | a b c d | d c b a), "wrap",
                    "nearest", or "constant" (`fill_value`)
    interpolation   "bilinear" or "nearest"
    """

    def __init__(
        self,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: Any = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        for what, given, known in (
            ("fill_mode", fill_mode, FILLS),
            ("interpolation", interpolation, INTERPOLATIONS),
        ):
            if given not in known:
                listed = ", ".join(known)
                raise ValueError(f"{self.name}: {what} is one of {listed}, got {given!r}.")
        self.fill_mode = fill_mode
        self.interpolation = interpolation
        self.fill_value = fill_value

    def places(self, images: Any, down: Any, across: Any) -> tuple[Any, Any]:
        """Where the pixel at (down, across) comes from, each (batch, pixels)."""
        raise NotImplementedError

    def apply(self, images: Any) -> Any:
        batch, rows, columns, channels = images.shape
        grid = np.indices((rows, columns)).reshape(2, 1, -1)
        down, across = (convert(part, images.dtype) for part in grid)
        down, across = self.places(images, down, across)
        table = ops.reshape(images, (batch, rows * columns, channels))
        if self.interpolation == "nearest":
            found = self._pixels(table, ops.round(down), ops.round(across), rows, columns)
            return ops.reshape(found, images.shape)
        top, left = ops.floor(down), ops.floor(across)
        below, right = down - top, across - left
        total: Any = 0.0
        for i, share in ((0, 1.0 - below), (1, below)):
            for j, part in ((0, 1.0 - right), (1, right)):
                pixels = self._pixels(table, top + i, left + j, rows, columns)
                total = total + pixels * ops.expand_dims(share * part, -1)
        return ops.reshape(total, images.shape)

    def _pixels(self, table: Any, down: Any, across: Any, rows: int, columns: int) -> Any:
        """Pixels at whole places (batch, n) of images (batch, rows * columns, channels)."""
        y, inside_y = self._folded(ops.cast(down, "int32"), rows)
        x, inside_x = self._folded(ops.cast(across, "int32"), columns)
        index = ops.broadcast_to(y * columns + x, (table.shape[0], down.shape[-1]))
        found = Tensor(indexing.gather(table.node, index.node, 1, 1))
        if self.fill_mode != "constant":
            return found
        inside = ops.expand_dims(ops.logical_and(inside_y, inside_x), -1)
        return ops.where(inside, found, self.fill_value)

    def _folded(self, place: Any, size: int) -> tuple[Any, Any]:
        inside = ops.logical_and(place >= 0, place < size)
        if self.fill_mode == "wrap":
            return place % size, inside
        if self.fill_mode == "reflect":
            turned = place % (2 * size)
            return ops.where(turned >= size, 2 * size - 1 - turned, turned), inside
        return ops.clip(place, 0, size - 1), inside

    def each(self, images: Any, limits: tuple[float, float]) -> Any:
        """One number in these limits for each image, (batch, 1)."""
        return ops.reshape(self.draw(images, *limits), (images.shape[0], 1))

    def get_config(self) -> dict[str, Any]:
        names = ("fill_mode", "interpolation", "fill_value")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class RandomTranslation(RandomAffine):
    """Shift each image by a random share of its height (down) and width (to the right)."""

    def __init__(self, height_factor: Any, width_factor: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.height_factor = height_factor
        self.width_factor = width_factor
        self._down = _range(self, "height_factor", height_factor, -1.0, 1.0)
        self._across = _range(self, "width_factor", width_factor, -1.0, 1.0)

    def places(self, images: Any, down: Any, across: Any) -> tuple[Any, Any]:
        rows, columns = images.shape[1:3]
        return (
            down - self.each(images, self._down) * rows,
            across - self.each(images, self._across) * columns,
        )

    def get_config(self) -> dict[str, Any]:
        known = {"height_factor": self.height_factor, "width_factor": self.width_factor}
        return {**super().get_config(), **known}


class RandomRotation(RandomAffine):
    """Turn each image about its middle, counter-clockwise by a random share of a full turn.

    factor   a number, or a pair, in [-1, 1]: 0.25 is a quarter
    """

    def __init__(self, factor: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = _range(self, "factor", factor, -1.0, 1.0)

    def places(self, images: Any, down: Any, across: Any) -> tuple[Any, Any]:
        rows, columns = images.shape[1:3]
        angle = self.each(images, self.factor) * (2.0 * math.pi)
        cosine, sine = ops.cos(angle), ops.sin(angle)
        y, x = down - (rows - 1) / 2.0, across - (columns - 1) / 2.0
        return (
            sine * x + cosine * y + (rows - 1) / 2.0,
            cosine * x - sine * y + (columns - 1) / 2.0,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


class RandomZoom(RandomAffine):
    """Show more of each image (positive factors) or less (negative ones), about its middle.

    width_factor   None: that of the height, so that proportions stay
    """

    def __init__(self, height_factor: Any, width_factor: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.height_factor = height_factor
        self.width_factor = width_factor
        self._down = _range(self, "height_factor", height_factor, -1.0, 1.0)
        self._across = (
            None if width_factor is None else _range(self, "width_factor", width_factor, -1.0, 1.0)
        )

    def places(self, images: Any, down: Any, across: Any) -> tuple[Any, Any]:
        rows, columns = images.shape[1:3]
        high = 1.0 + self.each(images, self._down)
        wide = high if self._across is None else 1.0 + self.each(images, self._across)
        middle = (rows - 1) / 2.0, (columns - 1) / 2.0
        return (down - middle[0]) * high + middle[0], (across - middle[1]) * wide + middle[1]

    def get_config(self) -> dict[str, Any]:
        known = {"height_factor": self.height_factor, "width_factor": self.width_factor}
        return {**super().get_config(), **known}
