"""Functional, sequential and subclassed models: structure, sharing, masks, copies of graphs."""

import numpy as np
import pytest

import lamina
from lamina import layers, ops


def test_model_of_inputs_and_outputs_is_functional():
    inputs = lamina.Input((3,))
    model = lamina.Model(inputs, layers.Dense(2)(inputs))
    assert type(model).__name__ == "Functional"
    assert model.input_shape == (None, 3)
    assert model.output_shape == (None, 2)
    assert model.built


@pytest.mark.parametrize("style", ["positional", "keywords", "inside"])
def test_subclasses_may_be_functional_too(style, rng):
    class Own(lamina.Model):
        def __init__(self, *args, **kwargs):
            if style == "inside":
                inputs = lamina.Input((3,))
                super().__init__(inputs=inputs, outputs=layers.Dense(2)(inputs))
            else:
                super().__init__(*args, **kwargs)

        def train_step(self, data):
            return {**super().train_step(data), "mine": ops.mean(data[0])}

    inputs = lamina.Input((3,))
    model = {
        "positional": lambda: Own(inputs, layers.Dense(2)(inputs)),
        "keywords": lambda: Own(inputs=inputs, outputs=layers.Dense(2)(inputs)),
        "inside": Own,
    }[style]()
    model.compile("sgd", "mse")
    x = rng.random((8, 3), np.float32)
    logs = model.fit(x, np.zeros((8, 2)), verbose=0).history
    assert logs["mine"] == [pytest.approx(x.mean(), rel=1e-5)]


def test_a_shared_layer_has_its_weights_once(rng):
    a, b = lamina.Input((3,)), lamina.Input((3,))
    shared = layers.Dense(2)
    model = lamina.Model([a, b], shared(a) - shared(b))
    assert model.count_params() == 8
    x = rng.random((4, 3), np.float32)
    np.testing.assert_allclose(model.predict([x, x], verbose=0), 0, atol=1e-6)


def test_outputs_of_inner_layers(rng):
    model = lamina.Sequential([lamina.Input((3,)), layers.Dense(4, name="hidden"), layers.Dense(2)])
    features = lamina.Model(model.inputs, model.get_layer("hidden").output)
    x = rng.random((5, 3), np.float32)
    kernel, bias = model.get_layer("hidden").get_weights()
    np.testing.assert_allclose(features.predict(x, verbose=0), x @ kernel + bias, rtol=1e-5)


def test_the_second_half_of_a_model(rng):
    model = lamina.Sequential(
        [lamina.Input((3,)), layers.Dense(4, name="hidden"), layers.Dense(2, name="head")]
    )
    middle = model.get_layer("hidden").output
    head = lamina.Model(middle, model.output)
    assert [layer.name for layer in head.layers[1:]] == ["head"]
    x = rng.random((5, 3), np.float32)
    features = lamina.Model(model.inputs, middle).predict(x, verbose=0)
    np.testing.assert_allclose(
        head.predict(features, verbose=0), model.predict(x, verbose=0), rtol=1e-5
    )


def test_models_as_layers(rng):
    encoder = lamina.Sequential([lamina.Input((3,)), layers.Dense(2)], name="encoder")
    inputs = lamina.Input((4, 3))
    model = lamina.Model(inputs, layers.TimeDistributed(encoder)(inputs))
    x = rng.random((2, 4, 3), np.float32)
    expected = encoder.predict(x.reshape(8, 3), verbose=0).reshape(2, 4, 2)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5)
    assert [id(v) for v in model.trainable_variables] == [
        id(v) for v in encoder.trainable_variables
    ]


def test_rank_of_inputs_is_fitted(rng):
    inputs = lamina.Input((1,))
    model = lamina.Model(inputs, inputs * 2.0)
    x = rng.random(5).astype(np.float32)
    np.testing.assert_array_equal(model.predict(x, verbose=0), 2 * x[:, None])


def test_inputs_by_name_in_any_order(rng):
    a, b = lamina.Input((1,), name="a"), lamina.Input((1,), name="b")
    model = lamina.Model([b, a], b - a)
    x = {"a": np.ones((3, 1)), "b": np.full((3, 1), 5.0)}
    np.testing.assert_array_equal(model.predict(x, verbose=0), np.full((3, 1), 4.0))
    np.testing.assert_array_equal(model.predict([x["b"], x["a"]], verbose=0), np.full((3, 1), 4.0))


