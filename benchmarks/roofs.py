"""Where the time of each workload's step goes: its kernels, and how far each is from its roof.

    python -m benchmarks.roofs
    python -m benchmarks.roofs --workloads cnn,lstm

Each workload is profiled in a process of its own, on one thread, several times; of every kernel
the best is taken, as of the roof (NumPy's matrix product and copy, on one thread too). Kernels
that take more than a twentieth of the step are listed; those below 60 % of their roof with the
reason. Writes docs/roofs.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.__main__ import ROOT, environment
from benchmarks.report import duration, machine
from benchmarks.workloads import OTHERS, WORKLOADS, Workload

REPEATS = 3
LISTED, LOW = 0.05, 0.6

# Why a kernel is below 60 % of its roof: (workloads, kind of kernel, part of its label, reason).
# What is not listed has not been looked into, and the page says so.
ALL = ""
TRANSFORMS = "Winograd's transforms, which are not counted, weigh a third at 16 to 48 channels"
REASONS = [
    (ALL, "Elementwise", "sigmoid", "exponentials and divisions, which the roof does not count"),
    (ALL, "Elementwise", "lt", "random bits: integer products, which the roof does not count"),
    (ALL, "Winner", "sparse", "searches for values but zero; the sums that follow are not counted"),
    ("mlp reg cnn128", "Contraction", "sub", "the optimiser's root and division in the epilogue"),
    ("wide", "Contraction", "sub", "the optimiser's root and division, and more, not explained"),
    ("mlp reg", "Contraction", "dot", "32 to 100 terms: beginning and end of a sum weigh much"),
    ("resnet", "Contraction", "conv", TRANSFORMS),
    ("u-shaped", "TileFilterGradient", "", TRANSFORMS),
    ("odd-channels", "Contraction", "conv", "13, 27, 35 filters fill 81 to 88 % of vectors; 6 x 6"),
]


def reason(workload: str, kind: str, label: str, share: float) -> str:
    """What keeps a kernel below 60 % of its roof; empty if it is not below."""
    if share >= LOW:
        return ""
    for names, kinds, part, why in REASONS:
        if (not names or workload in names.split()) and kind.startswith(kinds) and part in label:
            return why
    return "not looked into"


def child(name: str) -> None:
    """Print the profile of one workload, a JSON line."""
    from benchmarks.engines import build

    workload = {**WORKLOADS, **OTHERS}[name]
    x, y = workload.arrays()
    engine = build("lamina", workload, x, y)
    engine.epoch()
    rows = workload.batch * 4
    found = [
        engine.model.profile(x[:rows], y[:rows], batch_size=workload.batch) for _ in range(REPEATS)
    ]
    roof = found[0].roof
    kernels: dict[tuple[str, str, str], list[float]] = {}
    for tasks in zip(*(profile.tasks for profile in found), strict=True):
        task, seconds = tasks[0], min(one.seconds for one in tasks)
        total = kernels.setdefault((task.kernel, task.label, task.shape), [0.0] * 5)
        numbers = (1, seconds, task.flops, task.bytes, roof.seconds(task))
        for place, value in enumerate(numbers):
            total[place] += value
    rates = {"flops": roof.flops, "bandwidth": roof.bandwidth}
    listed = [[*key, *numbers] for key, numbers in kernels.items()]
    print(json.dumps({"roof": rates, "kernels": listed}))


def section(workload: Workload, found: dict) -> list[str]:
    """The table of one workload."""
    step = sum(row[4] for row in found["kernels"])
    rows = sorted(found["kernels"], key=lambda row: -row[4])
    large = [row for row in rows if row[4] > LISTED * step]
    small = step - sum(row[4] for row in large)
    rates = f"{found['roof']['flops'] / 1e9:.0f} GFLOP/s, {found['roof']['bandwidth'] / 1e9:.0f}"
    lines = [
        f"## {workload.name}, batch {workload.batch}",
        "",
        f"{duration(step)} of kernels a step on one thread; roof {rates} GB/s.",
        "",
        "| kernel | shape | times | share | GFLOP/s | GB/s | of roof | below 60 % because |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind, label, shape, times, seconds, flops, moved, least in large:
        share = least / seconds
        cells = [
            f"{kind} {label}",
            shape,
            f"{times:.0f}",
            f"{seconds / step:.0%}",
            f"{flops / seconds / 1e9:.0f}",
            f"{moved / seconds / 1e9:.1f}",
            f"{share:.0%}",
            reason(workload.name, kind, label, share),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| {len(rows) - len(large)} smaller | | | {small / step:.0%} | | | | |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workloads", help="names, with commas")
    parser.add_argument("--out", default=str(ROOT / "docs" / "roofs.md"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child)
        return
    here = machine(["lamina"])
    lines = [
        "# Kernels and their roofs",
        "",
        (
            f"Measured on {here['date']}: {here['processor']}; one thread. A kernel's roof is the "
            "least time for its operations and bytes at the rates of NumPy's matrix product and "
            "copy, measured in the same process; what stays in a cache may exceed it, and so may a "
            "convolution by fewer multiplications than are counted. Repeat with "
            "`python -m benchmarks.roofs`."
        ),
        "",
    ]
    names = given.workloads.split(",") if given.workloads else [*WORKLOADS, *OTHERS]
    one_thread = {**environment(1), "OPENBLAS_NUM_THREADS": "1", "LAMINA_CACHE": "off"}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.roofs", "--child", name]
        done = subprocess.run(command, env=one_thread, capture_output=True, text=True, check=True)
        lines += section({**WORKLOADS, **OTHERS}[name], json.loads(done.stdout))
        print(name, flush=True)
    Path(given.out).write_text("\n".join(lines), encoding="utf-8")
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
