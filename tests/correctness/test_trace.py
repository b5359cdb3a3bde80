"""Traces: state and updates, batches, gradients, randomness, compiled functions."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

import lamina
from lamina import config, ops, random
from lamina.errors import BatchError, ShapeError, TraceError
from lamina.ir.graph import Input
from lamina.reference import compile_reference
from lamina.tensor import Tensor, Variable, convert, recording
from lamina.trace import abstract, grad, gradient_nodes, trace, value_and_grad
from lamina.types import Batch, Type

ROWS = Type((Batch(1), 3))


@pytest.fixture(autouse=True)
def _reference_executor():
    with config.override(executor="reference"):
        yield


def run(traced, *inputs, capacity=16):
    """The outputs of a traced function, by the reference executor; updates its variables."""
    arrays = [np.asarray(array) for array in inputs]
    return compile_reference(traced.program, capacity)(arrays, traced.states())


def test_variables_become_states_and_assignments_updates():
    weight = Variable(np.ones((3,), np.float32), name="weight")
    count = Variable(0, trainable=False, name="count")

    def step(x):
        count.assign_add(1)
        y = x * weight
        weight.assign(weight * 2.0)
        return ops.sum(y), ops.sum(x * weight)

    traced = trace(step, ROWS)
    assert traced.variables == (count, weight)
    assert len(traced.program.states) == 2
    assert weight.numpy().tolist() == [1, 1, 1], "tracing must not change a variable"
    x = np.ones((2, 3), np.float32)
    first = run(traced, x)
    assert [float(value) for value in first] == [6.0, 12.0]
    assert weight.numpy().tolist() == [2, 2, 2]
    assert [float(value) for value in run(traced, x)] == [12.0, 24.0]
    assert int(count.numpy()) == 2


def test_variables_that_are_only_read_are_not_updated():
    weight = Variable(np.ones(3, np.float32))
    traced = trace(lambda x: x + weight, ROWS)
    assert traced.program.updates == (None,)


def test_structures_go_in_and_out():
    def function(pair, options):
        return {"sum": pair[0] + pair[1], "other": (options["a"] * 2, None, "text")}

    traced = trace(function, (ROWS, ROWS), {"a": Type((), "int32")})
    x = np.ones((2, 3), np.float32)
    out = traced.unflatten(run(traced, x, x, np.int32(4)))
    assert out["sum"].tolist() == [[2.0] * 3] * 2
    assert int(out["other"][0]) == 8
    assert out["other"][1:] == (None, "text")


def test_captured_arrays_become_states():
    table = convert(np.arange(3, dtype=np.float32))
    traced = trace(lambda x: x + table + np.full(3, 10.0, np.float32), ROWS)
    assert len(traced.variables) == 2
    assert run(traced, np.zeros((1, 3), np.float32))[0].tolist() == [[10.0, 11.0, 12.0]]


def test_one_program_serves_every_number_of_rows():
    def function(x):
        rows = ops.shape(x)[0]
        flat = ops.reshape(x, (-1, 1))
        return ops.mean(x), ops.var(x, axis=0), flat, ops.reshape(flat, (rows, 3)) / rows

    traced = trace(function, ROWS)
    executable = compile_reference(traced.program, 8)
    for rows in (1, 2, 7):
        x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
        mean, spread, flat, back = executable([x], traced.states())
        np.testing.assert_allclose(mean, x.mean(), rtol=1e-5)
        np.testing.assert_allclose(spread, x.var(0), rtol=1e-4, atol=1e-6)
        assert flat.shape == (3 * rows, 1)
        np.testing.assert_allclose(back, x / rows, rtol=1e-6)


def test_positions_in_the_batch_count_from_the_end():
    traced = trace(lambda x: (ops.take(x, [0, -1], axis=0), x[convert([-2])]), ROWS)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    ends, before = run(traced, x)
    assert ends.tolist() == x[[0, -1]].tolist()
    assert before.tolist() == x[[-2]].tolist()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.matmul(x, ops.transpose(x)),
        lambda x: x[0],
        lambda x: x[1:],
        lambda x: ops.split(x, 2),
        lambda x: x + np.zeros((4, 3), np.float32),
        lambda x: ops.reshape(x, (4, 3)),
        list,
        lambda x: x.size,
        lambda x: ops.sort(x, axis=0),
        lambda x: ops.flip(x, 0),
        lambda x: ops.top_k(ops.transpose(x), 2)[0],
        lambda x: random.shuffle(x, seed=1),
        lambda x: ops.map(ops.sum, x),
    ],
)
def test_what_needs_the_number_of_rows_is_traced_for_it(function):
    with pytest.raises(BatchError):
        trace(function, ROWS)
    traced = trace(function, ROWS, rows=4)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    expected = function(convert(x))
    found = traced.unflatten(run(traced, x))
    for one, other in zip(
        expected if isinstance(expected, list) else [expected],
        found if isinstance(found, list) else [found],
        strict=True,
    ):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other))


def test_batch_errors_are_batch_errors():
    with pytest.raises(BatchError):
        trace(lambda x: ops.matmul(x, ops.transpose(x)), ROWS)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 1 if ops.sum(x) > 0 else 2,
        lambda x: float(ops.sum(x)),
        lambda x: x.numpy(),
        lambda x: int(ops.argmax(ops.sum(x, 0))),
        np.asarray,
        lambda x: ops.where(x > 0),
    ],
)
def test_asking_for_a_value_names_the_line_and_the_remedies(function):
    with pytest.raises(TraceError) as caught:
        trace(function, ROWS, labels=["images"])
    text = str(caught.value)
    assert "known only when the step runs" in text
    assert "test_trace.py" in text
    assert "needs    images, float32 (batch, 3)" in text
    for remedy in ("lamina.ops.where", "lamina.ops.cond", "run_eagerly=True"):
        assert remedy in text


def test_values_that_are_known_may_be_asked_for_in_a_trace():
    constant = convert([1.0, 2.0])
    traced = trace(lambda x: x * float(ops.sum(constant)), ROWS)
    assert run(traced, np.ones((1, 3), np.float32))[0].tolist() == [[3.0, 3.0, 3.0]]


def test_printing_inside_a_trace_shows_no_values():
    seen = []
    trace(lambda x: seen.append(repr(x)) or x, ROWS)
    assert seen == ["<lamina.Tensor float32 (batch, 3), traced>"]


def test_a_leaked_tensor_is_named():
    kept = []
    trace(lambda x: kept.append(x) or x, ROWS, labels=["images"])
    with pytest.raises(TraceError, match="another trace"):
        trace(lambda x: x + kept[0], ROWS)
    with pytest.raises(TraceError, match="known only when the step runs"):
        kept[0].numpy()


def test_an_exception_ends_the_trace():
    def broken(x):
        raise KeyError("mine")

    with pytest.raises(KeyError):
        trace(broken, ROWS)
    assert (convert(1.0) + 1).numpy() == 2.0


def test_threads_trace_side_by_side():
    weight = Variable(np.ones(3, np.float32))
    barrier = threading.Barrier(4)
    programs = {}

    def work(number):
        def function(x):
            barrier.wait(timeout=30)
            weight.assign(weight * float(number))
            barrier.wait(timeout=30)
            return x + weight

        programs[number] = trace(function, ROWS)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, traced in programs.items():
        weight.assign(np.ones(3))
        out = run(traced, np.zeros((1, 3), np.float32))[0]
        assert out.tolist() == [[number] * 3]


def test_variables_made_inside_a_trace_have_values():
    made = []

    def function(x):
        if not made:
            made.append(Variable(ops.ones, shape=(3,)))
        return x * made[0]

    traced = trace(function, ROWS)
    assert traced.variables == tuple(made)
    assert run(traced, np.full((1, 3), 4.0, np.float32))[0].tolist() == [[4.0, 4.0, 4.0]]


def test_abstract_runs_forget_assignments():
    v = Variable(1.0)
    with abstract():
        v.assign(5.0)
    assert float(v.numpy()) == 1.0


# ------------------------------------------------------------------------------- gradients


def test_gradients_of_variables_eagerly_and_traced(rng):
    weight = Variable(rng.standard_normal((3, 2)).astype(np.float32))
    unused = Variable(np.ones(4, np.float32))
    x = rng.standard_normal((5, 3)).astype(np.float32)

    def loss_gradient(x):
        loss = ops.mean(ops.square(ops.matmul(x, weight)))
        return gradient_nodes(loss, [weight, unused])

    expected = 2 * x.T @ (x @ weight.numpy()) / 10
    with recording():
        eager = loss_gradient(convert(x))
    traced = trace(loss_gradient, Type((Batch(1), 3)))
    for found in (eager, run(traced, x)):
        np.testing.assert_allclose(np.asarray(found[0]), expected, rtol=1e-4)
        assert np.asarray(found[1]).tolist() == [0, 0, 0, 0]


def test_the_gradient_is_taken_at_the_value_assigned_last():
    v = Variable(3.0)

    def function(x):
        v.assign(v * 2.0)
        return gradient_nodes(ops.sum(x) * v * v, [v])[0]

    traced = trace(function, ROWS)
    assert float(run(traced, np.ones((1, 3), np.float32))[0]) == 3 * 2 * 6.0


def test_a_loss_must_be_a_scalar():
    with pytest.raises(ShapeError, match=r"a gradient is taken of a scalar, got float32 \(2\)"):
        grad(lambda x: x * 2)(np.float32([1, 2]))


def test_grad_of_structures_and_several_arguments():
    def function(p, scale):
        return ops.sum(p["a"] * p["b"][0]) * scale

    p = {"a": np.float32([1, 2]), "b": [np.float32([3, 4])]}
    value, (slope, other) = value_and_grad(function, argnums=(0, 1))(p, 2.0)
    assert float(value) == 22.0
    assert slope["a"].tolist() == [6.0, 8.0]
    assert slope["b"][0].tolist() == [2.0, 4.0]
    assert float(other) == 11.0


def test_grad_with_extra_results():
    (value, extra), slope = value_and_grad(lambda x: (x * x, "more"), has_aux=True)(3.0)
    assert (float(value), extra, float(slope)) == (9.0, "more", 6.0)
    assert grad(lambda x: (x * x, 7), has_aux=True)(3.0)[1] == 7


def test_grad_lets_python_look_at_values():
    def function(x):
        return x * x if float(x) > 0 else -x

    assert float(grad(function)(3.0)) == 6.0
    assert float(grad(function)(-3.0)) == -1.0


def test_grad_keeps_equal_expressions_apart():
    a = convert(2.0) * 3.0
    # d/dx of x + 2 * 3 is 1, although x has the same value and the same expression.
    assert float(grad(lambda x: x + convert(2.0) * 3.0)(a)) == 1.0


@pytest.mark.parametrize(
    ("function", "first", "second"),
    [
        (lambda x: x**3, lambda x: 3 * x**2, lambda x: 6 * x),
        (ops.sin, np.cos, lambda x: -np.sin(x)),
        (ops.exp, np.exp, np.exp),
        (lambda x: ops.log(x) * x, lambda x: np.log(x) + 1, lambda x: 1 / x),
        (
            ops.tanh,
            lambda x: 1 - np.tanh(x) ** 2,
            lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
        ),
    ],
)
def test_second_derivatives(function, first, second):
    x = np.array(0.7)
    np.testing.assert_allclose(float(grad(function)(x)), first(x), rtol=1e-9)
    np.testing.assert_allclose(float(grad(grad(function))(x)), second(x), rtol=1e-9)


def test_gradients_inside_a_trace_nest():
    traced = trace(lambda x: grad(grad(lambda y: ops.sum(y**3)))(ops.sum(x)), ROWS)
    assert float(run(traced, np.ones((1, 3), np.float32))[0]) == 18.0
    assert not any(type(node.op).__name__ == "Mark" for node in traced.program.nodes())


def test_long_eager_models_have_gradients():
    def deep(x):
        y = x
        for _ in range(600):
            y = y * 1.001
        return y

    np.testing.assert_allclose(float(grad(deep)(1.0)), 1.001**600, rtol=1e-3)


# ------------------------------------------------------------------------------- randomness


def test_a_step_draws_new_numbers_each_time_it_runs():
    generator = random.SeedGenerator(3)

    def function(x):
        return [random.uniform(x.shape, seed=generator) for _ in range(2)]

    traced = trace(function, ROWS)
    x = np.zeros((4, 3), np.float32)
    first, second = run(traced, x), run(traced, x)
    drawn = [*first, *second]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert not np.array_equal(one, other)


def test_the_first_draw_is_the_same_eagerly_and_traced():
    eager = random.normal((4, 3), seed=random.SeedGenerator(5)).numpy()
    generator = random.SeedGenerator(5)
    traced = trace(lambda: random.normal((4, 3), seed=generator))
    assert np.array_equal(run(traced)[0], eager)


def test_rows_do_not_depend_on_the_rows_beside_them():
    generator = random.SeedGenerator(5)
    traced = trace(lambda x: random.uniform(x.shape, seed=generator), ROWS)
    key = generator.state.numpy()
    few = run(traced, np.zeros((2, 3), np.float32))[0]
    generator.state.assign(key)
    many = run(traced, np.zeros((6, 3), np.float32))[0]
    assert np.array_equal(few, many[:2])


def test_the_same_seed_gives_the_same_numbers_in_every_process():
    code = (
        "from lamina import random; random.set_seed(7);"
        "print(random.normal((3,)).tolist(), random.uniform((2,), seed=1).tolist(),"
        "random.make_default_seed())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    random.set_seed(7)
    here = (
        f"{random.normal((3,)).tolist()} {random.uniform((2,), seed=1).tolist()} "
        f"{random.make_default_seed()}\n"
    )
    assert runs[0].stdout == runs[1].stdout == here


def test_an_integer_seed_always_gives_the_same_numbers():
    assert random.uniform((3,), seed=4).tolist() == random.uniform((3,), seed=4).tolist()
    assert random.uniform((3,), seed=4).tolist() != random.uniform((3,), seed=5).tolist()


@pytest.mark.parametrize(
    ("draw", "mean", "deviation", "low", "high"),
    [
        (lambda n, s: random.uniform(n, -1.0, 3.0, seed=s), 1.0, 4 / 12**0.5, -1, 3),
        (lambda n, s: random.normal(n, 2.0, 0.5, seed=s), 2.0, 0.5, -1, 5),
        (lambda n, s: random.truncated_normal(n, seed=s), 0.0, 0.8796, -2, 2),
        (lambda n, s: random.randint(n, 2, 7, seed=s), 4.0, 2**0.5, 2, 6),
        (lambda n, s: random.gamma(n, 2.5, seed=s), 2.5, 2.5**0.5, 0, 50),
        (lambda n, s: random.gamma(n, 0.5, seed=s), 0.5, 0.5**0.5, 0, 50),
        (lambda n, s: random.beta(n, 2.0, 3.0, seed=s), 0.4, 0.2, 0, 1),
        (lambda n, s: random.binomial(n, 10, 0.3, seed=s), 3.0, 2.1**0.5, 0, 10),
    ],
)
def test_distributions(draw, mean, deviation, low, high):
    drawn = draw((40000,), 11).numpy()
    error = 5 * deviation / 200  # five standard errors
    assert abs(drawn.mean() - mean) < error
    assert abs(drawn.std() - deviation) < 3 * error
    assert drawn.min() >= low
    assert drawn.max() <= high


def test_dropout_and_shuffle_and_categories():
    x = np.ones((100, 200), np.float32)
    dropped = random.dropout(x, 0.25, seed=1).numpy()
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert abs((dropped == 0).mean() - 0.25) < 0.01
    columns = random.dropout(x, 0.25, noise_shape=(1, None), seed=1).numpy()
    assert (columns == columns[:1]).all()
    assert sorted(random.shuffle(np.arange(50), seed=2).tolist()) == list(range(50))
    assert random.shuffle(np.arange(50), seed=2).tolist() != list(range(50))
    classes = random.categorical(np.log([[0.1, 0.2, 0.7]]), 20000, seed=3).numpy()
    np.testing.assert_allclose(np.bincount(classes[0]) / 20000, [0.1, 0.2, 0.7], atol=0.02)


DRAWS = {
    "uniform": lambda g: random.uniform((4, 5), -1.0, 1.0, seed=g),
    "normal": lambda g: random.normal((4, 5), seed=g),
    "truncated_normal": lambda g: random.truncated_normal((4, 5), seed=g),
    "randint": lambda g: random.randint((4, 5), 0, 9, seed=g),
    "categorical": lambda g: random.categorical(np.zeros((3, 4), np.float32), 5, seed=g),
    "shuffle": lambda g: random.shuffle(np.arange(10), seed=g),
    "dropout": lambda g: random.dropout(np.ones((4, 5), np.float32), 0.5, seed=g),
    "gamma": lambda g: random.gamma((4,), 2.0, seed=g),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_the_same_on_every_executor(name):
    drawn = {}
    for executor in ("reference", "llvm"):
        with config.override(executor=executor):
            generator = random.SeedGenerator(3)
            step = lamina.function(lambda: [DRAWS[name](generator) for _ in range(2)])  # noqa: B023
            drawn[executor] = [np.asarray(value) for value in (*step(), *step())]
    for one, other in zip(drawn["reference"], drawn["llvm"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert len({value.tobytes() for value in drawn["llvm"]}) == 4


# ------------------------------------------------------------------------- lamina.function


def test_a_function_is_compiled_once_for_a_signature():
    calls = []

    @lamina.function
    def double(x, power=1):
        calls.append(x.shape)
        return x * 2**power

    assert double(np.ones(3, np.float32)).tolist() == [2, 2, 2]
    assert double(np.full(3, 5, np.float32)).tolist() == [10, 10, 10]
    assert double(convert([1.0, 1.0, 1.0])).tolist() == [2, 2, 2]
    assert len(calls) == 1
    double(np.ones(4, np.float32))
    double(np.ones(4, np.int32))
    double(np.ones(4, np.float32), power=2)
    double(np.ones(4, np.float32), power=2)
    assert len(calls) == 4


def test_a_function_updates_variables():
    count = Variable(0.0)

    @lamina.function
    def step(x):
        count.assign_add(ops.sum(x))
        return {"count": count.value, "text": "kept"}

    assert float(step(np.ones(3, np.float32))["count"]) == 3.0
    out = step(np.ones(3, np.float32))
    assert out["text"] == "kept"
    assert float(count.numpy()) == float(out["count"]) == 6.0


def test_a_function_is_a_method_and_inlines_in_traces():
    class Model:
        def __init__(self):
            self.scale = Variable(2.0)

        @lamina.function
        def run(self, x):
            return x * self.scale

    one, other = Model(), Model()
    other.scale.assign(3.0)
    assert one.run(np.ones(1, np.float32)).tolist() == [2.0]
    assert other.run(np.ones(1, np.float32)).tolist() == [3.0]
    traced = trace(one.run, ROWS)
    assert traced.variables == (one.scale,)


def test_numbers_of_different_types_are_different_arguments():
    seen = []

    @lamina.function
    def function(x, flag):
        seen.append(flag)
        return x

    for flag in (1, 1.0, True, None, "a"):
        function(np.ones(1, np.float32), flag)
    assert seen == [1, 1.0, True, None, "a"]


def test_inputs_are_input_nodes_with_labels():
    traced = trace(lambda x: x, ROWS, labels=["images"])
    (node,) = traced.program.inputs
    assert isinstance(node.op, Input)
    assert node.op.label == "images"
    assert isinstance(convert(node.type.shape[0]), Tensor)
