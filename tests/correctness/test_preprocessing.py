"""Padding, image files, and photographs of digits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lamina.datasets import digits
from lamina.errors import ShapeError
from lamina.preprocessing.digit import digit_image, load_digit
from lamina.preprocessing.image import (
    ImageError,
    array_to_img,
    img_to_array,
    load_img,
    save_img,
)
from lamina.preprocessing.sequence import pad_sequences


@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize("truncating", ["pre", "post"])
@pytest.mark.parametrize("maxlen", [None, 2, 6])
def test_pad_sequences(padding, truncating, maxlen):
    rows = [[1, 2, 3], [4], [], [5, 6, 7, 8]]
    length = 4 if maxlen is None else maxlen
    expected = []
    for row in rows:
        kept = row[max(len(row) - length, 0) :] if truncating == "pre" else row[:length]
        blank = [9] * (length - len(kept))
        expected.append(blank + kept if padding == "pre" else kept + blank)
    result = pad_sequences(rows, maxlen, padding=padding, truncating=truncating, value=9)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, expected)


def test_pad_sequences_of_vectors():
    result = pad_sequences([np.ones((2, 3)), np.zeros((0, 3))], dtype="float32", padding="post")
    assert result.shape == (2, 2, 3)
    assert result.sum() == 6


@pytest.mark.oracle
def test_pad_sequences_is_kerass(keras):
    rows = [[1, 2, 3], [4], [], [5, 6, 7, 8]]
    for padding in ("pre", "post"):
        for truncating in ("pre", "post"):
            for maxlen in (None, 1, 3, 9):
                given = {"maxlen": maxlen, "padding": padding, "truncating": truncating}
                np.testing.assert_array_equal(
                    pad_sequences(rows, **given), keras.utils.pad_sequences(rows, **given)
                )


def test_pad_sequences_names_what_does_not_fit():
    with pytest.raises(ShapeError) as caught:
        pad_sequences([[1], 2])
    assert str(caught.value) == (
        "pad_sequences: expected a list of sequences.\n"
        "  got      int at place 1\n"
        "  hint     put a single sequence into a list"
    )
    with pytest.raises(ValueError, match="padding must be 'pre' or 'post', got 'left'"):
        pad_sequences([[1]], padding="left")
    with pytest.raises(ShapeError, match=r"sequence 1 holds items of shape \(2,\)"):
        pad_sequences([np.ones((1, 3)), np.ones((1, 2))])


def test_images_survive_a_file(tmp_path, rng):
    picture = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    save_img(tmp_path / "a.png", picture, scale=False)
    loaded = img_to_array(load_img(tmp_path / "a.png"))
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, picture)
    small = load_img(tmp_path / "a.png", color_mode="grayscale", target_size=(2, 3))
    assert img_to_array(small).shape == (2, 3, 1)
    assert img_to_array(load_img(tmp_path / "a.png"), data_format="channels_first").shape == (
        3,
        5,
        7,
    )


def test_array_to_img_stretches_and_names_what_does_not_fit():
    image = array_to_img(np.array([[[0.0], [0.5]], [[1.0], [0.25]]]))
    np.testing.assert_array_equal(np.asarray(image), [[0, 127], [255, 63]])
    with pytest.raises(ShapeError, match=r"expected \(height, width, channels\), got \(4, 4\)"):
        array_to_img(np.zeros((4, 4)))
    with pytest.raises(ShapeError, match="expected 1, 3 or 4 channels, got 2"):
        array_to_img(np.zeros((4, 4, 2)))


def test_transparent_is_paper_and_16_bits_are_read(tmp_path):
    clear = np.zeros((4, 4, 4), np.uint8)
    Image.fromarray(clear, "RGBA").save(tmp_path / "clear.png")
    assert np.asarray(load_img(tmp_path / "clear.png", color_mode="grayscale")).min() == 255
    deep = np.linspace(0, 40000, 16).reshape(4, 4).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    grey = np.asarray(load_img(tmp_path / "deep.png", color_mode="grayscale"))
    assert (grey.min(), grey.max()) == (0, 255)


def test_image_errors(tmp_path):
    (tmp_path / "a.png").write_text("no image", encoding="utf-8")
    with pytest.raises(ImageError) as caught:
        load_img(tmp_path / "a.png")
    assert str(caught.value) == (
        f"the file is no image that can be read.\n  file     {tmp_path / 'a.png'}"
    )
    with pytest.raises(FileNotFoundError, match="there is no image file"):
        load_img(tmp_path / "b.png")
    with pytest.raises(ValueError, match="color_mode must be one of grayscale, rgb, rgba"):
        load_img(tmp_path / "a.png", color_mode="grey")


def photograph(image, rng, *, light_on_dark, tight, side):
    """A digit drawn large, somewhere on unevenly lit, noisy paper."""
    ink = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC), float)
    ink /= 255
    if tight:
        rows, columns = (np.flatnonzero(ink.max(axis) > 0.3) for axis in (1, 0))
        ink = np.pad(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], side // 16)
    else:
        above, below, left, right = rng.integers(0, side // 2, 4)
        ink = np.pad(ink, ((above, below), (left, right)))
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]] / max(ink.shape)
    if light_on_dark:
        grey = 40 + 30 * x + 150 * ink
    else:
        grey = 230 - 60 * x * rng.random() - 50 * y * rng.random() - 120 * ink
    grey = grey + rng.normal(0, 4, grey.shape)
    return np.clip(grey, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("light_on_dark", [False, True])
@pytest.mark.parametrize("tight", [False, True])
@pytest.mark.parametrize("side", [90, 420])
def test_photographs_become_the_image_that_was_drawn(rng, light_on_dark, tight, side):
    _, (images, _) = digits.load_data(28)
    alike = []
    for image in images[:20]:
        picture = photograph(image, rng, light_on_dark=light_on_dark, tight=tight, side=side)
        found = digit_image(picture)
        assert found.shape == (28, 28)
        assert found.dtype == np.uint8
        assert found.max() == 255
        # Scaled to fill the box, which the drawing may not have done: compare a little blurred.
        alike.append(np.corrcoef(blur(found).ravel(), blur(image).ravel())[0, 1])
    assert np.median(alike) > 0.9, alike
    assert np.mean(np.array(alike) > 0.7) >= 0.9, alike


def blur(image):
    padded = np.pad(image.astype(float), 1)
    return sum(padded[i : i + 28, j : j + 28] for i in range(3) for j in range(3))


def test_a_speck_and_a_shadow_are_no_ink():
    paper = np.tile(np.linspace(240, 150, 200), (200, 1))
    paper[60:140, 95:105] = 20
    paper[5:8, 5:8] = 20
    found = digit_image(paper)
    rows, columns = np.nonzero(found > 127)
    assert rows.max() - rows.min() + 1 == 20
    assert columns.max() - columns.min() + 1 <= 4
    assert abs(rows.mean() + 0.5 - 14) <= 0.5
    assert abs(columns.mean() + 0.5 - 14) <= 0.5


def test_a_digit_that_is_small_in_its_picture_is_found():
    paper = np.full((700, 700), 210.0)
    paper[500:540, 60:68] = 60.0
    found = digit_image(paper)
    rows, columns = np.nonzero(found > 127)
    assert rows.max() - rows.min() > 2 * (columns.max() - columns.min())


def test_a_fine_pen_is_thickened():
    paper = np.full((300, 300), 230.0)
    paper[50:250, 149:151] = 20
    found = digit_image(paper)
    assert 1 <= (found[14] > 100).sum() <= 3


def test_digit_errors(tmp_path):
    save_img(tmp_path / "blank.png", np.full((40, 30, 1), 200.0), scale=False)
    with pytest.raises(ImageError) as caught:
        load_digit(tmp_path / "blank.png")
    assert str(caught.value) == (
        "no digit is found: the image is blank, or nearly so.\n"
        f"  file     {tmp_path / 'blank.png'}\n"
        "  size     30 x 40\n"
        "  hint     one digit, in a colour that differs from the paper, is expected"
    )
    with pytest.raises(ShapeError, match=r"a picture has shape \(height, width\), got \(4,\)"):
        digit_image(np.zeros(4))
