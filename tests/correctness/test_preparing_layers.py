"""Layers that prepare features and images: by hand, and against real Keras where it is exact."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import layers
from lamina.tensor import convert
from lamina.trace import executor_for, trace
from lamina.types import Batch, Type

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype"),  # Keras's own, on JAX
]

RNG = np.random.default_rng(4)
IMAGES = RNG.uniform(0, 255, (3, 6, 8, 2)).astype("float32")
TABLE = RNG.normal(2.0, 3.0, (50, 4)).astype("float32")


def test_normalization_learns_mean_and_variance():
    layer = layers.Normalization()
    layer.adapt(TABLE)
    found = layer(TABLE).numpy()
    np.testing.assert_allclose(found.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), 1.0, rtol=1e-4)
    parts = layers.Normalization()
    parts.adapt([TABLE[:7], TABLE[7:9], TABLE[9:]])
    np.testing.assert_allclose(parts(TABLE).numpy(), found, rtol=1e-4, atol=1e-5)
    back = layers.Normalization(mean=TABLE.mean(0), variance=TABLE.var(0), invert=True)
    np.testing.assert_allclose(back(found).numpy(), TABLE, rtol=1e-3, atol=1e-4)
    whole = layers.Normalization(axis=None)
    whole.adapt(TABLE)
    assert whole(TABLE).numpy().mean() == pytest.approx(0.0, abs=1e-5)
    assert len(layer.weights) == 3


def test_categories():
    numbers = np.array([[0, 2, 2], [1, 0, 3]])
    multi = layers.CategoryEncoding(4)(numbers).numpy()
    assert multi.tolist() == [[1, 0, 1, 0], [1, 1, 0, 1]]
    count = layers.CategoryEncoding(4, "count")
    assert count(numbers).numpy().tolist() == [[1, 0, 2, 0], [1, 1, 0, 1]]
    weighted = count(numbers, count_weights=np.array([[1.0, 2, 3], [4, 5, 6]])).numpy()
    assert weighted.tolist() == [[1, 0, 5, 0], [5, 4, 0, 6]]
    hot = layers.CategoryEncoding(3, "one_hot")(np.array([[1], [2]])).numpy()
    assert hot.tolist() == [[0, 1, 0], [0, 0, 1]]


def test_bins():
    layer = layers.Discretization(num_bins=4)
    layer.adapt(np.arange(100.0))
    counts = np.bincount(layer(np.arange(100.0)).numpy())
    assert counts.tolist() == [25, 25, 25, 25]
    again = layers.Discretization.from_config(layer.get_config())
    np.testing.assert_array_equal(again(np.arange(100.0)).numpy(), layer(np.arange(100.0)).numpy())
    hot = layers.Discretization([0.0], output_mode="one_hot")(np.array([-1.0, 1.0])).numpy()
    assert hot.tolist() == [[1, 0], [0, 1]]


KERAS = [
    ("Rescaling", (1 / 127.5, -1.0), {}, IMAGES),
    ("Rescaling", ([1.0, 2.0],), {"offset": [0.0, 3.0]}, IMAGES),
    ("Normalization", (), {"mean": 3.0, "variance": 4.0}, TABLE),
    ("Normalization", (), {"axis": -1, "mean": [1.0, 2, 3, 4], "variance": [1.0, 4, 9, 16]}, TABLE),
    ("CategoryEncoding", (4,), {}, np.array([[0, 2, 2], [1, 0, 3]])),
    ("CategoryEncoding", (4, "count"), {}, np.array([[0, 2, 2], [1, 0, 3]])),
    ("CategoryEncoding", (4, "one_hot"), {}, np.array([0, 2, 3])),
    ("Discretization", ([-1.0, 0.5, 2.0],), {}, TABLE),
    ("Discretization", ([-1.0, 0.5],), {"output_mode": "multi_hot"}, TABLE),
    ("Resizing", (3, 4), {}, IMAGES),
    ("Resizing", (12, 5), {"interpolation": "nearest"}, IMAGES),
    ("Resizing", (4, 4), {"crop_to_aspect_ratio": True}, IMAGES),
    ("CenterCrop", (3, 5), {}, IMAGES),
    ("CenterCrop", (9, 9), {}, IMAGES),
    ("CenterCrop", (3, 3), {}, IMAGES[0]),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "arguments", "options", "x"), KERAS)
def test_exact_layers_equal_keras(keras, name, arguments, options, x):
    ours = getattr(layers, name)(*arguments, **options)
    theirs = getattr(keras.layers, name)(*arguments, **options)
    found, wanted = ours(x).numpy(), np.asarray(theirs(x))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)
    for key, value in theirs.get_config().items():
        if key not in {"name", "dtype", "factor", "sparse"}:
            assert ours.get_config().get(key) == value or key in {"mean", "variance"}, key


FIXED = [
    ("RandomTranslation", ((0.3, 0.3), (-0.2, -0.2)), {}),
    ("RandomTranslation", ((0.3, 0.3), (-0.2, -0.2)), {"fill_mode": "constant", "fill_value": 9.0}),
    ("RandomTranslation", ((-0.4, -0.4), (0.25, 0.25)), {"fill_mode": "wrap"}),
    (
        "RandomTranslation",
        ((0.5, 0.5), (0.5, 0.5)),
        {"fill_mode": "nearest", "interpolation": "nearest"},
    ),
    ("RandomRotation", ((0.1, 0.1),), {}),
    ("RandomRotation", ((-0.3, -0.3),), {"fill_mode": "constant"}),
    ("RandomZoom", ((0.4, 0.4),), {}),
    ("RandomZoom", ((-0.3, -0.3), (0.2, 0.2)), {"fill_mode": "nearest"}),
    ("RandomBrightness", ((0.2, 0.2),), {}),
    ("RandomContrast", ((0.0, 0.0),), {}),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "arguments", "options"), FIXED)
def test_random_layers_with_a_fixed_factor_equal_keras(keras, name, arguments, options):
    """With a range of one value nothing is left to chance."""
    found = getattr(layers, name)(*arguments, **options)(IMAGES, training=True).numpy()
    wanted = np.asarray(getattr(keras.layers, name)(*arguments, **options)(IMAGES, training=True))
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=0.5)


def test_a_quarter_turn_goes_counter_clockwise():
    square = IMAGES[:, :, :6]
    turned = layers.RandomRotation((0.25, 0.25))(square).numpy()
    np.testing.assert_allclose(turned, np.rot90(square, axes=(1, 2)), atol=1e-2)


def test_each_image_changes_in_its_own_way_and_only_in_training():
    many = np.repeat(IMAGES[:1], 64, 0)
    for layer in (
        layers.RandomFlip(seed=1),
        layers.RandomRotation(0.2, seed=1),
        layers.RandomZoom(0.3, seed=1),
        layers.RandomTranslation(0.2, 0.2, seed=1),
        layers.RandomBrightness(0.2, seed=1),
        layers.RandomContrast(0.5, seed=1),
    ):
        changed = layer(many, training=True).numpy()
        assert len(np.unique(changed.reshape(64, -1).round(3), axis=0)) >= 4
        np.testing.assert_array_equal(layer(many, training=False).numpy(), many)
        twin = type(layer).from_config(layer.get_config())
        np.testing.assert_array_equal(twin(many, training=True).numpy(), changed)


def test_flips_are_flips():
    many = np.repeat(IMAGES[:1], 40, 0)
    flipped = layers.RandomFlip("horizontal", seed=3)(many).numpy()
    mirrored = sum(np.array_equal(image, IMAGES[0][:, ::-1]) for image in flipped)
    kept = sum(np.array_equal(image, IMAGES[0]) for image in flipped)
    assert mirrored + kept == 40
    assert 8 < mirrored < 32


def test_crops_are_windows():
    layer = layers.RandomCrop(3, 4, seed=2)
    windows = {
        IMAGES[0][top : top + 3, left : left + 4].tobytes() for top in range(4) for left in range(5)
    }
    found = {layer(IMAGES, training=True).numpy()[0].tobytes() for _ in range(20)}
    assert found <= windows
    assert len(found) > 3
    assert layer(IMAGES, training=False).shape == (3, 3, 4, 2)


@pytest.mark.parametrize(
    "make",
    [
        layers.RandomFlip,
        lambda: layers.RandomRotation(0.1),
        lambda: layers.RandomZoom(0.2, fill_mode="constant"),
        lambda: layers.RandomTranslation(0.2, 0.1, fill_mode="wrap"),
        lambda: layers.RandomBrightness(0.3),
        lambda: layers.RandomContrast(0.3),
        lambda: layers.RandomCrop(3, 4),
        lambda: layers.Resizing(4, 4),
    ],
)
def test_they_run_inside_a_step_for_any_number_of_rows(make):
    layer = make()
    given = {} if isinstance(layer, layers.Resizing) else {"training": True}
    traced = trace(lambda x: layer(x, **given), Type((Batch(1), 6, 8, 2)))
    run = executor_for(traced.program, 3)
    for rows in (3, 1):
        (first,), (second,) = (run([IMAGES[:rows]], traced.states()) for _ in range(2))
        assert first.shape[0] == rows
        assert np.isfinite(first).all()
        if given and rows == 3:
            assert not np.array_equal(first, second)


def test_one_image_without_a_batch():
    assert layers.RandomFlip()(IMAGES[0]).shape == IMAGES[0].shape
    assert layers.Resizing(2, 3)(convert(IMAGES[0])).shape == (2, 3, 2)
