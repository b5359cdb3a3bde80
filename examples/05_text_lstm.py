"""Network 5: an LSTM reads text, and says from which chapter of the Python manual it is.

The text comes with every Python (`pydoc_data.topics`); a passage has 40 words, and no passage of
the test overlaps one that was learnt from.
"""

from lamina.keras import layers, models
from lamina.keras.datasets import manual

(x_train, y_train), (x_test, y_test) = manual.load_data(length=40, num_words=10000)

model = models.Sequential(
    [
        layers.Embedding(input_dim=10000, output_dim=64),
        layers.LSTM(64),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=6, batch_size=32)
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"test accuracy: {accuracy:.3f} (the commonest chapter: {(y_test == 0).mean():.3f})")
