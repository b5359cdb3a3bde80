"""Import time, installed size, start to first step, memory slopes: what is paid before training."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

PACKAGES = {
    "lamina": ["lamina"],
    "keras-tensorflow": ["keras", "tensorflow-cpu", "tensorflow"],
    "keras-jax": ["keras", "jax"],
    "pytorch": ["torch"],
    "jax": ["jax"],
}
IMPORTS = {
    "lamina": "import lamina",
    "keras-tensorflow": "import tensorflow",
    "keras-jax": "import os; os.environ['KERAS_BACKEND'] = 'jax'; import keras",
    "pytorch": "import torch",
    "jax": "import jax",
}


def run(code: str, environment: dict[str, str]) -> float:
    """Seconds from the start of a new Python process to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def import_time(name: str, environment: dict[str, str], repeats: int = 3) -> float:
    """Median seconds of the import, the interpreter's own start taken off."""
    bare = statistics.median(run("pass", environment) for _ in range(repeats))
    full = statistics.median(run(IMPORTS[name], environment) for _ in range(repeats))
    return full - bare


def installed_size(name: str) -> float:
    """MB of the packages and of all that they require, as installed here."""
    todo, seen, total = list(PACKAGES[name]), set(), 0
    while todo:
        package = re.split(r"[\s<>=!~;\[(]", todo.pop(), maxsplit=1)[0].lower().replace("_", "-")
        if package in seen:
            continue
        seen.add(package)
        try:
            found = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            continue
        # What an extra asks for is not needed.
        todo.extend(needed for needed in found.requires or () if "extra ==" not in needed)
        for file in found.files or ():
            path = Path(found.locate_file(file))
            total += path.stat().st_size if path.is_file() else 0
        if package == "lamina":
            import lamina

            folder = Path(lamina.__file__).parent
            total += sum(f.stat().st_size for f in folder.rglob("*.py"))
    return total / 1e6


FIRST_STEP = """
import sys
sys.argv = ["child"]
from benchmarks.engines import build
from benchmarks.workloads import WORKLOADS
w = WORKLOADS["cnn"]
import numpy as np
x, y = np.zeros((32, 28, 28, 1), np.float32), np.zeros(32, np.int32)
{build}
engine.step()
"""


def first_step(name: str, environment: dict[str, str], repeats: int = 3) -> dict[str, float]:
    """Seconds from process start to the end of the first step of cnn, cold and cached.

    The caches are lamina's and JAX's folders of compiled programs, new for this measurement.
    """
    build = f"engine = build({name!r}, w, x, y)"
    if name == "pytorch":
        build = (
            "from benchmarks.engines.pytorch import TorchEngine; "
            "engine = TorchEngine(w, x, y, last=False)"
        )
    elif name == "jax":
        build = (
            "from benchmarks.engines.jax_hand import JaxEngine; "
            "engine = JaxEngine(w, x, y, scan=False)"
        )
    code = FIRST_STEP.format(build=build)
    cold = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            places = {
                "LAMINA_CACHE": folder,
                "JAX_COMPILATION_CACHE_DIR": folder,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
            Path(folder).chmod(0o700)
            cold.append(run(code, {**environment, **places}))
            cached = [run(code, {**environment, **places}) for _ in range(repeats)]
    return {"cold_s": statistics.median(cold), "cached_s": statistics.median(cached)}


SLOPES = """
import gc, numpy as np, resource
from pathlib import Path
from lamina import keras

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024

def network():
    model = keras.Sequential([keras.Input(shape=(20,)), keras.layers.Dense(16, activation="relu"),
                              keras.layers.Dense(4, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model

def slope(action, times):
    for i in range(times // 10):
        action(i)
    before = resident()
    for i in range(times):
        action(i)
    return (resident() - before) / times

x, y = np.zeros((64, 20), np.float32), np.zeros(64, np.int32)
model = network()
predict = slope(lambda i: model.predict(x[: 1 + i % 64], verbose=0), 10000)
build = slope(lambda i: network().fit(x, y, epochs=1, verbose=0), 1000)
print(predict, build)
"""


def slopes(environment: dict[str, str]) -> dict[str, float]:
    """Kilobytes that 10,000 predictions, and 1,000 models built, trained and dropped, add each."""
    result = subprocess.run(
        [sys.executable, "-c", SLOPES], env=environment, check=True, capture_output=True, text=True
    )
    predict, build = map(float, result.stdout.split())
    return {"predict_kb": predict, "model_kb": build}
