"""The data sets: shapes, ranges, where files are found, and what is said when they are not."""

from __future__ import annotations

import hashlib
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from lamina import config
from lamina.datasets import diabetes, digits, eeg, files, manual, mnist
from lamina.errors import ShapeError


def test_digits_are_scikit_learns(rng):
    from sklearn.datasets import load_digits

    original = load_digits()
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    assert x_train.shape == (1437, 8, 8)
    assert x_test.shape == (360, 8, 8)
    assert x_train.dtype == y_train.dtype == np.uint8
    images = np.concatenate([x_train, x_test]).astype(float) * 16 / 255
    np.testing.assert_allclose(images, original.images, atol=0.04)
    np.testing.assert_array_equal(np.concatenate([y_train, y_test]), original.target)


def test_large_digits_are_framed_and_centred_like_mnists():
    (x, _), _ = digits.load_data(28)
    assert x.shape == (1437, 28, 28)
    assert x.dtype == np.uint8
    grid = np.arange(28) + 0.5
    mass = x.sum((1, 2))
    rows = (x.sum(2) @ grid) / mass
    columns = (x.sum(1) @ grid) / mass
    # Centred by whole pixels; a digit that leans may be held back by the frame.
    assert np.median(np.abs(rows - 14)) <= 0.5
    assert np.median(np.abs(columns - 14)) <= 0.5
    extent = (x > 0).any(2).sum(1)
    assert extent.max() <= 20


def test_enlarging_keeps_a_flat_image_flat():
    large = digits.enlarge(np.full((1, 8, 8), 200, np.uint8))
    assert set(np.unique(large)) == {0, 200}
    assert (large == 200).sum() == 20 * 20


def test_digits_of_another_size_are_refused():
    with pytest.raises(ShapeError) as caught:
        digits.load_data(16)
    assert str(caught.value) == "digits: side must be 8 or 28, got 16"


def test_diabetes_has_ten_features_and_parts_that_do_not_overlap():
    (x_train, y_train), (x_test, y_test) = diabetes.load_data()
    assert x_train.shape == (353, 10)
    assert x_test.shape == (89, 10)
    assert x_train.dtype == y_train.dtype == np.float32
    np.testing.assert_allclose(np.concatenate([x_train, x_test]).mean(0), 0, atol=1e-6)
    assert {y_train.min(), y_test.min()} and 25 <= y_train.min() < y_train.max() <= 346
    rows = {tuple(row) for row in x_train.tolist()}
    assert not any(tuple(row) in rows for row in x_test.tolist())


def test_eeg_is_a_series():
    series = eeg.load_data()
    assert series.shape == (800, 4)
    assert np.isfinite(series).all()
    # A real signal: what comes next is much like what was.
    ahead = np.corrcoef(series[:-1, 0], series[1:, 0])[0, 1]
    assert ahead > 0.8


def test_manual_gives_word_numbers_of_ten_chapters():
    (x_train, y_train), (x_test, y_test) = manual.load_data(length=40, num_words=500)
    assert x_train.dtype == np.int32
    assert x_train.shape[1] == x_test.shape[1] == 40
    assert x_train.min() >= 1 and x_train.max() == 499
    assert set(y_train) == set(y_test) == set(range(10))
    assert 3 * len(x_test) < len(x_train)
    assert (x_train == manual.UNKNOWN).mean() < 0.3
    again = manual.load_data(length=40, num_words=500)
    np.testing.assert_array_equal(again[0][0], x_train)


@pytest.fixture
def small_mnist(monkeypatch):
    """The layout of MNIST with 30 + 10 images."""
    shapes = {
        "x_train": (30, 28, 28),
        "y_train": (30,),
        "x_test": (10, 28, 28),
        "y_test": (10,),
    }
    monkeypatch.setattr(mnist, "SHAPES", shapes)
    return {name: np.full(shape, len(name), np.uint8) for name, shape in shapes.items()}


