"""The pictures: files that are images, with the numbers that were given."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lamina.errors import ShapeError
from lamina.pictures import (
    confusion_matrix,
    count_confusions,
    learning_curves,
    prediction_grid,
)


def size(path):
    with Image.open(path) as image:
        image.verify()
        return image.size


def test_learning_curves_have_a_panel_a_value(tmp_path):
    one = learning_curves({"loss": [2.0, 1.0]}, tmp_path / "one.png")
    two = learning_curves(
        {"loss": [2.0, 1.0], "val_loss": [2.1, 1.2], "accuracy": [0.1, 0.5]}, tmp_path / "two.png"
    )
    assert size(two)[0] == 2 * size(one)[0]
    assert size(two)[1] == size(one)[1]
    with pytest.raises(ShapeError) as caught:
        learning_curves({}, tmp_path / "none.png")
    assert str(caught.value) == (
        "learning_curves: the history is empty; has fit() finished an epoch?"
    )


def test_confusions_are_counted_as_scikit_learn_counts_them(rng, tmp_path):
    from sklearn.metrics import confusion_matrix as reference

    labels, predictions = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    np.testing.assert_array_equal(
        count_confusions(labels, predictions), reference(labels, predictions)
    )
    path = confusion_matrix(labels, predictions, tmp_path / "c.png", names=list("abcde"))
    assert size(path)[0] > 300
    with pytest.raises(ShapeError, match=r"got \(2,\) and \(3,\)"):
        count_confusions(np.zeros(2, int), np.zeros(3, int))


def test_prediction_grid_accepts_few_images_and_no_error(tmp_path, rng):
    images = rng.random((3, 28, 28))
    probabilities = np.eye(3)
    path = prediction_grid(images, np.arange(3), probabilities, tmp_path / "p.png")
    assert size(path)[0] > 300
