"""Network 3: a dense classifier of 100 features: digits, averaged to 10x10 pixels."""

from lamina import keras
from lamina.keras import layers
from lamina.keras.datasets import digits

(x_train, y_train), (x_test, y_test) = digits.load_data(28)


def features(images):
    """Average the inner 20x20 pixels by twos: (N, 28, 28) uint8 to (N, 100) in [0, 1]."""
    blocks = images[:, 4:24, 4:24].reshape(-1, 10, 2, 10, 2).mean((2, 4))
    return blocks.reshape(-1, 100).astype("float32") / 255


x_train, x_test = features(x_train), features(x_test)

model = keras.Sequential(
    [
        layers.Dense(64, activation="relu", input_shape=(100,)),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(learning_rate=0.001),
    loss=keras.losses.CategoricalCrossentropy(),
    metrics=["accuracy"],
)
model.fit(x_train, keras.utils.to_categorical(y_train), epochs=30, batch_size=32, verbose=2)

probabilities = model.predict(x_test)
print("probabilities:", probabilities.shape, "each row sums to", probabilities[0].sum())
print("test accuracy:", (probabilities.argmax(1) == y_test).mean())
