import os
import tempfile

import numpy as np
import keras
from keras import layers, models
from keras.callbacks import Callback, ModelCheckpoint

keras.utils.set_random_seed(3)
rng = np.random.default_rng(0)
left, right = rng.normal(size=(256, 5)), rng.normal(size=(256, 3))
target = left[:, :1] - 2 * right[:, 1:2]

a = keras.Input(shape=(5,), name="left")
b = keras.Input(shape=(3,), name="right")
shared = layers.Dense(16, activation="tanh")
x = layers.concatenate([shared(layers.Dense(8)(a)), shared(layers.Dense(8)(b))])
outputs = layers.Dense(1)(layers.Dense(16, activation="relu")(x))
model = models.Model(inputs=[a, b], outputs=outputs)


class Count(Callback):
    def __init__(self):
        super().__init__()
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1


count = Count()
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "best.keras")
    keep = ModelCheckpoint(path, save_best_only=True, monitor="val_loss")
    model.compile(optimizer=keras.optimizers.RMSprop(0.01), loss="mse", metrics=["mae"])
    model.fit([left, right], target, epochs=8, validation_split=0.25, verbose=0, callbacks=[keep, count])
    again = models.load_model(path)
    np.testing.assert_allclose(
        again.predict([left, right], verbose=0).shape, model.predict([left, right], verbose=0).shape
    )
assert count.batches == 8 * 6
assert model.evaluate([left, right], target, verbose=0)[0] < 0.5 * target.var()
print("functional done")
