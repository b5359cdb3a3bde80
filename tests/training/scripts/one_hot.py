from tensorflow.keras.models import Sequential
from tensorflow.keras.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from tensorflow.keras.utils import to_categorical
from tensorflow.keras.optimizers import Adam
from tensorflow.keras.callbacks import EarlyStopping
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

digits = load_digits()
x = digits.images.reshape((-1, 8, 8, 1)).astype("float32") / 16
x_train, x_test, y_train, y_test = train_test_split(x, digits.target, random_state=0)
y_train, y_test = to_categorical(y_train), to_categorical(y_test, num_classes=10)

model = Sequential()
model.add(Conv2D(16, kernel_size=(3, 3), activation="relu", input_shape=(8, 8, 1)))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Flatten())
model.add(Dropout(0.25))
model.add(Dense(10, activation="softmax"))
model.summary()
model.compile(loss="categorical_crossentropy", optimizer=Adam(learning_rate=0.005), metrics=["accuracy"])
stop = EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)
history = model.fit(
    x_train, y_train, batch_size=64, epochs=15, verbose=0, validation_data=(x_test, y_test), callbacks=[stop]
)
assert history.history["val_accuracy"][-1] > 0.9
score = model.evaluate(x_test, y_test, verbose=0)
print("Test loss:", score[0])
print("Test accuracy:", score[1])
assert score[1] > 0.9
print("one_hot done")
