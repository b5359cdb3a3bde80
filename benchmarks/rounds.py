"""Run the engines in turn, each in its own process, several rounds, and compare."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.engines import ENGINES, installed
from benchmarks.workloads import OTHERS, WORKLOADS, Workload

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}


class Child:
    """One engine and workload in a process that waits for orders."""

    def __init__(
        self, engine: str, workload: str, environment: dict[str, str], batch: str = ""
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", engine, workload, *batch.split()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, **QUIET},
        )
        self.name = engine

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            _, error = self.process.communicate()
            raise RuntimeError(f"{self.name}: {error.strip().splitlines()[-1:] or 'ended'}")
        return json.loads(line)

    def order(self, **order: object) -> dict:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.terminate()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            pipe.close()


def matmul_rate(size: int = 1024, repeats: int = 5) -> float:
    """This machine's rate in a large matrix product (NumPy), in flops a second."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size)).astype(np.float32) for _ in range(2))
    a @ b
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times)


def usable(wanted: Sequence[str] | None) -> list[str]:
    """The engines that were asked for (all by default) and are installed."""
    for name in wanted or ():
        if name not in ENGINES:
            raise SystemExit(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
    return [name for name in (wanted or ENGINES) if installed(name)]


def compare(
    workload: Workload,
    engines: Sequence[str],
    environment: dict[str, str],
    *,
    rounds: int,
    seconds: float,
) -> dict:
    """Medians of every engine on one workload; the engines take turns within each round.

    returns  engine -> {"step_s", "rounds", "first_step_s", "predict_row_s", "predict_call_s",
             "peak_mb", "data_mb"} or {"error"}
    """
    results: dict[str, dict] = {}
    children: dict[str, Child] = {}
    try:
        for name in engines:
            child = Child(name, workload.name, environment)
            try:
                results[name] = {**child.answer(), "rounds": []}
                children[name] = child
            except RuntimeError as error:
                child.end()
                results[name] = {"error": str(error)}
        for turn in range(rounds if children else 0):
            # The order is turned round by round, so that none always follows the same one.
            order = list(children)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                steps = children[name].order(do="train", seconds=seconds)["steps"]
                results[name]["rounds"].append(statistics.median(steps))
        for name, child in children.items():
            result = results[name]
            result["step_s"] = statistics.median(result["rounds"])
            result.update(child.order(do="memory"))
            if workload.name in {"cnn", "mlp"}:
                found = child.order(do="predict", seconds=seconds)
                result["predict_row_s"], result["predict_call_s"] = found["row"], found["call"]
    finally:
        for child in children.values():
            child.end()
    return results


def ratio(results: dict) -> tuple[float, str] | None:
    """lamina's step over the best peer's, and who that peer is."""
    peers = {n: r["step_s"] for n, r in results.items() if n != "lamina" and "step_s" in r}
    if not peers or "step_s" not in results.get("lamina", {}):
        return None
    best = min(peers, key=peers.get)
    return results["lamina"]["step_s"] / peers[best], best


def by_name(names: Sequence[str] | None) -> list[Workload]:
    """The workloads that were asked for; without names the listed ones, not their neighbours."""
    known = {**WORKLOADS, **OTHERS}
    for name in names or ():
        if name not in known:
            raise SystemExit(f"unknown workload {name!r}; known: {', '.join(known)}")
    return [known[name] for name in (names or WORKLOADS)]