@pytest.fixture
def empty_folders(tmp_path: Path, monkeypatch):
    """No data set is on this computer."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    data = tmp_path / "data"
    data.mkdir()
    with config.override(data_folder=data, cache=tmp_path / "cache"):
        yield tmp_path


def test_mnist_is_found_in_the_data_folder(small_mnist, empty_folders):
    assert not mnist.here()
    np.savez(empty_folders / "data" / "mnist.npz", **small_mnist)
    assert mnist.here()
    (x_train, y_train), (_, y_test) = mnist.load_data()
    assert x_train.shape == (30, 28, 28)
    assert y_test.shape == (10,)
    np.testing.assert_array_equal(y_train, small_mnist["y_train"])


@pytest.mark.parametrize("folder", ["cache/datasets", "keras/datasets"])
def test_mnist_is_found_in_the_cache_and_in_kerass_folder(small_mnist, empty_folders, folder):
    (empty_folders / folder).mkdir(parents=True)
    np.savez(empty_folders / folder / "mnist.npz", **small_mnist)
    assert mnist.load_data()[0][0].shape == (30, 28, 28)


def test_mnist_is_downloaded_once_and_checked(small_mnist, empty_folders, monkeypatch, capsys):
    source = empty_folders / "source.npz"
    np.savez(source, **small_mnist)
    monkeypatch.setattr(mnist, "URL", source.as_uri())
    monkeypatch.setattr(mnist, "SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    assert mnist.load_data()[0][0].shape == (30, 28, 28)
    printed = capsys.readouterr().out
    assert printed.startswith("Downloading mnist.npz")
    assert "\x1b" not in printed
    assert "\r" not in printed
    source.unlink()
    assert mnist.load_data()[0][0].shape == (30, 28, 28)
    assert capsys.readouterr().out == ""


def test_a_download_with_other_contents_is_refused_and_not_kept(empty_folders, monkeypatch):
    source = empty_folders / "source.npz"
    source.write_bytes(b"something else")
    monkeypatch.setattr(mnist, "URL", source.as_uri())
    with pytest.raises(files.DatasetError) as caught:
        mnist.load_data()
    assert str(caught.value).startswith(
        "mnist.npz: the downloaded file is not the expected one.\n"
        f"  from     {source.as_uri()}\n"
        f"  expected SHA-256 {mnist.SHA256}\n"
    )
    assert list((empty_folders / "cache" / "datasets").iterdir()) == []


def test_without_a_network_the_error_says_what_to_do(empty_folders, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(files.urllib.request, "urlopen", refuse)
    with pytest.raises(files.DatasetError) as caught:
        mnist.load_data()
    assert str(caught.value) == (
        "mnist.npz: is not on this computer and cannot be downloaded.\n"
        f"  from     {mnist.URL}\n"
        "  cause    no route to host\n"
        f"  looked in {empty_folders}/data, {empty_folders}/cache/datasets, "
        f"{empty_folders}/keras/datasets\n"
        "  hint     put mnist.npz into a folder and name that folder by LAMINA_DATA; "
        "lamina.datasets.digits needs no network"
    )


def test_a_truncated_file_is_named(small_mnist, empty_folders):
    file = empty_folders / "data" / "mnist.npz"
    np.savez(file, **small_mnist)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(files.DatasetError) as caught:
        mnist.load_data()
    assert str(caught.value).startswith(
        f"mnist: the file is damaged or not in the layout of Keras's mnist.npz.\n  file     {file}\n"
    )


def test_a_file_of_other_shapes_is_named(small_mnist, empty_folders):
    file = empty_folders / "data" / "mnist.npz"
    np.savez(file, **{**small_mnist, "y_train": np.zeros(3, np.uint8)})
    with pytest.raises(files.DatasetError) as caught:
        mnist.load_data()
    assert str(caught.value) == (
        f"mnist: expected y_train of shape (30,), got (3,).\n  file     {file}"
    )


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(files.DatasetError, match="mnist: there is no file"):
        mnist.load_data(str(tmp_path / "mnist.npz"))


def test_real_mnist(real_data):
    with config.override(data_folder=real_data):
        (x_train, y_train), (x_test, y_test) = mnist.load_data()
    assert x_train.shape == (60000, 28, 28)
    assert x_test.shape == (10000, 28, 28)
    # LeCun's page: mean 0.1307 and standard deviation 0.3081 of the training pixels.
    assert x_train.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert x_train.std() / 255 == pytest.approx(0.3081, abs=1e-4)
    assert np.bincount(y_train).tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    assert len(y_test) == 10000
