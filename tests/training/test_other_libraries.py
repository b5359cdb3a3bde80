"""Data of other libraries goes into fit as it is, where they are installed."""

import numpy as np
import pytest

import lamina
from lamina import layers

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]


def linear():
    model = lamina.Sequential([lamina.Input((3,)), layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    return model


@pytest.fixture
def samples(rng):
    return rng.random((20, 3), np.float32), rng.random(20).astype(np.float32)


@pytest.fixture
def expected(samples):
    return linear().fit(*samples, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"]


def test_torch(samples, expected):
    torch = pytest.importorskip("torch")
    x, y = (torch.from_numpy(one) for one in samples)
    whole = linear().fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    assert whole.history["loss"] == expected
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    history = linear().fit(loader, epochs=2, verbose=0)
    np.testing.assert_allclose(history.history["loss"], expected, rtol=1e-6)
    assert history.params["steps"] == 3
    assert linear().predict(x, verbose=0).shape == (20, 1)


def test_tensorflow(samples, expected):
    tensorflow = pytest.importorskip("tensorflow")
    dataset = tensorflow.data.Dataset.from_tensor_slices(samples).batch(8)
    history = linear().fit(dataset, epochs=2, verbose=0, validation_data=dataset)
    np.testing.assert_allclose(history.history["loss"], expected, rtol=1e-6)
    assert len(history.history["val_loss"]) == 2
    endless = dataset.repeat()
    history = linear().fit(endless, epochs=2, steps_per_epoch=3, verbose=0)
    np.testing.assert_allclose(history.history["loss"], expected, rtol=1e-6)


def test_jax(samples, expected):
    jax = pytest.importorskip("jax")
    x, y = (jax.numpy.asarray(one) for one in samples)
    history = linear().fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    assert history.history["loss"] == expected


def test_pandas(samples, expected):
    pandas = pytest.importorskip("pandas")
    x, y = samples
    frame = pandas.DataFrame(x, columns=["a", "b", "c"])
    history = linear().fit(
        frame, pandas.Series(y), batch_size=8, epochs=2, shuffle=False, verbose=0
    )
    assert history.history["loss"] == expected


def test_datasets_of_keras(samples, expected, keras):
    x, y = samples

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return x[index * 8 : (index + 1) * 8], y[index * 8 : (index + 1) * 8]

    history = linear().fit(Batches(), epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(history.history["loss"], expected, rtol=1e-6)


def test_scikit_learn_splits(samples):
    selection = pytest.importorskip("sklearn.model_selection")
    x, y = samples
    for train, test in selection.KFold(4).split(x):
        model = linear()
        model.fit(x[train], y[train], verbose=0)
        assert np.isfinite(model.evaluate(x[test], y[test], verbose=0))
