"""The profiler: what it counts, that it changes nothing, and its pictures and messages."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import config, layers, models, pictures
from lamina.cli import main
from lamina.training.profiling import ProfileError


@pytest.fixture
def trained():
    model = models.Sequential(
        [
            layers.Input((12,)),
            layers.Dense(20, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="out"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 12)).astype("f4"), rng.integers(0, 3, 64)
    return model, x, y


def test_every_layer_appears_and_the_model_stays_as_it_was(trained):
    model, x, y = trained
    before = [array.copy() for array in model.get_weights()]
    found = model.profile(x, y, batch_size=16, steps=5)
    for array, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, old)
    layers_seen = {task.layer.rsplit("/", 1)[-1] for task in found.tasks}
    assert {"hidden", "out"} <= layers_seen
    text = found.table()
    assert "of roof" in text
    assert "hidden" in text
    assert found.step.rows == 16


def test_the_flops_of_a_product_are_those_of_its_shape(trained):
    model, x, _ = trained
    found = model.profile(x, batch_size=16, steps=5)
    products = [task for task in found.tasks if task.kernel == "Contraction"]
    hidden = next(task for task in products if task.layer.endswith("hidden"))
    # 2 x rows x inputs x outputs, and at most a few operations behind each sum.
    assert 2 * 16 * 12 * 20 <= hidden.flops <= 2 * 16 * 12 * 20 + 16 * 20 * 8
    assert all(task.seconds >= 0 for task in found.tasks)


def test_the_timeline_is_a_picture(trained, tmp_path):
    pytest.importorskip("matplotlib")
    model, x, y = trained
    path = pictures.step_timeline(model.profile(x, y, steps=3), tmp_path / "step.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_reference_executor_has_no_kernels(trained):
    model, x, y = trained
    with config.override(executor="reference"), pytest.raises(ProfileError, match="executor"):
        model.profile(x, y)


def test_a_script_is_profiled_from_the_command_line(tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\n"
        "from tensorflow.keras import layers, models\n"
        "model = models.Sequential([layers.Dense(4, input_shape=(5,))])\n"
        "model.compile('sgd', 'mse')\n"
        "x = np.ones((40, 5), 'float32')\n"
        "model.fit(x, x[:, :4], epochs=1, verbose=0)\n"
    )
    assert main(["profile", str(script)]) == 0
    assert "of roof" in capsys.readouterr().out
    empty = tmp_path / "empty.py"
    empty.write_text("")
    assert main(["profile", str(empty)]) == 1
