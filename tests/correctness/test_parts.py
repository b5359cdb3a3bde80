"""Initializers, regularizers, constraints, activations: against formulas and real Keras."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lamina import activations, constraints, initializers, layers, regularizers
from lamina.random import SeedGenerator
from lamina.tensor import Variable, convert

RANDOM = {
    "RandomNormal": ({"mean": 1.0, "stddev": 2.0}, 1.0, 2.0),
    "TruncatedNormal": ({"stddev": 2.0}, 0.0, 2.0 * 0.87962566103423978),
    "RandomUniform": ({"minval": 0.0, "maxval": 6.0}, 3.0, 6.0 / math.sqrt(12)),
    "GlorotUniform": ({}, 0.0, math.sqrt(2 / 500)),
    "GlorotNormal": ({}, 0.0, math.sqrt(2 / 500)),
    "HeNormal": ({}, 0.0, math.sqrt(2 / 300)),
    "HeUniform": ({}, 0.0, math.sqrt(2 / 300)),
    "LecunNormal": ({}, 0.0, math.sqrt(1 / 300)),
    "LecunUniform": ({}, 0.0, math.sqrt(1 / 300)),
    "VarianceScaling": (
        {"scale": 3.0, "mode": "fan_out", "distribution": "untruncated_normal"},
        0.0,
        math.sqrt(3 / 200),
    ),
}


@pytest.mark.parametrize(("name", "rule"), RANDOM.items())
def test_random_initializers_have_the_right_moments(name, rule):
    arguments, mean, deviation = rule
    values = getattr(initializers, name)(**arguments, seed=3)((300, 200)).numpy()
    assert values.dtype == np.float32
    # 60,000 values: the mean is off by 4 deviations / 245 at most, save once in 16,000 seeds.
    assert values.mean() == pytest.approx(mean, abs=4 * deviation / 245)
    assert values.std() == pytest.approx(deviation, rel=0.015)
    again = getattr(initializers, name)(**arguments, seed=3)((300, 200)).numpy()
    np.testing.assert_array_equal(values, again)
    other = getattr(initializers, name)(**arguments, seed=4)((300, 200)).numpy()
    assert (values != other).mean() > 0.99


def test_normal_values_have_a_normal_shape():
    from scipy import stats

    values = initializers.RandomNormal(stddev=1.0, seed=5)((20000,)).numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-3
    cut = initializers.TruncatedNormal(stddev=1.0, seed=5)((20000,)).numpy()
    assert stats.kstest(cut, stats.truncnorm(-2, 2).cdf).pvalue > 1e-3
    assert np.abs(cut).max() < 2.0


def test_the_first_values_of_a_seed_never_change():
    """Weights of a seed are part of the contract: this pins the rule of the module's docstring."""
    values = initializers.RandomUniform(0.0, 1.0, seed=0)((3,), "float64").numpy()
    words = np.random.Philox(key=0).random_raw(3)
    np.testing.assert_array_equal(values, (words >> np.uint64(11)) * 2.0**-53)
    np.testing.assert_allclose(values, [0.01154675, 0.2415492, 0.11142586], atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 2, 4)])
def test_orthogonal_rows_or_columns(shape):
    q = initializers.Orthogonal(gain=2.0, seed=1)(shape).numpy().reshape(-1, shape[-1])
    small = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
    np.testing.assert_allclose(small, 4.0 * np.eye(len(small)), atol=1e-5)


def test_seeds():
    unseeded = initializers.GlorotUniform()
    np.testing.assert_array_equal(unseeded((4,)).numpy(), unseeded((4,)).numpy())
    assert not np.allclose(unseeded((4,)).numpy(), unseeded.clone()((4,)).numpy())
    stream = initializers.GlorotUniform(seed=SeedGenerator(1))
    assert not np.allclose(stream((4,)).numpy(), stream((4,)).numpy())
    assert unseeded.get_config()["seed"] is None


def test_constants_and_arrays():
    assert initializers.get("zeros")((2,), "int32").numpy().tolist() == [0, 0]
    assert initializers.Constant([1, 2])((3, 2)).numpy().tolist() == [[1, 2]] * 3
    np.testing.assert_array_equal(initializers.Identity(2.0)((2, 3)).numpy(), 2 * np.eye(2, 3))
    given = initializers.get(np.arange(3.0))
    assert given((3,)).numpy().tolist() == [0, 1, 2]


@pytest.mark.oracle
@pytest.mark.parametrize("name", [*RANDOM, "Orthogonal", "Zeros", "Constant"])
def test_initializer_configs_equal_keras(keras, name):
    arguments = RANDOM.get(name, ({},))[0]
    ours = getattr(initializers, name)(**arguments)
    theirs = getattr(keras.initializers, name)(**arguments)
    assert ours.get_config() == theirs.get_config()
    data = initializers.serialize(ours)
    assert data == keras.initializers.serialize(theirs)
    assert type(initializers.deserialize(data)) is type(ours)


