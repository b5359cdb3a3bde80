"""One engine in a process of its own: answers orders, one JSON line each, on standard output.

Run as `python -m benchmarks.child ENGINE WORKLOAD [BATCH]`; the orders come on standard input.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from dataclasses import replace


def memory() -> float:
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bursts(engine, steps: int, seconds: float) -> list[float]:
    """Seconds a step, one number an epoch, for at least `seconds` and two epochs."""
    found, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(found) < 2:
        start = time.perf_counter()
        engine.epoch()
        found.append((time.perf_counter() - start) / steps)
    return found


def predictions(engine, x, seconds: float) -> dict[str, float]:
    """Seconds a row in batches of 256, and seconds for one call with one row."""
    rows = x[: 256 * 8]
    engine.predict(rows)
    engine.predict(x[:1])
    many, one, end = [], [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(many) < 3:
        start = time.perf_counter()
        engine.predict(rows)
        many.append((time.perf_counter() - start) / len(rows))
    for _ in range(50):
        start = time.perf_counter()
        engine.predict(x[:1])
        one.append(time.perf_counter() - start)
    return {"row": statistics.median(many), "call": statistics.median(one)}


def main(engine_name: str, workload_name: str, batch: str = "") -> None:
    # What an engine prints must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from benchmarks.engines import build
    from benchmarks.workloads import OTHERS, WORKLOADS

    workload = {**WORKLOADS, **OTHERS}[workload_name]
    if batch:
        workload = replace(workload, batch=int(batch))
    x, y = workload.arrays()
    data = (x.nbytes + y.nbytes) / 2**20
    before = time.perf_counter()
    engine = build(engine_name, workload, x, y)
    built = time.perf_counter()
    loss = engine.step()
    first = time.perf_counter()
    engine.epoch()
    print(
        json.dumps({"build_s": built - before, "first_step_s": first - built, "first_loss": loss}),
        file=answers,
    )
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "train":
            answer = {"steps": bursts(engine, workload.steps, order["seconds"])}
        elif order["do"] == "predict":
            answer = predictions(engine, x, order["seconds"])
        else:
            answer = {"peak_mb": memory(), "data_mb": data, "loss": engine.step()}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
