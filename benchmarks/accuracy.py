"""Does lamina learn what Keras learns? The comparisons of docs/accuracy.md.

    python -m benchmarks.accuracy                   all of them (about half an hour on two cores)
    python -m benchmarks.accuracy --tasks mnist --seeds 3

Each run is a process of its own: `python -m benchmarks.accuracy --run ENGINE TASK SEED` prints one
JSON line. The larger data sets are found through LAMINA_DATA; a task whose file is missing is left
out, saying so.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.engines import installed
from benchmarks.engines.keras_api import LOSSES, NETWORKS, namespace
from benchmarks.report import machine

ROOT = Path(__file__).resolve().parents[1]
STEPS = 50
TRAJECTORIES = """
Batch 32, Adam, no shuffling; the largest relative difference of the 50 losses. In float64 both are
the same mathematics to the last digits that Keras reports (losses are float32). In float32, two
results of a convolution that are equal but for rounding can make another one the maximum of its
pooling window, which later steps amplify; whether that happens within 50 steps depends on the
processor. The last column is how far Keras on another of its own backends is from the same Keras.
"""
# The 97.5 % quantile of Student's t distribution by degrees of freedom (Fisher & Yates 1938).
STUDENT = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def folder() -> Path:
    name = os.environ.get("LAMINA_DATA")
    return Path(name) if name else Path("nowhere")


def numbered(texts: list[list[str]], count: int, words: int, length: int) -> np.ndarray:
    """Words as numbers by frequency in the first `count` texts; 0 pads, 1 is unknown."""
    seen = Counter(word for text in texts[:count] for word in text)
    ranked = sorted(seen, key=lambda word: (-seen[word], word))[: words - 2]
    number = {word: place for place, word in enumerate(ranked, start=2)}
    result = np.zeros((len(texts), length), np.int32)
    for row, text in zip(result, texts, strict=True):
        numbers = [number.get(word, 1) for word in text][:length]
        row[length - len(numbers) :] = numbers
    return result


def trec():
    """Questions in six classes (Li & Roth 2002), words."""
    rows = []
    for part in ("train", "test"):
        text = (folder() / f"TREC.{part}.all").read_text(encoding="latin-1")
        rows.append([line.split(maxsplit=1) for line in text.splitlines() if line.strip()])
    both = [row for part in rows for row in part]
    texts = [re.findall(r"\w+|[^\w\s]", text.lower()) for _, text in both]
    count = len(rows[0])
    x = numbered(texts, count, 10000, 30)
    y = np.array([int(label) for label, _ in both], np.int32)
    return (x[:count], y[:count]), (x[count:], y[count:])


def waimai():
    """Chinese reviews of meals delivered, good or bad, characters; every fifth is a test."""
    with (folder() / "waimai_10k.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    place = np.arange(len(rows)) % 5 == 4
    order = [row for row, test in zip(rows, place, strict=True) if not test]
    count = len(order)
    order += [row for row, test in zip(rows, place, strict=True) if test]
    x = numbered([list(text) for _, text in order], count, 3000, 60)
    y = np.array([int(label) for label, _ in order], np.int32)
    mixed = np.random.default_rng(0).permutation(count)
    return (x[mixed], y[mixed]), (x[count:], y[count:])


def mnist():
    with np.load(folder() / "mnist.npz") as file:
        parts = [file[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    x_train, y_train, x_test, y_test = parts
    scaled = [x[..., None].astype(np.float32) / 255 for x in (x_train, x_test)]
    return (scaled[0], y_train.astype(np.int32)), (scaled[1], y_test.astype(np.int32))


def sequence(keras, words: int, length: int, classes: int):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input(shape=(length,), dtype="int32"),
            layers.Embedding(words, 64),
            layers.LSTM(64),
            layers.Dense(classes, activation="softmax"),
        ]
    )


# task -> data, network, epochs, seeds
TASKS: dict[str, tuple[Callable, Callable, int, int]] = {
    "mnist": (mnist, NETWORKS["cnn"], 5, 3),
    "trec": (trec, lambda k: sequence(k, 10000, 30, 6), 6, 10),
    "waimai": (waimai, lambda k: sequence(k, 3000, 60, 2), 3, 10),
}
FILES = {"mnist": "mnist.npz", "trec": "TREC.train.all", "waimai": "waimai_10k.csv"}


def learn(engine: str, task: str, seed: int) -> float:
    """Test accuracy after training from this seed."""
    load, network, epochs, _ = TASKS[task]
    (x, y), (x_test, y_test) = load()
    keras = namespace(engine)
    keras.utils.set_random_seed(seed)
    model = network(keras)
    model.compile("adam", LOSSES["sparse"], metrics=["accuracy"])
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    return float(model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"])


# The five networks: name -> network, loss, batch of inputs and targets by a generator.
FIVE = {
    "1 convolutional": (NETWORKS["cnn"], "sparse", (28, 28, 1), 10),
    "2 wider, one-hot": (NETWORKS["cnn128"], "one-hot", (28, 28, 1), 10),
    "3 dense": (NETWORKS["mlp"], "one-hot", (100,), 10),
    "4 regression": (NETWORKS["reg"], "mse", (10,), 0),
    "5 embedding and LSTM": (NETWORKS["lstm"], "sparse", (100,), 10),
}


def batches(name: str, rows: int = 32) -> list[tuple[np.ndarray, np.ndarray]]:
    """50 batches of real data where it is here, of structured random data elsewhere."""
    from benchmarks.workloads import WORKLOADS

    workload = {"1": "cnn", "2": "cnn128", "3": "mlp", "4": "reg", "5": "lstm"}[name[0]]
    x, y = WORKLOADS[workload].data(rows * STEPS, np.random.default_rng(3))
    if FIVE[name][1] == "one-hot":
        y = np.eye(10, dtype=np.float32)[y]
    return [(x[i : i + rows], y[i : i + rows]) for i in range(0, rows * STEPS, rows)]


def trajectory(keras, name: str, weights: list[np.ndarray] | None):
    """The losses of 50 steps from given weights (or the engine's own), and those weights."""
    network, loss, _, _ = FIVE[name]
    losses = {**LOSSES, "one-hot": "categorical_crossentropy"}
    keras.utils.set_random_seed(0)
    model = network(keras)
    if weights is not None:
        model.set_weights(weights)
    start = [np.asarray(w) for w in model.get_weights()]
    model.compile("adam", losses[loss])
    return [float(model.train_on_batch(x, y)) for x, y in batches(name)], start


def run_trajectory(engine: str, name: str, file: Path, dtype: str) -> list[float]:
    os.environ["JAX_ENABLE_X64"] = str(int(dtype == "float64"))
    keras = namespace(engine)
    keras.config.set_floatx(dtype)
    weights = None
    if file.exists():
        with np.load(file) as found:
            weights = [found[key] for key in sorted(found, key=lambda key: int(key[4:]))]
    losses, start = trajectory(keras, name, weights)
    if not file.exists():
        np.savez(file, *start)
    return losses


def child(*arguments: str) -> object:
    """What a process of its own answers."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    around = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.accuracy", "--run", *arguments],
        capture_output=True,
        text=True,
        env=around,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(result.stderr.strip().splitlines()[-1])
    return json.loads(result.stdout.strip().splitlines()[-1])


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, float("nan")
    spread = statistics.stdev(values) / len(values) ** 0.5
    return mean, STUDENT[min(len(values) - 1, 9)] * spread


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--run", nargs="+", help="ENGINE TASK SEED, or ENGINE NETWORK FILE DTYPE")
    parser.add_argument("--tasks", default="trajectories,mnist,trec,waimai")
    parser.add_argument("--seeds", type=int, help="fewer than the default of each task")
    parser.add_argument("--keras", default="keras-tensorflow", help="which Keras")
    parser.add_argument("--out", default=str(ROOT / "docs" / "accuracy.json"))
    given = parser.parse_args()
    if given.run:
        engine, task, last, *dtype = given.run
        if task in TASKS:
            print(json.dumps(learn(engine, task, int(last))))
        else:
            print(json.dumps(run_trajectory(engine, task, Path(last), *dtype)))
        return
    out = Path(given.out)
    results = json.loads(out.read_text()) if out.is_file() else {}
    results["machine"] = machine(["lamina"])
    for task in given.tasks.split(","):
        if task == "trajectories":
            results[task] = trajectories(given.keras)
            results["trajectories_keras"] = given.keras
        elif not (folder() / FILES[task]).is_file():
            print(f"{task}: left out, LAMINA_DATA holds no {FILES[task]}")
        else:
            results[task] = accuracies(task, given.keras, given.seeds)
        out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    out.with_suffix(".md").write_text(page(results), encoding="utf-8")
    print(f"written: {out}, {out.with_suffix('.md')}")


def difference(one: list[float], other: list[float]) -> float:
    """The largest relative difference of two rows of losses."""
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def trajectories(peer: str) -> dict[str, dict[str, float]]:
    """The largest relative difference of the first 50 losses, for each of the five networks.

    In float64, where rounding is far below what is compared, and in float32, where it grows from
    step to step; beside the latter, the difference between Keras on two of its own backends.
    """
    found: dict[str, dict[str, float]] = {}
    for name in FIVE:
        found[name] = {}
        for dtype in ("float64", "float32"):
            with tempfile.TemporaryDirectory() as place:
                file = str(Path(place) / "weights.npz")
                theirs = child(peer, name, file, dtype)
                found[name][dtype] = difference(child("lamina", name, file, dtype), theirs)
                other = "keras-jax" if peer == "keras-tensorflow" else "keras-tensorflow"
                if dtype == "float32" and installed(other):
                    again = child(other, name, file, dtype)
                    found[name]["keras"] = difference(again, theirs)
        print(name, found[name], flush=True)
    return found


def accuracies(task: str, peer: str, seeds: int | None) -> dict[str, list[float]]:
    """Test accuracies over the seeds; the engines take turns."""
    found: dict[str, list[float]] = {"lamina": [], peer: []}
    for seed in range(seeds or TASKS[task][3]):
        for engine, values in found.items():
            values.append(float(child(engine, task, str(seed))))
            print(f"{task}, seed {seed}, {engine}: {values[-1]:.4f}", flush=True)
    return found


def page(results: dict) -> str:
    """docs/accuracy.md."""
    here = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    lines = [
        "# Does lamina learn what Keras learns?",
        "",
        f"Measured on {here['date']} ({here['processor']}) with {versions}. Repeat with",
        "`pip install -r benchmarks/requirements.txt` and `python -m benchmarks.accuracy`.",
        "",
    ]
    if "trajectories" in results:
        lines += [
            "## The first 50 losses, from Keras's initial weights",
            "",
            f"Keras is `{results['trajectories_keras']}` here.",
            "",
            *TRAJECTORIES.strip().splitlines(),
            "",
            "| network | float64 | float32 | Keras's other backend, float32 |",
            "| --- | --- | --- | --- |",
        ]
        for name, value in results["trajectories"].items():
            cells = [
                f"{value[k]:.1e}" if k in value else "" for k in ("float64", "float32", "keras")
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    rows = []
    for task, (_, _, epochs, _) in TASKS.items():
        if task not in results:
            continue
        for engine, values in results[task].items():
            mean, half = interval(values)
            rows.append(
                f"| {task}, {epochs} epochs | {engine} | {len(values)} | {100 * mean:.2f} % | "
                f"{100 * (mean - half):.2f} to {100 * (mean + half):.2f} % |"
            )
    if rows:
        lines += [
            "## Test accuracy over several seeds",
            "",
            "| task | engine | seeds | mean | 95 % interval of the mean |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "`mnist`: network 1, batch 32, Adam. `trec`: questions in six classes. `waimai`:",
            "Chinese reviews, by character. The last two: embedding 64, LSTM 64, softmax.",
        ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
