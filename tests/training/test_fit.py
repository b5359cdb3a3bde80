"""fit, evaluate and predict: figures worked out by hand, and what must hold for any model."""

import concurrent.futures
import copy
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

import lamina
from lamina import layers, ops
from lamina.callbacks import Callback, EarlyStopping, LambdaCallback, TerminateOnNaN


def linear(width=3, **compiled):
    model = lamina.Sequential([lamina.Input((width,)), layers.Dense(1)])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return model


class Constant(layers.Layer):
    """Gives zeros whatever comes, through a weight that cannot matter."""

    def build(self, input_shape):
        self.unused = self.add_weight(shape=(), initializer="ones", name="unused")

    def call(self, inputs):
        return ops.zeros_like(inputs[:, :1]) + 0.0 * self.unused


def constant(**compiled):
    model = lamina.Sequential([lamina.Input((1,)), Constant()])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return model


def same(one, other):
    """Equal in every bit, as compiled code is; the interpreter's BLAS rounds by the row count."""
    if lamina.config.executor() == "reference":
        return np.allclose(one, other, rtol=1e-5, atol=1e-6)
    return np.array_equal(one, other)


@pytest.fixture
def samples(rng):
    x = rng.random((50, 3), np.float32)
    return x, x @ np.array([1.0, -2.0, 0.5], np.float32)


def test_one_step_of_gradient_descent_by_hand(samples):
    x, y = samples
    model = linear(optimizer=lamina.optimizers.SGD(0.1))
    kernel, bias = model.get_weights()
    history = model.fit(x, y, batch_size=50, epochs=1, shuffle=False, verbose=0)
    error = x @ kernel[:, 0] + bias - y
    np.testing.assert_allclose(history.history["loss"], [np.mean(error**2)], rtol=1e-5)
    new_kernel, new_bias = model.get_weights()
    slope = 2 * x.T @ error / 50
    np.testing.assert_allclose(new_kernel[:, 0], kernel[:, 0] - 0.1 * slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new_bias, bias - 0.1 * 2 * np.mean(error), rtol=1e-4, atol=1e-6)


def test_loss_of_an_epoch_is_weighed_by_samples():
    """Targets 1 to 4 in batches of 3 and 1, prediction 0: the mean of the squares is 7.5."""
    x, y = np.zeros((4, 1)), np.arange(1.0, 5.0)
    model = constant(metrics=["mae"])
    history = model.fit(x, y, batch_size=3, shuffle=False, verbose=0)
    assert history.history == {"loss": [7.5], "mae": [2.5]}
    assert model.evaluate(x, y, batch_size=3, verbose=0) == [7.5, 2.5]


def test_sample_weights_divide_the_loss_by_samples_and_metrics_by_weights():
    x, y, weight = np.zeros((4, 1)), np.arange(1.0, 5.0), np.array([1.0, 0.0, 0.0, 1.0])
    model = constant(metrics=["mse"], weighted_metrics=["mse"])
    result = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert result == {"loss": 4.25, "mse": 7.5, "weighted_mse": 8.5}


def test_regularizers_and_added_losses_count_in_training_and_evaluation():
    class Adds(layers.Layer):
        def call(self, inputs):
            self.add_loss(ops.cast(2.0, "float32"))
            return inputs

    model = lamina.Sequential([lamina.Input((1,)), Adds(), Constant()])
    model.compile("sgd", "mse")
    x, y = np.zeros((4, 1)), np.zeros(4)
    assert model.evaluate(x, y, verbose=0) == 2.0
    assert model.fit(x, y, verbose=0).history["loss"] == [2.0]
    penalised = lamina.Sequential(
        [lamina.Input((1,)), layers.Dense(1, kernel_initializer="ones", kernel_regularizer="l2")]
    )
    penalised.compile("sgd", "mse")
    assert penalised.evaluate(x, y, verbose=0) == pytest.approx(0.01)


