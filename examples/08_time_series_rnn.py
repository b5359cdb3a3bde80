"""A SimpleRNN forecasts a time series: the next sample of a recorded brain wave."""

import numpy as np

from lamina.keras import layers, models
from lamina.keras.datasets import eeg
from lamina.keras.utils import set_random_seed

set_random_seed(0)
WINDOW = 24
series = eeg.load_data()[:, 0]
series = (series - series[:600].mean()) / series[:600].std()
windows = np.lib.stride_tricks.sliding_window_view(series, WINDOW + 1).astype("float32")
x, y = windows[:, :WINDOW, None], windows[:, WINDOW]
# The test lies after the training in time, and shares no sample with it.
x_train, y_train = x[: 600 - WINDOW], y[: 600 - WINDOW]
x_test, y_test = x[600:], y[600:]

model = models.Sequential(
    [
        layers.Input(shape=(None, 1)),
        layers.SimpleRNN(32),
        layers.Dense(1),
    ]
)
model.compile(optimizer="adam", loss="mse")
model.fit(x_train, y_train, epochs=60, batch_size=32, verbose=0)
predicted = model.predict(x_test, verbose=0)[:, 0]
print(f"mean squared error: {np.mean((predicted - y_test) ** 2):.4f}")
print(f"of repeating the last sample: {np.mean((x_test[:, -1, 0] - y_test) ** 2):.4f}")
