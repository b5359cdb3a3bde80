"""Network 1: a convolutional network reads handwritten digits.

MNIST where it is on this computer (or LAMINA_DATA names its folder), else the smaller set that
scikit-learn carries.
"""

from lamina.keras import layers, models
from lamina.keras.datasets import digits, mnist

data = mnist.load_data() if mnist.here() else digits.load_data(28)
(x_train, y_train), (x_test, y_test) = data
x_train = x_train[..., None].astype("float32") / 255
x_test = x_test[..., None].astype("float32") / 255

model = models.Sequential(
    [
        layers.Input(shape=(28, 28, 1)),
        layers.Conv2D(32, (3, 3), activation="relu"),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(64, (3, 3), activation="relu"),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(64, (3, 3), activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.summary()

model.fit(x_train, y_train, epochs=5 if len(x_train) > 10000 else 10, batch_size=32)
test_loss, test_accuracy = model.evaluate(x_test, y_test)
print(f"test accuracy: {test_accuracy:.4f}")
