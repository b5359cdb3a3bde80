"""Helpers around training, and objects as plain data."""

import io
import random

import numpy as np
import pytest

import lamina
from lamina import utils
from lamina.serialization import (
    UnknownObjectError,
    custom_object_scope,
    deserialize_keras_object,
    get_registered_object,
    public_namespace,
    register_keras_serializable,
    serialize_keras_object,
)


def test_one_hot_rows():
    np.testing.assert_array_equal(utils.to_categorical([0, 2], 4), [[1, 0, 0, 0], [0, 0, 1, 0]])
    assert utils.to_categorical(np.zeros((5, 3, 1), int), 2).shape == (5, 3, 2)
    assert utils.to_categorical(np.array([1.0, 0.0])).shape == (2, 2)


def test_one_hot_of_labels_outside():
    with pytest.raises(ValueError) as raised:
        utils.to_categorical([0, 5, 1], 3)
    assert str(raised.value) == (
        "to_categorical: the class number 5 at position 1 is outside 0 to 2.\n"
        "  classes  3\n"
        "  hint     give a larger num_classes, or check whether classes count from 0"
    )
    with pytest.raises(ValueError, match="class number -1 at position 0"):
        utils.to_categorical([-1, 0], 3)
    with pytest.raises(TypeError, match="whole numbers"):
        utils.to_categorical([0.5], 3)


def test_normalize():
    np.testing.assert_allclose(utils.normalize([[3.0, 4.0], [0.0, 0.0]]), [[0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(utils.normalize([[1.0, 3.0]], order=1), [[0.25, 0.75]])


def test_seeds_reach_all_generators():
    drawn = []
    for _ in range(2):
        utils.set_random_seed(5)
        drawn.append(
            (random.random(), np.random.rand(), float(np.asarray(lamina.random.uniform(()))))
        )
    assert drawn[0] == drawn[1]
    with pytest.raises(ValueError, match="between 0 and 2"):
        utils.set_random_seed(-1)
    with pytest.raises(TypeError, match="whole number"):
        utils.set_random_seed(1.5)


def test_names_begin_anew():
    utils.clear_session()
    first = lamina.layers.Dense(1).name
    assert lamina.layers.Dense(1).name == "dense_1"
    utils.clear_session()
    assert lamina.layers.Dense(1).name == first == "dense"


def test_splitting():
    left, right = utils.split_dataset(np.arange(10), left_size=0.7)
    np.testing.assert_array_equal(left, np.arange(7))
    np.testing.assert_array_equal(right, [7, 8, 9])
    (a, b), (c, d) = utils.split_dataset((np.arange(6), np.arange(6) * 2), right_size=2)
    np.testing.assert_array_equal(b, a * 2)
    np.testing.assert_array_equal(d, [8, 10])
    assert len(c) == 2
    one, two = utils.split_dataset(np.arange(20), 12, 8, shuffle=True, seed=1)
    assert sorted([*one, *two]) == list(range(20))
    with pytest.raises(ValueError, match="10 samples cannot give 8 and 8"):
        utils.split_dataset(np.arange(10), 8, 8)


def test_windows_over_a_series():
    windows = utils.timeseries_dataset_from_array(
        np.arange(10.0), np.arange(10.0) * 10, sequence_length=3, sampling_rate=2, batch_size=4
    )
    x, y = windows[0]
    np.testing.assert_array_equal(x[:2], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(y, [0, 10, 20, 30])
    assert len(windows) == 2
    assert sum(len(windows[i][0]) for i in range(len(windows))) == 6


def test_windows_are_those_of_keras(keras):
    pytest.importorskip("tensorflow", reason="Keras makes windows with tf.data")
    data, targets = np.arange(30.0), np.arange(30.0) * 2
    options = {
        "sequence_length": 4,
        "sequence_stride": 3,
        "sampling_rate": 2,
        "batch_size": 5,
        "start_index": 2,
        "end_index": 27,
    }
    theirs = keras.utils.timeseries_dataset_from_array(data, targets[2:], **options)
    ours = utils.timeseries_dataset_from_array(data, targets[2:], **options)
    expected = [(np.asarray(x), np.asarray(y)) for x, y in theirs]
    assert len(ours) == len(expected)
    for index, (x, y) in enumerate(expected):
        np.testing.assert_array_equal(ours[index][0], x)
        np.testing.assert_array_equal(ours[index][1], y)


def test_progbar_averages(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    bar = utils.Progbar(4, stateful_metrics=["rate"])
    for step in range(1, 5):
        bar.update(step, [("loss", float(step)), ("rate", step / 10)])
    assert stream.getvalue().endswith("loss: 2.5000 - rate: 0.4000\n")


def test_packing():
    assert utils.pack_x_y_sample_weight(1, 2, 3) == (1, 2, 3)
    assert utils.pack_x_y_sample_weight(1) == 1
    assert utils.unpack_x_y_sample_weight((1, 2)) == (1, 2, None)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2.5,
        "text",
        [1, [2, "a"]],
        {"a": 1, "b": [2]},
        b"bytes",
        slice(1, None, 2),
        Ellipsis,
    ],
)
def test_plain_values_come_back(value):
    assert deserialize_keras_object(serialize_keras_object(value)) == value


def test_arrays_and_objects_come_back():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(deserialize_keras_object(serialize_keras_object(array)), array)
    layer = lamina.layers.Dense(3, activation="relu", kernel_regularizer="l2", name="d")
    data = serialize_keras_object(layer)
    assert (data["module"], data["class_name"]) == ("keras.layers", "Dense")
    twin = deserialize_keras_object(data)
    assert twin.get_config() == layer.get_config()
    schedule = lamina.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    optimizer = lamina.optimizers.SGD(schedule, momentum=0.5)
    twin = deserialize_keras_object(serialize_keras_object(optimizer))
    assert twin.get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    ("module", "namespace"),
    [
        ("keras.layers", "keras.layers"),
        ("keras.src.layers.core.dense", "keras.layers"),
        ("lamina.layers.dense", "keras.layers"),
        ("keras.src.optimizers.schedules.learning_rate_schedule", "keras.optimizers.schedules"),
        ("keras", "keras"),
        ("os", None),
        ("kerasx.layers", None),
        ("keras.evil", "keras"),
        (3, None),
    ],
)
def test_namespaces(module, namespace):
    assert public_namespace(module) == namespace


def test_registering():
    @register_keras_serializable("pkg", "Named")
    class Thing:
        def get_config(self):
            return {}

        @classmethod
        def from_config(cls, config):
            return cls()

    assert get_registered_object("pkg>Named") is Thing
    data = serialize_keras_object(Thing())
    assert data["registered_name"] == "pkg>Named"
    assert isinstance(deserialize_keras_object(data), Thing)
    with pytest.raises(ValueError, match="needs a get_config"):
        register_keras_serializable()(type("Bare", (), {}))


def test_scopes_end():
    def mine(x):
        return x

    data = {
        "class_name": "function",
        "config": "mine",
        "module": "tests",
        "registered_name": "mine",
    }
    with custom_object_scope({"mine": mine}):
        assert deserialize_keras_object(data) is mine
    with pytest.raises(UnknownObjectError, match="unknown function 'mine'"):
        deserialize_keras_object(data)


def test_what_cannot_be_written():
    with pytest.raises(TypeError, match="object cannot be written to a file"):
        serialize_keras_object(object())
    with pytest.raises(TypeError, match="a lambda cannot be written"):
        serialize_keras_object(lambda x: x)
