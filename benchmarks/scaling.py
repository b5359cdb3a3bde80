"""How lamina's step grows: with the batch, with depth, with threads; and its neighbours' ratios.

    python -m benchmarks.scaling            all
    python -m benchmarks.scaling --only threads

Prints tables; a step should grow linearly in batch and depth, and two threads should be at least
1.7 times as fast as one on every workload above a millisecond.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from benchmarks.__main__ import environment
from benchmarks.report import duration, line
from benchmarks.rounds import Child, compare, usable
from benchmarks.workloads import OTHERS, WORKLOADS

BATCHES = (1, 8, 32, 128, 512, 1024)
DEPTHS = (2, 4, 8, 16, 32)


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


def over_batch(seconds: float) -> None:
    print("batch: a step, and a row of it")
    for workload in ("cnn", "mlp", "lstm"):
        for batch in BATCHES:
            found = step_time(workload, None, seconds, batch)
            print(
                f"  {workload:<6} {batch:>5}  {duration(found):>10}  {1e6 * found / batch:9.2f} us"
            )


def over_depth(seconds: float) -> None:
    """Dense layers of 256, batch 256: the step and the compiling, per layer."""
    import numpy as np

    from lamina import config, keras

    print("depth: a step, and the first call (which compiles)")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256 * 8, 256)).astype("float32")
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
        print(
            f"  {depth:>3} layers  {duration(step):>10}  {duration(step / depth)} a layer", end=""
        )
        print(f"  first call {first:.2f} s")


def over_threads(seconds: float) -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"threads: one, and {cores}")
    for workload in WORKLOADS:
        one, all_ = step_time(workload, 1, seconds), step_time(workload, cores, seconds)
        print(f"  {workload:<12} {duration(one):>10} {duration(all_):>10}  {one / all_:.2f} times")


def neighbours(seconds: float) -> None:
    print("neighbours of the listed networks, beside Keras")
    engines = [name for name in usable(None) if name == "lamina" or name.startswith("keras")]
    for workload in OTHERS.values():
        found = compare(workload, engines, environment(None), rounds=3, seconds=seconds)
        print(" ", line(workload.name, {"engines": found, "goal": "1"}), flush=True)


PARTS = {
    "batch": over_batch,
    "depth": over_depth,
    "threads": over_threads,
    "neighbours": neighbours,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    given = parser.parse_args()
    for name in given.only or PARTS:
        PARTS[name](given.seconds)


if __name__ == "__main__":
    main()
