"""Products of many matrices at once, in the sizes at which panels of one side are copied first."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import config, layers, models, ops


class Einsum(layers.Layer):
    """One `einsum` of two inputs."""

    def __init__(self, equation: str) -> None:
        super().__init__()
        self.equation = equation

    def call(self, pair):
        return ops.einsum(self.equation, *pair)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("bqhd,bhqk->bhdk", (96, 2, 4), (2, 96, 96)),
        ("bhqd,bhqk->bhdk", (3, 96, 64), (3, 96, 96)),
        ("bhqd,bhqk->bhdk", (3, 128, 64), (3, 128, 256)),
        ("bkhd,bhqk->bhqd", (128, 2, 4), (2, 128, 128)),
        ("bqd,bqk->bdk", (300, 8), (300, 600)),
    ],
)
def test_every_matrix_meets_its_own(equation, left, right, threads, rng):
    rows = 3
    a, b = (rng.standard_normal((rows, *shape)).astype("float32") for shape in (left, right))
    inputs = [layers.Input(shape=left), layers.Input(shape=right)]
    with config.override(threads=threads):
        model = models.Model(inputs, Einsum(equation)(inputs))
        result = model.predict([a, b], verbose=0)
    expected = np.einsum(equation, a.astype("float64"), b.astype("float64"))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(64, 576), (100, 160), (40, 1024)])
def test_a_transposed_wide_matrix_is_read_in_its_own_order(shape, rng):
    """x @ W.T, as in the gradient of a wide layer: the transposed copy, then its panels."""
    x = rng.standard_normal((32, shape[0])).astype("float32")
    w = rng.standard_normal((shape[1], shape[0])).astype("float32")

    class Transposed(layers.Layer):
        def build(self, _):
            self.w = self.add_weight(shape=w.shape)

        def call(self, rows):
            return ops.einsum("bi,oi->bo", rows, self.w)

    inputs = layers.Input(shape=(shape[0],))
    model = models.Model(inputs, Transposed()(inputs))
    model.set_weights([w])
    np.testing.assert_allclose(model.predict(x, verbose=0), x @ w.T, rtol=1e-4, atol=1e-3)
