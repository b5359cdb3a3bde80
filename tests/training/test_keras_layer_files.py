"""Every kind of layer goes through a `.keras` file to Keras and back, with the same outputs."""

import numpy as np
import pytest

import lamina

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

# input shape, and how the layer is made; {} of its own arguments means defaults
LAYERS = {
    "Activation": ((4,), {"activation": "gelu"}),
    "AveragePooling1D": ((8, 3), {"pool_size": 2}),
    "AveragePooling2D": ((6, 6, 2), {"pool_size": 2, "padding": "same"}),
    "BatchNormalization": ((6, 6, 2), {"momentum": 0.9}),
    "Bidirectional": ((5, 3), lambda api: api.layers.Bidirectional(api.layers.GRU(2))),
    "Conv1D": ((8, 3), {"filters": 4, "kernel_size": 3, "padding": "causal"}),
    "Conv2D": ((6, 6, 2), {"filters": 4, "kernel_size": (3, 2), "strides": 2}),
    "Conv2DTranspose": ((4, 4, 2), {"filters": 3, "kernel_size": 3, "strides": 2}),
    "Conv3D": ((4, 4, 4, 2), {"filters": 3, "kernel_size": 2}),
    "Cropping2D": ((6, 6, 2), {"cropping": ((1, 0), (2, 1))}),
    "Dense": ((4,), {"units": 3, "activation": "swish", "kernel_initializer": "he_normal"}),
    "DepthwiseConv2D": ((6, 6, 2), {"kernel_size": 3, "depth_multiplier": 2}),
    "Dropout": ((4,), {"rate": 0.3}),
    "ELU": ((4,), {"alpha": 0.7}),
    "EinsumDense": (
        (5, 4),
        {"equation": "abc,cd->abd", "output_shape": (None, 3), "bias_axes": "d"},
    ),
    "Embedding": ((5,), {"input_dim": 9, "output_dim": 3}),
    "Flatten": ((3, 4), {}),
    "GRU": ((5, 3), {"units": 4, "return_sequences": True}),
    "GaussianNoise": ((4,), {"stddev": 0.2}),
    "GlobalAveragePooling1D": ((5, 3), {}),
    "GlobalMaxPooling2D": ((6, 6, 2), {"keepdims": True}),
    "GroupNormalization": ((6, 6, 4), {"groups": 2}),
    "LSTM": ((5, 3), {"units": 4, "recurrent_dropout": 0.1}),
    "LayerNormalization": ((5, 3), {"axis": [1, 2]}),
    "LeakyReLU": ((4,), {"negative_slope": 0.2}),
    "Masking": ((5, 3), {"mask_value": 0.5}),
    "MaxPooling1D": ((8, 3), {"pool_size": 3, "strides": 1}),
    "MaxPooling2D": ((6, 6, 2), {"pool_size": (2, 3)}),
    "PReLU": ((4,), {}),
    "Permute": ((3, 4), {"dims": (2, 1)}),
    "RMSNormalization": ((4,), {}),
    "ReLU": ((4,), {"max_value": 0.5}),
    "RepeatVector": ((4,), {"n": 3}),
    "Rescaling": ((4,), {"scale": 0.5, "offset": 1.0}),
    "Reshape": ((6,), {"target_shape": (2, -1)}),
    "SeparableConv2D": ((6, 6, 2), {"filters": 3, "kernel_size": 3}),
    "SimpleRNN": ((5, 3), {"units": 4}),
    "Softmax": ((4,), {}),
    "SpatialDropout1D": ((5, 3), {"rate": 0.2}),
    "TimeDistributed": (
        (5, 4),
        lambda api: api.layers.TimeDistributed(api.layers.Dense(2, name="inner")),
    ),
    "UnitNormalization": ((4,), {}),
    "UpSampling2D": ((3, 3, 2), {"size": (2, 1), "interpolation": "nearest"}),
    "ZeroPadding2D": ((3, 3, 2), {"padding": ((1, 0), (0, 2))}),
    "Dense constrained": (
        (4,),
        lambda api: api.layers.Dense(
            3,
            kernel_constraint=api.constraints.MaxNorm(1.5),
            bias_regularizer=api.regularizers.L1L2(0.1, 0.2),
            activity_regularizer="l2",
            bias_initializer=api.initializers.Constant(0.3),
        ),
    ),
    "RNN of cells": (
        (5, 3),
        lambda api: api.layers.RNN([api.layers.LSTMCell(3), api.layers.GRUCell(2)]),
    ),
}


def model_of(api, name):
    shape, made = LAYERS[name]
    kind = name.split(" ", maxsplit=1)[0]
    layer = made(api) if callable(made) else getattr(api.layers, kind)(**made)
    return api.Sequential([api.layers.Input(shape), layer])


def data_of(name):
    rng = np.random.default_rng(0)
    shape = (3, *LAYERS[name][0])
    if name == "Embedding":
        return rng.integers(0, 9, shape).astype(np.int32)
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, keras, tmp_path):
    x = data_of(name)
    if not hasattr(lamina.layers, name.split(" ", maxsplit=1)[0]):
        pytest.skip("lamina has no such layer yet")
    theirs = model_of(keras, name)
    theirs.set_weights(
        [np.random.default_rng(i).random(w.shape) for i, w in enumerate(theirs.get_weights())]
    )
    theirs.save(tmp_path / "theirs.keras")
    ours = lamina.models.load_model(tmp_path / "theirs.keras")
    expected = np.asarray(theirs(x))
    np.testing.assert_allclose(ours.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    ours.save(tmp_path / "ours.keras")
    again = keras.models.load_model(tmp_path / "ours.keras")
    np.testing.assert_allclose(np.asarray(again(x)), expected, rtol=1e-5, atol=1e-6)
