"""The texts of errors of layers, losses, metrics and optimisers."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import (
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
)
from lamina.errors import LaminaError, ShapeError
from lamina.optimizers import schedules
from lamina.tensor import Variable

F = np.float32
ZEROS = np.zeros


def text_of(kind, function):
    with pytest.raises(kind) as caught:
        function()
    return str(caught.value)


def test_unknown_names_suggest_near_ones():
    text = text_of(ValueError, lambda: losses.get("mean_squared_eror"))
    assert text.startswith("unknown loss 'mean_squared_eror'. Did you mean 'mean_squared_error'")
    assert "hint     lamina.losses lists what there is" in text
    assert "Did you mean 'adam'" in text_of(ValueError, lambda: optimizers.get("adm"))
    assert "Did you mean 'accuracy'" in text_of(ValueError, lambda: metrics.get("acuracy"))
    assert "unknown activation 'rellu'" in text_of(
        ValueError, lambda: layers.Conv2D(1, 1, activation="rellu")
    )
    assert "unknown initializer" in text_of(ValueError, lambda: initializers.get("heuniform"))
    assert "unknown regularizer 'l3'" in text_of(ValueError, lambda: regularizers.get("l3"))
    assert text_of(ValueError, lambda: metrics.get(3)) == (
        "a metric is given as a string, an object or a configuration; this is int."
    )


def test_one_hot_targets_for_the_sparse_loss():
    loss = losses.SparseCategoricalCrossentropy()
    text = text_of(ShapeError, lambda: loss(np.eye(3, dtype=F), np.eye(3, dtype=F)))
    assert text == (
        "sparse_categorical_crossentropy: y_true must hold one class number per row of y_pred.\n"
        "  y_true   float32 (3, 3)\n"
        "  y_pred   float32 (3, 3)\n"
        "  expected (3)\n"
        "  hint     y_true looks one-hot: use categorical_crossentropy"
    )


def test_class_numbers_for_the_categorical_loss():
    loss = losses.CategoricalCrossentropy()
    text = text_of(ShapeError, lambda: loss(ZEROS(4, "int32"), np.full((4, 3), 1 / 3, F)))
    assert text == (
        "categorical_crossentropy: y_true and y_pred have different shapes.\n"
        "  y_true   float32 (4)\n"
        "  y_pred   float32 (4, 3)\n"
        "  hint     for labels that are class numbers use sparse_categorical_crossentropy"
    )


def test_weights_that_do_not_fit():
    loss = losses.MeanSquaredError()
    text = text_of(ShapeError, lambda: loss(ZEROS((4, 2), F), ZEROS((4, 2), F), ZEROS(3, F)))
    assert text == (
        "sample_weight does not fit the loss values.\n"
        "  weights  (3,)\n"
        "  values   (4,)\n"
        "  hint     give one weight per row, or one per value"
    )


def test_arguments_outside_their_range():
    cases = {
        "Loss: reduction is one of": lambda: losses.Loss(reduction="average"),
        "VarianceScaling: mode is one of": lambda: initializers.VarianceScaling(mode="fan"),
        "l2 is a non-negative number, got -1": lambda: regularizers.L2(-1.0),
        "AUC: curve is one of ROC, PR, PRGAIN, got 'ROK'": lambda: metrics.AUC(curve="ROK"),
        "Precision: thresholds are in [0, 1], got [2.0].": lambda: metrics.Precision(2.0),
        "only one way of clipping can be set": lambda: optimizers.SGD(clipnorm=1.0, clipvalue=1.0),
        "gradient_accumulation_steps is an integer of 2 or more": lambda: optimizers.SGD(
            gradient_accumulation_steps=1
        ),
        "ExponentialDecay: decay_steps is greater than 0": lambda: schedules.ExponentialDecay(
            0.1, 0, 0.5
        ),
        "filters (3) must be a multiple of groups (2)": lambda: layers.Conv2D(3, 1, groups=2),
        "padding is one of valid, same, got 'causal'": lambda: layers.Conv2D(
            3, 1, padding="causal"
        ),
        "pool: pool_size must be a positive integer or 2 of them, got 0": lambda: (
            layers.MaxPooling2D(0, name="pool")
        ),
        "merge_mode is one of 'concat'": lambda: layers.Bidirectional(layers.LSTM(2), "add"),
        "must be a multiple of num_key_value_heads (3)": lambda: layers.GroupQueryAttention(
            2, 4, 3
        ),
        "an equation looks like": lambda: layers.EinsumDense("abc", 3),
    }
    for text, function in cases.items():
        assert text in text_of(ValueError, function)
    assert "SGD takes no argument momentun." in text_of(
        TypeError, lambda: optimizers.SGD(momentun=0.9)
    )
    assert "learning_rate is a number" in text_of(TypeError, lambda: optimizers.SGD("fast"))


def test_a_rate_that_follows_a_schedule_cannot_be_set():
    optimizer = optimizers.SGD(schedules.CosineDecay(0.1, 10), name="sgd")

    def set_rate():
        optimizer.learning_rate = 0.1

    assert text_of(TypeError, set_rate) == (
        "sgd: the learning rate follows CosineDecay, so it cannot be set to a number.\n"
        "  hint     give the optimizer a number as learning_rate if callbacks are to set it"
    )


def test_an_optimizer_serves_one_set_of_weights():
    optimizer = optimizers.SGD(name="sgd")
    optimizer.apply([ZEROS(1, F)], [Variable(ZEROS(1, F), name="first")])
    text = text_of(
        ValueError, lambda: optimizer.apply([ZEROS(1, F)], [Variable(ZEROS(1, F), name="second")])
    )
    assert text.startswith(
        "sgd: was not built for the weight second.\n  hint     compile the model"
    )
    assert text_of(ValueError, lambda: optimizer.apply([None], [])) or True


def test_layers_name_what_they_expected():
    text = text_of(LaminaError, lambda: layers.Conv2D(3, 2, name="conv")(ZEROS((2, 8, 8), F)))
    assert text.startswith("conv: expected 4")
    assert "float32 (2, 8, 8)" in text
    groups = layers.Conv2D(4, 1, groups=2, name="conv")
    text = text_of(ShapeError, lambda: groups(ZEROS((1, 4, 4, 3), F)))
    assert text.startswith("conv: 3 channels cannot form 2 groups.\n  inputs   (None, 4, 4, 3)")
    norm = layers.GroupNormalization(4, name="norm")
    assert "norm: 6 channels cannot form 4 groups." in text_of(
        ShapeError, lambda: norm(ZEROS((1, 2, 6), F))
    )
    attention = layers.Attention(name="att")
    assert text_of(ShapeError, lambda: attention(ZEROS((1, 2, 3), F))).startswith(
        "att: call it on a list, [query, value] or [query, value, key]."
    )
    lstm = layers.LSTM(2, name="lstm")
    assert "lstm: a sequence needs one step or more." in text_of(
        ShapeError, lambda: lstm(ZEROS((2, 0, 3), F))
    )


def test_stateful_layers_need_a_fixed_batch():
    layer = layers.GRU(2, stateful=True, name="gru")
    text = text_of(ShapeError, lambda: layer(layers.Input((3, 4))))
    assert text.startswith("gru: stateful=True needs a fixed batch size.")
    assert "hint     give the batch size: Input(batch_shape=(rows, steps, features))" in text
    fixed = layers.GRU(2, stateful=True, name="gru")
    fixed(ZEROS((2, 3, 4), F))
    assert "gru: a stateful layer keeps its batch size.\n  states   2 rows" in text_of(
        ShapeError, lambda: fixed(ZEROS((5, 3, 4), F))
    )


def test_a_cell_must_have_a_state_size():
    text = text_of(TypeError, lambda: layers.RNN(layers.Dense(3)))
    assert text == (
        "a cell has a method call(inputs, states) and an attribute state_size; "
        "Dense has no state_size."
    )


def test_metrics_name_the_shape_they_need():
    metric = metrics.F1Score(name="f1")
    text = text_of(ShapeError, lambda: metric.update_state(ZEROS(3, F), ZEROS(3, F)))
    assert text == (
        "f1: expected targets and predictions of shape (batch, outputs).\n"
        "  y_true   float32 (3)\n"
        "  y_pred   float32 (3)"
    )
