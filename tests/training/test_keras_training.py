"""The same weights, data and order give the histories of real Keras 3.15."""

import numpy as np
import pytest

import lamina

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]


def both(keras, make, tmp_path):
    """A model of Keras, and lamina's of the same weights."""
    theirs, ours = make(keras), make(lamina)
    theirs.save_weights(tmp_path / "start.weights.h5")
    ours.load_weights(tmp_path / "start.weights.h5")
    return theirs, ours


def agree(one, other, rtol=2e-4):
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=rtol, atol=1e-5, err_msg=name)


def classifier(api):
    return api.Sequential(
        [
            api.layers.Input((6,)),
            api.layers.Dense(8, activation="relu"),
            api.layers.BatchNormalization(),
            api.layers.Dense(3, activation="softmax", kernel_regularizer="l2"),
        ]
    )


def data(rng, rows=50):
    return rng.random((rows, 6), np.float32), rng.integers(0, 3, rows)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adagrad", "adamw", "nadam"])
def test_optimizers(keras, tmp_path, rng, optimizer):
    x, y = data(rng)
    histories = []
    for model in both(keras, classifier, tmp_path):
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        histories.append(model.fit(x, y, epochs=3, batch_size=16, shuffle=False, verbose=0).history)
    agree(*histories)


def test_weights_of_samples_and_validation(keras, tmp_path, rng):
    x, y = data(rng)
    weight = rng.random(50)
    histories = []
    for model in both(keras, classifier, tmp_path):
        model.compile(
            "sgd",
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            weighted_metrics=["accuracy", "sparse_categorical_crossentropy"],
        )
        history = model.fit(
            x,
            y,
            epochs=3,
            batch_size=8,
            shuffle=False,
            verbose=0,
            sample_weight=weight,
            validation_split=0.3,
        )
        histories.append(history.history)
    agree(*histories)


def test_class_weights(keras, tmp_path, rng):
    x, y = data(rng)
    histories = []
    for model in both(keras, classifier, tmp_path):
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["acc"])
        history = model.fit(x, y, epochs=2, shuffle=False, verbose=0, class_weight={0: 0.1, 2: 3.0})
        histories.append(history.history)
    agree(*histories)


def test_shuffling_draws_the_same_orders(keras, tmp_path, rng):
    x, y = data(rng)
    histories = []
    for model in both(keras, classifier, tmp_path):
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.evaluate(x, y, verbose=0)  # Keras would draw an order to look at the first batch
        np.random.seed(11)
        histories.append(model.fit(x, y, epochs=3, batch_size=7, verbose=0).history)
    agree(*histories)


def several(api, nesting):
    a = api.layers.Input((4,), name="a")
    b = api.layers.Input((6,), name="b")
    x = api.layers.Dense(5, activation="tanh")(api.layers.Concatenate()([a, b]))
    one = api.layers.Dense(1, name="one")(x)
    two = api.layers.Dense(3, activation="softmax", name="two")(x)
    outputs = {"list": [one, two], "dict": {"q": one, "p": two}, "tuple": (one, two)}
    return api.Model({"a": a, "b": b}, outputs[nesting])


SPARSE = "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    ("nesting", "arguments", "weights"),
    [
        ("list", {"loss": ["mse", SPARSE]}, None),
        (
            "list",
            {
                "loss": {"one": "mae", "two": SPARSE},
                "loss_weights": {"one": 0.3, "two": 2.0},
                "metrics": {"one": ["mse"], "two": ["accuracy"]},
            },
            None,
        ),
        (
            "list",
            {
                "loss": ["mse", SPARSE],
                "loss_weights": [1.0, 0.5],
                "metrics": [["mae", "mse"], ["acc"]],
                "weighted_metrics": [["mae"], None],
            },
            "one",
        ),
        ("list", {"loss": ["mse", None], "metrics": [None, ["acc"]]}, "each"),
        ("dict", {"loss": {"q": "mse", "p": SPARSE}, "metrics": {"p": ["acc"]}}, None),
        ("tuple", {"loss": ["mse", "ce"], "metrics": [["mae"], ["acc"]]}, "one"),
    ],
)
def test_several_outputs(keras, tmp_path, rng, nesting, arguments, weights):
    x = {"a": rng.random((40, 4), np.float32), "b": rng.random((40, 6), np.float32)}
    first, second = rng.random((40, 1), np.float32), rng.integers(0, 3, (40, 1))
    y = {"list": [first, second], "dict": {"q": first, "p": second}, "tuple": (first, second)}
    weight = rng.random(40)
    given = {None: None, "one": weight, "each": [weight, 2 * weight]}[weights]
    results = []
    for model in both(keras, lambda api: several(api, nesting), tmp_path):
        model.compile("sgd", **arguments)
        history = model.fit(
            x, y[nesting], epochs=2, batch_size=16, shuffle=False, verbose=0, sample_weight=given
        ).history
        listed = model.evaluate(x, y[nesting], verbose=0)
        results.append((history, {str(i): value for i, value in enumerate(listed)}))
    agree(results[0][0], results[1][0])
    if "weighted_metrics" not in arguments:  # Keras lists equally named metrics twice
        agree(results[0][1], results[1][1])


def test_one_batch(keras, tmp_path, rng):
    x, y = data(rng, 9)
    results = []
    for model in both(keras, classifier, tmp_path):
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        results.append(
            [
                model.train_on_batch(x, y),
                model.train_on_batch(x, y, class_weight={1: 2.0}),
                model.test_on_batch(x, y),
                model.train_on_batch(x, y, return_dict=True)["loss"],
            ]
        )
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_learning_rate_callbacks(keras, tmp_path, rng):
    x, y = data(rng)
    histories = []
    for api, model in zip((keras, lamina), both(keras, classifier, tmp_path), strict=True):
        model.compile("sgd", "sparse_categorical_crossentropy")
        called = [
            api.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
            api.callbacks.EarlyStopping("loss", patience=1, min_delta=0.05),
        ]
        history = model.fit(x, y, epochs=6, shuffle=False, verbose=0, callbacks=called).history
        histories.append(history)
    agree(*histories)


def test_order_of_callbacks(keras, tmp_path, rng):
    x, y = data(rng, 20)
    traces = []
    for api, model in zip((keras, lamina), both(keras, classifier, tmp_path), strict=True):
        calls = []

        class Spy(api.callbacks.Callback):
            pass

        def spy(name, calls=calls):
            def hook(self, *args, logs=None, **kwargs):
                rest = [one for one in args if not isinstance(one, dict)]
                given = logs or next((one for one in args if isinstance(one, dict)), {})
                calls.append((name, *rest, sorted(given)))

            return hook

        for name in dir(api.callbacks.Callback):
            if name.startswith("on_") and name not in (
                "on_batch_begin",
                "on_batch_end",
                "on_steps_end",
            ):
                setattr(Spy, name, spy(name))
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(
            x, y, epochs=2, batch_size=8, verbose=0, callbacks=[Spy()], validation_data=(x, y)
        )
        model.predict(x, verbose=0, callbacks=[Spy()])
        traces.append(calls)
    assert traces[0] == traces[1]
