"""Image files and arrays, through Pillow (the extra `images`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lamina.errors import LaminaError, MissingExtraError, ShapeError, layout

MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
FILTERS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")


class ImageError(LaminaError, ValueError):
    """A file is no image that can be read, or an array is none that can be written."""


def _pillow() -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingExtraError("pillow", "images", "reading and writing images") from None
    return Image, ImageOps


def load_img(
    path: str | Path,
    color_mode: str = "rgb",
    target_size: tuple[int, int] | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> Any:
    """Read an image file as a Pillow image, turned upright as its camera noted.

    path               any format that Pillow reads
    color_mode         "grayscale", "rgb" or "rgba"
    target_size        (height, width) to resize to
    interpolation      of the resizing: nearest, bilinear, bicubic, hamming, box or lanczos
    keep_aspect_ratio  cut the middle out before resizing, rather than distort
    raises             FileNotFoundError; ImageError if the file is no image; MissingExtraError
    """
    pillow, operations = _pillow()
    if color_mode not in MODES:
        raise ValueError(f"color_mode must be one of {', '.join(MODES)}, got {color_mode!r}")
    if interpolation not in FILTERS:
        raise ValueError(f"interpolation must be one of {', '.join(FILTERS)}")
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no image file {str(path)!r}")
    try:
        with pillow.open(file) as opened:
            picture = operations.exif_transpose(opened)
            if picture.mode in {"I;16", "I", "F"}:
                picture = _eight_bits(picture, pillow)
            if color_mode != "rgba" and picture.mode in {"RGBA", "LA", "P", "PA"}:
                # What is transparent is seen as paper.
                picture = picture.convert("RGBA")
                paper = pillow.new("RGBA", picture.size, "white")
                picture = pillow.alpha_composite(paper, picture)
            picture = picture.convert(MODES[color_mode])
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise ImageError(
            layout("the file is no image that can be read.", [("file", str(path))])
        ) from error
    if target_size is None:
        return picture
    height, width = target_size
    resample = getattr(pillow.Resampling, interpolation.upper())
    if keep_aspect_ratio:
        return operations.fit(picture, (width, height), resample)
    return picture.resize((width, height), resample)


def _eight_bits(picture: Any, pillow: Any) -> Any:
    """A picture of 16 or more bits, stretched to 8."""
    values = np.asarray(picture, np.float64)
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255.0 / (high - low) if high > low else 0.0)
    return pillow.fromarray(np.rint(scaled).astype(np.uint8))


def img_to_array(img: Any, data_format: str | None = None, dtype: str | None = None) -> np.ndarray:
    """Turn a Pillow image into an array (height, width, channels), float32 from 0 to 255."""
    array = np.asarray(img, dtype=dtype or "float32")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise ShapeError(f"an image has 2 or 3 axes, got {array.shape}")
    return array.transpose(2, 0, 1) if data_format == "channels_first" else array


def array_to_img(
    x: Any, data_format: str | None = None, scale: bool = True, dtype: str | None = None
) -> Any:
    """Turn an array (height, width, 1, 3 or 4) into a Pillow image.

    scale    stretch the values to 0 to 255; otherwise they must lie there already
    """
    pillow, _ = _pillow()
    array = np.asarray(x, dtype=dtype or "float32")
    if array.ndim != 3:
        raise ShapeError(f"array_to_img: expected (height, width, channels), got {array.shape}")
    if data_format == "channels_first":
        array = array.transpose(1, 2, 0)
    if scale:
        array = array - array.min()
        largest = array.max()
        array = array * (255.0 / largest) if largest else array
    channels = array.shape[2]
    if channels not in {1, 3, 4}:
        raise ShapeError(f"array_to_img: expected 1, 3 or 4 channels, got {channels}")
    bits = array.astype(np.uint8)
    return pillow.fromarray(bits[:, :, 0] if channels == 1 else bits)


def save_img(
    path: str | Path,
    x: Any,
    data_format: str | None = None,
    file_format: str | None = None,
    scale: bool = True,
    **kwargs: Any,
) -> None:
    """Write an array (height, width, channels) as an image file; the ending names the format."""
    picture = array_to_img(x, data_format=data_format, scale=scale)
    if picture.mode == "RGBA" and str(path).lower().endswith((".jpg", ".jpeg")):
        picture = picture.convert("RGB")
    picture.save(path, format=file_format, **kwargs)