def test_epochs_is_the_last_number():
    history = linear().fit(np.zeros((4, 3)), np.zeros(4), epochs=5, initial_epoch=3, verbose=0)
    assert history.epoch == [3, 4]


def test_validation_uses_the_last_samples_and_its_own_epochs(samples):
    x, y = samples
    model = linear(metrics=["mae"])
    history = model.fit(
        x, y, epochs=4, validation_split=0.2, validation_freq=2, verbose=0, shuffle=False
    )
    assert len(history.history["loss"]) == 4
    assert len(history.history["val_loss"]) == 2
    expected = model.evaluate(x[40:], y[40:], verbose=0)
    np.testing.assert_allclose(
        [history.history["val_loss"][-1], history.history["val_mae"][-1]], expected
    )
    listed = model.fit(x, y, epochs=3, validation_data=(x, y), validation_freq=[1, 3], verbose=0)
    assert len(listed.history["val_loss"]) == 2


def test_training_lowers_the_loss(samples):
    x, y = samples
    history = linear(optimizer=lamina.optimizers.Adam(0.05)).fit(x, y, epochs=30, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0] * 0.9


def test_nothing_compiles_again(samples):
    x, y = samples
    model = linear()
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    model.evaluate(x, y, batch_size=16, verbose=0)
    compiled = model._steps.compiled
    model.optimizer.learning_rate = 0.5
    model.fit(x[:37], y[:37], batch_size=16, epochs=2, verbose=0)
    assert model._steps.compiled == compiled


@pytest.mark.parametrize("rows", [1, 2, 31, 32, 33, 50])
def test_predict_any_number_of_rows_in_the_same_bits(samples, rows):
    x, _ = samples
    model = linear()
    whole = model.predict(x, batch_size=50, verbose=0)
    assert same(model.predict(x[:rows], verbose=0), whole[:rows])
    assert same(model.predict_on_batch(x[:rows]), whole[:rows])


def test_predict_of_small_sizes_compiles_once(samples):
    x, _ = samples
    model = linear()
    model.predict(x[:1], verbose=0)
    compiled = model._steps.compiled
    for rows in range(2, 33):
        model.predict(x[:rows], verbose=0)
    assert model._steps.compiled == compiled


def test_predict_nests_like_the_outputs(rng):
    inputs = lamina.Input((3,))
    model = lamina.Model(
        inputs, {"sum": ops.sum(inputs, axis=-1), "both": [inputs * 2.0, inputs + 1.0]}
    )
    x = rng.random((40, 3), np.float32)
    outputs = model.predict(x, verbose=0)
    assert set(outputs) == {"sum", "both"}
    np.testing.assert_allclose(outputs["sum"], x.sum(-1), rtol=1e-6)
    np.testing.assert_array_equal(outputs["both"][0], x * 2)


def test_predict_where_rows_become_more_rows(rng):
    model = lamina.Sequential(
        [lamina.Input((4, 3)), layers.Lambda(lambda x: ops.reshape(x, (-1, 3)) * 2.0)]
    )
    x = rng.random((70, 4, 3), np.float32)
    np.testing.assert_array_equal(model.predict(x, verbose=0), x.reshape(-1, 3) * 2)


def test_predict_from_a_generator(samples):
    x, _ = samples
    model = linear()
    outputs = model.predict(iter([x[:20], x[20:33]]), verbose=0)
    assert same(outputs, model.predict(x[:33], verbose=0))


def test_integer_images_and_double_precision_are_taken_as_they_are(rng):
    pixels = rng.integers(0, 256, (20, 3)).astype(np.uint8)
    model = linear()
    np.testing.assert_allclose(
        model.predict(pixels, verbose=0),
        model.predict(pixels.astype(np.float64), verbose=0),
        rtol=1e-6,
    )


def test_train_on_batch_gives_the_values_of_this_batch(samples):
    x, y = samples
    model = linear(metrics=["mae"])
    model.fit(x, y, verbose=0)
    expected = model.test_on_batch(x[:7], y[:7])
    assert model.train_on_batch(x[:7], y[:7]) == expected
    assert set(model.train_on_batch(x, y, return_dict=True)) == {"loss", "mae"}


