"""Losses against independent NumPy formulas, and against real Keras with the same arguments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import lamina
from lamina import activations, losses, ops
from lamina.tensor import convert, recording
from lamina.trace import executor_for, gradient_nodes, trace
from lamina.types import Batch, Type

EPSILON = 1e-7
RNG = np.random.default_rng(3)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def clip(p):
    return np.clip(p, EPSILON, 1 - EPSILON)


N, C = 6, 4
REAL = RNG.normal(size=(N, C)), RNG.normal(size=(N, C))
POSITIVE = RNG.uniform(0.1, 3.0, (N, C)), RNG.uniform(0.1, 3.0, (N, C))
LABELS = RNG.integers(0, C, N)
ONE_HOT = np.eye(C)[LABELS]
LOGITS = RNG.normal(size=(N, C)) * 3
SHARES = softmax(LOGITS)
BITS = RNG.integers(0, 2, (N, C)).astype(float)
CHANCES = sigmoid(LOGITS)


def binary(t, p):
    return -(t * np.log(clip(p)) + (1 - t) * np.log(1 - clip(p)))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def huber(e, delta):
    return np.where(np.abs(e) <= delta, e**2 / 2, delta * np.abs(e) - delta**2 / 2)


def focal(t, p, alpha, gamma):
    p = p / p.sum(-1, keepdims=True)
    return (alpha * (1 - p) ** gamma * -t * np.log(p)).sum(-1)


# name, arguments, y_true, y_pred, one value per entry computed independently
CASES = [
    ("MeanSquaredError", {}, *REAL, lambda t, p: ((t - p) ** 2).mean(-1)),
    ("MeanAbsoluteError", {}, *REAL, lambda t, p: np.abs(t - p).mean(-1)),
    (
        "MeanAbsolutePercentageError",
        {},
        *REAL,
        lambda t, p: 100 * (np.abs(t - p) / np.abs(t)).mean(-1),
    ),
    (
        "MeanSquaredLogarithmicError",
        {},
        *POSITIVE,
        lambda t, p: ((np.log1p(t) - np.log1p(p)) ** 2).mean(-1),
    ),
    ("Huber", {"delta": 0.7}, *REAL, lambda t, p: huber(t - p, 0.7).mean(-1)),
    ("LogCosh", {}, *REAL, lambda t, p: np.log(np.cosh(p - t)).mean(-1)),
    ("CosineSimilarity", {}, *REAL, lambda t, p: -(unit(t) * unit(p)).sum(-1)),
    ("Poisson", {}, *POSITIVE, lambda t, p: (p - t * np.log(p + EPSILON)).mean(-1)),
    ("Hinge", {}, BITS, REAL[1], lambda t, p: np.maximum(0, 1 - (2 * t - 1) * p).mean(-1)),
    ("Hinge", {}, 2 * BITS - 1, REAL[1], lambda t, p: np.maximum(0, 1 - t * p).mean(-1)),
    (
        "SquaredHinge",
        {},
        BITS,
        REAL[1],
        lambda t, p: (np.maximum(0, 1 - (2 * t - 1) * p) ** 2).mean(-1),
    ),
    (
        "CategoricalHinge",
        {},
        ONE_HOT,
        SHARES,
        lambda t, p: np.maximum(0, 1 + ((1 - t) * p).max(-1) - (t * p).sum(-1)),
    ),
    ("CategoricalCrossentropy", {}, ONE_HOT, SHARES, lambda t, p: -(t * np.log(p)).sum(-1)),
    (
        "CategoricalCrossentropy",
        {"from_logits": True, "label_smoothing": 0.2},
        ONE_HOT,
        LOGITS,
        lambda t, p: -((t * 0.8 + 0.2 / C) * np.log(softmax(p))).sum(-1),
    ),
    (
        "SparseCategoricalCrossentropy",
        {},
        LABELS,
        SHARES,
        lambda t, p: -np.log(p[np.arange(N), t]),
    ),
    (
        "SparseCategoricalCrossentropy",
        {"from_logits": True},
        LABELS[:, None],
        LOGITS,
        lambda t, p: -np.log(softmax(p)[np.arange(N), t[:, 0]]),
    ),
    ("BinaryCrossentropy", {}, BITS, CHANCES, lambda t, p: binary(t, p).mean(-1)),
    (
        "BinaryCrossentropy",
        {"from_logits": True, "label_smoothing": 0.1},
        BITS,
        LOGITS,
        lambda t, p: binary(t * 0.9 + 0.05, sigmoid(p)).mean(-1),
    ),
    (
        "BinaryFocalCrossentropy",
        {"apply_class_balancing": True, "gamma": 1.5},
        BITS,
        CHANCES,
        lambda t, p: (
            np.where(t == 1, 0.25, 0.75) * (1 - np.where(t == 1, p, 1 - p)) ** 1.5 * binary(t, p)
        ).mean(-1),
    ),
    (
        "CategoricalFocalCrossentropy",
        {"alpha": 0.3},
        ONE_HOT,
        SHARES,
        lambda t, p: focal(t, p, 0.3, 2.0),
    ),
    ("KLDivergence", {}, SHARES[::-1], SHARES, lambda t, p: (t * np.log(t / p)).sum(-1)),
    (
        "Dice",
        {"axis": -1},
        BITS,
        CHANCES,
        lambda t, p: 1 - 2 * (t * p).sum(-1) / (t.sum(-1) + p.sum(-1) + EPSILON),
    ),
    (
        "Tversky",
        {"alpha": 0.3, "beta": 0.7},
        BITS,
        CHANCES,
        lambda t, p: (
            1
            - (t * p).sum()
            / ((t * p).sum() + 0.3 * (t * (1 - p)).sum() + 0.7 * ((1 - t) * p).sum())
        ),
    ),
    (
        "CategoricalGeneralizedCrossEntropy",
        {"q": 0.6},
        LABELS,
        SHARES,
        lambda t, p: (1 - p[np.arange(N), t] ** 0.6) / 0.6,
    ),
]
IDS = [f"{case[0]}-{'-'.join(case[1]) or 'plain'}-{i}" for i, case in enumerate(CASES)]


def prepared(y_true, y_pred):
    y_true = y_true.astype("int32" if y_true.dtype.kind in "iu" else "float32")
    return y_true, y_pred.astype("float32")


@pytest.mark.parametrize(("name", "arguments", "y_true", "y_pred", "formula"), CASES, ids=IDS)
def test_loss_equals_formula(name, arguments, y_true, y_pred, formula):
    loss = getattr(losses, name)(**arguments)
    expected = formula(y_true, y_pred)
    value = float(loss(*prepared(y_true, y_pred)))
    np.testing.assert_allclose(value, expected.mean(), rtol=2e-5)
    each = getattr(losses, name)(**arguments, reduction="none")(*prepared(y_true, y_pred))
    np.testing.assert_allclose(each.numpy(), expected, rtol=2e-5, atol=1e-6)
    total = getattr(losses, name)(**arguments, reduction="sum")(*prepared(y_true, y_pred))
    np.testing.assert_allclose(float(total), expected.sum(), rtol=2e-5)


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "arguments", "y_true", "y_pred", "formula"), CASES, ids=IDS)
@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight", "none"]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_equals_keras(keras, name, arguments, y_true, y_pred, formula, reduction, weighted):
    values = formula(y_true, y_pred)
    weight = None
    if weighted:
        if not np.ndim(values):
            pytest.skip("one value for the whole batch")
        weight = RNG.uniform(0, 2, N).astype("float32")
    data = prepared(y_true, y_pred)
    ours = getattr(losses, name)(**arguments, reduction=reduction)(*data, sample_weight=weight)
    theirs = getattr(keras.losses, name)(**arguments, reduction=reduction)(
        *data, sample_weight=weight
    )
    np.testing.assert_allclose(ours.numpy(), np.asarray(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "arguments", "y_true", "y_pred", "formula"), CASES, ids=IDS)
def test_config_equals_keras(keras, name, arguments, y_true, y_pred, formula):
    ours = getattr(losses, name)(**arguments).get_config()
    theirs = getattr(keras.losses, name)(**arguments).get_config()
    assert theirs.items() <= ours.items()
    again = losses.deserialize(losses.serialize(getattr(losses, name)(**arguments)))
    assert again.get_config() == ours
    if name == "CategoricalGeneralizedCrossEntropy":
        return  # Keras 3.15 forgot to put it into its own table
    kept = keras.losses.deserialize(losses.serialize(getattr(losses, name)(**arguments)))
    assert kept.get_config() == theirs


def sequences(y_true, y_pred):
    """CTC takes labels and logits that no formula above shares."""
    return np.array([[1, 2, 0], [3, 3, 1]], "int32"), RNG.normal(size=(2, 6, 4)).astype("float32")


@pytest.mark.parametrize(
    ("name", "arguments", "y_true", "y_pred"),
    [*(case[:4] for case in CASES), ("CTC", {}, None, None)],
    ids=[*IDS, "CTC"],
)
def test_compiled_gradient_equals_the_eager_one(name, arguments, y_true, y_pred):
    """One program for any number of rows; value and gradient, with weights."""
    loss = getattr(losses, name)(**arguments)
    y_true, y_pred = (sequences if name == "CTC" else prepared)(y_true, y_pred)
    weight = RNG.uniform(0.5, 2, len(y_true)).astype("float32")
    whole = name == "Tversky"

    def step(truth, prediction, given):
        value = loss(truth, prediction, None if whole else given)
        return [value, *gradient_nodes(value, [prediction])]

    arrays = [y_true, y_pred, weight]
    types = [Type((Batch(1), *x.shape[1:]), str(x.dtype)) for x in arrays]
    traced = trace(step, *types)
    run = executor_for(traced.program, len(y_true))
    for rows in (len(y_true), 2, 1):
        part = [np.ascontiguousarray(x[:rows]) for x in arrays]
        found = run(part, traced.states())
        with recording():
            expected = [x.numpy() for x in step(*[convert(x) for x in part])]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    slope = expected[1]
    v, h = np.sign(slope) + 1e-3, 1e-3
    sides = [
        float(step(*[convert(x) for x in (part[0], part[1] + s * h * v, part[2])])[0])
        for s in (1, -1)
    ]
    assert np.vdot(slope, v) == pytest.approx((sides[0] - sides[1]) / (2 * h), rel=0.03, abs=2e-3)


# --------------------------------------------------------------------------- contract


def test_weights_divide_by_the_number_of_values_not_by_their_sum():
    y_true = np.array([1.0, 2.0, 3.0, 4.0], "float32")
    weight = np.array([1.0, 0.0, 0.0, 1.0], "float32")
    loss = losses.MeanSquaredError()
    assert float(loss(y_true, np.zeros((4, 1), "float32"), sample_weight=weight)) == 4.25
    mean = losses.MeanSquaredError(reduction="mean_with_sample_weight")
    assert float(mean(y_true, np.zeros((4, 1), "float32"), sample_weight=weight)) == 8.5


@pytest.mark.parametrize(
    "name", ["MeanSquaredError", "MeanAbsoluteError", "Huber", "BinaryCrossentropy"]
)
def test_a_vector_beside_a_column_is_not_broadcast_to_a_matrix(name):
    y_true = np.array([0.0, 1.0, 1.0], "float32")
    y_pred = np.array([0.2, 0.6, 0.9], "float32")
    loss = getattr(losses, name)()
    column = float(loss(y_true, y_pred[:, None]))
    assert column == pytest.approx(float(loss(y_true[:, None], y_pred[:, None])))
    assert column == pytest.approx(float(loss(y_true[:, None], y_pred)))


def test_masked_steps_count_nothing_and_the_mean_is_over_the_others():
    y_true, y_pred = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 3, 4))
    mask = np.array([[True, True, False], [True, False, False]])
    prediction = convert(y_pred.astype("float32"))
    prediction._keras_mask = convert(mask)
    expected = ((y_true - y_pred) ** 2).mean(-1)[mask].mean()
    found = losses.MeanSquaredError()(y_true.astype("float32"), prediction)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    total = losses.MeanSquaredError(reduction="sum")(y_true.astype("float32"), prediction)
    assert float(total) == pytest.approx(((y_true - y_pred) ** 2).mean(-1)[mask].sum(), rel=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight", "none"]
)
def test_mask_and_weights_equal_keras(keras, reduction):
    y_true, y_pred = (RNG.normal(size=(2, 3, 4)).astype("float32") for _ in range(2))
    mask = np.array([[True, True, False], [True, False, False]])
    weight = RNG.uniform(0.5, 2, (2, 3)).astype("float32")
    ours, theirs = convert(y_pred), keras.ops.convert_to_tensor(y_pred)
    ours._keras_mask = convert(mask)
    keras.src.backend.set_keras_mask(theirs, keras.ops.convert_to_tensor(mask))
    for given in (None, weight):
        found = losses.MeanAbsoluteError(reduction=reduction)(y_true, ours, given)
        wanted = keras.losses.MeanAbsoluteError(reduction=reduction)(y_true, theirs, given)
        np.testing.assert_allclose(found.numpy(), np.asarray(wanted), rtol=1e-5)


def test_ignored_class_leaves_entries_out_of_the_mean():
    labels = np.array([0, 255, 2])
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    logits = LOGITS[:3].astype("float32")
    expected = -np.log(softmax(LOGITS[:3])[[0, 2], [0, 2]]).mean()
    assert float(loss(labels, logits)) == pytest.approx(expected, rel=1e-5)


def test_probabilities_from_an_activation_use_its_logits():
    """exp(-200) rounds to zero, but the loss from the logits is still exactly 200 and more."""
    logits = convert(np.array([[200.0, 0.0, -5.0]], "float32"))
    sparse = losses.SparseCategoricalCrossentropy()
    assert float(sparse(np.array([1]), activations.softmax(logits))) == pytest.approx(200.0)
    assert float(
        losses.CategoricalCrossentropy()(
            np.array([[0.0, 1.0, 0.0]], "float32"), activations.softmax(logits)
        )
    ) == pytest.approx(200.0)
    strong = convert(np.array([[150.0]], "float32"))
    binary_loss = losses.BinaryCrossentropy()
    assert float(
        binary_loss(np.array([0.0], "float32"), activations.sigmoid(strong))
    ) == pytest.approx(150.0)
    assert float(sparse(np.array([1]), ops.softmax(logits))) < 17.0  # clipped at epsilon


def test_logits_survive_a_lost_last_axis():
    strong = convert(np.full((2, 3, 1), 90.0, "float32"))
    loss = losses.BinaryCrossentropy()
    assert float(loss(np.zeros((2, 3), "float32"), activations.sigmoid(strong))) == pytest.approx(
        90.0
    )


def test_a_class_masked_by_minus_infinity_gives_no_nan():
    logits = np.array([[1.0, -np.inf, 2.0]], "float32")
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = -np.log(np.exp(2.0) / (np.exp(1.0) + np.exp(2.0)))
    assert float(loss(np.array([2]), logits)) == pytest.approx(expected, rel=1e-5)


def test_circle_pulls_equal_labels_together():
    close = np.array([[1.0, 0.0], [0.96, 0.28], [0.0, 1.0], [0.28, 0.96]], "float32")
    labels = np.array([0, 0, 1, 1])
    loss = losses.Circle()
    assert float(loss(labels, close)) < float(loss(np.array([0, 1, 0, 1]), close))


def all_paths(labels, logits):
    """The probability of a label sequence, by going through every path."""
    shares = softmax(logits)
    total = 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        # A label that comes again after a blank counts twice.
        kept = []
        for before, now in zip((0, *path[:-1]), path, strict=True):
            if now not in (0, before):
                kept.append(now)
        if kept == list(labels):
            total += np.prod([shares[t, k] for t, k in enumerate(path)])
    return total


@pytest.mark.parametrize("labels", [[1, 2], [1, 1], [2, 0], [0, 0]])
def test_ctc_equals_the_sum_over_all_paths(labels):
    logits = RNG.normal(size=(1, 5, 3))
    expected = -np.log(all_paths([x for x in labels if x], logits[0]))
    found = losses.CTC()(np.array([labels]), logits.astype("float32"))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.oracle
def test_ctc_and_its_gradient_equal_keras(keras):
    import jax

    labels = np.array([[1, 2, 2, 0], [3, 0, 0, 0], [1, 3, 1, 2]])
    logits = RNG.normal(size=(3, 9, 4)).astype("float32")
    loss = losses.CTC(reduction="none")
    theirs = keras.losses.CTC(reduction="none")
    np.testing.assert_allclose(
        loss(labels, logits).numpy(), np.asarray(theirs(labels, logits)), rtol=1e-4
    )
    slope = lamina.grad(lambda x: losses.CTC()(labels, x))(logits)
    wanted = jax.grad(lambda x: keras.losses.CTC()(labels, x))(logits)
    np.testing.assert_allclose(slope.numpy(), np.asarray(wanted), rtol=1e-3, atol=1e-5)


@pytest.mark.oracle
def test_circle_equals_keras(keras):
    points = unit(RNG.normal(size=(6, 3))).astype("float32")
    labels = np.array([0, 1, 2, 0, 1, 2])
    ours = losses.Circle(gamma=10.0)(labels, points)
    theirs = keras.losses.Circle(gamma=10.0)(labels, points)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


# ----------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("word", "function"),
    [
        ("mse", losses.mean_squared_error),
        ("MAE", losses.mean_absolute_error),
        ("bce", losses.binary_crossentropy),
        ("kld", losses.kl_divergence),
        ("sparse_categorical_crossentropy", losses.sparse_categorical_crossentropy),
        ("huber", losses.huber),
    ],
)
def test_strings_mean_functions(word, function):
    assert losses.get(word) is function
    assert losses.serialize(function) == function.__name__
    assert losses.deserialize(losses.serialize(function)) is function


def test_camel_case_means_an_object():
    assert isinstance(losses.get("MeanSquaredError"), losses.MeanSquaredError)
    assert losses.get(None) is None


@pytest.mark.parametrize(
    ("target", "prediction", "function"),
    [
        ((4,), (4, 1), losses.binary_crossentropy),
        ((4, 1), (4, 1), losses.binary_crossentropy),
        ((4,), (4, 3), losses.sparse_categorical_crossentropy),
        ((4, 1), (4, 3), losses.sparse_categorical_crossentropy),
        ((4, 3), (4, 3), losses.categorical_crossentropy),
    ],
)
def test_crossentropy_is_chosen_by_the_shapes(target, prediction, function):
    found = losses.get_loss("crossentropy", np.zeros(target), np.zeros(prediction))
    assert found.fn is function
    assert found.name == "crossentropy"


def test_own_losses():
    class Cubic(losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(ops.abs(y_true - y_pred) ** 3, axis=-1)

    assert float(Cubic()(np.zeros((2, 2)), np.full((2, 2), 2.0))) == 8.0
    assert Cubic().name == "cubic" or Cubic().name.startswith("cubic_")
    wrapped = losses.get_loss(lambda t, p: ops.sum(t - p, axis=-1), None, None)
    assert float(wrapped(np.ones((2, 3)), np.zeros((2, 3)))) == 3.0
