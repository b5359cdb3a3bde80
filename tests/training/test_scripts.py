"""Scripts written for TensorFlow and Keras, run as they are and after replacing one word."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_unmodified(script):
    result = run("-m", "lamina.cli", "run", str(script))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"{script.stem} done"
    assert result.stderr == ""
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_after_replacing_one_word(script, tmp_path):
    text = script.read_text(encoding="utf-8")
    if "tensorflow" in text:
        text = text.replace("tensorflow", "lamina")
    else:
        # `import keras` binds a name that the script goes on to use.
        text = re.sub(r"^import keras$", "import lamina as keras", text, flags=re.MULTILINE)
        text = text.replace("from keras", "from lamina")
    copy = tmp_path / script.name
    copy.write_text(text, encoding="utf-8")
    result = run(str(copy))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"{script.stem} done"


@pytest.mark.oracle
@pytest.mark.parametrize(
    "script", [s for s in SCRIPTS if "tensorflow" not in s.read_text()], ids=lambda path: path.stem
)
def test_real_keras_runs_the_same_script(script, keras):
    result = run(str(script))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"{script.stem} done"
