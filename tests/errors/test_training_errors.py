"""What users are told when a model, its losses or its data do not fit; and that it then works."""

import numpy as np
import pytest

import lamina
from lamina import layers
from lamina.errors import IndexRangeError, ShapeError, TraceError


def told(action, kind=Exception):
    with pytest.raises(kind) as raised:
        action()
    return str(raised.value)


def classifier(**compiled):
    model = lamina.Sequential(
        [
            lamina.Input((4,), name="features"),
            layers.Dense(3, activation="softmax", name="classifier"),
        ],
        name="net",
    )
    model.compile(**{"optimizer": "sgd", "loss": "sparse_categorical_crossentropy", **compiled})
    return model


def several():
    a, b = lamina.Input((2,), name="a"), lamina.Input((3,), name="b")
    one = layers.Dense(1, name="one")(a)
    two = layers.Dense(2, name="two")(b)
    return lamina.Model([a, b], [one, two], name="pair")


X, Y = np.zeros((10, 4), np.float32), np.zeros(10, np.int64)


def test_before_compile():
    model = lamina.Sequential([lamina.Input((4,)), layers.Dense(3)])
    for method in ("fit", "evaluate", "train_on_batch", "test_on_batch"):
        assert told(lambda m=method: getattr(model, m)(X, Y)) == (
            f"{method}: the model is not compiled.\n"
            '  hint     call model.compile(optimizer="adam", loss="mse") first'
        )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"loss": "sparse_categorical_crossentropi"}, "sparse_categorical_crossentropy"),
        ({"metrics": ["acuracy"]}, "accuracy"),
        ({"optimizer": "adm"}, "adam"),
        ({"loss": {"one": "mze"}}, "mae"),
    ],
)
def test_misspelt_names_are_told_by_compile(arguments, text):
    message = told(lambda: classifier(**arguments), ValueError)
    assert "Did you mean" in message
    assert text in message


def test_compile_arguments_of_other_kinds():
    assert told(lambda: classifier(metrics="accuracy"), TypeError) == (
        "metrics is a list, tuple or dict of metrics, got str."
    )
    assert told(lambda: classifier(loss_weights="a"), TypeError).startswith("loss_weights is")
    assert told(lambda: classifier(steps_per_execution=0)) == (
        "steps_per_execution must be at least 1, got 0."
    )


def test_a_failing_compile_changes_nothing():
    model = classifier()
    optimizer = model.optimizer
    told(lambda: model.compile("sgd", "no such loss"))
    assert model.optimizer is optimizer
    assert model.loss == "sparse_categorical_crossentropy"
    model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "call"])
def test_wrong_features(method):
    model = classifier()
    wrong = np.zeros((10, 5), np.float32)
    action = {
        "fit": lambda: model.fit(wrong, Y, verbose=0),
        "evaluate": lambda: model.evaluate(wrong, Y, verbose=0),
        "predict": lambda: model.predict(wrong, verbose=0),
        "call": lambda: model(wrong),
    }[method]
    assert told(action, ShapeError) == (
        "net: the input 'features' does not have the shape that the model was made for.\n"
        "  expected (None, 4)\n"
        "  given    float32 (batch, 5)"
    )
    model.fit(X, Y, verbose=0)


def test_images_for_a_dense_network():
    model = lamina.Sequential([lamina.Input((784,), name="image"), layers.Dense(10)], name="net")
    text = told(lambda: model.predict(np.zeros((2, 28, 28)), verbose=0), ShapeError)
    assert text == (
        "net: the input 'image' does not have the shape that the model was made for.\n"
        "  expected (None, 784)\n"
        "  given    float32 (batch, 28, 28)\n"
        "  hint     flattening the input gives 784 features: add Flatten() first"
    )


def test_one_sample_without_its_axis():
    model = lamina.Sequential([lamina.Input((8, 8, 1), name="image"), layers.Flatten()], name="net")
    assert told(lambda: model(np.zeros((8, 8, 1))), ShapeError) == (
        "net: the input 'image' does not have the shape that the model was made for.\n"
        "  expected (None, 8, 8, 1)\n"
        "  given    float32 (batch, 8, 1)\n"
        "  hint     one sample is a batch of one: array[None]"
    )


