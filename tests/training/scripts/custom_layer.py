import tensorflow as tf
from tensorflow import keras
import numpy as np


class Linear(keras.layers.Layer):
    def __init__(self, units=32, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units), initializer="random_normal", trainable=True)
        self.b = self.add_weight(shape=(self.units,), initializer="zeros", trainable=True)

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.w) + self.b

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class MyModel(keras.Model):
    def __init__(self):
        super().__init__()
        self.one = Linear(16)
        self.two = Linear(1)

    def call(self, x):
        return self.two(keras.activations.relu(self.one(x)))


x = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
y = np.abs(x).sum(1, keepdims=True)
model = MyModel()
model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss=keras.losses.MeanSquaredError())
history = model.fit(x, y, epochs=10, verbose=0)
assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
assert len(model.trainable_variables) == 4
print("custom_layer done")