def test_a_generator_trains_like_the_arrays(samples):
    x, y = samples
    one, other = linear(), linear()
    other.set_weights(one.get_weights())

    def batches():
        for start in range(0, 50, 16):
            yield x[start : start + 16], y[start : start + 16]

    a = one.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    b = other.fit(batches(), verbose=0).history
    assert a == b


def test_steps_per_epoch_goes_on_where_it_stopped(samples):
    x, y = samples
    seen = []

    def batches():
        for index in range(7):
            seen.append(index)
            yield x[:4], y[:4]

    with pytest.warns(UserWarning, match="ran out of data"):
        history = linear().fit(batches(), steps_per_epoch=3, epochs=4, verbose=0)
    assert len(history.history["loss"]) == 3
    assert seen == list(range(7))


def test_eager_steps_give_the_same_numbers(samples):
    x, y = samples
    one, other = linear(), linear(run_eagerly=True)
    other.set_weights(one.get_weights())
    a = one.fit(x, y, epochs=2, shuffle=False, verbose=0).history["loss"]
    b = other.fit(x, y, epochs=2, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_an_eager_step_sees_values(samples):
    x, y = samples
    seen = []

    class Prints(lamina.Model):
        def train_step(self, data):
            inputs, _ = data
            seen.append(float(ops.sum(inputs)))
            return super().train_step(data)

    inputs = lamina.Input((3,))
    model = Prints(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(x, y, batch_size=25, shuffle=False, verbose=0)
    np.testing.assert_allclose(seen, [x[:25].sum(), x[25:].sum()], rtol=1e-5)


def test_a_step_of_ones_own(samples):
    x, y = samples

    class Own(lamina.Model):
        def train_step(self, data):
            inputs, targets = data
            outputs = self(inputs, training=True)[:, 0]
            loss = ops.mean(ops.abs(outputs - targets))
            gradients = lamina.trace.gradient_nodes(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"distance": loss}

    inputs = lamina.Input((3,))
    model = Own(inputs, layers.Dense(1)(inputs))
    model.compile(lamina.optimizers.SGD(0.1))
    kernel, bias = model.get_weights()
    logs = model.fit(x, y, batch_size=50, shuffle=False, verbose=0).history
    error = x @ kernel[:, 0] + bias - y
    np.testing.assert_allclose(logs["distance"], [np.abs(error).mean()], rtol=1e-5)
    np.testing.assert_allclose(
        model.get_weights()[0][:, 0], kernel[:, 0] - 0.1 * x.T @ np.sign(error) / 50, atol=1e-6
    )


def test_a_loss_of_ones_own(samples):
    x, y = samples

    class Own(lamina.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean((y_pred[:, 0] - y) ** 4)

    inputs = lamina.Input((3,))
    model = Own(inputs, layers.Dense(1)(inputs))
    model.compile("sgd")
    expected = np.mean((model.predict(x, verbose=0)[:, 0] - y) ** 4)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_a_model_that_compares_its_rows_with_one_another(rng):
    """A matrix of rows by rows cannot have an open batch: it is compiled for each size."""

    class Similarity(layers.Layer):
        def call(self, inputs):
            return ops.softmax(inputs @ ops.transpose(inputs)) @ inputs

    model = lamina.Sequential([lamina.Input((3,)), Similarity(), layers.Dense(1)])
    model.compile("sgd", "mse")
    x = rng.random((10, 3), np.float32)
    history = model.fit(x, x[:, 0], batch_size=4, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
    assert model.predict(x, batch_size=4, verbose=0).shape == (10, 1)


def test_metrics_that_are_attributes(samples):
    x, y = samples

    class Own(lamina.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1)
            self.largest = lamina.metrics.Mean(name="largest")

        def call(self, inputs):
            outputs = self.dense(inputs)
            self.largest.update_state(ops.max(outputs))
            return outputs

    model = Own()
    model.compile("sgd", "mse")
    result = model.evaluate(x, y, batch_size=50, verbose=0, return_dict=True)
    assert result["largest"] == pytest.approx(model.predict(x, verbose=0).max(), rel=1e-6)


def test_frozen_layers_stay_and_need_no_second_compile(samples):
    x, y = samples
    model = lamina.Sequential([lamina.Input((3,)), layers.Dense(2), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)
    model.layers[0].trainable = False
    first, second = (layer.get_weights()[0] for layer in model.layers)
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(model.layers[0].get_weights()[0], first)
    assert not np.array_equal(model.layers[1].get_weights()[0], second)


def test_compiling_again_forgets_the_metrics(samples):
    x, y = samples
    model = linear(metrics=["mae"])
    model.evaluate(x, y, verbose=0)
    model.compile("sgd", "mse")
    assert model.metrics_names == ["loss"]
    assert isinstance(model.evaluate(x, y, verbose=0), float)


def test_early_stopping_and_stop_training(samples):
    x, y = samples
    model = linear()
    model.optimizer.learning_rate = 0.0
    history = model.fit(
        x, y, epochs=9, shuffle=False, verbose=0, callbacks=[EarlyStopping("loss", patience=2)]
    )
    assert len(history.epoch) == 3

    class Stop(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.stop_training = True

    batches = []
    model.fit(
        x,
        y,
        batch_size=10,
        epochs=3,
        verbose=0,
        callbacks=[Stop(), LambdaCallback(on_train_batch_begin=lambda b, logs: batches.append(b))],
    )
    assert batches == [0, 1]


def test_a_loss_that_is_not_finite_ends_the_run_at_that_step(samples, capsys):
    x, y = samples
    y = y.copy()
    y[23] = np.nan
    model = linear()
    history = model.fit(
        x, y, batch_size=10, epochs=3, shuffle=False, verbose=0, callbacks=[TerminateOnNaN()]
    )
    assert capsys.readouterr().out == "Batch 2: Invalid loss, terminating training\n"
    assert len(history.epoch) == 1
    assert int(model.optimizer.iterations.numpy()) == 3


def test_hooks_see_each_step_and_running_means():
    losses = []
    model = constant()
    model.fit(
        np.zeros((4, 1)),
        np.arange(1.0, 5.0),
        batch_size=1,
        shuffle=False,
        verbose=0,
        callbacks=[LambdaCallback(on_train_batch_end=lambda b, logs: losses.append(logs["loss"]))],
    )
    assert losses == [1.0, 2.5, pytest.approx(14 / 3), 7.5]


def test_several_steps_an_execution_call_hooks_less_often(samples):
    x, y = samples
    model = linear(steps_per_execution=2)
    ended = []
    model.fit(
        x,
        y,
        batch_size=10,
        verbose=0,
        callbacks=[LambdaCallback(on_train_batch_end=lambda b, logs: ended.append(b))],
    )
    assert ended == [1, 3, 4]


def test_an_interrupt_leaves_a_model_that_works(samples):
    x, y = samples
    model = linear()

    def interrupt(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=9, verbose=1, callbacks=[LambdaCallback(on_epoch_begin=interrupt)])
    assert model.history.epoch == [0, 1]
    assert np.isfinite(model.evaluate(x, y, verbose=0))
    model.fit(x, y, verbose=0)


def test_an_error_in_predict_leaves_the_model_alone(samples):
    x, y = samples
    model = linear()
    model.fit(x, y, verbose=0)
    before = model.get_weights()
    with pytest.raises(ValueError, match="does not have the shape"):
        model.predict(np.zeros((4, 5)), verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    model.fit(x, y, verbose=0)


def together(*actions):
    """Run each action in a thread of its own; raise what one of them raised."""
    with concurrent.futures.ThreadPoolExecutor(len(actions)) as executor:
        for running in [executor.submit(action) for action in actions]:
            running.result(60)


def test_threads_predict_with_one_model(samples):
    x, y = samples
    model = linear()
    model.fit(x, y, verbose=0)
    expected = model.predict(x, verbose=0)
    model(x[:2])
    model(x)
    compiled = model._steps.compiled
    seen = []

    def work(seed):
        order = np.random.default_rng(seed)
        for _ in range(10):
            rows = int(order.integers(1, 51))
            found = (model.predict(x[:rows], verbose=0), model(x[:rows]).numpy())
            seen.extend(same(one, expected[:rows]) for one in found)

    together(*(lambda seed=seed: work(seed) for seed in range(4)))
    assert seen == [True] * 80
    assert model._steps.compiled == compiled


@pytest.mark.parametrize("kind", ["predict", "call", "function"])
def test_no_thread_waits_while_another_computes(samples, monkeypatch, kind):
    from lamina.llvm import pool

    if lamina.config.executor() == "reference":
        pytest.skip("nothing is called natively")
    x, _ = samples
    model = linear()
    function = lamina.function(lambda inputs: ops.matmul(inputs, np.ones((3, 2), np.float32)))
    call = {
        "predict": lambda: model.predict(x, verbose=0),
        "call": lambda: model(x),
        "function": lambda: function(x),
    }[kind]
    call()
    meeting = threading.Barrier(3, timeout=20)  # broken unless three stand in here together
    run = pool.Lease.run

    def met(lease, entry, args):
        meeting.wait()
        return run(lease, entry, args)

    monkeypatch.setattr(pool.Lease, "run", met)
    together(call, call, call)


def test_a_captured_array_may_be_read_only(samples):
    x, _ = samples
    fixed = np.ones((3, 2), np.float32)
    fixed.flags.writeable = False
    model = lamina.Sequential([lamina.Input((3,)), layers.Lambda(lambda a: ops.matmul(a, fixed))])
    np.testing.assert_allclose(model.predict(x, verbose=0), x @ fixed, rtol=1e-6)


def test_predictions_beside_training(samples):
    x, y = samples
    model = linear()
    finite = []

    def predict():
        finite.extend(np.isfinite(model.predict(x[:9], verbose=0)).all() for _ in range(20))

    thread = threading.Thread(target=predict)
    thread.start()
    model.fit(x, y, epochs=20, batch_size=5, verbose=0)
    thread.join(60)
    assert finite == [True] * 20


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_go_on_alike_and_apart(samples, copied):
    x, y = samples
    model = lamina.Sequential(
        [lamina.Input((3,)), layers.Dense(4), layers.Dropout(0.5), layers.Dense(1)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(x, y, verbose=0)
    twin = copied(model)
    before = model.get_weights()
    theirs = twin.fit(x, y, epochs=2, shuffle=False, verbose=0).history
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    ours = model.fit(x, y, epochs=2, shuffle=False, verbose=0).history
    assert ours == theirs


def test_one_seed_one_history_in_two_processes():
    program = """
import numpy as np, lamina
from lamina import layers
lamina.utils.set_random_seed(7)
model = lamina.Sequential([lamina.Input((3,)), layers.Dense(4, "relu"), layers.Dropout(0.5), layers.Dense(1)])
model.compile("adam", "mse")
x = np.random.rand(40, 3)
print([value.hex() for value in model.fit(x, x[:, 0], epochs=3, verbose=0).history["loss"]])
"""
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout != ""
    assert runs[0].stderr == ""


def test_output_off_a_terminal(samples, capsys):
    x, y = samples
    linear().fit(x, y, epochs=2)
    text = capsys.readouterr().out
    assert [line.split(" - ")[:2] for line in text.splitlines()] == [
        ["Epoch 1/2", "2/2"],
        ["Epoch 2/2", "2/2"],
    ]
    assert "\x1b" not in text
    linear().predict(x)
    assert capsys.readouterr().out == ""
