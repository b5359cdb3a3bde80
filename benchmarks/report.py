"""The results as a table and a bar chart for docs/benchmarks.md."""

from __future__ import annotations

import datetime as dt
import os
import platform
from importlib import metadata
from pathlib import Path

from benchmarks.rounds import ratio

PACKAGES = ("lamina", "numpy", "llvmlite", "keras", "tensorflow-cpu", "tensorflow", "torch", "jax")
STEPS = """
Milliseconds a step, median of rounds in which the engines took turns, each in its own process.
Keras and lamina are measured through `fit`; PyTorch and JAX are hand-written loops (fused Adam and
the better memory format; jit, and one scan an epoch where that is faster). *Ratio* is lamina over
the best peer; *matmul share* is lamina's rate (three times the forward flops) over NumPy's in a
1024 x 1024 product in the same run.
"""
COLOURS = {
    "lamina": "#c8383a",
    "keras-tensorflow": "#e08214",
    "keras-jax": "#8073ac",
    "keras-torch": "#b8a9d9",
    "pytorch": "#2f6db5",
    "jax": "#7fb3dd",
}


def machine(engines: list[str]) -> dict[str, object]:
    """Where and with what this was measured."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "lamina" in engines and "lamina" not in versions:
        import lamina

        versions["lamina"] = lamina.__version__
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
    }


def processor() -> str:
    """The processor's name, where the system tells."""
    file = Path("/proc/cpuinfo")
    if file.is_file():
        for text in file.read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                return text.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def duration(seconds: float) -> str:
    """
    >>> duration(0.00083), duration(0.0000123), duration(0.25)
    ('0.830 ms', '0.012 ms', '250 ms')
    """
    return f"{seconds * 1e3:.3g} ms" if seconds >= 0.01 else f"{seconds * 1e3:.3f} ms"


def line(name: str, found: dict) -> str:
    """One workload in one line, for the terminal."""
    parts = []
    for engine, result in found["engines"].items():
        text = duration(result["step_s"]) if "step_s" in result else result["error"][:120]
        parts.append(f"{engine} {text}")
    best = ratio(found["engines"])
    end = f"  ratio {best[0]:.3f} of {best[1]} (goal {found['goal']})" if best else ""
    return f"{name:<12} " + ", ".join(parts) + end


def write(results: dict, base: Path) -> list[Path]:
    """Write the Markdown page and the chart beside it; returns their paths."""
    page, chart = base.with_suffix(".md"), base.with_suffix(".png")
    names = list(results.get("workloads", {}))
    engines = [e for e in COLOURS if any(e in results["workloads"][n]["engines"] for n in names)]
    lines = ["# Benchmarks", "", _preamble(results), ""]
    if names:
        lines += [
            "## One training step",
            "",
            f"![Seconds a step]({chart.name})",
            "",
            *STEPS.strip().splitlines(),
            "",
            f"| workload | batch | {' | '.join(engines)} | ratio | goal | matmul share |",
            f"| --- | --- | {' | '.join('---' for _ in engines)} | --- | --- | --- |",
        ]
        for name in names:
            found = results["workloads"][name]
            cells = []
            for engine in engines:
                result = found["engines"].get(engine, {})
                cells.append(f"{result['step_s'] * 1e3:.3g}" if "step_s" in result else "")
            best = ratio(found["engines"])
            mine = found["engines"].get("lamina", {}).get("share_of_matmul")
            lines.append(
                f"| {name} | {found['batch']} | {' | '.join(cells)} | "
                f"{f'{best[0]:.2f}' if best else ''} | {found['goal']:.2f} | "
                f"{f'{100 * mine:.0f} %' if mine else ''} |"
            )
        lines += ["", *_predictions(results, names, engines), *_memory(results, names, engines)]
        _chart(results, names, engines, chart)
    lines += _footprint(results)
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return [page, chart] if names else [page]


