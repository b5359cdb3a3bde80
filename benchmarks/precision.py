"""What lower precision buys on this processor: single products, and whole training steps.

    python -m benchmarks.precision [--cpu avx2] [--workloads cnn,transformer] [--seconds 1]

First the rates of one product on one thread in float32, bfloat16 and int8 (sums in float32 and
int32), and the instruction that each uses. Then a training step under the policy "mixed_bfloat16"
beside one in float32, taken in turns. A processor without an instruction for bfloat16 widens it to
float32: it then saves memory, not time.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.kernels import BATCH, Case, dot, measure
from benchmarks.workloads import WORKLOADS, Workload
from lamina.llvm import host
from lamina.llvm.kernels.words import words

SHAPES = ((32, 256, 128), (256, 64, 576), (512, 512, 512), (1024, 1024, 1024), (100, 30, 75))
DTYPES = ("float32", "bfloat16", "int8")
POLICIES = ("float32", "mixed_bfloat16")


def instruction(dtype: str, target: host.Target) -> str:
    """What a product of this dtype comes down to."""
    found = words(dtype, target)
    if found is not None and found.function:
        return found.function.removeprefix("llvm.")
    return "fma" if target.has_fma else "mul, add"


def case(dtype: str, rows: int, columns: int, terms: int) -> Case:
    sums = "int32" if dtype == "int8" else "float32"
    return dot(BATCH, columns, terms, rows=rows, dtype=sums, inputs=(dtype, dtype))


def products(target: host.Target, repeat: int) -> dict[str, dict[str, float]]:
    """Billions of operations a second, per shape and dtype."""
    results = {}
    print(
        f"{'product':18s}" + "".join(f"{dtype:>10s}" for dtype in DTYPES) + "   GFLOP/s, one thread"
    )
    for shape in SHAPES:
        name = "x".join(map(str, shape))
        found = {dtype: measure(case(dtype, *shape), target, repeat)[0] for dtype in DTYPES}
        results[name] = found
        print(f"{name:18s}" + "".join(f"{rate:10.0f}" for rate in found.values()), flush=True)
    print("; ".join(f"{dtype}: {instruction(dtype, target)}" for dtype in DTYPES))
    return results


def training(workload: Workload, seconds: float) -> dict[str, float]:
    """Milliseconds of a step under each policy: the shortest of epochs taken in turns."""
    from benchmarks.engines.keras_api import KerasEngine
    from lamina import mixed_precision

    x, y = workload.arrays()
    steps = min(8, workload.steps)
    rows = slice(0, steps * workload.batch)
    engines, best = {}, {}
    for policy in POLICIES:
        mixed_precision.set_global_policy(policy)
        engines[policy] = KerasEngine("lamina", workload, x[rows], y[rows])
        engines[policy].epoch()
        best[policy] = float("inf")
    mixed_precision.set_global_policy(None)
    end = time.perf_counter() + seconds * len(POLICIES)
    while time.perf_counter() < end:
        for policy, engine in engines.items():
            start = time.perf_counter()
            engine.epoch()
            best[policy] = min(best[policy], (time.perf_counter() - start) / steps * 1e3)
    return best


def main(arguments: list[str] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", default="native", help="of the products: native, avx2, sse2")
    parser.add_argument("--workloads", default="cnn,autoencoder,transformer")
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args(arguments)
    target = host.target(options.cpu)
    print(f"{target.name} on {host.target('native').cpu}")
    results = {"products": products(target, options.repeat), "steps": {}}
    print(f"\n{'training step':18s}" + "".join(f"{policy:>16s}" for policy in POLICIES) + "   ms")
    for name in filter(None, options.workloads.split(",")):
        found = results["steps"][name] = training(WORKLOADS[name], options.seconds)
        print(f"{name:18s}" + "".join(f"{step:16.2f}" for step in found.values()), flush=True)
    return results


if __name__ == "__main__":
    main()
