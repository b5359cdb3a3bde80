"""A dense autoencoder: 784 pixels through 32 numbers and back."""

import numpy as np

from lamina.keras import layers, models
from lamina.keras.datasets import digits, mnist

data = mnist.load_data() if mnist.here() else digits.load_data(28)
(x_train, _), (x_test, _) = data
x_train = x_train.reshape(-1, 784).astype("float32") / 255
x_test = x_test.reshape(-1, 784).astype("float32") / 255

inputs = layers.Input(shape=(784,))
code = layers.Dense(32, activation="relu")(inputs)
outputs = layers.Dense(784, activation="sigmoid")(code)
autoencoder = models.Model(inputs, outputs)
encoder = models.Model(inputs, code)

autoencoder.compile(optimizer="adam", loss="binary_crossentropy")
autoencoder.fit(
    x_train,
    x_train,
    epochs=5 if len(x_train) > 10000 else 60,
    batch_size=32,
    validation_data=(x_test, x_test),
    verbose=2,
)
restored = autoencoder.predict(x_test, verbose=0)
print("code of one digit:", encoder.predict(x_test[:1], verbose=0).shape)
print(f"mean squared error: {np.mean((restored - x_test) ** 2):.4f}")
print(f"of the mean image:  {np.mean((x_train.mean(0) - x_test) ** 2):.4f}")
