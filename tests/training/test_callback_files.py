"""Callbacks in real runs: checkpoints, backups, event files, averages."""

import struct

import numpy as np
import pytest

import lamina
from lamina import layers
from lamina.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    ModelCheckpoint,
    SwapEMAWeights,
    TensorBoard,
)
from lamina.callbacks.events import crc32c


def linear(**options):
    model = lamina.Sequential([lamina.Input((3,)), layers.Dense(1)])
    model.compile(lamina.optimizers.Adam(0.05, **options), "mse", metrics=["mae"])
    return model


@pytest.fixture
def samples(rng):
    x = rng.random((40, 3), np.float32)
    return x, x @ np.array([1.0, -2.0, 0.5], np.float32)


def test_checkpoints_hold_the_best_epoch(samples, tmp_path):
    x, y = samples
    model = linear()
    path = tmp_path / "best.keras"
    history = model.fit(
        x,
        y,
        epochs=4,
        validation_split=0.25,
        verbose=0,
        callbacks=[ModelCheckpoint(path, save_best_only=True)],
    )
    best = lamina.models.load_model(path)
    assert best.evaluate(x[30:], y[30:], verbose=0)[0] == pytest.approx(
        min(history.history["val_loss"]), rel=1e-6
    )


def test_an_interrupted_run_gives_the_numbers_of_a_whole_one(samples, tmp_path):
    x, y = samples

    class Interrupt(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    start = linear().get_weights()

    def fresh():
        model = linear()
        model.set_weights(start)
        return model

    np.random.seed(4)
    expected = fresh().fit(x, y, epochs=5, batch_size=8, verbose=0).history["loss"]
    folder = tmp_path / "backup"
    np.random.seed(4)
    first = fresh()
    with pytest.raises(KeyboardInterrupt):
        first.fit(
            x,
            y,
            epochs=5,
            batch_size=8,
            verbose=0,
            callbacks=[BackupAndRestore(folder), Interrupt()],
        )
    np.random.seed(77)
    second = fresh().fit(
        x, y, epochs=5, batch_size=8, verbose=0, callbacks=[BackupAndRestore(folder)]
    )
    assert second.epoch == [2, 3, 4]
    assert first.history.history["loss"] + second.history["loss"] == expected
    assert not folder.exists()


def test_a_damaged_backup_falls_back_on_the_one_before(samples, tmp_path):
    x, y = samples
    folder = tmp_path / "backup"
    keep = BackupAndRestore(folder, double_checkpoint=True, delete_checkpoint=False)
    linear().fit(x, y, epochs=3, verbose=0, callbacks=[keep])
    (folder / "latest.weights.h5").write_bytes(b"damaged")
    history = linear().fit(
        x,
        y,
        epochs=4,
        verbose=0,
        callbacks=[BackupAndRestore(folder, double_checkpoint=True)],
    )
    assert history.epoch == [2, 3]


def test_a_csv_file_of_a_run(samples, tmp_path):
    x, y = samples
    path = tmp_path / "log.csv"
    history = linear().fit(
        x, y, epochs=2, validation_split=0.2, verbose=0, callbacks=[CSVLogger(path)]
    )
    lines = path.read_text().splitlines()
    assert lines[0] == "epoch,loss,mae,val_loss,val_mae"
    assert float(lines[2].split(",")[3]) == history.history["val_loss"][1]


def records(folder):
    """The summaries of the one event file: (tag, value, step), checksums checked."""
    (path,) = folder.iterdir()
    content, place, found = path.read_bytes(), 0, []

    def masked(data):
        crc = crc32c(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    while place < len(content):
        length = content[place : place + 8]
        (size,) = struct.unpack("<Q", length)
        assert struct.unpack("<I", content[place + 8 : place + 12])[0] == masked(length)
        data = content[place + 12 : place + 12 + size]
        end = place + 12 + size
        assert struct.unpack("<I", content[end : end + 4])[0] == masked(data)
        found.append(data)
        place = end + 4
    return found


def test_event_files(samples, tmp_path):
    x, y = samples
    history = linear().fit(
        x,
        y,
        epochs=2,
        validation_split=0.2,
        verbose=0,
        callbacks=[TensorBoard(tmp_path, histogram_freq=1, update_freq="batch")],
    )
    training = records(tmp_path / "train")
    assert b"brain.Event:2" in training[0]
    assert sum(b"epoch_loss" in one for one in training) == 2
    assert sum(b"batch_loss" in one for one in training) == 2
    assert sum(b"epoch_learning_rate" in one for one in training) == 2
    assert sum(b"kernel" in one for one in training) == 2
    wanted = struct.pack("<f", history.history["val_loss"][1])
    assert any(b"epoch_loss" in one and wanted in one for one in records(tmp_path / "validation"))


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_tensorflow_reads_our_event_files(samples, tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    x, y = samples
    history = linear().fit(
        x, y, epochs=3, verbose=0, callbacks=[TensorBoard(tmp_path, histogram_freq=1)]
    )
    (path,) = (tmp_path / "train").iterdir()
    losses, histograms = {}, 0
    for event in tensorflow.compat.v1.train.summary_iterator(str(path)):
        for value in event.summary.value:
            if value.tag == "epoch_loss":
                losses[event.step] = value.simple_value
            if value.HasField("histo"):
                histograms += 1
                assert sum(value.histo.bucket) == value.histo.num
                assert len(value.histo.bucket) == len(value.histo.bucket_limit)
    assert list(losses) == [0, 1, 2]
    np.testing.assert_allclose(list(losses.values()), history.history["loss"], rtol=1e-6)
    assert histograms == 6


def test_averages_are_swapped_in_while_measuring(samples):
    x, y = samples
    model = linear(use_ema=True, ema_momentum=0.5)
    seen = []

    class Look(Callback):
        def on_test_begin(self, logs=None):
            seen.append(model.get_weights()[0].copy())

        def on_epoch_end(self, epoch, logs=None):
            seen.append(model.get_weights()[0].copy())

    model.fit(
        x,
        y,
        epochs=2,
        validation_data=(x, y),
        verbose=0,
        callbacks=[SwapEMAWeights(), Look()],
    )
    averaged, own = seen[0], seen[1]
    assert not np.allclose(averaged, own)
    np.testing.assert_array_equal(model.get_weights()[0], seen[2])
    plain = linear()
    with pytest.raises(ValueError, match="make it with use_ema=True"):
        plain.fit(x, y, verbose=0, validation_data=(x, y), callbacks=[SwapEMAWeights()])
