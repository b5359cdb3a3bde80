"""How lamina's step grows: with the batch, with depth, with threads; and its neighbours' ratios.

    python -m benchmarks.scaling            all
    python -m benchmarks.scaling --only threads

Prints what it measures, and writes docs/scaling.json and docs/scaling.md; parts that were not
asked for stay if they were measured here today. A step should grow linearly in batch and depth,
and two threads should be at least 1.7 times as fast as one on every workload above a millisecond.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.__main__ import ROOT, environment
from benchmarks.report import duration, line, machine
from benchmarks.rounds import Child, compare, ratio, usable
from benchmarks.workloads import OTHERS, WORKLOADS

BATCHES = (1, 8, 32, 128, 512, 1024)
DEPTHS = (2, 4, 8, 16, 32)
Row = list[str]


def step_time(
    workload: str, threads: int | None, seconds: float, batch: int | None = None
) -> float:
    """Median seconds of lamina's step."""
    child = Child("lamina", workload, environment(threads), str(batch or ""))
    try:
        child.answer()
        return statistics.median(child.order(do="train", seconds=seconds)["steps"])
    finally:
        child.end()


def shown(row: Row) -> Row:
    print(" ", "  ".join(f"{cell:>14}" for cell in row), flush=True)
    return row


def over_batch(seconds: float) -> list[Row]:
    rows = [shown(["network", "batch", "a step", "a row of it"])]
    for workload in ("cnn", "mlp", "lstm"):
        for batch in BATCHES:
            found = step_time(workload, None, seconds, batch)
            a_row = f"{1e6 * found / batch:.2f} us"
            rows.append(shown([workload, str(batch), duration(found), a_row]))
    return rows


def over_depth(seconds: float) -> list[Row]:
    """Dense layers of 256, batch 256: the step and the compiling, per layer."""
    import numpy as np

    from lamina import config, keras

    rows = [shown(["layers", "a step", "a layer of it", "first call"])]
    x = np.random.default_rng(0).standard_normal((256 * 8, 256)).astype("float32")
    for depth in DEPTHS:
        layers = [keras.layers.Dense(256, activation="relu") for _ in range(depth)]
        model = keras.Sequential([keras.Input(shape=(256,)), *layers])
        model.compile("adam", "mse")
        with config.override(cache="off"):
            start = time.perf_counter()
            model.fit(x[:256], x[:256], batch_size=256, verbose=0)
            first = time.perf_counter() - start
            found, end = [], time.perf_counter() + seconds
            while time.perf_counter() < end or len(found) < 3:
                start = time.perf_counter()
                model.fit(x, x, batch_size=256, verbose=0)
                found.append((time.perf_counter() - start) / 8)
        step = statistics.median(found)
        rows.append(shown([str(depth), duration(step), duration(step / depth), f"{first:.2f} s"]))
    return rows


def over_threads(seconds: float) -> list[Row]:
    cores = len(os.sched_getaffinity(0))
    rows = [shown(["network", "one thread", f"{cores} threads", "times as fast"])]
    for workload in WORKLOADS:
        # In turns, so that both see the same machine.
        found: dict[int, list[float]] = {1: [], cores: []}
        for _ in range(3):
            for threads, times in found.items():
                times.append(step_time(workload, threads, seconds))
        one, all_ = (statistics.median(times) for times in found.values())
        rows.append(shown([workload, duration(one), duration(all_), f"{one / all_:.2f}"]))
    return rows


def neighbours(seconds: float) -> list[Row]:
    engines = [name for name in usable(None) if name == "lamina" or name.startswith("keras")]
    rows = [["network", "batch", *engines, "ratio"]]
    for workload in OTHERS.values():
        found = compare(workload, engines, environment(None), rounds=3, seconds=seconds)
        print(" ", line(workload.name, {"engines": found, "goal": "1"}), flush=True)
        cells = [
            duration(found[name]["step_s"]) if "step_s" in found[name] else "" for name in engines
        ]
        best = ratio(found)
        end = f"{best[0]:.2f}" if best else ""
        rows.append([workload.name, str(workload.batch), *cells, end])
    return rows


# What is measured, and what its page says of it.
PARTS: dict[str, tuple[Callable[[float], list[Row]], str]] = {
    "batch": (over_batch, "Batch"),
    "depth": (over_depth, "Depth: dense layers of 256, batch 256"),
    "threads": (over_threads, "Threads"),
    "neighbours": (neighbours, "Neighbours of the measured networks, beside Keras"),
}


def page(results: dict) -> str:
    """docs/scaling.md."""
    here = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    lines = [
        "# How a step grows",
        "",
        (
            f"Measured on {here['date']}: {here['processor']}, {here['cores']} cores; {versions}. "
            "The machine is shared. Repeat with `python -m benchmarks.scaling`."
        ),
    ]
    for name, (_, title) in PARTS.items():
        if name in results:
            head, *rows = results[name]
            lines += ["", f"## {title}", "", f"| {' | '.join(head)} |"]
            lines.append(f"| {' | '.join('---' for _ in head)} |")
            lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--out", default=str(ROOT / "docs" / "scaling.json"))
    given = parser.parse_args()
    out = Path(given.out)
    results = json.loads(out.read_text()) if out.is_file() else {}
    here = machine(usable(None))
    if results.get("machine") != here:
        results = {"machine": here}  # what another day or machine measured does not stand beside it
    for name in given.only or PARTS:
        measure, title = PARTS[name]
        print(title)
        results[name] = measure(given.seconds)
        out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    out.with_suffix(".md").write_text(page(results), encoding="utf-8")
    print(f"written: {out}, {out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
