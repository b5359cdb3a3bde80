"""Files: what comes back is the same model, also where nothing is usual."""

import json
import zipfile

import h5py
import numpy as np
import pytest

import lamina
from lamina import layers, saving


def net(dropout=0.0):
    model = lamina.Sequential(
        [
            lamina.Input((3,)),
            layers.Dense(4, activation="tanh", name="first"),
            layers.BatchNormalization(),
            layers.Dropout(dropout),
            layers.Dense(2, kernel_regularizer=lamina.regularizers.L2(0.1)),
        ]
    )
    model.compile(lamina.optimizers.Adam(0.02), "mse", metrics=["mae"])
    return model


@pytest.fixture
def samples(rng):
    return rng.random((40, 3), np.float32), rng.random((40, 2), np.float32)


def test_a_run_continues_exactly_from_a_file(samples, tmp_path):
    """Two epochs, a file, and two more are four epochs, dropout and optimizer included."""
    x, y = samples
    lamina.utils.set_random_seed(3)
    whole = net(0.4)
    start = whole.get_weights()
    np.random.seed(5)
    expected = whole.fit(x, y, epochs=4, batch_size=8, verbose=0).history["loss"]

    lamina.utils.set_random_seed(3)
    first = net(0.4)
    for one, other in zip(start, first.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.random.seed(5)
    losses = first.fit(x, y, epochs=2, batch_size=8, verbose=0).history["loss"]
    first.save(tmp_path / "half.keras")
    second = saving.load_model(tmp_path / "half.keras")
    losses += second.fit(x, y, epochs=2, batch_size=8, verbose=0).history["loss"]
    assert losses == expected


def test_weights_alone(samples, tmp_path):
    x, y = samples
    model, other = net(), net()
    model.fit(x, y, verbose=0)
    model.save_weights(tmp_path / "w.weights.h5")
    other.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(model.predict(x, verbose=0), other.predict(x, verbose=0))
    ours = model.fit(x, y, shuffle=False, verbose=0).history
    assert other.fit(x, y, shuffle=False, verbose=0).history == ours


def test_layout_is_that_of_keras(samples, tmp_path):
    model = net()
    model.save_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5") as file:
        assert set(file["layers"]) == {"dense", "batch_normalization", "dropout", "dense_1"}
        assert file["layers/dense/vars"].attrs["name"] == "first"
        assert file["layers/dense/vars/0"].shape == (3, 4)
        assert set(file["layers/batch_normalization/vars"]) == {"0", "1", "2", "3"}
    model.fit(*samples, verbose=0)
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        config = json.loads(archive.read("config.json"))
    assert (config["module"], config["class_name"]) == ("keras", "Sequential")
    assert config["config"]["layers"][1]["module"] == "keras.layers"
    assert config["compile_config"]["loss"] == "mse"
    assert config["compile_config"]["optimizer"]["class_name"] == "Adam"


def test_folders(samples, tmp_path):
    model = net()
    model.save(tmp_path / "folder", zipped=False)
    other = saving.load_model(tmp_path / "folder")
    np.testing.assert_array_equal(
        model.predict(samples[0], verbose=0), other.predict(samples[0], verbose=0)
    )


def test_without_compile(samples, tmp_path):
    net().save(tmp_path / "m.keras")
    model = saving.load_model(tmp_path / "m.keras", compile=False)
    assert not model.compiled
    assert model.predict(samples[0], verbose=0).shape == (40, 2)


def test_a_failing_save_leaves_the_old_file(samples, tmp_path):
    path = tmp_path / "m.keras"
    net().save(path)
    before = path.read_bytes()
    model = lamina.Sequential([lamina.Input((3,)), layers.Lambda(lambda x: x * 2)])
    with pytest.raises(TypeError, match="a lambda cannot be written to a file"):
        model.save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["m.keras"]


def test_functional_graphs_with_shared_layers_and_ops(rng, tmp_path):
    a, b = lamina.Input((3,), name="a"), lamina.Input((3,), name="b")
    shared = layers.Dense(4, name="shared")
    x = layers.Add()([shared(a), shared(b)])
    x = lamina.ops.relu(x)[:, :2] * 2.0 + lamina.ops.mean(x, axis=-1, keepdims=True)
    x = lamina.ops.concatenate([x, a], axis=-1)
    x = lamina.ops.reshape(x, (-1, 5, 1))
    model = lamina.Model({"a": a, "b": b}, {"y": x, "z": shared(b)})
    model.save(tmp_path / "m.keras")
    other = saving.load_model(tmp_path / "m.keras")
    data = {"a": rng.random((5, 3), np.float32), "b": rng.random((5, 3), np.float32)}
    one, two = model.predict(data, verbose=0), other.predict(data, verbose=0)
    assert set(one) == set(two) == {"y", "z"}
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_models_inside_models(rng, tmp_path):
    inner = lamina.Sequential([lamina.Input((3,)), layers.Dense(4), layers.Dense(2)], name="inner")
    inputs = lamina.Input((3,))
    model = lamina.Model(inputs, layers.Dense(1)(inner(inputs)))
    model.save(tmp_path / "m.keras")
    other = saving.load_model(tmp_path / "m.keras")
    x = rng.random((6, 3), np.float32)
    np.testing.assert_array_equal(model.predict(x, verbose=0), other.predict(x, verbose=0))
    assert other.get_layer("inner").count_params() == inner.count_params()


@saving.register_keras_serializable("tests")
class Scaled(layers.Layer):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.inner = layers.Dense(2)

    def call(self, inputs):
        return self.inner(inputs) * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@saving.register_keras_serializable("tests")
def half_squared(y_true, y_pred):
    return lamina.ops.mean(0.5 * (y_true - y_pred) ** 2, axis=-1)


def test_registered_classes_and_functions(samples, tmp_path):
    x, y = samples
    model = lamina.Sequential([lamina.Input((3,)), Scaled(3.0)])
    model.compile("sgd", half_squared, metrics=[half_squared])
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "m.keras")
    other = saving.load_model(tmp_path / "m.keras")
    assert other.layers[0].factor == 3.0
    np.testing.assert_array_equal(model.predict(x, verbose=0), other.predict(x, verbose=0))
    assert other.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


