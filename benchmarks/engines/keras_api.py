"""lamina and Keras: one text for both, because the names and defaults are the same."""

from __future__ import annotations

import importlib
import os

import numpy as np

from benchmarks.workloads import Workload

LOSSES = {
    "sparse": "sparse_categorical_crossentropy",
    "mse": "mean_squared_error",
    "binary": "binary_crossentropy",
}


def namespace(name: str):
    """The module whose `layers` and `Model` are used."""
    if name == "lamina":
        return importlib.import_module("lamina.keras")
    os.environ["KERAS_BACKEND"] = name.removeprefix("keras-")
    return importlib.import_module("keras")


def convolutional(keras, last: int):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input(shape=(28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(last, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(last, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def dense(keras, features: int, outputs: int, activation: str):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input(shape=(features,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(outputs, activation=activation),
        ]
    )


def wide(keras):
    """More weights than a batch has activations: the usual first network on digits."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input(shape=(784,)),
            layers.Dense(512, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(512, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )


def recurrent(keras, words: int, width: int, cells: int, classes: int, length: int, *, every: bool):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input(shape=(length,), dtype="int32"),
            layers.Embedding(words, width),
            layers.LSTM(cells, return_sequences=every),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def residual(keras):
    layers = keras.layers
    inputs = layers.Input(shape=(32, 32, 3))

    def normalised(x, filters, kernel, stride=1):
        x = layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    x = layers.ReLU()(normalised(inputs, 32, 3))
    for before, filters in ((32, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)):
        stride = 1 if before == filters else 2
        short = x if stride == 1 else normalised(x, filters, 1, stride)
        x = layers.ReLU()(normalised(x, filters, 3, stride))
        x = layers.ReLU()(layers.Add()([normalised(x, filters, 3), short]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def transformer(keras):
    layers, ops = keras.layers, keras.ops

    class Positions(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(shape[1], shape[2]), initializer="uniform")

        def call(self, x):
            return x + ops.expand_dims(self.table, 0)

    inputs = layers.Input(shape=(128,), dtype="int32")
    x = Positions()(layers.Embedding(10000, 128)(inputs))
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 32)(x, x))
        inner = layers.Dense(128)(layers.Dense(512, activation="relu")(x))
        x = layers.LayerNormalization()(x + inner)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def autoencoder(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input(shape=(28, 28, 1)),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )


def odd_channels(keras):
    """Channel counts that fill no vector."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input(shape=(28, 28, 1)),
            layers.Conv2D(13, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(27, 3, strides=2, activation="relu"),
            layers.Conv2D(35, 3, dilation_rate=2, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def depthwise(keras):
    """Depthwise and pointwise convolutions in turn (Howard et al. 2017)."""
    layers = keras.layers
    inputs = layers.Input(shape=(32, 32, 3))
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(inputs)
    for filters, stride in ((64, 1), (128, 2), (128, 1), (256, 2)):
        x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(filters, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def u_shaped(keras):
    """Down, up, and across (Ronneberger et al. 2015)."""
    layers = keras.layers

    def twice(x, filters):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        return x

    inputs = layers.Input(shape=(28, 28, 1))
    high = twice(inputs, 16)
    low = twice(layers.MaxPooling2D(2)(high), 32)
    x = twice(layers.Concatenate()([layers.UpSampling2D(2)(low), high]), 16)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))


def stacked(keras, kind: str):
    """Two recurrent layers, the first in both directions."""
    layers = keras.layers
    cell = getattr(layers, kind)
    return keras.Sequential(
        [
            layers.Input(shape=(100,), dtype="int32"),
            layers.Embedding(10000, 64),
            layers.Bidirectional(cell(48, return_sequences=True)),
            cell(40),
            layers.Dense(10, activation="softmax"),
        ]
    )


def text_convolution(keras):
    """Windows of 3, 4 and 5 words (Kim 2014)."""
    layers = keras.layers
    inputs = layers.Input(shape=(100,), dtype="int32")
    x = layers.Embedding(10000, 64)(inputs)
    found = [
        layers.GlobalMaxPooling1D()(layers.Conv1D(100, width, activation="relu")(x))
        for width in (3, 4, 5)
    ]
    x = layers.Dropout(0.5)(layers.Concatenate()(found))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


NETWORKS = {
    "wide": wide,
    "odd-channels": odd_channels,
    "depthwise": depthwise,
    "u-shaped": u_shaped,
    "stacked-gru": lambda k: stacked(k, "GRU"),
    "stacked-lstm": lambda k: stacked(k, "LSTM"),
    "text-convolution": text_convolution,
    "even-words": lambda k: recurrent(k, 10000, 64, 64, 10, 100, every=False),
    "cnn": lambda k: convolutional(k, 64),
    "cnn128": lambda k: convolutional(k, 128),
    "mlp": lambda k: dense(k, 100, 10, "softmax"),
    "reg": lambda k: dense(k, 10, 1, "linear"),
    "lstm": lambda k: recurrent(k, 10000, 64, 64, 10, 100, every=False),
    "charlstm": lambda k: recurrent(k, 65, 64, 256, 65, 64, every=True),
    "resnet": residual,
    "transformer": transformer,
    "autoencoder": autoencoder,
}


class KerasEngine:
    """`fit` as a user calls it."""

    def __init__(self, name: str, workload: Workload, x: np.ndarray, y: np.ndarray) -> None:
        keras = namespace(name)
        keras.utils.set_random_seed(0)
        self.model = NETWORKS[workload.name](keras)
        self.model.compile(optimizer="adam", loss=LOSSES[workload.loss])
        self.x, self.y, self.batch = x, y, workload.batch

    def epoch(self) -> None:
        self.model.fit(self.x, self.y, batch_size=self.batch, epochs=1, verbose=0)

    def step(self) -> float:
        rows = slice(0, self.batch)
        history = self.model.fit(
            self.x[rows], self.y[rows], batch_size=self.batch, epochs=1, verbose=0
        )
        return float(history.history["loss"][0])

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.model.predict(x, batch_size=256, verbose=0)


def build(name: str, workload: Workload, x: np.ndarray, y: np.ndarray) -> KerasEngine:
    return KerasEngine(name, workload, x, y)