def test_masks_pass_through_functional_models(rng):
    inputs = lamina.Input((4,), dtype="int32")
    x = layers.Embedding(5, 2, mask_zero=True)(inputs)
    model = lamina.Model(inputs, layers.LSTM(3)(x))
    tokens = np.array([[1, 2, 0, 0], [1, 2, 3, 4]])
    short = lamina.Model(inputs, layers.Lambda(lambda x: x)(inputs))
    del short
    padded = model.predict(tokens, verbose=0)
    cut = lamina.Input((2,), dtype="int32")
    twin = lamina.Model(cut, model.layers[2](model.layers[1](cut)))
    np.testing.assert_allclose(padded[:1], twin.predict(tokens[:1, :2], verbose=0), rtol=1e-5)


def test_sequential_without_input_is_built_by_its_first_batch(rng):
    model = lamina.Sequential([layers.Dense(4), layers.Dense(2)])
    assert not model.built
    model.compile("sgd", "mse")
    model.fit(rng.random((8, 3)), np.zeros((8, 2)), verbose=0)
    assert model.built
    assert model.input_shape == (None, 3)
    assert [tuple(w.shape) for w in model.weights] == [(3, 4), (4,), (4, 2), (2,)]


def test_add_and_pop():
    model = lamina.Sequential()
    model.add(lamina.Input((3,)))
    model.add(layers.Dense(4))
    model.add(layers.Dense(2))
    assert model.output_shape == (None, 2)
    last = model.pop()
    assert last.units == 2
    assert model.output_shape == (None, 4)
    assert len(model.layers) == 1
    model.add(layers.Dense(5))
    assert model.output_shape == (None, 5)


def test_input_shape_of_the_first_layer():
    model = lamina.Sequential([layers.Dense(4, input_shape=(3,))])
    assert model.built
    assert model.input_shape == (None, 3)


def test_a_deferred_sequential_takes_the_dtype_of_later_batches():
    model = lamina.Sequential([layers.Embedding(9, 2)])
    assert model.predict(np.zeros((2, 3), np.int64), verbose=0).shape == (2, 3, 2)
    assert model.predict(np.zeros((2, 3), np.int32), verbose=0).shape == (2, 3, 2)


def test_sizes_that_vary(rng):
    inputs = lamina.Input((None, 3))
    model = lamina.Model(inputs, layers.GlobalAveragePooling1D()(layers.Dense(2)(inputs)))
    assert model.output_shape == (None, 2)
    for length in (4, 9):
        x = rng.random((5, length, 3), np.float32)
        kernel, bias = model.get_weights()
        np.testing.assert_allclose(
            model.predict(x, verbose=0), x.mean(1) @ kernel + bias, rtol=1e-4, atol=1e-5
        )


def test_two_optimizers_in_a_step_of_ones_own(rng):
    """The usual shape of a GAN: two networks, two optimizers, no loss in compile."""

    class Pair(lamina.Model):
        def __init__(self):
            super().__init__()
            self.one = lamina.Sequential([lamina.Input((2,)), layers.Dense(1)])
            self.two = lamina.Sequential([lamina.Input((1,)), layers.Dense(1)])
            self.tracker = lamina.metrics.Mean(name="gap")

        def compile(self, first, second):
            super().compile()
            self.first, self.second = first, second

        def train_step(self, data):
            assert tuple(data.shape[1:]) == (2,)  # inputs alone come as they are
            for network, optimizer in ((self.one, self.first), (self.two, self.second)):
                loss = ops.mean(self.two(self.one(data)) ** 2)
                variables = network.trainable_variables
                optimizer.apply(lamina.trace.gradient_nodes(loss, variables), variables)
            self.tracker.update_state(loss)
            return {"gap": self.tracker.result()}

    model = Pair()
    model.compile(lamina.optimizers.Adam(0.05), lamina.optimizers.SGD(0.05))
    history = model.fit(rng.random((64, 2)), epochs=8, verbose=0).history
    assert history["gap"][-1] < history["gap"][0] * 0.8
    assert int(model.first.iterations.numpy()) == 16


def test_a_model_called_on_arrays_is_what_predict_gives(rng):
    model = lamina.Sequential([lamina.Input((3,)), layers.Dense(4), layers.Dropout(0.5)])
    x = rng.random((5, 3), np.float32)
    np.testing.assert_array_equal(np.asarray(model(x)), model.predict(x, verbose=0))
    dropped = np.asarray(model(x, training=True))
    assert (dropped == 0).any()
    assert not np.array_equal(dropped, np.asarray(model(x, training=True)))