def test_labels_out_of_range_are_named():
    model = classifier()
    model.fit(X, Y, verbose=0)
    before = model.get_weights()
    labels = Y.copy()
    labels[6] = 3
    text = told(
        lambda: model.fit(X, labels, batch_size=4, shuffle=False, verbose=0), IndexRangeError
    )
    assert "3" in text
    assert text.startswith("y: row ")
    assert "check the vocabulary size, or the number of classes" in text
    for one, other in zip(before, model.get_weights(), strict=True):
        assert np.isfinite(other).all()
        assert one.shape == other.shape
    model.fit(X, Y, verbose=0)


def test_tokens_out_of_range_are_named():
    model = lamina.Sequential(
        [lamina.Input((5,), dtype="int32"), layers.Embedding(7, 2), layers.Flatten()]
    )
    tokens = np.zeros((3, 5), np.int32)
    tokens[1, 2] = 7
    text = told(lambda: model.predict(tokens, verbose=0), IndexRangeError)
    assert "row 1 holds the index 7, outside its table of 7" in text
    assert model.predict(np.zeros((3, 5), np.int32), verbose=0).shape == (3, 10)


def test_missing_and_misspelt_inputs():
    model = several()
    a, b = np.zeros((4, 2)), np.zeros((4, 3))
    assert told(lambda: model.predict({"a": a, "bb": b}, verbose=0), ShapeError) == (
        "pair: the input 'b' is missing. Did you mean 'bb'?\n  expected a, b\n  got      a, bb"
    )
    assert told(lambda: model.predict([a], verbose=0), ShapeError) == (
        "pair: expected 2 inputs, got 1.\n  inputs   a, b"
    )


def test_losses_for_outputs_that_are_not_there():
    model = several()
    data = [np.zeros((4, 2)), np.zeros((4, 3))]
    targets = [np.zeros((4, 1)), np.zeros((4, 2))]
    model.compile("sgd", {"one": "mse", "tow": "mse"})
    assert told(lambda: model.fit(data, targets, verbose=0), ValueError) == (
        "loss: the model has no output 'tow'. Did you mean 'two'?\n  outputs  one, two"
    )
    model.compile("sgd", ["mse", "mse", "mse"])
    assert told(lambda: model.fit(data, targets, verbose=0), ValueError) == (
        "loss must have one entry for each output of the model.\n"
        "  outputs  one, two\n"
        "  got      list of 3\n"
        "  hint     give a list of 2, or a dict by output name"
    )
    model.compile("sgd", "mse", metrics=["mae"])
    assert "metrics must have one entry for each output" in told(
        lambda: model.fit(data, targets, verbose=0)
    )
    model.compile("sgd", "mse")
    assert "y must have one entry for each output" in told(
        lambda: model.fit(data, targets[0], verbose=0)
    )
    model.fit(data, targets, verbose=0)


def test_targets_that_are_missing():
    assert told(lambda: classifier().fit(X, verbose=0), ValueError) == (
        "y: there is no target for the output 'classifier'.\n"
        "  outputs  classifier\n"
        "  hint     pass y to fit, or set that output's loss to None"
    )


def test_nothing_to_minimise():
    model = classifier(loss=None)
    assert told(lambda: model.fit(X, Y, verbose=0), ValueError) == (
        "there is no loss to compute.\n"
        "  hint     pass loss=... to compile(), or call add_loss() in a layer"
    )


def test_targets_of_another_shape():
    model = classifier(loss="categorical_crossentropy")
    wrong = np.zeros((10, 5), np.float32)
    assert told(lambda: model.fit(X, wrong, verbose=0), ValueError) == (
        "the targets do not fit the output 'classifier'.\n"
        "  loss     categorical_crossentropy\n"
        "  y        float32 (batch, 5)\n"
        "  output   float32 (batch, 3)\n"
        "  because  categorical_crossentropy: y_true and y_pred have different shapes.\n"
        "  hint     for labels that are class numbers use sparse_categorical_crossentropy"
    )
    model.fit(X, np.zeros((10, 3)), verbose=0)
    assert "the targets do not fit the output 'classifier'" in told(
        lambda: classifier(loss="mse").fit(X, wrong, verbose=0)
    )


