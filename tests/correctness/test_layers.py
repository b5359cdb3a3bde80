"""Layers against loops in NumPy, unrolled twins and central differences, without Keras."""

from __future__ import annotations

import layer_cases
import numpy as np
import pytest
from layer_cases import CASES, Case

import lamina
from lamina import layers, ops
from lamina.tensor import convert, recording
from lamina.trace import executor_for, gradient_nodes, trace
from lamina.types import Batch, Type

SMOOTH = [
    case
    for case in CASES
    if "Max" not in case.name
    and "relu" not in str(case)
    and "hard_sigmoid" not in str(case)
    # In training this one changes its kernel at every call.
    and not (case.name == "SpectralNormalization" and case.call)
]


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_gradients_equal_central_differences(case):
    """<gradient, v> equals the slope along a random v, in double precision."""
    layer = layer_cases.built(case, dtype="float64")
    inputs = case.inputs("float64")
    outputs, by_inputs, by_weights = layer_cases.gradients_of(case, layer, inputs)
    d = layer_cases.directions(outputs)
    rng = np.random.default_rng(17)

    def value(arrays, weights):
        for variable, weight in zip(layer.trainable_weights, weights, strict=True):
            variable.assign(weight)
        found = layer_cases.flat(
            layer(*case.arguments_of([convert(x) for x in arrays]), **case.call)
        )
        return sum(float((a.numpy() * b).sum()) for a, b in zip(found, d, strict=True))

    weights = [variable.numpy() for variable in layer.trainable_weights]
    parts = [(True, i) for i in range(len(by_inputs))] + [(False, i) for i in range(len(weights))]
    for is_input, i in parts:
        held = inputs if is_input else weights
        v, h = rng.normal(size=held[i].shape), 1e-6
        sides = []
        for sign in (1, -1):
            moved = [x + sign * h * v if j == i else x for j, x in enumerate(held)]
            sides.append(value(moved, weights) if is_input else value(inputs, moved))
        slope = (sides[0] - sides[1]) / (2 * h)
        exact = np.vdot((by_inputs if is_input else by_weights)[i], v)
        assert exact == pytest.approx(slope, rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layers_are_made_again_from_their_configuration(case):
    layer = layer_cases.built(case)
    again = type(layer).from_config(layer.get_config())
    inputs = case.inputs()
    again(*case.arguments_of(inputs), **case.call)
    again.set_weights(layer.get_weights())
    ours = layer_cases.flat(layer(*case.arguments_of(inputs), **case.call))
    theirs = layer_cases.flat(again(*case.arguments_of(inputs), **case.call))
    if not case.call.get("training"):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layers_are_traced_for_any_number_of_rows(case):
    """One program with the batch left open gives what each number of rows gives."""
    layer = layer_cases.built(case)
    types = [Type((Batch(1), *x.shape[1:]), str(x.dtype)) for x in case.inputs()]

    def call(*inputs):
        return layer(*case.arguments_of(inputs), **case.call)

    traced = trace(call, *types)
    assert all(node.type.batch_axis == 0 for node in traced.program.outputs)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiled_gradients_equal_eager_ones(case):
    """One program, forward and backward, run for as many rows as it allows and for one."""
    layer = layer_cases.built(case)
    inputs = case.inputs()
    types = [Type((Batch(1), *x.shape[1:]), str(x.dtype)) for x in inputs]
    weights = layer.trainable_weights
    d = layer_cases.directions(layer_cases.flat(layer(*case.arguments_of(inputs), **case.call)))

    def step(*tensors):
        outputs = layer_cases.flat(layer(*case.arguments_of(tensors), **case.call))
        loss = sum(
            ops.sum(output * convert(x[:1].astype(output.dtype)))
            for output, x in zip(outputs, d, strict=True)
        )
        floats = [] if case.whole_numbers else list(tensors)
        return [*outputs, *gradient_nodes(loss, [*floats, *weights])]

    traced = trace(step, *types)
    run = executor_for(traced.program, 2)
    for rows in (2, 1):
        kept = layer.get_weights()
        arrays = [np.ascontiguousarray(x[:rows]) for x in inputs]
        found = run(arrays, traced.states())
        layer.set_weights(kept)
        with recording():
            expected = [x.numpy() for x in step(*[convert(x) for x in arrays])]
        layer.set_weights(kept)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
@pytest.mark.parametrize("go_backwards", [False, True])
def test_scan_equals_its_unrolled_twin(name, go_backwards):
    case = Case(name, (4,), {"return_sequences": True, "return_state": True}, ((3, 6, 2),))
    loop = Case(name, (4,), {**case.options, "go_backwards": go_backwards}, case.shapes)
    flat = Case(name, (4,), {**loop.options, "unroll": True}, case.shapes)
    results = []
    for one in (loop, flat):
        layer = layer_cases.built(one)
        results.append(layer_cases.gradients_of(one, layer, one.inputs()))
    for a, b in zip(*(([*r[0], *r[1], *r[2]]) for r in results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------- formulas


def naive_convolution(x, w, stride, dilation):
    """Valid convolution of one image by four loops."""
    height, width, _ = x.shape
    kh, kw, _, filters = w.shape
    rows = (height - (kh - 1) * dilation - 1) // stride + 1
    columns = (width - (kw - 1) * dilation - 1) // stride + 1
    out = np.zeros((rows, columns, filters))
    for i in range(rows):
        for j in range(columns):
            for a in range(kh):
                for b in range(kw):
                    cell = x[i * stride + a * dilation, j * stride + b * dilation]
                    out[i, j] += cell @ w[a, b]
    return out


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_convolution_equals_loops(rng, stride, dilation):
    layer = layers.Conv2D(
        3, (3, 2), strides=stride, dilation_rate=dilation, bias_initializer="ones"
    )
    x = rng.normal(size=(2, 8, 7, 2)).astype("float32")
    found = layer(x).numpy()
    for image, out in zip(x, found, strict=True):
        expected = naive_convolution(image, layer.kernel.numpy(), stride, dilation) + 1.0
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_causal_convolution_looks_back_only(rng):
    layer = layers.Conv1D(2, 3, padding="causal")
    x = rng.normal(size=(1, 6, 1)).astype("float32")
    before = layer(x).numpy()
    x[0, 4] += 1.0
    after = layer(x).numpy()
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert not np.allclose(before[:, 4:], after[:, 4:])


def test_transposed_convolution_is_the_transpose(rng):
    """<conv(x), y> equals <x, conv_transpose(y)> with the same kernel."""
    forward = layers.Conv2D(3, 3, strides=2, padding="same", use_bias=False)
    x = rng.normal(size=(1, 8, 8, 2)).astype("float32")
    y = forward(x).numpy()
    back = layers.Conv2DTranspose(2, 3, strides=2, padding="same", use_bias=False)
    z = rng.normal(size=y.shape).astype("float32")
    back(z)
    back.set_weights([forward.kernel.numpy()])
    assert np.vdot(y, z) == pytest.approx(np.vdot(x, back(z).numpy()), rel=1e-4)


def test_sum_pooling_is_the_mean_times_the_size(rng):
    x = rng.normal(size=(2, 6, 4, 3)).astype("float32")
    total, mean = layers.SumPooling2D(2)(x).numpy(), layers.AveragePooling2D(2)(x).numpy()
    np.testing.assert_allclose(total, 4.0 * mean, rtol=1e-5)
    assert layers.SumPooling1D(3, strides=1)(x[:, :, 0]).shape == (2, 4, 3)


def test_batch_normalization_follows_the_paper(rng):
    x = rng.normal(3.0, 2.0, (50, 4)).astype("float32")
    layer = layers.BatchNormalization(momentum=0.9)
    y = layer(x, training=True).numpy()
    np.testing.assert_allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.1 * x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.9 + 0.1 * x.var(0), rtol=1e-4)
    layer.trainable = False
    frozen = layer.moving_mean.numpy()
    layer(x, training=True)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), frozen)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_lstm_follows_its_equations(rng):
    layer = layers.LSTM(3, return_state=True)
    x = rng.normal(size=(2, 5, 4)).astype("float32")
    layer(x)
    layer.set_weights(layer_cases.random_weights(layer))
    w, u, b = (v.astype(float) for v in layer.get_weights())
    h = c = np.zeros((2, 3))
    for t in range(5):
        i, f, g, o = np.split(x[:, t] @ w + h @ u + b, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    output, last_h, last_c = layer(x)
    np.testing.assert_allclose(output.numpy(), h, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(last_h.numpy(), output.numpy())
    np.testing.assert_allclose(last_c.numpy(), c, rtol=1e-4, atol=1e-6)


def test_forget_gate_begins_open():
    layer = layers.LSTM(2)
    layer(np.zeros((1, 1, 1), "float32"))
    assert layer.cell.bias.numpy().tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_a_cell_of_ones_own_runs_in_a_scan(rng):
    class Leaky(layers.Layer):
        state_size = 3
        output_size = 1

        def build(self, input_shape):
            self.w = self.add_weight(shape=(input_shape[-1], 3), name="w")

        def call(self, inputs, states):
            state = 0.5 * states[0] + ops.matmul(inputs, self.w)
            return ops.sum(state, axis=-1, keepdims=True), [state]

    x = rng.normal(size=(2, 4, 2)).astype("float32")
    mask = np.array([[1, 1, 0, 1], [1, 0, 0, 0]], bool)
    layer = layers.RNN(Leaky(), return_sequences=True)
    found = layer(x, mask=convert(mask)).numpy()
    w = layer.cell.w.numpy()
    for row in range(2):
        state, last = np.zeros(3), np.zeros(1)
        for t in range(4):
            if mask[row, t]:
                state = 0.5 * state + x[row, t] @ w
                last = state.sum(keepdims=True)
            np.testing.assert_allclose(found[row, t], last, rtol=1e-4, atol=1e-6)


def test_stacked_cells_equal_stacked_layers(rng):
    x = rng.normal(size=(2, 4, 3)).astype("float32")
    stack = layers.RNN([layers.LSTMCell(4), layers.GRUCell(2)], return_sequences=True)
    stack(x)
    one, two = layers.LSTM(4, return_sequences=True), layers.GRU(2, return_sequences=True)
    two(one(x))
    weights = layer_cases.random_weights(stack)
    stack.set_weights(weights)
    one.set_weights(weights[:3])
    two.set_weights(weights[3:])
    np.testing.assert_allclose(stack(x).numpy(), two(one(x)).numpy(), rtol=1e-4, atol=1e-6)


def test_stateful_layers_go_on_where_they_stopped(rng):
    x = rng.normal(size=(2, 6, 3)).astype("float32")
    whole = layers.GRU(4, return_sequences=True)
    expected = whole(x).numpy()
    parts = layers.GRU(4, return_sequences=True, stateful=True)
    parts(x[:, :3])
    parts.set_weights(whole.get_weights())
    parts.reset_state()
    found = [parts(x[:, :3]).numpy(), parts(x[:, 3:]).numpy()]
    np.testing.assert_allclose(np.concatenate(found, 1), expected, rtol=1e-4, atol=1e-6)


def test_recurrent_dropout_uses_one_mask_for_all_steps():
    layer = layers.SimpleRNN(
        1,
        activation="linear",
        use_bias=False,
        kernel_initializer="ones",
        recurrent_initializer="zeros",
        dropout=0.5,
        return_sequences=True,
    )
    x = np.ones((64, 5, 1), "float32")
    y = layer(x, training=True).numpy()[:, :, 0]
    assert set(np.unique(y)) == {0.0, 2.0}
    assert (y == y[:, :1]).all()
    assert (layer(x).numpy() == 1.0).all()


def test_initial_states_and_the_way_back(rng):
    x = rng.normal(size=(2, 4, 3)).astype("float32")
    h, c = (rng.normal(size=(2, 5)).astype("float32") for _ in range(2))
    layer = layers.LSTM(5, return_sequences=True)
    first = layer(x, initial_state=[convert(h), convert(c)]).numpy()
    assert not np.allclose(first, layer(x).numpy())
    both = layers.Bidirectional(layers.LSTM(5, return_sequences=True))
    y = both(x).numpy()
    ahead = both.forward_layer(x).numpy()
    back = both.backward_layer(x[:, :, :]).numpy()[:, ::-1]
    np.testing.assert_allclose(y, np.concatenate([ahead, back], -1), rtol=1e-5)


def test_embedding_masks_zeros():
    layer = layers.Embedding(5, 2, mask_zero=True)
    out = layer(np.array([[1, 0, 3]]))
    assert out._keras_mask.numpy().tolist() == [[True, False, True]]
    pooled = layers.GlobalAveragePooling1D()(out).numpy()
    np.testing.assert_allclose(pooled[0], out.numpy()[0, [0, 2]].mean(0), rtol=1e-5)


def test_masks_travel_through_a_stack():
    model = [
        layers.Embedding(5, 2, mask_zero=True),
        layers.LSTM(3, return_sequences=True),
        layers.LSTM(2),
    ]
    short, long = np.array([[1, 2]]), np.array([[1, 2, 0, 0]])

    def run(x):
        for layer in model:
            x = layer(x)
        return x.numpy()

    np.testing.assert_allclose(run(short), run(long), rtol=1e-5)


def test_attention_follows_the_paper(rng):
    layer = layers.MultiHeadAttention(2, 3, use_bias=False)
    x = rng.normal(size=(1, 4, 5)).astype("float32")
    y, scores = layer(x, x, return_attention_scores=True)
    q, k, v, o = (w.astype(float) for w in layer.get_weights())
    out = np.zeros((4, 5))
    for head in range(2):
        logits = (x[0] @ q[:, head]) @ (x[0] @ k[:, head]).T / np.sqrt(3)
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        np.testing.assert_allclose(scores.numpy()[0, head], weights, rtol=1e-4, atol=1e-6)
        out += weights @ (x[0] @ v[:, head]) @ o[head]
    np.testing.assert_allclose(y.numpy()[0], out, rtol=1e-4, atol=1e-5)


def test_each_projection_of_attention_begins_differently():
    layer = layers.MultiHeadAttention(2, 3)
    layer(np.zeros((1, 2, 4), "float32"), np.zeros((1, 2, 4), "float32"))
    assert not np.allclose(layer.query_dense.kernel.numpy(), layer.key_dense.kernel.numpy())


def test_time_distributed_equals_a_loop(rng):
    inner = layers.Conv1D(3, 2)
    x = rng.normal(size=(2, 4, 5, 2)).astype("float32")
    y = layers.TimeDistributed(inner)(x).numpy()
    for t in range(4):
        np.testing.assert_allclose(y[:, t], inner(x[:, t]).numpy(), rtol=1e-5, atol=1e-6)


def test_mixed_precision_keeps_statistics_in_full():
    layer = layers.BatchNormalization(dtype="mixed_bfloat16")
    out = layer(np.ones((4, 2), "float32"), training=True)
    assert out.dtype == "bfloat16"
    assert layer.moving_mean.dtype == "float32"


def test_layers_as_plain_data():
    layer = layers.Bidirectional(layers.LSTM(3, activation="relu"))
    again = layers.deserialize(layers.serialize(layer))
    assert again.get_config() == layer.get_config()


def test_public_names_exist():
    for name in layers.__all__:
        assert getattr(lamina.layers, name) is not None
