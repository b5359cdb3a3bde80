"""`lamina demo` and `lamina predict`, end to end, and what they say when something is wrong."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lamina
from lamina import cli, config, demo
from lamina.datasets import digits
from lamina.models import load_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a short demo on the digits that scikit-learn carries."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    nothing = tmp_path_factory.mktemp("nothing")
    with (
        config.override(data_folder=nothing, cache=nothing),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("KERAS_HOME", str(nothing))
        assert cli.main(["demo", "--folder", str(folder), "--epochs", "8"]) == 0
    return folder


def test_the_demo_writes_pictures_numbers_and_a_model(trained):
    for name in ("learning-curves.png", "confusion-matrix.png", "predictions.png"):
        with Image.open(trained / name) as picture:
            assert min(picture.size) > 300
    with (trained / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, 9)]
    assert set(rows[0]) == {"epoch", "accuracy", "loss", "val_accuracy", "val_loss"}
    assert float(rows[-1]["loss"]) < 0.3 * float(rows[0]["loss"])


def test_the_saved_model_reads_digits(trained):
    _, (x, y) = digits.load_data(28)
    model = load_model(trained / "model.keras")
    answers = model.predict(x[..., None].astype("float32") / 255, verbose=0).argmax(1)
    assert (answers == y).mean() > 0.9


def test_predict_reads_photographs(trained, tmp_path, capsys):
    """Digits drawn large on unevenly lit paper, dark on light and light on dark."""
    _, (images, labels) = digits.load_data(28)
    rng = np.random.default_rng(0)
    names = []
    for number in range(20):
        ink = np.asarray(Image.fromarray(images[number]).resize((300, 300)), float) / 255
        slope = np.linspace(0, 60, 300)
        grey = 220 - slope - 130 * ink if number % 2 else 30 + slope + 150 * ink
        noisy = np.clip(grey + rng.normal(0, 3, grey.shape), 0, 255).astype(np.uint8)
        names.append(str(tmp_path / f"{number:02}.png"))
        Image.fromarray(noisy).save(names[-1])
    assert cli.main(["predict", str(trained / "model.keras"), *names]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    answers = [int(line.split()[1]) for line in lines]
    assert lines[0].startswith(names[0])
    assert np.mean(np.array(answers) == labels[:20]) >= 0.8


def test_predict_names_what_is_wrong(trained, tmp_path, capsys):
    model = str(trained / "model.keras")
    blank = tmp_path / "blank.png"
    Image.new("L", (40, 40), 255).save(blank)
    text = tmp_path / "text.png"
    text.write_text("no image", encoding="utf-8")
    for file, message in (
        (str(tmp_path / "none.png"), "there is no image file"),
        (str(blank), "no digit is found: the image is blank, or nearly so."),
        (str(text), "the file is no image that can be read."),
    ):
        assert cli.main(["predict", model, file]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"lamina predict: {message}")
        assert "Traceback" not in captured.err
    assert cli.main(["predict", str(tmp_path / "none.keras"), str(blank)]) == 1
    assert "none.keras" in capsys.readouterr().err


def test_predict_goes_on_after_an_image_that_it_cannot_read(trained, tmp_path, capsys):
    _, (images, _) = digits.load_data(28)
    good, blank = tmp_path / "good.png", tmp_path / "blank.png"
    Image.fromarray(images[0]).save(good)
    Image.new("L", (40, 40), 255).save(blank)
    model = str(trained / "model.keras")
    assert cli.main(["predict", model, str(blank), str(good)]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{good}  ")
    assert captured.err.startswith("lamina predict: no digit is found")


def test_predict_refuses_a_model_of_something_else(tmp_path, capsys):
    model = lamina.Sequential([lamina.Input(shape=(5,)), lamina.layers.Dense(2)])
    file = tmp_path / "other.keras"
    model.save(file)
    _, (images, _) = digits.load_data(28)
    Image.fromarray(images[0]).save(tmp_path / "digit.png")
    assert cli.main(["predict", str(file), str(tmp_path / "digit.png")]) == 1
    assert capsys.readouterr().err == (
        f"lamina predict: {file}: the model does not take images of one digit.\n"
        "  expected inputs (28, 28), (28, 28, 1) or (784,)\n"
        "  got      a model with inputs (5,)\n"
        "  hint     lamina demo writes a model that does\n"
    )


def test_the_demo_takes_mnist_where_it_is(monkeypatch):
    monkeypatch.setattr(demo.mnist, "here", lambda: True)
    array = np.zeros((4, 28, 28), np.uint8)
    labels = np.zeros(4, np.uint8)
    monkeypatch.setattr(demo.mnist, "load_data", lambda: ((array, labels), (array, labels)))
    data = demo.load()
    assert (data.name, data.epochs, data.x_train.shape) == ("MNIST", 5, (4, 28, 28, 1))


def test_info_names_processor_threads_cache_and_versions(capsys):
    assert cli.main(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["lamina"] == lamina.__version__
    assert lines["numpy"] == np.__version__
    assert int(lines["threads"]) >= 1
    assert {"processor", "vectors", "caches", "cores", "cache", "llvmlite"} <= set(lines)


def test_a_missing_script_is_named(capsys):
    assert cli.main(["run", "nowhere.py"]) == 1
    assert capsys.readouterr().err == "lamina run: there is no file 'nowhere.py'\n"


def test_the_version_is_printed():
    result = subprocess.run(
        [sys.executable, "-m", "lamina.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"lamina {lamina.__version__}\n"
