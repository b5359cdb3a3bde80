"""Network 2: a wider convolutional network with one-hot targets and validation data."""

from lamina.keras.datasets import digits, mnist
from lamina.keras.layers import Conv2D, Dense, Flatten, MaxPooling2D
from lamina.keras.models import Sequential
from lamina.keras.utils import set_random_seed, to_categorical

set_random_seed(0)  # the same numbers in every run

data = mnist.load_data() if mnist.here() else digits.load_data(28)
(x_train, y_train), (x_test, y_test) = data
x_train = x_train.reshape((-1, 28, 28, 1)).astype("float32") / 255
x_test = x_test.reshape((-1, 28, 28, 1)).astype("float32") / 255
y_train = to_categorical(y_train, 10)
y_test = to_categorical(y_test, 10)

model = Sequential()
model.add(Conv2D(32, kernel_size=(3, 3), activation="relu", input_shape=(28, 28, 1)))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Conv2D(64, kernel_size=(3, 3), activation="relu"))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Conv2D(128, kernel_size=(3, 3), activation="relu"))
model.add(Flatten())
model.add(Dense(128, activation="relu"))
model.add(Dense(10, activation="softmax"))
model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])

model.fit(
    x_train,
    y_train,
    batch_size=32,
    epochs=5 if len(x_train) > 10000 else 10,
    validation_data=(x_test, y_test),
)
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"test loss: {loss:.4f}, test accuracy: {accuracy:.4f}")
