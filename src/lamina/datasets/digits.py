"""1,797 handwritten digits of 8x8 pixels, which scikit-learn carries (Alpaydin & Kaynak 1998)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from lamina.errors import MissingExtraError, ShapeError

Pair: TypeAlias = tuple[np.ndarray, np.ndarray]

TEST = 360
SIDES = (8, 28)
FRAME, BOX = 28, 20


def load_data(side: int = 8) -> tuple[Pair, Pair]:
    """Return the images and labels; needs no network.

    side     8, the original images, or 28: enlarged to fit a box of 20x20 and centred by their
             mass in a frame of 28x28, as MNIST's are
    returns  (x_train, y_train), (x_test, y_test); uint8 (1437, side, side) and (360, side, side),
             0 is paper and 255 is ink; labels uint8 0 to 9. The test images are the last ones
             of the original order, in which one writer's digits stand together
    raises   MissingExtraError without scikit-learn; ShapeError for another side
    """
    if side not in SIDES:
        raise ShapeError(f"digits: side must be 8 or 28, got {side}")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError("scikit-learn", "data", "datasets.digits") from None
    bunch = load_digits()
    images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)
    labels = bunch.target.astype(np.uint8)
    if side == FRAME:
        images = enlarge(images)
    return (images[:-TEST], labels[:-TEST]), (images[-TEST:], labels[-TEST:])


def enlarge(images: np.ndarray) -> np.ndarray:
    """Enlarge 8x8 images to the look of MNIST's: 20x20, centred by mass in 28x28.

    images   (N, 8, 8) uint8
    returns  (N, 28, 28) uint8
    """
    weights = _interpolation(images.shape[1], BOX)
    large = np.einsum("ai,nij,bj->nab", weights, images.astype(np.float64), weights)
    large = np.clip(np.rint(large), 0, 255).astype(np.uint8)
    framed = np.zeros((len(images), FRAME, FRAME), np.uint8)
    grid = np.arange(BOX) + 0.5
    for image, frame in zip(large, framed, strict=True):
        mass = max(int(image.sum()), 1)
        centre = (image.sum(1) @ grid / mass, image.sum(0) @ grid / mass)
        row, column = (int(np.clip(round(FRAME / 2 - place), 0, FRAME - BOX)) for place in centre)
        frame[row : row + BOX, column : column + BOX] = image
    return framed


def _interpolation(small: int, large: int) -> np.ndarray:
    """The (large, small) matrix of Catmull-Rom interpolation (Keys 1981, a = -1/2)."""
    places = (np.arange(large) + 0.5) * small / large - 0.5
    distance = np.abs(places[:, None] - np.arange(small)[None, :])
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights: np.ndarray = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    weights /= weights.sum(1, keepdims=True)
    return weights
