"""`python -m benchmarks`: lamina beside every peer that is installed, in one run.

    python -m benchmarks                            every workload, every engine
    python -m benchmarks --workloads cnn,mlp --engines lamina,pytorch --rounds 5 --seconds 1
    python -m benchmarks --footprint                import, size, first step, memory slopes only
    python -m benchmarks --report                   docs/benchmarks.md from the last results

Engines take turns within each round, in separate processes; medians are compared. The results
are written to docs/benchmarks.json, the table and the chart to docs/benchmarks.md and .png.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks import footprint, report
from benchmarks.rounds import by_name, compare, matmul_rate, usable

ROOT = Path(__file__).resolve().parents[1]


def environment(threads: int | None) -> dict[str, str]:
    """What the children see: the clone's packages, and at most so many threads."""
    result = dict(os.environ)
    # Installed packages bring their byte code; that of the clone is written at its first import.
    result.pop("PYTHONDONTWRITEBYTECODE", None)
    paths = [str(ROOT / "src"), str(ROOT), result.get("PYTHONPATH", "")]
    result["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if threads:
        for name in ("LAMINA_THREADS", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
            result[name] = str(threads)
        result["XLA_FLAGS"] = (
            f"--xla_force_host_platform_device_count=1 {result.get('XLA_FLAGS', '')}"
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workloads", help="names, with commas")
    parser.add_argument("--engines", help="names, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="a round of one engine")
    parser.add_argument("--threads", type=int, help="at most; default: what each engine takes")
    parser.add_argument("--footprint", action="store_true", help="leave the workloads out")
    parser.add_argument("--no-footprint", action="store_true", help="leave the footprint out")
    parser.add_argument("--report", action="store_true", help="write the report, measure nothing")
    parser.add_argument("--out", default=str(ROOT / "docs" / "benchmarks.json"))
    given = parser.parse_args()
    out = Path(given.out)
    results = json.loads(out.read_text()) if out.is_file() else {"workloads": {}}
    if not given.report:
        measure(given, results)
        out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        print(f"\nwritten: {out}")
    for file in report.write(results, out.with_suffix("")):
        print(f"written: {file}")


def measure(given: argparse.Namespace, results: dict) -> None:
    """Fill `results` with what was asked for; what was measured earlier stays."""
    engines = usable(given.engines.split(",") if given.engines else None)
    around = environment(given.threads)
    results["machine"] = report.machine(engines)
    if not given.footprint:
        for workload in by_name(given.workloads.split(",") if given.workloads else None):
            rate = matmul_rate()
            found = compare(workload, engines, around, rounds=given.rounds, seconds=given.seconds)
            for result in found.values():
                if "step_s" in result:
                    flops = 3 * workload.flops * workload.batch
                    result["share_of_matmul"] = flops / result["step_s"] / rate
            results["workloads"][workload.name] = {
                "engines": found,
                "goal": workload.goal,
                "batch": workload.batch,
                "rounds": given.rounds,
                "matmul_gflops": rate / 1e9,
            }
            print(report.line(workload.name, results["workloads"][workload.name]), flush=True)
    if not given.no_footprint:
        sizes = results.setdefault("footprint", {})
        for name in engines:
            if name in footprint.IMPORTS:
                sizes[name] = {
                    "import_s": footprint.import_time(name, around),
                    "installed_mb": footprint.installed_size(name),
                    **footprint.first_step(name, around),
                }
                print(
                    name, {key: round(value, 3) for key, value in sizes[name].items()}, flush=True
                )
        if "lamina" in engines:
            results["slopes"] = footprint.slopes(around)
            print(results["slopes"], flush=True)


if __name__ == "__main__":
    main()
