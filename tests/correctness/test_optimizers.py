"""Optimisers against their papers' formulas, and step by step against real Keras."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

from lamina import constraints, ops, optimizers
from lamina.optimizers import schedules
from lamina.tensor import Variable, convert
from lamina.trace import executor_for, trace
from lamina.types import Type

# Keras's own variables are read through an old form of NumPy's protocol.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

RNG = np.random.default_rng(5)
SHAPES = [(3, 4), (4,)]
STARTS = [RNG.normal(size=shape).astype("float32") for shape in SHAPES]
STEPS = 7
GRADIENTS = [
    [(RNG.normal(size=shape) * 3).astype("float32") for shape in SHAPES] for _ in range(STEPS)
]

CASES = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "clipnorm": 1.0}),
    ("AdamW", {}),
    ("Adamax", {}),
    ("Nadam", {}),
    ("Lamb", {}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("Adagrad", {}),
    ("Adadelta", {"learning_rate": 1.0}),
    ("Adafactor", {}),
    ("Lion", {}),
    ("Ftrl", {"l1_regularization_strength": 0.01, "beta": 0.1}),
    ("Muon", {}),
    ("Adam", {"global_clipnorm": 2.0}),
    ("Adam", {"clipvalue": 0.5}),
    ("SGD", {"gradient_accumulation_steps": 3, "momentum": 0.5}),
    ("Adam", {"gradient_accumulation_steps": 2}),
    ("Adam", {"use_ema": True, "ema_momentum": 0.8}),
    ("SGD", {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}),
    ("SGD", {"loss_scale_factor": 4.0}),
]
IDS = [f"{name}-{'-'.join(arguments) or 'plain'}" for name, arguments in CASES]


def run(module, variable, name, arguments, steps=STEPS):
    """The weights after each step."""
    weights = [variable(start) for start in STARTS]
    arguments = {"learning_rate": 0.05, **arguments}
    optimizer = getattr(module, name)(**arguments)
    history = []
    for gradients in GRADIENTS[:steps]:
        optimizer.apply(gradients, weights)
        history.append([np.array(weight) for weight in weights])
    optimizer.finalize_variable_values(weights)
    history.append([np.array(weight) for weight in weights])
    return history, optimizer


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_steps_equal_keras(keras, name, arguments):
    ours, optimizer = run(optimizers, Variable, name, arguments)
    theirs, reference = run(keras.optimizers, keras.Variable, name, arguments)
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=f"step {step}")
    mine = [tuple(variable.shape) for variable in optimizer.variables]
    other = [tuple(variable.shape) for variable in reference.variables]
    assert mine == other, "the order of the state decides whether Keras's files can be read"


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_config_equals_keras(keras, name, arguments):
    ours = getattr(optimizers, name)(**arguments).get_config()
    theirs = getattr(keras.optimizers, name)(**arguments).get_config()
    for key, value in theirs.items():
        if key not in {"name", "is_legacy_optimizer"}:
            assert (
                ours[key] == pytest.approx(value)
                if isinstance(value, float)
                else ours[key] == value
            )
    data = optimizers.serialize(getattr(optimizers, name)(**arguments))
    assert optimizers.deserialize(data).get_config() == data["config"]
    if name == "Lamb":
        return  # Keras 3.15 forgot to put it into its own table
    kept = keras.optimizers.deserialize(data).get_config()
    assert kept["learning_rate"] == pytest.approx(theirs["learning_rate"])


@pytest.mark.parametrize(
    ("name", "arguments"), [*CASES, ("SGD", {"schedule": True})], ids=[*IDS, "SGD-schedule"]
)
def test_compiled_steps_equal_eager_ones(name, arguments):
    """One compiled step, run again and again; the rate is changed between without compiling."""
    arguments = dict(arguments)
    if arguments.pop("schedule", False):
        arguments["learning_rate"] = schedules.CosineDecay(0.1, 5)
    eager, _ = run(optimizers, Variable, name, arguments)
    weights = [Variable(start) for start in STARTS]
    optimizer = getattr(optimizers, name)(**{"learning_rate": 0.05, **arguments})
    types = [Type(shape) for shape in SHAPES]
    traced = trace(lambda *gradients: optimizer.apply(gradients, weights), *types)
    step = executor_for(traced.program, 1)
    for gradients, expected in zip(GRADIENTS, eager, strict=False):
        step(gradients, traced.states())
        for weight, value in zip(weights, expected, strict=True):
            np.testing.assert_allclose(weight.numpy(), value, rtol=2e-5, atol=2e-6)
    if not callable(arguments.get("learning_rate")) and "gradient" not in str(arguments):
        optimizer.learning_rate = 0.0
        before = [weight.numpy() for weight in weights]
        step(GRADIENTS[0], traced.states())
        still = {"Ftrl", "Adafactor"}  # their weights do not follow the rate alone
        moving = name in still or "momentum" in arguments or arguments.get("use_ema")
        if not moving:
            for weight, value in zip(weights, before, strict=True):
                np.testing.assert_allclose(weight.numpy(), value, rtol=1e-6)


# -------------------------------------------------------------------------- formulas


def test_sgd_is_one_line():
    history, _ = run(optimizers, Variable, "SGD", {}, 1)
    np.testing.assert_allclose(history[0][0], STARTS[0] - 0.05 * GRADIENTS[0][0], rtol=1e-6)


def test_adam_follows_the_paper():
    first, second, weight = 0.0, 0.0, STARTS[0].astype(float)
    history, optimizer = run(optimizers, Variable, "Adam", {})
    for t, gradients in enumerate(GRADIENTS, start=1):
        g = gradients[0].astype(float)
        first = 0.9 * first + 0.1 * g
        second = 0.999 * second + 0.001 * g * g
        rate = 0.05 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weight = weight - rate * first / (np.sqrt(second) + 1e-7)
        np.testing.assert_allclose(history[t - 1][0], weight, rtol=1e-5, atol=1e-6)
    assert int(optimizer.iterations) == STEPS


def test_lion_moves_by_the_learning_rate():
    history, _ = run(optimizers, Variable, "Lion", {}, 1)
    np.testing.assert_allclose(np.abs(history[0][0] - STARTS[0]), 0.05, rtol=1e-4)


def test_muon_steps_are_nearly_orthogonal():
    matrix = convert(RNG.normal(size=(6, 4)).astype("float32"))
    values = np.linalg.svd(optimizers.Muon(0.1).orthogonal(matrix).numpy(), compute_uv=False)
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_accumulation_changes_weights_only_at_every_kth_step():
    weight = Variable(np.zeros(2, "float32"))
    optimizer = optimizers.SGD(1.0, gradient_accumulation_steps=2)
    optimizer.apply([np.array([1.0, 2.0], "float32")], [weight])
    assert weight.numpy().tolist() == [0.0, 0.0]
    optimizer.apply([np.array([3.0, 2.0], "float32")], [weight])
    assert weight.numpy().tolist() == [-2.0, -2.0]
    assert int(optimizer.iterations) == 1


def test_weight_decay_spares_what_is_excluded():
    kept, decayed = (
        Variable(np.ones(2, "float32"), name="bias"),
        Variable(np.ones(2, "float32"), name="kernel"),
    )
    optimizer = optimizers.SGD(0.5, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.apply([np.zeros(2, "float32")] * 2, [kept, decayed])
    assert kept.numpy().tolist() == [1.0, 1.0]
    np.testing.assert_allclose(decayed.numpy(), 0.95)


def test_constraints_are_applied_after_the_update():
    weight = Variable(np.array([1.0, 1.0], "float32"))
    weight.constraint = constraints.NonNeg()
    optimizers.SGD(1.0).apply([np.array([3.0, -1.0], "float32")], [weight])
    assert weight.numpy().tolist() == [0.0, 2.0]


def test_a_weight_without_a_gradient_stays_and_is_named():
    one, other = (
        Variable(np.ones(1, "float32"), name="one"),
        Variable(np.ones(1, "float32"), name="other"),
    )
    with pytest.warns(
        UserWarning, match="the loss does not depend on other, so these weights stay"
    ):
        optimizers.SGD(1.0).apply([np.ones(1, "float32"), None], [one, other])
    assert other.numpy().tolist() == [1.0]


def test_loss_scale_halves_on_overflow_and_leaves_the_weights_alone():
    weight = Variable(np.ones(2, "float32"))
    inner = optimizers.SGD(1.0, momentum=0.9)
    optimizer = optimizers.LossScaleOptimizer(inner, initial_scale=8.0, dynamic_growth_steps=2)
    optimizer.apply([np.array([8.0, 16.0], "float32")], [weight])
    assert weight.numpy().tolist() == [0.0, -1.0]
    optimizer.apply([np.array([np.inf, 1.0], "float32")], [weight])
    assert weight.numpy().tolist() == [0.0, -1.0]
    assert float(optimizer.dynamic_scale) == 4.0
    assert int(inner.iterations) == 1
    for _ in range(2):
        optimizer.apply([np.zeros(2, "float32")], [weight])
    assert float(optimizer.dynamic_scale) == 8.0


# ------------------------------------------------------------------- rates and state


SCHEDULES = [
    ("ExponentialDecay", (0.1, 10, 0.5), lambda t: 0.1 * 0.5 ** (t / 10)),
    ("ExponentialDecay", (0.1, 10, 0.5, True), lambda t: 0.1 * 0.5 ** (t // 10)),
    ("InverseTimeDecay", (0.1, 10, 0.5), lambda t: 0.1 / (1 + 0.5 * t / 10)),
    (
        "PiecewiseConstantDecay",
        ([5, 12], [1.0, 0.5, 0.1]),
        lambda t: 1.0 if t <= 5 else 0.5 if t <= 12 else 0.1,
    ),
    ("PolynomialDecay", (0.1, 10, 0.01, 2.0), lambda t: 0.09 * (1 - min(t, 10) / 10) ** 2 + 0.01),
    (
        "PolynomialDecay",
        (0.1, 10, 0.01, 1.0, True),
        lambda t: 0.09 * (1 - t / (10 * max(1, math.ceil(t / 10)))) + 0.01,
    ),
    (
        "CosineDecay",
        (0.1, 20, 0.1),
        lambda t: 0.1 * (0.9 * 0.5 * (1 + math.cos(math.pi * min(t, 20) / 20)) + 0.1),
    ),
]


@pytest.mark.parametrize(("name", "arguments", "formula"), SCHEDULES)
def test_schedule_equals_formula(name, arguments, formula):
    schedule = getattr(schedules, name)(*arguments)
    for step in (0, 1, 5, 6, 9, 10, 12, 13, 25):
        assert float(schedule(step)) == pytest.approx(formula(step), rel=1e-5, abs=1e-8)
    again = schedules.deserialize(schedules.serialize(schedule))
    assert again.get_config() == schedule.get_config()


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, arguments) for name, arguments, _ in SCHEDULES),
        ("CosineDecay", (0.01, 20, 0.1, "warm", 0.2, 5)),
        ("CosineDecayRestarts", (0.1, 5, 2.0, 0.8, 0.05)),
        ("CosineDecayRestarts", (0.1, 5, 1.0, 0.8, 0.05)),
    ],
)
def test_schedule_equals_keras(keras, name, arguments):
    ours = getattr(schedules, name)(*arguments)
    theirs = getattr(keras.optimizers.schedules, name)(*arguments)
    for step in range(28):
        if name == "CosineDecayRestarts" and step % 5 == 0:
            continue  # a restart: one rounding decides on which side of it the step is
        assert float(ours(step)) == pytest.approx(float(theirs(step)), rel=1e-4, abs=1e-7)
    assert ours.get_config() == theirs.get_config()


def test_a_schedule_follows_the_step_count():
    weight = Variable(np.zeros(1, "float32"))
    optimizer = optimizers.SGD(schedules.ExponentialDecay(1.0, 1, 0.5))
    for _ in range(3):
        optimizer.apply([np.ones(1, "float32")], [weight])
    assert weight.numpy()[0] == pytest.approx(-(1 + 0.5 + 0.25))
    assert float(optimizer.learning_rate) == pytest.approx(0.125)


def test_the_learning_rate_can_be_set_and_read():
    optimizer = optimizers.Adam(0.1)
    optimizer.learning_rate = 0.02
    assert float(optimizer.learning_rate) == pytest.approx(0.02)
    optimizer.learning_rate.assign(0.03)
    assert optimizer.get_config()["learning_rate"] == pytest.approx(0.03)
    optimizer.learning_rate = schedules.CosineDecay(0.4, 10)
    assert float(optimizer.learning_rate) == pytest.approx(0.4)
    assert len(optimizer.variables) == 1


def test_state_is_saved_and_read():
    _, first = run(optimizers, Variable, "Adam", {})
    store = {}
    first.save_own_variables(store)
    second = optimizers.Adam(0.5)
    second.build([Variable(start) for start in STARTS])
    second.load_own_variables(store)
    for one, other in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_an_optimizer_is_copied_together_with_its_weights(twin):
    weights = [Variable(start) for start in STARTS]
    optimizer = optimizers.Adam(0.1)
    optimizer.apply(GRADIENTS[0], weights)
    other, copies = twin((optimizer, weights))
    optimizer.apply(GRADIENTS[1], weights)
    other.apply(GRADIENTS[1], copies)
    for one, two in zip(weights, copies, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


def test_own_optimizers():
    class Signs(optimizers.Optimizer):
        def build(self, variables):
            super().build(variables)
            self.counts = self.add_optimizer_variables(variables, "count")

        def update_step(self, gradient, variable, learning_rate):
            count = self.counts[self._get_variable_index(variable)]
            self.assign_add(count, ops.ones_like(gradient))
            self.assign_sub(variable, learning_rate * ops.sign(gradient))

    weight = Variable(np.zeros(2, "float32"))
    optimizer = Signs(learning_rate=0.5)
    optimizer.apply([np.array([2.0, -3.0], "float32")], [weight])
    assert weight.numpy().tolist() == [-0.5, 0.5]
    assert optimizer.counts[0].numpy().tolist() == [1.0, 1.0]
    assert len(optimizer.variables) == 3


@pytest.mark.parametrize("word", ["adam", "Adam", "ADAM", {"class_name": "Adam", "config": {}}])
def test_names(word):
    assert isinstance(optimizers.get(word), optimizers.Adam)
