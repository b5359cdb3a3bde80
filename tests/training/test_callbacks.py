"""Callbacks on their own, driven by hand with logged values."""

import types

import numpy as np
import pytest

from lamina.callbacks import (
    BackupAndRestore,
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    History,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    MonitorError,
    ReduceLROnPlateau,
    TerminateOnNaN,
)


class Model:
    """As much of a model as callbacks see."""

    def __init__(self):
        self.stop_training = False
        self.weights = [np.zeros(1)]
        self.optimizer = types.SimpleNamespace(learning_rate=0.1, built=True)
        self.saved = []
        self.built = True

    def named_metrics(self):
        return {
            "loss": types.SimpleNamespace(_direction="down"),
            "accuracy": types.SimpleNamespace(_direction="up"),
            "odd": types.SimpleNamespace(_direction=None),
        }

    def get_weights(self):
        return [weight.copy() for weight in self.weights]

    def set_weights(self, weights):
        self.weights = weights

    def save(self, path, overwrite=True):
        self.saved.append(path)

    save_weights = save


def drive(callback, values, name="loss", model=None):
    model = model or Model()
    callback.set_model(model)
    callback.on_train_begin()
    ran = 0
    for epoch, value in enumerate(values):
        model.weights = [np.array([float(epoch)])]
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {name: value})
        ran += 1
        if model.stop_training:
            break
    callback.on_train_end()
    return model, ran


def test_early_stopping_waits_for_patience():
    _, ran = drive(EarlyStopping("loss", patience=2), [3, 2, 2.5, 2.4, 2.3, 1])
    assert ran == 4


def test_early_stopping_counts_only_more_than_min_delta():
    _, ran = drive(EarlyStopping("loss", min_delta=0.5, patience=1), [3, 2.7, 2.4])
    assert ran == 2


def test_early_stopping_finds_the_direction_of_a_metric():
    _, ran = drive(EarlyStopping("accuracy", patience=1), [0.5, 0.6, 0.55], "accuracy")
    assert ran == 3
    _, ran = drive(EarlyStopping("val_accuracy", patience=1), [0.5, 0.4, 0.9], "val_accuracy")
    assert ran == 2


def test_early_stopping_restores_the_best_weights_also_at_the_end():
    model, ran = drive(EarlyStopping("loss", patience=9, restore_best_weights=True), [3, 1, 2])
    assert ran == 3
    assert model.weights[0] == 1.0


def test_early_stopping_with_baseline_and_late_start():
    _, ran = drive(EarlyStopping("loss", patience=2, baseline=1.0), [3, 2, 1.5, 1.2, 2])
    assert ran == 5  # each epoch improves on the last, though none beats the baseline
    _, ran = drive(EarlyStopping("loss", patience=1, start_from_epoch=3), [1, 2, 3, 4, 5, 6])
    assert ran == 5


def test_a_misspelt_monitor_is_told():
    with pytest.raises(MonitorError) as raised:
        drive(EarlyStopping("val_acuracy"), [0.5], "val_accuracy")
    assert str(raised.value) == (
        "EarlyStopping monitors 'val_acuracy', which this run does not log."
        " Did you mean 'val_accuracy'?\n"
        "  logged   val_accuracy"
    )


def test_a_monitor_without_validation_warns():
    with pytest.warns(UserWarning, match="'val_loss', which is not available after this epoch"):
        drive(EarlyStopping(), [0.5])


def test_an_unknown_direction_is_told():
    with pytest.raises(MonitorError, match="should 'odd' grow or shrink"):
        drive(EarlyStopping("odd", patience=1), [1, 2], "odd")


def test_checkpoint_saves_the_best_only(tmp_path):
    path = tmp_path / "best-{epoch:02d}-{loss:.1f}.keras"
    model, _ = drive(ModelCheckpoint(path, "loss", save_best_only=True), [3, 2, 2.5, 1])
    names = [saved.rsplit("/", maxsplit=1)[-1] for saved in model.saved]
    assert names == ["best-01-3.0.keras", "best-02-2.0.keras", "best-04-1.0.keras"]


def test_checkpoint_every_few_steps(tmp_path):
    callback = ModelCheckpoint(
        tmp_path / "b{batch}.weights.h5", save_weights_only=True, save_freq=2
    )
    called = CallbackList([callback], model=Model())
    assert called.wants_each_step("train")
    called.on_epoch_begin(0)
    for batch in range(5):
        called.on_train_batch_end(batch, {})
    assert [saved[-13:] for saved in called.model.saved] == ["b2.weights.h5", "b4.weights.h5"]
    assert not CallbackList([ModelCheckpoint("a.keras")]).wants_each_step("train")


