"""Files written by lamina are read by Keras 3, and the other way round, with the same outputs."""

import numpy as np
import pytest

import lamina

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore"),
]


def chain(api):
    return api.Sequential(
        [
            api.layers.Input((6,)),
            api.layers.Dense(5, activation="relu", name="first"),
            api.layers.BatchNormalization(),
            api.layers.Dropout(0.3),
            api.layers.Dense(3, kernel_regularizer=api.regularizers.L2(0.01)),
            api.layers.Activation("softmax"),
        ]
    )


def graph(api):
    a = api.layers.Input((4,), name="a")
    b = api.layers.Input((6,), name="b")
    shared = api.layers.Dense(3, activation="tanh", name="shared")
    x = api.layers.Concatenate()([shared(a), b])
    x = api.layers.Dense(4, name="middle")(x) + 1.0
    x = api.ops.relu(x)
    y = api.ops.mean(x, axis=-1, keepdims=True) * x
    one = api.layers.Dense(1, name="one")(x)
    two = api.layers.Dense(2, name="two")(y)
    return api.Model({"a": a, "b": b}, [one, two])


def pictures(api):
    return api.Sequential(
        [
            api.layers.Input((8, 8, 1)),
            api.layers.Conv2D(4, 3, padding="same", activation="relu"),
            api.layers.MaxPooling2D(),
            api.layers.Conv2D(3, 3),
            api.layers.GlobalAveragePooling2D(),
            api.layers.Dense(2),
        ]
    )


def sequences(api):
    return api.Sequential(
        [
            api.layers.Input((5,), dtype="int32"),
            api.layers.Embedding(11, 4, mask_zero=True),
            api.layers.Bidirectional(api.layers.LSTM(3, return_sequences=True)),
            api.layers.GRU(2),
            api.layers.Dense(1, activation="sigmoid"),
        ]
    )


def attention(api):
    x = api.layers.Input((5, 6))
    y = api.layers.MultiHeadAttention(2, 3)(x, x)
    y = api.layers.LayerNormalization()(api.layers.Add()([x, y]))
    return api.Model(x, api.layers.GlobalAveragePooling1D()(y))


CASES = {
    "chain": (chain, lambda r: r.random((7, 6), np.float32)),
    "graph": (
        graph,
        lambda r: {"a": r.random((7, 4), np.float32), "b": r.random((7, 6), np.float32)},
    ),
    "pictures": (pictures, lambda r: r.random((7, 8, 8, 1), np.float32)),
    "sequences": (sequences, lambda r: r.integers(0, 11, (7, 5)).astype("int32")),
    "attention": (attention, lambda r: r.random((7, 5, 6), np.float32)),
}


def flat(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


def same(one, other):
    for a, b in zip(flat(one), flat(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.fixture(params=CASES)
def case(request, rng):
    make, data = CASES[request.param]
    return make, data(rng)


def test_keras_reads_our_models(case, keras, tmp_path):
    make, x = case
    ours = make(lamina)
    ours.compile("adam", ["mse"] * len(ours.outputs))
    ours.save(tmp_path / "ours.keras")
    theirs = keras.models.load_model(tmp_path / "ours.keras")
    same(ours.predict(x, verbose=0), theirs.predict(x, verbose=0))
    assert [layer.name for layer in ours.layers] == [layer.name for layer in theirs.layers]


def test_we_read_models_of_keras(case, keras, tmp_path):
    make, x = case
    theirs = make(keras)
    theirs.compile("adam", ["mse"] * len(theirs.outputs))
    theirs.save(tmp_path / "theirs.keras")
    ours = lamina.models.load_model(tmp_path / "theirs.keras")
    same(ours.predict(x, verbose=0), theirs.predict(x, verbose=0))
    assert isinstance(ours.optimizer, lamina.optimizers.Adam)


def test_weights_both_ways(case, keras, tmp_path):
    make, x = case
    ours, theirs = make(lamina), make(keras)
    ours.save_weights(tmp_path / "ours.weights.h5")
    theirs.load_weights(tmp_path / "ours.weights.h5")
    same(ours.predict(x, verbose=0), theirs.predict(x, verbose=0))
    other, again = make(keras), make(lamina)
    other.save_weights(tmp_path / "theirs.weights.h5")
    again.load_weights(tmp_path / "theirs.weights.h5")
    same(again.predict(x, verbose=0), other.predict(x, verbose=0))


def test_training_goes_on_alike(keras, tmp_path, rng):
    """Optimizer state comes along: the next epochs of both give the same losses."""
    x, y = rng.random((40, 6), np.float32), rng.integers(0, 3, 40)
    theirs = keras.Sequential(
        [keras.layers.Input((6,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    theirs.fit(x, y, epochs=2, shuffle=False, verbose=0)
    theirs.save(tmp_path / "m.keras")
    ours = lamina.models.load_model(tmp_path / "m.keras")
    one = theirs.fit(x, y, epochs=3, shuffle=False, verbose=0).history
    two = ours.fit(x, y, epochs=3, shuffle=False, verbose=0).history
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4)
