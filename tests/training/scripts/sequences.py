from tensorflow import keras
from tensorflow.keras import layers
from tensorflow.keras.preprocessing.sequence import pad_sequences
import numpy as np

rng = np.random.default_rng(0)
texts = [list(rng.integers(1, 50, rng.integers(3, 12))) for _ in range(300)]
labels = np.array([max(text) > 45 for text in texts]).astype("int32")
padded = pad_sequences(texts, maxlen=12)

model = keras.Sequential([
    layers.Embedding(50, 16, mask_zero=True),
    layers.Bidirectional(layers.LSTM(8)),
    layers.Dense(1, activation="sigmoid"),
])
model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
first = model.evaluate(padded, labels, verbose=0)[0]
model.fit(padded, labels, epochs=10, batch_size=16, verbose=0)
last = model.evaluate(padded, labels, verbose=0)[0]
assert last < 0.9 * first, (first, last)
print("sequences done")