MATRIX = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], "float32")


@pytest.mark.parametrize(
    ("regularizer", "value"),
    [
        (regularizers.L1(0.1), 0.75),
        (regularizers.L2(0.1), 0.1 * (MATRIX**2).sum()),
        (regularizers.L1L2(0.1, 0.2), 0.75 + 0.2 * (MATRIX**2).sum()),
        (regularizers.L1L2(), 0.0),
    ],
)
def test_regularizers_equal_formulas(regularizer, value):
    assert float(regularizer(convert(MATRIX))) == pytest.approx(value)
    data = regularizers.serialize(regularizer)
    assert regularizers.deserialize(data).get_config() == regularizer.get_config()


@pytest.mark.oracle
@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_orthogonal_regularizer_equals_keras(keras, mode):
    ours = regularizers.OrthogonalRegularizer(0.3, mode)(convert(MATRIX))
    theirs = keras.regularizers.OrthogonalRegularizer(0.3, mode)(
        keras.ops.convert_to_tensor(MATRIX)
    )
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


CONSTRAINTS = [
    ("MaxNorm", {"max_value": 1.0}),
    ("MaxNorm", {"axis": [0, 1]}),
    ("NonNeg", {}),
    ("UnitNorm", {"axis": 1}),
    ("MinMaxNorm", {"min_value": 0.5, "max_value": 1.5, "rate": 0.4}),
]


def test_constraints_bound_norms():
    assert np.linalg.norm(constraints.MaxNorm(1.0)(Variable(MATRIX)).numpy(), axis=0).max() <= 1
    norms = np.linalg.norm(constraints.UnitNorm(axis=1)(convert(MATRIX)).numpy(), axis=1)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-5)
    assert constraints.get("non_neg")(convert(MATRIX)).numpy().min() == 0.0


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "arguments"), CONSTRAINTS)
def test_constraints_equal_keras(keras, name, arguments):
    ours = getattr(constraints, name)(**arguments)
    theirs = getattr(keras.constraints, name)(**arguments)
    found, wanted = ours(convert(MATRIX)).numpy(), np.asarray(theirs(MATRIX))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert constraints.serialize(ours) == keras.constraints.serialize(theirs)


POINTS = np.linspace(-8, 8, 34).astype("float32").reshape(2, 17)[:, :16]
ACTIVATIONS = [
    *((name, {}) for name in activations.OBJECTS if name != "threshold"),
    ("relu", {"negative_slope": 0.1, "max_value": 3.0, "threshold": 1.0}),
    ("relu", {"max_value": 2.0}),
    ("relu", {"threshold": -1.0}),
    ("gelu", {"approximate": True}),
    ("softmax", {"axis": 0}),
    ("threshold", {"threshold": 1.0, "default_value": -2.0}),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "arguments"), ACTIVATIONS)
def test_activations_equal_keras(keras, name, arguments):
    if not hasattr(keras.activations, name):
        pytest.skip("an alias of lamina's own")
    if name == "sparsemax":
        pytest.skip("Keras 3.15's does not sum to one where rows differ")
    found = activations.OBJECTS[name](convert(POINTS), **arguments)
    wanted = getattr(keras.activations, name)(POINTS, **arguments)
    np.testing.assert_allclose(found.numpy(), np.asarray(wanted), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("name", "arguments"), ACTIVATIONS)
def test_activations_are_finite_and_symbolic(name, arguments):
    function = activations.OBJECTS[name]
    if name != "exponential":
        assert np.isfinite(function(convert(POINTS * 20), **arguments).numpy()).all()
    shape = tuple(function(convert(POINTS), **arguments).shape)
    assert function(layers.Input((16,)), **arguments).shape[1:] == shape[1:]
    assert activations.get(activations.serialize(function)) is function


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    x = np.random.default_rng(0).normal(size=(5, 4)) * 2
    p = activations.sparsemax(convert(x)).numpy()
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-5)
    assert p.min() >= 0
    # Where p is positive, x - p is one number; elsewhere x lies below it (Karush-Kuhn-Tucker).
    for row, share in zip(x, p, strict=True):
        level = (row - share)[share > 0]
        assert np.ptp(level) < 1e-5
        assert (row[share == 0] <= level[0] + 1e-6).all()


def test_activation_names():
    assert activations.get(None) is activations.linear
    assert activations.get("swish") is activations.silu
    assert activations.get(np.tanh) is np.tanh
