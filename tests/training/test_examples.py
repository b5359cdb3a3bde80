"""Every example runs as it stands, offline, and reaches what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# As it stands, but from one seed: weights and shuffling decide a hundredth of an accuracy.
SEEDED = """
import runpy, sys
import lamina
lamina.utils.set_random_seed(1)
runpy.run_path(sys.argv[1], run_name="__main__")
"""
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, folder: Path) -> str:
    """What the example prints, with no data set but those that packages carry."""
    around = {k: v for k, v in os.environ.items() if k != "LAMINA_DATA"}
    around["KERAS_HOME"] = str(folder)
    result = subprocess.run(
        [sys.executable, "-c", SEEDED, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=around,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    return result.stdout


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


def test_all_examples_are_tested():
    tested = {"01", "02", "03", "04", "05", "06", "07", "08"}
    assert {path.name[:2] for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("01_convolutional_network.py", 0.93),
        ("02_wider_network_one_hot.py", 0.93),
        ("03_dense_classifier.py", 0.90),
        ("05_text_lstm.py", 0.35),
    ],
)
def test_classifiers(name, least, tmp_path):
    printed = run(name, tmp_path)
    assert number(r"test accuracy: ([\d.]+)", printed) >= least


def test_regression_beats_the_mean(tmp_path):
    printed = run("04_regression.py", tmp_path)
    error = number(r"root mean squared error: ([\d.]+)", printed)
    assert error < 0.85 * number(r"guessing the mean: ([\d.]+)", printed)


def test_dense_autoencoder_beats_the_mean_image(tmp_path):
    printed = run("06_dense_autoencoder.py", tmp_path)
    error = number(r"mean squared error: ([\d.]+)", printed)
    assert error < 0.6 * number(r"of the mean image: +([\d.]+)", printed)


def test_convolutional_autoencoder_takes_noise_out(tmp_path):
    printed = run("07_convolutional_autoencoder.py", tmp_path)
    after = number(r"error after: +([\d.]+)", printed)
    assert after < 0.35 * number(r"error before: +([\d.]+)", printed)


def test_time_series_beats_repeating_the_last_sample(tmp_path):
    printed = run("08_time_series_rnn.py", tmp_path)
    error = number(r"mean squared error: ([\d.]+)", printed)
    assert error < number(r"of repeating the last sample: ([\d.]+)", printed)
