"""Strided convolutions that leave rows of the image unread: their gradient there is zero."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import config, layers, models, optimizers, utils


@pytest.mark.parametrize(
    ("shape", "filters", "strides", "rows"),
    [
        ((14, 14, 13), 27, 2, 50),
        ((14, 14, 8), 16, 2, 32),
        ((9, 9, 13), 27, 3, 7),
        ((10, 10, 13), 5, (2, 3), 7),
    ],
)
def test_native_weights_after_a_step_are_the_references(shape, filters, strides, rows, rng):
    x, y = rng.standard_normal((rows, *shape)), rng.standard_normal((rows, 2))
    found = []
    for executor in ("reference", "llvm"):
        with config.override(executor=executor):
            utils.set_random_seed(0)
            # The first convolution's gradient is what the strided one hands back.
            model = models.Sequential(
                [
                    layers.Input(shape=shape),
                    layers.Conv2D(shape[-1], 1),
                    layers.Conv2D(filters, 3, strides=strides),
                    layers.GlobalAveragePooling2D(),
                    layers.Dense(2),
                ]
            )
            model.compile(optimizers.SGD(0.5), "mse")
            model.train_on_batch(x, y)
            found.append(model.get_weights())
    for reference, native in zip(*found, strict=True):
        np.testing.assert_allclose(native, reference, rtol=1e-4, atol=1e-5)
