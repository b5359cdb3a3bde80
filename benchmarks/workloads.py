"""The workloads: for each its data, its loss, and its size; the engines build the network.

Sizes and goals: see docs/benchmarks.md. `flops` counts one sample's forward pass, a multiply-add
as two; a training step is taken as three times that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Workload:
    """One network and how it is trained.

    batch    rows in a step
    steps    steps in a measured epoch; also the number of batches in the data
    flops    of one sample's forward pass
    goal     lamina's step over that of the best peer, at most
    loss     "sparse" (categorical cross-entropy of labels), "mse" or "binary"
    data     (rows, generator) -> inputs, targets
    """

    name: str
    batch: int
    steps: int
    flops: int
    goal: float
    loss: str
    data: Callable[[int, np.random.Generator], Pair]

    def arrays(self, seed: int = 0) -> Pair:
        return self.data(self.batch * self.steps, np.random.default_rng(seed))


def _file(name: str) -> Path | None:
    folder = os.environ.get("LAMINA_DATA")
    path = Path(folder) / name if folder else None
    return path if path is not None and path.is_file() else None


def images(rows: int, rng: np.random.Generator) -> Pair:
    """Real digits: MNIST from LAMINA_DATA, else scikit-learn's at 28x28.

    Random labels would drift to dead units, and sparse kernels would then look too good.
    """
    path = _file("mnist.npz")
    if path is not None:
        with np.load(path) as file:
            x, y = file["x_train"], file["y_train"]
    else:
        from lamina.datasets import digits

        (x, y), _ = digits.load_data(28)
    place = rng.permutation(len(x))[np.arange(rows) % len(x)]
    return x[place, :, :, None].astype(np.float32) / 255, y[place].astype(np.int32)


def flat_images(rows: int, rng: np.random.Generator) -> Pair:
    x, y = images(rows, rng)
    return x.reshape(rows, -1), y


def restored(rows: int, rng: np.random.Generator) -> Pair:
    x, _ = images(rows, rng)
    return x, x


def table(features: int, classes: int) -> Callable[[int, np.random.Generator], Pair]:
    """Labels (or numbers, for no classes) that a random network gives to random rows."""

    def make(rows: int, rng: np.random.Generator) -> Pair:
        x = rng.standard_normal((rows, features)).astype(np.float32)
        hidden = np.tanh(x @ rng.standard_normal((features, 32)) / features**0.5)
        score = hidden @ rng.standard_normal((32, max(classes, 1)))
        y = score.argmax(1).astype(np.int32) if classes else score.astype(np.float32)
        return x, y

    return make


def sentences(
    words: int, length: int, classes: int, *, even: bool = False
) -> Callable[[int, np.random.Generator], Pair]:
    """Word numbers spread as words are (Zipf), or evenly; the label hangs on a few of them."""

    def make(rows: int, rng: np.random.Generator) -> Pair:
        drawn = rng.integers(0, words, (rows, length)) if even else rng.zipf(1.3, (rows, length))
        x = np.minimum(drawn, words - 1).astype(np.int32)
        return x, (x.sum(1) % classes).astype(np.int32)

    return make


def characters(rows: int, rng: np.random.Generator) -> Pair:
    """Text of 65 symbols, the targets one ahead: Shakespeare from LAMINA_DATA, else invented."""
    path = _file("tinyshakespeare.txt")
    length = 64
    if path is not None:
        raw = np.frombuffer(path.read_bytes(), np.uint8)
        text = np.unique(raw, return_inverse=True)[1].astype(np.int32)
    else:
        text = (np.minimum(rng.zipf(1.3, 200_000), 65) - 1).astype(np.int32)
    start = rng.integers(0, len(text) - length - 1, rows)
    window = start[:, None] + np.arange(length + 1)
    return text[window[:, :-1]], text[window[:, 1:]]


def pictures(rows: int, rng: np.random.Generator) -> Pair:
    """Colour images of 32x32: ten blurred patterns with noise."""
    patterns = rng.standard_normal((10, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    y = rng.integers(0, 10, rows)
    noise = rng.standard_normal((rows, 32, 32, 3))
    return (patterns[y] + noise).astype(np.float32), y.astype(np.int32)


WORKLOADS = {
    workload.name: workload
    for workload in [
        Workload("cnn", 32, 100, 8_450_000, 0.15, "sparse", images),
        Workload("cnn128", 32, 100, 10_000_000, 0.20, "sparse", images),
        Workload("mlp", 32, 1000, 22_300, 0.35, "sparse", table(100, 10)),
        Workload("reg", 32, 1000, 9_600, 0.40, "mse", table(10, 0)),
        Workload("lstm", 32, 40, 6_570_000, 0.38, "sparse", sentences(10000, 100, 10)),
        Workload("charlstm", 64, 8, 44_100_000, 0.60, "sparse", characters),
        Workload("resnet", 32, 6, 211_000_000, 0.60, "sparse", pictures),
        Workload("transformer", 32, 8, 117_400_000, 0.65, "sparse", sentences(10000, 128, 10)),
        Workload("autoencoder", 64, 30, 13_200_000, 0.40, "binary", restored),
    ]
}

# Neighbours of the networks above, for the Keras engines: a gain on those that is a loss on these
# is none. Their flops are not counted.
OTHERS = {
    workload.name: workload
    for workload in [
        Workload("odd-channels", 50, 40, 0, 0.0, "sparse", images),
        Workload("wide", 128, 40, 0, 0.0, "sparse", flat_images),
        Workload("depthwise", 32, 20, 0, 0.0, "sparse", pictures),
        Workload("u-shaped", 16, 20, 0, 0.0, "binary", restored),
        Workload("stacked-gru", 32, 20, 0, 0.0, "sparse", sentences(10000, 100, 10)),
        Workload("stacked-lstm", 32, 20, 0, 0.0, "sparse", sentences(10000, 100, 10)),
        Workload("text-convolution", 50, 20, 0, 0.0, "sparse", sentences(10000, 100, 10)),
        Workload("even-words", 32, 20, 0, 0.0, "sparse", sentences(10000, 100, 10, even=True)),
    ]
}