def _preamble(results: dict) -> str:
    here = results.get("machine", {})
    versions = ", ".join(f"{name} {version}" for name, version in here.get("versions", {}).items())
    return (
        f"Measured on {here.get('date')}: {here.get('processor')}, {here.get('cores')} cores; "
        f"Python {here.get('python')}; {versions}. The machine is shared, so compare within a row, "
        "never with another day. Repeat with `pip install -r benchmarks/requirements.txt` and "
        "`python -m benchmarks`."
    )


def _predictions(results: dict, names: list[str], engines: list[str]) -> list[str]:
    rows = []
    for name in names:
        found = results["workloads"][name]["engines"]
        for key, what in (
            ("predict_row_s", "batches of 256, a row"),
            ("predict_call_s", "one call with one row"),
        ):
            if any(key in result for result in found.values()):
                cells = [
                    f"{found[e][key] * 1e6:.3g}" if key in found.get(e, {}) else "" for e in engines
                ]
                rows.append(f"| {name}, {what} | {' | '.join(cells)} |")
    if not rows:
        return []
    return [
        "## Prediction",
        "",
        f"| microseconds | {' | '.join(engines)} |",
        f"| --- | {' | '.join('---' for _ in engines)} |",
        *rows,
        "",
    ]


def _memory(results: dict, names: list[str], engines: list[str]) -> list[str]:
    rows = []
    for name in names:
        found = results["workloads"][name]["engines"]
        cells = [
            f"{found[e]['peak_mb'] - found[e]['data_mb']:.0f}"
            if "peak_mb" in found.get(e, {})
            else ""
            for e in engines
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return [
        "## Peak memory of the training process, less its data",
        "",
        f"| MB | {' | '.join(engines)} |",
        f"| --- | {' | '.join('---' for _ in engines)} |",
        *rows,
        "",
    ]


def _footprint(results: dict) -> list[str]:
    lines = []
    if results.get("footprint"):
        lines += [
            "## Before the first step",
            "",
            "Import; start of the process to the end of the first step of cnn, with an empty cache",
            "of compiled programs and with a filled one; size of the packages and all their needs.",
            "",
            "| | import, s | first step, cold, s | cached, s | installed, MB |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, found in results["footprint"].items():
            lines.append(
                f"| {name} | {found['import_s']:.2f} | {found['cold_s']:.2f} | "
                f"{found['cached_s']:.2f} | {found['installed_mb']:.0f} |"
            )
        lines.append("")
    if "slopes" in results:
        found = results["slopes"]
        lines += [
            "## Memory over time",
            "",
            (
                f"10,000 calls of `predict` add {found['predict_kb']:.3f} kB each; 1,000 models "
                f"built, trained and dropped add {found['model_kb']:.2f} kB each."
            ),
            "",
        ]
    return lines


def _chart(results: dict, names: list[str], engines: list[str], path: Path) -> None:
    """Bars of each engine's step over the best peer's, on a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.42 * len(names) * (len(engines) + 1) ** 0.75 + 1), dpi=130)
    axes = figure.subplots()
    height = 0.8 / len(engines)
    for place, name in enumerate(names):
        found = results["workloads"][name]["engines"]
        peers = [r["step_s"] for e, r in found.items() if e != "lamina" and "step_s" in r]
        best = min(peers) if peers else found["lamina"]["step_s"]
        for number, engine in enumerate(engines):
            if "step_s" not in found.get(engine, {}):
                continue
            value = found[engine]["step_s"] / best
            y = place + (number - (len(engines) - 1) / 2) * height
            axes.barh(
                y,
                value,
                height * 0.9,
                color=COLOURS[engine],
                label=engine if place == 0 else None,
            )
            axes.text(
                value * 1.03,
                y,
                duration(found[engine]["step_s"]),
                va="center",
                fontsize=6.5,
                color="#22272e" if engine == "lamina" else "#6b7480",
            )
    axes.axvline(1.0, color="#22272e", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    axes.grid(axis="x", color="#e3e7ec", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(x=0.12)
    axes.set_title("time of a training step over the best peer's", loc="left", weight="bold")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        labels,
        frameon=False,
        fontsize=8,
        ncols=len(engines),
        loc="upper left",
        bbox_to_anchor=(0, -0.04),
    )
    figure.tight_layout()
    figure.savefig(path)
