"""Layers against real Keras 3.15 with the same weights: outputs, gradients, configurations."""

from __future__ import annotations

import layer_cases
import numpy as np
import pytest
from layer_cases import CASES

from lamina import layers
from lamina.tensor import convert

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]


def twin(keras, case):
    """Keras's layer and ours with the same weights, and inputs."""
    ours = layer_cases.built(case)
    theirs = case.make(keras.layers)
    inputs = case.inputs()
    theirs(*case.arguments_of(inputs), **case.call)
    shapes = [tuple(weight.shape) for weight in ours.weights]
    assert shapes == [tuple(weight.shape) for weight in theirs.weights]
    theirs.set_weights(ours.get_weights())
    return ours, theirs, inputs


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_gradients_equal_keras(keras, case):
    import jax

    ours, theirs, inputs = twin(keras, case)
    outputs, by_inputs, by_weights = layer_cases.gradients_of(case, ours, inputs)
    d = [x.astype("float32") for x in layer_cases.directions(outputs)]
    fixed = [v.value for v in theirs.non_trainable_variables]

    def loss(weights, arrays):
        result, _ = theirs.stateless_call(weights, fixed, *case.arguments_of(arrays), **case.call)
        found = layer_cases.flat(result)
        return sum((a * b).sum() for a, b in zip(found, d, strict=True)), found

    weights = [v.value for v in theirs.trainable_variables]
    arrays = [jax.numpy.asarray(x) for x in inputs]
    floats = not case.whole_numbers
    grad = jax.grad(loss, argnums=(0, 1) if floats else 0, has_aux=True)
    gradients, wanted = grad(weights, arrays)
    for a, b in zip(outputs, wanted, strict=True):
        np.testing.assert_allclose(a, np.asarray(b), rtol=2e-4, atol=2e-5)
    for_weights, for_inputs = gradients if floats else (gradients, [])
    for a, b in zip(by_inputs, for_inputs, strict=True):
        np.testing.assert_allclose(a, np.asarray(b), rtol=5e-4, atol=5e-5)
    if case.name == "SpectralNormalization" and case.call:
        # The kernel is assigned in the call: ours is the gradient by what was assigned, as with
        # TensorFlow; on JAX, Keras gives that by what was there before.
        return
    for a, b in zip(by_weights, for_weights, strict=True):
        np.testing.assert_allclose(a, np.asarray(b), rtol=5e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_configuration_equals_keras(keras, case):
    ours, theirs = case.make(layers), case.make(keras.layers)
    mine, other = ours.get_config(), theirs.get_config()
    for key, value in other.items():
        if key in {"name", "dtype", "layer", "backward_layer", "activity_regularizer"}:
            continue
        if key in {"rms_scaling", "quantization_config"}:
            continue
        if isinstance(value, dict) and "config" in value:
            assert mine[key]["class_name"] == value["class_name"], key
            assert mine[key]["config"] == value["config"], key
        else:
            assert mine[key] == value, key
    again = type(ours).from_config(mine)
    assert again.get_config() == mine
    kept = type(theirs).from_config({k: v for k, v in mine.items() if k != "dtype"})
    assert kept.get_config().keys() == other.keys()


@pytest.mark.parametrize(
    "case", [c for c in CASES if not c.as_list and len(c.shapes) == 1], ids=str
)
def test_symbolic_shapes_equal_keras(keras, case):
    shape = case.shapes[0][1:]
    dtype = "int32" if case.whole_numbers else "float32"
    ours = case.make(layers)(layers.Input(shape, dtype=dtype), **case.call)
    theirs = case.make(keras.layers)(keras.layers.Input(shape, dtype=dtype), **case.call)
    for a, b in zip(layer_cases.flat(ours), layer_cases.flat(theirs), strict=True):
        # Where Keras knows no size, ours may still know one.
        assert all(x == y or y is None for x, y in zip(a.shape, b.shape, strict=True))


MASK = np.array([[True, True, True, False, False, False], [True, False, True, True, True, True]])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LSTM", {}),
        ("LSTM", {"return_sequences": True}),
        ("LSTM", {"return_sequences": True, "go_backwards": True}),
        ("GRU", {"return_sequences": True, "return_state": True}),
        ("SimpleRNN", {"return_sequences": True, "zero_output_for_mask": True}),
        ("SimpleRNN", {"zero_output_for_mask": True}),
    ],
)
@pytest.mark.parametrize("unroll", [False, True])
def test_masks_equal_keras(keras, name, options, unroll):
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    ours = getattr(layers, name)(4, unroll=unroll, **options)
    theirs = getattr(keras.layers, name)(4, **options)
    ours(x)
    theirs(x)
    weights = layer_cases.random_weights(ours)
    ours.set_weights(weights)
    theirs.set_weights(weights)
    found = layer_cases.flat(ours(x, mask=convert(MASK)))
    wanted = layer_cases.flat(theirs(x, mask=keras.ops.convert_to_tensor(MASK)))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.numpy(), np.asarray(b), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["MultiHeadAttention", "GroupQueryAttention"])
def test_attention_masks_equal_keras(keras, name):
    rng = np.random.default_rng(1)
    q, v = (rng.normal(size=(2, 6, 4)).astype("float32") for _ in range(2))
    seen = rng.integers(0, 2, (2, 6, 6)).astype(bool) | np.eye(6, dtype=bool)
    arguments = (2, 3) if name == "MultiHeadAttention" else (3, 4, 2)
    ours, theirs = getattr(layers, name)(*arguments), getattr(keras.layers, name)(*arguments)
    ours(q, v)
    theirs(q, v)
    weights = layer_cases.random_weights(ours)
    ours.set_weights(weights)
    theirs.set_weights(weights)
    for options in ({}, {"use_causal_mask": True}, {"return_attention_scores": True}):
        found = ours(q, v, attention_mask=convert(seen), value_mask=convert(MASK), **options)
        wanted = theirs(
            q,
            v,
            attention_mask=keras.ops.convert_to_tensor(seen),
            value_mask=keras.ops.convert_to_tensor(MASK),
            **options,
        )
        for a, b in zip(layer_cases.flat(found), layer_cases.flat(wanted), strict=True):
            np.testing.assert_allclose(a.numpy(), np.asarray(b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.8},
        {"renorm": True, "renorm_clipping": {"rmax": 1.5, "rmin": 0.5, "dmax": 2.0}},
    ],
)
def test_moving_averages_equal_keras(keras, options):
    rng = np.random.default_rng(2)
    ours, theirs = layers.BatchNormalization(**options), keras.layers.BatchNormalization(**options)
    for _ in range(4):
        x = rng.normal(2.0, 3.0, (5, 3)).astype("float32")
        a, b = ours(x, training=True), theirs(x, training=True)
        np.testing.assert_allclose(a.numpy(), np.asarray(b), rtol=1e-3, atol=1e-4)
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), np.asarray(other), rtol=1e-4, atol=1e-5)
    mask = np.array([True, True, False, True, False])
    a = ours(x, training=True, mask=convert(mask))
    b = theirs(x, training=True, mask=keras.ops.convert_to_tensor(mask))
    np.testing.assert_allclose(a.numpy(), np.asarray(b), rtol=1e-3, atol=1e-4)
