"""A photograph or a scan of one handwritten digit becomes an image as in MNIST.

MNIST's images were made from black-and-white scans: the ink was scaled to fit a box of 20x20
pixels, its shape kept, and set into a frame of 28x28 with its centre of mass in the middle
(LeCun, Bottou, Bengio & Haffner 1998, section III.A). The same is done here, after finding the
ink: the paper's brightness is modelled as a smooth surface, so that a shadow is no stroke.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lamina.errors import ShapeError, layout
from lamina.preprocessing.image import ImageError, array_to_img, load_img

FRAME, BOX = 28, 20
WORKING_SIDE = 160
# MNIST's strokes measure about a ninth of the box.
STROKE = BOX / 9
SMALLEST_CONTRAST = 16.0
# How much of a picture its ink covers at least: what is rarer is looked at only if nothing else is
# drawn, since specks are rare, too.
INK_SHARES = (0.005, 0.0005)
# A piece of ink that is smaller than this share of the largest piece is a speck.
SPECK = 0.04


def load_digit(path: str | Path) -> np.ndarray:
    """Read an image file of one digit, of any size, dark on light or light on dark.

    returns  uint8 (28, 28), 0 is paper and 255 is ink
    raises   FileNotFoundError; ImageError if it is no image or nothing is drawn on it
    """
    picture = np.asarray(load_img(path, color_mode="grayscale"))
    try:
        return digit_image(picture)
    except ImageError:
        raise ImageError(
            layout(
                "no digit is found: the image is blank, or nearly so.",
                [("file", str(path)), ("size", f"{picture.shape[1]} x {picture.shape[0]}")],
                hint="one digit, in a colour that differs from the paper, is expected",
            )
        ) from None


def digit_image(picture: np.ndarray) -> np.ndarray:
    """Find the ink of one digit and set it into a frame as MNIST does.

    picture  (height, width) grey values from 0 to 255, or (height, width, 3)
    returns  uint8 (28, 28), 0 is paper and 255 is ink
    raises   ShapeError for another shape, ImageError if nothing is drawn
    """
    grey = np.asarray(picture, np.float64)
    if grey.ndim == 3:
        grey = grey[..., :3].mean(-1)
    if grey.ndim != 2 or min(grey.shape) < 2:
        raise ShapeError(f"a picture has shape (height, width), got {np.shape(picture)}")
    ink = _ink(_shrink(grey))
    mask = _pieces(ink > _threshold(ink))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    # A soft edge belongs to the stroke, so what borders on the mask is kept.
    kept = np.where(_grow(mask, 1), ink, 0.0)[top:bottom, left:right]
    solid = _thicken(kept, mask[top:bottom, left:right])
    height, width = solid.shape
    scale = BOX / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = _resize(solid, size)
    small *= 255.0 / small.max()
    return _centre(small)


def _resize(grey: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to (height, width); each new pixel averages what it covers."""
    picture = array_to_img(grey[:, :, None], scale=False)
    return np.asarray(picture.resize((size[1], size[0]), _filter(grey, size)), np.float64)


def _filter(grey: np.ndarray, size: tuple[int, int]) -> int:
    """Pillow's numbers of its filters: box (4) to shrink, bicubic (3) to enlarge."""
    return 4 if grey.shape[0] > size[0] else 3


def _shrink(grey: np.ndarray) -> np.ndarray:
    """A large picture at the working size; the rest of the steps need no more detail."""
    factor = WORKING_SIDE / max(grey.shape)
    if factor >= 1:
        return grey
    height, width = (max(2, round(side * factor)) for side in grey.shape)
    return _resize(grey, (height, width))


def _ink(grey: np.ndarray) -> np.ndarray:
    """How much darker (or lighter) than the paper each pixel is, from 0 to 255."""
    paper = _paper(grey)
    difference = grey - paper
    for share in INK_SHARES:
        dark, light = -np.quantile(difference, share), np.quantile(difference, 1 - share)
        strokes = np.maximum(-difference if dark >= light else difference, 0.0)
        top = float(np.quantile(strokes, 1 - share))
        if max(dark, light, top) >= SMALLEST_CONTRAST:
            ink: np.ndarray = np.minimum(strokes * (255.0 / max(top, 1.0)), 255.0)
            return ink
    raise ImageError("nothing is drawn")