def test_subclassed_models_come_back(samples, tmp_path):
    x, _ = samples

    class Net(lamina.Model):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.blocks = [layers.Dense(units, "tanh"), layers.Dense(units)]

        def call(self, inputs):
            for block in self.blocks:
                inputs = block(inputs)
            return inputs

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    model = Net(4)
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "m.keras")
    other = saving.load_model(tmp_path / "m.keras", custom_objects={"Net": Net})
    np.testing.assert_array_equal(other.predict(x, verbose=0), expected)


def test_json_and_clones(samples):
    x, _ = samples
    model = net()
    twin = lamina.models.model_from_json(model.to_json())
    assert [layer.name for layer in twin.layers] == [layer.name for layer in model.layers]
    clone = lamina.models.clone_model(model)
    assert clone.count_params() == model.count_params()
    assert not np.array_equal(clone.predict(x, verbose=0), model.predict(x, verbose=0))
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone.predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_clone_with_other_layers():
    model = lamina.Sequential([lamina.Input((3,)), layers.Dense(4, "relu"), layers.Dense(2)])

    def wider(layer):
        config = layer.get_config()
        return type(layer).from_config({**config, "units": config["units"] * 2})

    assert [layer.units for layer in lamina.models.clone_model(model, None, wider).layers] == [8, 4]


def test_loading_keeps_going_where_shapes_differ_if_asked(samples, tmp_path):
    model = net()
    model.save_weights(tmp_path / "w.weights.h5")
    other = lamina.Sequential(
        [
            lamina.Input((3,)),
            layers.Dense(4, name="first"),
            layers.BatchNormalization(),
            layers.Dropout(0.1),
            layers.Dense(7),
        ]
    )
    with pytest.warns(UserWarning, match=r"do not fit: layers/dense_1"):
        other.load_weights(tmp_path / "w.weights.h5", skip_mismatch=True)
    np.testing.assert_array_equal(
        other.layers[0].get_weights()[0], model.layers[0].get_weights()[0]
    )
