import tensorflow as tf
from sklearn.datasets import load_digits

print("TensorFlow version:", tf.__version__)
tf.keras.utils.set_random_seed(0)
digits = load_digits()
x_train, x_test = digits.images[:1400] / 16.0, digits.images[1400:] / 16.0
y_train, y_test = digits.target[:1400], digits.target[1400:]

model = tf.keras.models.Sequential([
    tf.keras.layers.Flatten(input_shape=(8, 8)),
    tf.keras.layers.Dense(128, activation="relu"),
    tf.keras.layers.Dropout(0.2),
    tf.keras.layers.Dense(10),
])
predictions = model(x_train[:1]).numpy()
assert predictions.shape == (1, 10)
loss_fn = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
assert float(loss_fn(y_train[:1], predictions)) > 0
model.compile(optimizer="adam", loss=loss_fn, metrics=["accuracy"])
model.fit(x_train, y_train, epochs=5, verbose=2)
loss, accuracy = model.evaluate(x_test, y_test, verbose=2)
assert accuracy > 0.85, accuracy
probability_model = tf.keras.Sequential([model, tf.keras.layers.Softmax()])
probabilities = probability_model.predict(x_test[:5], verbose=0)
assert abs(probabilities.sum(axis=1) - 1).max() < 1e-5
print("quickstart done")