def _paper(grey: np.ndarray) -> np.ndarray:
    """The paper's brightness as a smooth surface: along the picture's edge most of it is paper."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in grey.shape), indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1)
    edge, plane = _edge(grey), _edge(basis)[:, :3]
    weights = np.ones(len(edge))
    for _ in range(20):
        # Least absolute deviations, which a stroke that touches the edge does not pull away.
        fitted, *_ = np.linalg.lstsq(plane * weights[:, None], edge * weights, rcond=None)
        rest = np.abs(edge - plane @ fitted)
        weights = 1.0 / np.sqrt(np.maximum(rest, 1.0))
    surface = basis[..., :3] @ fitted
    # The inside is paper too where it is like that; a shadow bends the surface a little.
    tolerance = max(3.0 * float(np.median(rest)), 6.0)
    for _ in range(4):
        near = np.abs(grey - surface) <= tolerance
        if near.mean() < 0.2:
            break
        fitted, *_ = np.linalg.lstsq(basis[near], grey[near], rcond=None)
        surface = basis @ fitted
    paper: np.ndarray = surface
    return paper


def _edge(grid: np.ndarray) -> np.ndarray:
    """The pixels along the four sides."""
    return np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])


def _threshold(ink: np.ndarray) -> float:
    """Otsu's threshold (1979): the cut that parts paper and ink with the most contrast."""
    counts, edges = np.histogram(ink, bins=64, range=(0, 256))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        contrast = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1:][np.argmax(np.nan_to_num(contrast, nan=-1.0))])


def _pieces(mask: np.ndarray) -> np.ndarray:
    """The mask without specks, and without pieces at the edge when one stands free."""
    labels = np.zeros(mask.shape, np.int64)
    sizes, at_edge = [0], [True]
    height, width = mask.shape
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        label, todo, size, edge = len(sizes), [start], 0, False
        labels[start] = label
        while todo:
            row, column = todo.pop()
            size += 1
            edge = edge or row in {0, height - 1} or column in {0, width - 1}
            for near in range(9):
                r, c = row + near // 3 - 1, column + near % 3 - 1
                if 0 <= r < height and 0 <= c < width and mask[r, c] and not labels[r, c]:
                    labels[r, c] = label
                    todo.append((r, c))
        sizes.append(size)
        at_edge.append(edge)
    if len(sizes) == 1:
        raise ImageError("nothing is drawn")
    free = [0 if edge else size for size, edge in zip(sizes, at_edge, strict=True)]
    # A digit that is cropped tightly touches the edge: then the largest piece is at the edge.
    usable = free if max(free) >= 0.25 * max(sizes) else sizes
    wanted = [label for label, size in enumerate(usable) if size > SPECK * max(usable)]
    return np.isin(labels, wanted)


def _grow(mask: np.ndarray, steps: int) -> np.ndarray:
    """Every pixel within `steps` of the mask, diagonals included."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        height, width = mask.shape
        mask = np.zeros_like(mask)
        for row in range(3):
            for column in range(3):
                mask |= padded[row : row + height, column : column + width]
    return mask


def _thicken(ink: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Strokes of a fine pen made about as thick, for their height, as MNIST's."""
    inner = _grow(~np.pad(mask, 1), 1)[1:-1, 1:-1]
    outline = int((mask & inner).sum())
    thickness = 2.0 * mask.sum() / max(outline, 1)
    missing = STROKE * max(mask.shape) / BOX - thickness
    steps = int(missing // 2)
    if steps < 1:
        return ink
    room = np.pad(ink, steps)
    height, width = room.shape
    for _ in range(steps):
        padded = np.pad(room, 1)
        # A cross, so that strokes grow round rather than square.
        room = np.maximum.reduce(
            [
                padded[1 : 1 + height, 1 : 1 + width],
                padded[:height, 1 : 1 + width],
                padded[2:, 1 : 1 + width],
                padded[1 : 1 + height, :width],
                padded[1 : 1 + height, 2:],
            ]
        )
    return room


def _centre(small: np.ndarray) -> np.ndarray:
    """Set into a frame of 28x28 with the centre of mass in the middle, by whole pixels."""
    height, width = small.shape
    mass = small.sum()
    row = round(FRAME / 2 - (small.sum(1) @ (np.arange(height) + 0.5)) / mass)
    column = round(FRAME / 2 - (small.sum(0) @ (np.arange(width) + 0.5)) / mass)
    row, column = min(max(row, 0), FRAME - height), min(max(column, 0), FRAME - width)
    frame = np.zeros((FRAME, FRAME), np.uint8)
    frame[row : row + height, column : column + width] = np.clip(np.rint(small), 0, 255)
    return frame