def test_values_asked_for_while_compiling():
    class Asks(lamina.Model):
        def call(self, inputs):
            return inputs * 2.0 if lamina.ops.sum(inputs) > 0 else inputs

    model = Asks()
    text = told(lambda: model.predict(X, verbose=0), TraceError)
    assert "the value it asks for is known only when the step runs" in text
    assert "compile(run_eagerly=True)" in text
    assert "test_training_errors.py" in text


def test_steps_that_return_no_logs():
    class Silent(lamina.Model):
        def train_step(self, data):
            return 1.0

    inputs = lamina.Input((4,))
    model = Silent(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    assert told(lambda: model.fit(X, Y, verbose=0), TypeError) == (
        "train_step and test_step return a dict of logs, got float.\n"
        "  hint     return {'loss': loss}"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"verbose": "loud"}, "verbose is 'auto', 0, 1 or 2, got 'loud'."),
        ({"steps_per_epoch": 0}, "steps_per_epoch is a whole number of at least 1, got 0."),
        (
            {"validation_data": (X, Y), "validation_freq": 0},
            "validation_freq must be at least 1, got 0.",
        ),
        (
            {"validation_data": (X,)},
            (
                "validation_data is (x, y), (x, y, sample_weight) or an iterable of batches, "
                "got tuple of 1.\n"
                "  hint     several inputs are one list: validation_data=([a, b], y)"
            ),
        ),
    ],
)
def test_arguments_of_fit(arguments, text):
    assert told(lambda: classifier().fit(X, Y, **{"verbose": 0, **arguments})) == text


def test_validation_split_of_a_generator():
    assert "validation_split needs arrays in memory" in told(
        lambda: classifier().fit(iter([(X, Y)]), validation_split=0.2, verbose=0)
    )


def test_layers_that_are_not_there():
    model = classifier()
    assert told(lambda: model.get_layer("clasifier"), ValueError) == (
        "get_layer: there is no layer 'clasifier'. Did you mean 'classifier'?\n"
        "  layers   classifier"
    )
    assert told(lambda: model.get_layer(index=4)) == (
        "get_layer: there is no layer 4; there are 1."
    )


def test_adding_what_is_no_layer():
    model = lamina.Sequential(name="net")
    assert told(lambda: model.add(layers.Dense), TypeError) == (
        "net: only layers can be added, got type.\n  hint     did you forget the ()?"
    )
    assert "layers.Lambda(function)" in told(lambda: model.add(print))
    model.add(layers.Dense(2, name="same"))
    assert "there is already a layer called 'same'" in told(
        lambda: model.add(layers.Dense(2, name="same"))
    )


def test_graphs_that_do_not_hang_together():
    a, b = lamina.Input((2,), name="a"), lamina.Input((2,), name="b")
    out = layers.Add()([a, b])
    assert told(lambda: lamina.Model(a, out), ValueError) == (
        "an output depends on 'b', which is not among the inputs.\n"
        "  inputs   a\n"
        "  hint     pass b as an input of the model too"
    )
    assert "symbolic tensors, got ndarray" in told(lambda: lamina.Model(np.zeros(2), out))


def test_an_unbuilt_sequential():
    model = lamina.Sequential([layers.Dense(2)], name="net")
    assert told(model.build, ValueError) == (
        "net: the shape of the input is not known.\n"
        "  hint     put Input(shape) in front, call the model on a batch, or pass "
        "build(input_shape)"
    )
    assert "has no symbolic outputs" in told(lambda: model.outputs, AttributeError)


def test_a_sub_class_without_call():
    class Empty(lamina.Model):
        pass

    assert "Empty does not define call(inputs)." in told(lambda: Empty()(X), NotImplementedError)


def test_no_message_prints_values():
    data = np.full((10, 5), 1234.5678)
    assert "1234" not in told(lambda: classifier().fit(data, Y, verbose=0))