def test_a_call_leaves_losses_masks_and_moving_averages(rng):
    class Adds(layers.Layer):
        def call(self, inputs):
            self.add_loss(ops.mean(inputs))
            return inputs

    model = lamina.Sequential([lamina.Input((3,)), Adds(), layers.BatchNormalization()])
    x = rng.random((5, 3), np.float32)
    for _ in range(2):
        model(x)
        assert [float(loss) for loss in model.losses] == [pytest.approx(x.mean(), rel=1e-5)]
    model(x, training=True)
    np.testing.assert_allclose(model.layers[1].get_weights()[2], 0.01 * x.mean(0), rtol=1e-4)
    embedding = lamina.Sequential(
        [lamina.Input((3,), dtype="int32"), layers.Embedding(5, 2, mask_zero=True)]
    )
    outputs = embedding(np.array([[1, 0, 2]]))
    np.testing.assert_array_equal(np.asarray(outputs._keras_mask), [[True, False, True]])


def test_gradients_go_through_a_called_model(rng):
    model = lamina.Sequential([lamina.Input((3,)), layers.Dense(1)])
    x = rng.random((5, 3), np.float32)
    slope = lamina.grad(lambda inputs: ops.sum(model(inputs)))(x)
    kernel = model.get_weights()[0][:, 0]
    np.testing.assert_allclose(np.asarray(slope), np.tile(kernel, (5, 1)), rtol=1e-5)


def test_a_call_that_looks_at_values_runs_op_by_op(rng):
    class Looks(lamina.Model):
        def call(self, inputs):
            return inputs * 2.0 if ops.sum(inputs) > 0 else inputs

    model = Looks()
    x = rng.random((5, 3), np.float32)
    np.testing.assert_array_equal(np.asarray(model(x)), 2 * x)
    np.testing.assert_array_equal(np.asarray(model(-x)), -x)


def test_functions_of_symbolic_tensors(rng):
    inputs = lamina.Input((3,))
    function = lamina.models.Function(inputs, [inputs * 2.0, ops.sum(inputs, axis=-1)])
    x = rng.random((4, 3), np.float32)
    double, total = function(x)
    np.testing.assert_array_equal(np.asarray(double), x * 2)
    np.testing.assert_allclose(np.asarray(total), x.sum(-1), rtol=1e-6)


def test_the_order_of_layers_is_that_of_keras(keras):
    def names(api):
        a = api.layers.Input((4,), name="a")
        b = api.layers.Input((4,), name="b")
        x = api.layers.Dense(4, name="d1")(a)
        y = api.layers.Dense(4, name="d2")(b)
        z = api.layers.Add(name="sum")([x, y])
        w = api.layers.Dense(4, name="d3")(api.layers.Multiply(name="product")([z, a]))
        v = api.layers.Dense(2, name="d4")(y)
        model = api.Model([a, b], [w, v, api.layers.Concatenate(name="all")([w, v, x])])
        return [layer.name for layer in model.layers]

    assert names(lamina) == names(keras)


SUMMARY = """\
Model: "net"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ d1 (Dense)                      │ (None, 8)              │            40 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ norm (BatchNormalization)       │ (None, 8)              │            32 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ d2 (Dense)                      │ (None, 1)              │             9 │
└─────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 81 (324.00 B)
 Trainable params: 65 (260.00 B)
 Non-trainable params: 16 (64.00 B)
"""


def chain(api):
    return api.Sequential(
        [
            api.layers.Input((4,)),
            api.layers.Dense(8, name="d1"),
            api.layers.BatchNormalization(name="norm"),
            api.layers.Dense(1, name="d2"),
        ],
        name="net",
    )


def test_summary_text():
    text = []
    chain(lamina).summary(print_fn=text.append)
    assert text == [SUMMARY]


@pytest.mark.parametrize("options", [{}, {"show_trainable": True}, {"line_length": 70}])
@pytest.mark.filterwarnings("ignore")
def test_summary_is_that_of_keras(keras, options):
    def graph(api):
        a, b = api.layers.Input((4,), name="a"), api.layers.Input((4,), name="b")
        x = api.layers.Add(name="add")([api.layers.Dense(4, name="d1")(a), b])
        return api.Model([a, b], [x, api.layers.Dense(2, name="d2")(x * 2.0)], name="net")

    for make in (chain, graph):
        texts = []
        for api in (keras, lamina):
            api.utils.clear_session()
            model, text = make(api), []
            model.layers[-1].trainable = False
            model.summary(print_fn=lambda line, text=text, **_: text.append(line), **options)
            texts.append([line.rstrip() for line in "".join(text).splitlines()])
        assert texts[0] == texts[1]


def test_summary_of_nested_and_unbuilt_models():
    inner = lamina.Sequential([lamina.Input((3,)), layers.Dense(2, name="deep")], name="inner")
    model = lamina.Sequential([inner, layers.Dense(4, name="later")], name="outer")
    text = []
    model.summary(print_fn=text.append, expand_nested=True)
    assert "└ deep (Dense)" in text[0]
    assert "0 (unbuilt)" in text[0]
