"""`lamina demo`: a convolutional network learns to read handwritten digits, and shows how well."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamina import layers
from lamina.datasets import digits, mnist
from lamina.models import Sequential
from lamina.pictures import confusion_matrix, learning_curves, prediction_grid
from lamina.utils import set_random_seed

SIDE, CLASSES = 28, 10


@dataclass(frozen=True)
class Digits:
    """Real digits, scaled to [0, 1]: images (N, 28, 28, 1) float32 and labels (N,)."""

    name: str
    epochs: int
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load() -> Digits:
    """MNIST where it is on this computer already, else the digits that scikit-learn carries."""
    if mnist.here():
        name, epochs, source = "MNIST", 5, mnist.load_data()
    else:
        name, epochs, source = "scikit-learn's digits", 20, digits.load_data(SIDE)
    (x_train, y_train), (x_test, y_test) = source
    x_train, x_test = (x[..., None].astype(np.float32) / 255 for x in (x_train, x_test))
    return Digits(name, epochs, x_train, y_train, x_test, y_test)


def network() -> Sequential:
    """Build the convolutional network of most introductions to deep learning."""
    return Sequential(
        [
            layers.Input(shape=(SIDE, SIDE, 1)),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def run(folder: str | Path = "lamina-demo", epochs: int | None = None, seed: int = 0) -> Path:
    """Train, evaluate, and write pictures, numbers and the model into `folder`.

    folder   is created; files in it are replaced
    epochs   by default 5 on MNIST, 20 on the smaller set
    returns  the folder
    """
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    set_random_seed(seed)
    data = load()
    epochs = data.epochs if epochs is None else epochs
    print(
        f"{data.name}: {len(data.x_train):,} images to learn from, "
        f"{len(data.x_test):,} to be tested on"
    )
    model = network()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.summary()
    started = time.perf_counter()
    history = model.fit(
        data.x_train, data.y_train, batch_size=32, epochs=epochs, validation_split=0.1
    )
    seconds = time.perf_counter() - started
    scores = model.evaluate(data.x_test, data.y_test, verbose=0, return_dict=True)
    probabilities = model.predict(data.x_test, verbose=0)
    answers = probabilities.argmax(-1)

    files = [
        learning_curves(history.history, out / "learning-curves.png"),
        confusion_matrix(data.y_test, answers, out / "confusion-matrix.png"),
        prediction_grid(data.x_test[..., 0], data.y_test, probabilities, out / "predictions.png"),
        write_history(history.history, out / "history.csv"),
        out / "model.keras",
    ]
    model.save(files[-1])
    print(
        f"\nTrained in {seconds:.1f} s; reads {100 * scores['accuracy']:.2f} % of the "
        f"{len(data.x_test):,} test images right (loss {scores['loss']:.4f}).\n"
    )
    for file in files:
        print(f"  {file}")
    print(f"\nTry it on your own handwriting:\n  lamina predict {files[-1]} photograph.jpg")
    return out


def write_history(history: Mapping[str, Sequence[float]], path: Path) -> Path:
    """Write one row an epoch: its number, then the logged values."""
    names = sorted(history)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *names])
        rows = zip(*(history[name] for name in names), strict=True)
        writer.writerows([epoch, *row] for epoch, row in enumerate(rows, start=1))
    return path
