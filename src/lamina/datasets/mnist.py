"""MNIST: 70,000 handwritten digits of 28x28 pixels (LeCun, Cortes & Burges 1998)."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TypeAlias

import numpy as np

from lamina.datasets.files import DatasetError, fetch, find
from lamina.errors import layout

Pair: TypeAlias = tuple[np.ndarray, np.ndarray]

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
SHAPES = {
    "x_train": (60000, 28, 28),
    "y_train": (60000,),
    "x_test": (10000, 28, 28),
    "y_test": (10000,),
}


def load_data(path: str = "mnist.npz") -> tuple[Pair, Pair]:
    """Return the images and labels, from this computer or else downloaded.

    path     the file's name in LAMINA_DATA, lamina's cache folder or Keras's data folder; or the
             path of a file in the layout of Keras's `mnist.npz`
    returns  (x_train, y_train), (x_test, y_test); uint8 (60000, 28, 28) and (10000, 28, 28),
             0 is paper and 255 is ink; labels uint8 0 to 9
    raises   DatasetError when it is nowhere and cannot be fetched, or when the file is damaged
    """
    given = Path(path).expanduser()
    if given.is_absolute():
        if not given.is_file():
            raise DatasetError(f"mnist: there is no file {str(given)!r}")
        return _read(given)
    instead = "lamina.datasets.digits needs no network"
    return _read(find(path) or fetch(path, URL, SHA256, instead=instead))


def here() -> bool:
    """Whether the images are on this computer already."""
    return find("mnist.npz") is not None


def _read(path: Path) -> tuple[Pair, Pair]:
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in SHAPES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(
            layout(
                "mnist: the file is damaged or not in the layout of Keras's mnist.npz.",
                [("file", str(path)), ("cause", str(error))],
                hint="delete the file; it is downloaded again",
            )
        ) from None
    for name, shape in SHAPES.items():
        if arrays[name].shape != shape:
            raise DatasetError(
                layout(
                    f"mnist: expected {name} of shape {shape}, got {arrays[name].shape}.",
                    [("file", str(path))],
                )
            )
    return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
