"""The public names: lazy, the same objects under every name, quick to import, silent."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import lamina
from lamina.keras.alias import Alias
from lamina.shim import real_name


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )


def test_import_is_silent_and_loads_no_heavy_package():
    result = run(
        """
        import sys
        import lamina
        heavy = {"numpy", "llvmlite", "h5py", "rich", "ml_dtypes", "jax", "matplotlib", "PIL"}
        print(sorted(heavy & set(sys.modules)))
        """
    )
    assert result.stdout == "[]\n"
    assert result.stderr == ""


def test_import_takes_less_than_a_fifth_of_a_second():
    """Of the processor's time: how long it takes on a busy machine says nothing."""
    code = "import time; t = time.process_time(); import lamina; print(time.process_time() - t)"
    assert min(float(run(code).stdout) for _ in range(3)) < 0.2


@pytest.mark.parametrize("name", lamina.__all__)
def test_every_public_name_resolves(name):
    assert getattr(lamina, name) is not None
    assert name in dir(lamina)


@pytest.mark.parametrize("name", importlib.import_module("lamina.keras").__all__)
def test_every_keras_name_resolves(name):
    assert getattr(lamina.keras, name) is not None
    assert name in dir(lamina.keras)


def test_a_room_has_two_names_and_one_module():
    result = run(
        """
        from lamina.keras.config import floatx
        import lamina.keras.config as config, lamina.config as own
        print(config is own, own.__name__, own.__spec__.name, floatx())
        """
    )
    assert result.stdout == "True lamina.config lamina.config float32\n", result.stderr


def test_function_stays_a_function_when_its_module_is_imported():
    result = run("import lamina.function, lamina; print(type(lamina.function).__name__)")
    assert result.stdout == "function\n", result.stderr


def test_an_unknown_room_is_no_module():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'lamina\.keras\.applications'"):
        importlib.import_module("lamina.keras.applications")


def test_an_alias_of_a_module_that_lamina_lacks_names_it():
    alias = Alias(lambda name: "lamina.nothing" if name == "somewhere.nothing" else None)
    spec = alias.find_spec("somewhere.nothing")
    with pytest.raises(
        ModuleNotFoundError,
        match=r"No module named 'somewhere\.nothing': lamina has no 'lamina\.nothing'",
    ):
        alias.create_module(spec)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("constant", "lamina.ops.convert_to_tensor"),
        ("GradientTape", "lamina.value_and_grad(function)(...), which differentiates a function"),
        ("reduce_mean", "lamina.ops.mean"),
        ("clip_by_value", "lamina.ops.clip"),
        ("float32", "the string 'float32'"),
        ("nn", "lamina.ops: tf.nn.relu is lamina.ops.relu, or the string 'relu'"),
    ],
)
def test_a_name_of_tensorflow_is_answered_with_laminas_word(name, word):
    with pytest.raises(AttributeError) as caught:
        getattr(lamina, name)
    assert str(caught.value) == (
        f"module 'lamina' has no attribute {name!r}.\n  hint     lamina's word for tf.{name} is {word}"
    )


def test_the_data_sets_of_tensorflow_are_answered_with_what_fit_takes():
    with pytest.raises(AttributeError) as caught:
        _ = lamina.data.Dataset
    assert str(caught.value) == (
        "module 'lamina.data' has no attribute 'Dataset'.\n"
        "  hint     instead of tf.data, give fit arrays (it shuffles and batches them), a PyDataset, or a generator of batches"
    )
    with pytest.raises(AttributeError, match=r"module 'lamina\.data' has no attribute 'nothing'"):
        _ = lamina.data.nothing


def test_a_misspelt_name_is_answered_with_near_matches():
    with pytest.raises(AttributeError) as caught:
        _ = lamina.Sequentail
    assert str(caught.value).endswith("has no attribute 'Sequentail'. Did you mean 'Sequential'?")
    with pytest.raises(AttributeError, match="Did you mean 'layers'"):
        _ = lamina.keras.layer


@pytest.mark.parametrize(
    ("name", "real"),
    [
        ("tensorflow", "lamina"),
        ("tensorflow.keras", "lamina.keras"),
        ("tensorflow.keras.layers", "lamina.keras.layers"),
        ("keras.models", "lamina.keras.models"),
        ("keras_tuner", None),
        ("tensorflow_datasets", None),
    ],
)
def test_the_shim_takes_over_only_these_two_packages(name, real):
    assert real_name(name) == real


SCRIPT = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import config
import keras as bare
import keras.config as deep
print(tf.keras is keras, keras is bare, config is deep, tf.__version__)
import sys
print(sys.argv[1:], __name__)
import neighbour
"""


def test_a_script_for_tensorflow_runs_unmodified(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "neighbour.py").write_text("print('beside')", encoding="utf-8")
    result = run(
        f"from lamina.shim import run_script; run_script({str(script)!r}, ['--epochs', '3'])"
    )
    assert result.stdout.splitlines() == [
        f"True True True {lamina.__version__}",
        "['--epochs', '3'] __main__",
        "beside",
    ], result.stderr


def test_a_script_that_is_not_there_is_named():
    result = run("from lamina.shim import run_script; run_script('nowhere.py')")
    assert result.stderr.splitlines()[-1] == (
        "FileNotFoundError: lamina run: there is no file 'nowhere.py'"
    )
