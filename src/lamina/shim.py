"""Run a script written for TensorFlow or Keras as it is: `import tensorflow` gives lamina."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from lamina.keras.alias import Alias, install

STANDS_FOR = {
    "tensorflow.keras": "lamina.keras",
    "tensorflow": "lamina",
    "keras": "lamina.keras",
    "tf_keras": "lamina.keras",
}


def real_name(fullname: str) -> str | None:
    """lamina's module for a module of TensorFlow or Keras; None for any other package.

    >>> real_name("tensorflow.keras.layers"), real_name("keras"), real_name("numpy")
    ('lamina.keras.layers', 'lamina.keras', None)
    """
    for prefix, real in STANDS_FOR.items():
        if fullname == prefix or fullname.startswith(f"{prefix}."):
            return real + fullname.removeprefix(prefix)
    return None


def run_script(script: str | Path, arguments: Sequence[str] = ()) -> None:
    """Run the file as `python script` would, with TensorFlow and Keras replaced by lamina.

    script      a Python file; `sys.argv` inside it is [script, *arguments]
    raises      FileNotFoundError; whatever the script raises
    """
    path = Path(script)
    if not path.is_file():
        raise FileNotFoundError(f"lamina run: there is no file {str(script)!r}")
    install(Alias(real_name), first=True)
    sys.argv = [str(script), *arguments]
    # `python script` puts the script's own folder first.
    sys.path.insert(0, str(path.resolve().parent))
    runpy.run_path(str(path), run_name="__main__")