def test_checkpoint_endings():
    with pytest.raises(ValueError, match=r"must end in \.weights\.h5, got 'a\.keras'"):
        ModelCheckpoint("a.keras", save_weights_only=True)
    with pytest.raises(ValueError, match=r"must end in \.keras, got 'a\.ckpt'"):
        ModelCheckpoint("a.ckpt")


def test_plateau_lowers_the_rate_and_cools_down():
    callback = ReduceLROnPlateau("loss", factor=0.5, patience=2, min_lr=0.02)
    model, _ = drive(callback, [1, 1, 1, 1, 1, 1, 1])
    assert model.optimizer.learning_rate == pytest.approx(0.02)
    cooled, _ = drive(ReduceLROnPlateau("loss", factor=0.5, patience=1, cooldown=2), [1] * 5)
    assert cooled.optimizer.learning_rate == pytest.approx(0.025)


def test_scheduler_takes_one_or_two_arguments():
    model, _ = drive(LearningRateScheduler(lambda epoch: 0.1 * (epoch + 1)), [1, 1])
    assert model.optimizer.learning_rate == pytest.approx(0.2)
    model, _ = drive(LearningRateScheduler(lambda epoch, rate: rate / 2), [1, 1])
    assert model.optimizer.learning_rate == pytest.approx(0.025)


def test_csv(tmp_path):
    path = tmp_path / "log.csv"
    drive(CSVLogger(path), [0.5, 0.25])
    assert path.read_text().splitlines() == ["epoch,loss,val_loss", "0,0.5,NA", "1,0.25,NA"]
    drive(CSVLogger(path, append=True), [0.125])
    assert path.read_text().splitlines()[-1] == "0,0.125,NA"
    assert path.read_text().count("epoch") == 1


def test_nan_stops_the_run(capsys):
    callback = TerminateOnNaN()
    called = CallbackList([callback], model=Model())
    assert called.wants_stop_on_nan()
    assert not called.wants_each_step("train")
    called.on_steps_end("train", 3, {"loss": float("nan")})
    assert called.model.stop_training
    assert capsys.readouterr().out == "Batch 3: Invalid loss, terminating training\n"
    with pytest.raises(RuntimeError, match="the loss is inf after batch 4"):
        TerminateOnNaN(raise_error=True).on_steps_end("train", 4, {"loss": float("inf")})


def test_batch_hooks_are_found_on_class_and_instance():
    class Own(Callback):
        def on_batch_end(self, batch, logs=None):
            pass

    assert CallbackList([Own()]).wants_each_step("train")
    assert not CallbackList([Own()]).wants_each_step("test")
    assert CallbackList([LambdaCallback(on_train_batch_end=print)]).wants_each_step("train")
    assert CallbackList([LambdaCallback(on_test_batch_end=print)]).wants_each_step("test")
    plain = Callback()
    assert not CallbackList([plain]).wants_each_step("train")
    plain.on_predict_batch_end = print
    assert CallbackList([plain]).wants_each_step("predict")


def test_a_class_instead_of_a_callback():
    with pytest.raises(TypeError, match=r"got type. Did you forget the \(\)\?"):
        CallbackList([types.SimpleNamespace])


def test_order_and_default_callbacks():
    calls = []
    one, two = Callback(), Callback()
    one.on_epoch_end = lambda epoch, logs: calls.append("one")
    two.on_epoch_end = lambda epoch, logs: calls.append("two")
    called = CallbackList([one, [two]], add_history=True, model=Model())
    called.on_epoch_end(0, {"loss": 1.0})
    assert calls == ["one", "two"]
    assert isinstance(called.history, History)
    assert called.history.history == {"loss": [1.0]}
    assert called.model.history is called.history


def test_backup_continues_where_it_was(tmp_path):
    folder = tmp_path / "backup"
    first = BackupAndRestore(folder, delete_checkpoint=False)
    model = Model()
    model.save_weights = lambda path, overwrite: path.write_text("weights")
    model.load_weights = lambda path: None
    first.set_model(model)
    first.on_train_begin()
    np.random.seed(1)
    first.on_epoch_end(0)
    expected = np.random.rand()
    np.random.seed(99)
    second = BackupAndRestore(folder)
    second.set_model(model)
    second.on_train_begin()
    assert model._initial_epoch == 1
    assert np.random.rand() == expected
    second.on_train_end()
    assert not folder.exists()
