"""A convolutional autoencoder takes noise out of digits."""

import numpy as np

from lamina.keras import layers, models
from lamina.keras.datasets import digits, mnist

data = mnist.load_data() if mnist.here() else digits.load_data(28)
(x_train, _), (x_test, _) = data
x_train = x_train[..., None].astype("float32") / 255
x_test = x_test[..., None].astype("float32") / 255
rng = np.random.default_rng(0)


def noisy(images):
    """Add noise, and cut to [0, 1]."""
    noise = 0.4 * rng.standard_normal(images.shape)
    return np.clip(images + noise, 0, 1).astype("float32")


noisy_train, noisy_test = noisy(x_train), noisy(x_test)

model = models.Sequential(
    [
        layers.Input(shape=(28, 28, 1)),
        layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
    ]
)
model.compile(optimizer="adam", loss="binary_crossentropy")
model.fit(noisy_train, x_train, epochs=3 if len(x_train) > 10000 else 8, batch_size=64, verbose=2)
cleaned = model.predict(noisy_test, verbose=0)
print(f"mean squared error before: {np.mean((noisy_test - x_test) ** 2):.4f}")
print(f"mean squared error after:  {np.mean((cleaned - x_test) ** 2):.4f}")
