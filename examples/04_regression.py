"""Network 4: regression on ten features: how far diabetes has progressed after a year."""

import numpy as np

from lamina import keras
from lamina.keras import layers
from lamina.keras.datasets import diabetes

keras.utils.set_random_seed(1)
(x_train, y_train), (x_test, y_test) = diabetes.load_data()
# Both are brought to a spread of one, which is what the initial weights expect.
x_train, x_test = x_train / x_train.std(0), x_test / x_train.std(0)
centre, spread = y_train.mean(), y_train.std()

model = keras.Sequential(
    [
        keras.Input(shape=(10,)),
        layers.Dense(64, activation="relu"),
        layers.Dense(64, activation="relu"),
        layers.Dense(1),
    ]
)
model.compile(optimizer="adam", loss="mean_squared_error", metrics=["mae"])
model.fit(x_train, (y_train - centre) / spread, epochs=20, batch_size=32, verbose=0)

predicted = model.predict(x_test)[:, 0] * spread + centre
print(f"root mean squared error: {np.sqrt(np.mean((predicted - y_test) ** 2)):.1f}")
print(f"of always guessing the mean: {np.sqrt(np.mean((centre - y_test) ** 2)):.1f}")
