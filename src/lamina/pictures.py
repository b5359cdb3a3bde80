"""Pictures of a training run: learning curves, a confusion matrix, a grid of predictions.

Drawn with matplotlib (the extra `plots`), without a window and without its global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lamina.errors import MissingExtraError, ShapeError
from lamina.training.profiling import Profile

INK, SOFT, GRID = "#22272e", "#6b7480", "#e3e7ec"
BLUE, ORANGE, RED, GREEN = "#2f6db5", "#e08214", "#c8383a", "#2e8b57"
DOTS_PER_INCH = 150


def _figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    """A white figure with axes in (rows, columns), and no registration anywhere."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise MissingExtraError("matplotlib", "plots", "drawing pictures") from None
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout=layout)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _plain(axes: Any) -> None:
    """Take away what is no data: the frame, the ticks' marks, dark grid lines."""
    axes.spines[:].set_visible(False)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=SOFT, labelsize=9)


def learning_curves(history: Mapping[str, Sequence[float]], path: str | Path) -> Path:
    """Draw each logged value over the epochs, training and validation in one panel.

    history  name -> one number an epoch, as in `History.history`; `val_name` belongs to `name`
    path     where to write the PNG
    returns  the path
    raises   ShapeError for an empty history, MissingExtraError without matplotlib
    """
    names = [name for name in history if not name.startswith("val_") and len(history[name])]
    # The loss first: it is what was minimised.
    names.sort(key=lambda name: (name != "loss", name))
    if not names:
        raise ShapeError("learning_curves: the history is empty; has fit() finished an epoch?")
    figure, panels = _figure(4.8 * len(names), 3.6, columns=len(names))
    for axes, name in zip(panels[0], names, strict=True):
        _plain(axes)
        lines = [(name, "training", BLUE), (f"val_{name}", "validation", ORANGE)]
        for key, label, colour in lines:
            values = history.get(key, ())
            if not len(values):
                continue
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, color=colour, linewidth=2, marker="o", ms=4, label=label)
        axes.set_title(name.replace("_", " "), loc="left", color=INK, fontsize=12, weight="bold")
        axes.set_xlabel("epoch", color=SOFT, fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    figure.savefig(path)
    return Path(path)


def confusion_matrix(
    labels: np.ndarray,
    predictions: np.ndarray,
    path: str | Path,
    names: Sequence[str] | None = None,
) -> Path:
    """Draw how often each class was taken for each other; errors stand out from the diagonal.

    labels       (N,) integer classes from 0
    predictions  (N,) integer classes from 0
    path         where to write the PNG
    names        of the classes; their numbers by default
    returns      the path
    """
    counts = count_confusions(labels, predictions)
    size = len(counts)
    names = [str(number) for number in range(size)] if names is None else list(names)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(4.2, 0.52 * size + 1.0)
    figure, panels = _figure(side, side)
    axes = panels[0, 0]
    right = np.eye(size, dtype=bool)
    # Errors are few: the root makes them visible, in a colour of their own.
    picture = np.ones((size, size, 3))
    for mask, colour in ((right, BLUE), (~right, RED)):
        strength = np.sqrt(share)[..., None] * 0.92
        shade = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        picture[mask] = (1 - strength + strength * shade)[mask]
    axes.imshow(picture)
    for row, column in zip(*np.nonzero(counts), strict=True):
        dark = np.sqrt(share[row, column]) > 0.6
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else INK,
        )
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0, colors=SOFT, labelsize=9)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("predicted", color=SOFT, fontsize=9)
    axes.set_ylabel("true", color=SOFT, fontsize=9)
    wrong = int(counts.sum() - np.trace(counts))
    title = f"{wrong} of {int(counts.sum())} wrong"
    axes.set_title(title, loc="left", color=INK, fontsize=12, weight="bold")
    figure.savefig(path)
    return Path(path)


def count_confusions(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Count how often class i (row) was taken for class j (column).

    >>> count_confusions(np.array([0, 0, 1]), np.array([0, 1, 1]))
    array([[1, 1],
           [0, 1]])
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1 or not len(labels):
        raise ShapeError(
            f"a confusion matrix needs two equally long rows of classes, got {labels.shape} "
            f"and {predictions.shape}"
        )
    size = int(max(labels.max(), predictions.max())) + 1
    cells = labels.astype(np.int64) * size + predictions.astype(np.int64)
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def prediction_grid(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    path: str | Path,
    *,
    rows: int = 5,
    columns: int = 10,
) -> Path:
    """Draw examples with what the model says; the ones it got wrong come first, in red.

    images         (N, height, width) grey, 0 is paper
    labels         (N,) integer classes
    probabilities  (N, classes), each row sums to 1
    path           where to write the PNG
    returns        the path
    """
    predictions = probabilities.argmax(-1)
    wrong = np.flatnonzero(predictions != labels)[: rows * columns // 2]
    right = np.flatnonzero(predictions == labels)[: rows * columns - len(wrong)]
    chosen = [*wrong, *right]
    figure, panels = _figure(1.12 * columns, 1.3 * rows + 0.5, columns=columns, rows=rows)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, place in zip(panels.flat, chosen, strict=False):
        axes.imshow(images[place], cmap="gray_r", interpolation="nearest")
        answer, truth = int(predictions[place]), int(labels[place])
        sure = f"{100 * probabilities[place, answer]:.0f} %"
        if answer == truth:
            axes.set_title(f"{answer}  {sure}", fontsize=8, color=GREEN, pad=3)
        else:
            axes.set_title(f"{answer}, not {truth}  {sure}", fontsize=8, color=RED, pad=3)
    figure.suptitle(
        "what the network reads, and how sure it is" + (" (errors first)" if len(wrong) else ""),
        x=0.01,
        ha="left",
        color=INK,
        fontsize=12,
        weight="bold",
    )
    figure.savefig(path)
    return Path(path)


def step_timeline(profile: Profile, path: str | Path) -> Path:
    """Draw a profiled step as a timeline: a bar a kernel in the order in which they run.

    profile  what `Model.profile` gives
    path     where to write the PNG
    returns  the path

    The length of a bar is the kernel's time, its colour the share of the machine's roof; lines
    stand where the threads wait for one another.
    """
    tasks = [task for task in profile.tasks if task.seconds > 0]
    figure, panels = _figure(11, 0.24 * len(tasks) + 1.6)
    axes = panels[0][0]
    _plain(axes)
    start, phase = 0.0, 0
    for row, task in enumerate(tasks):
        if task.phase != phase:
            axes.axvline(start, color=SOFT, linewidth=0.8, linestyle=":")
            phase = task.phase
        length = task.seconds * 1e6
        share = min(profile.share_of_roof(task), 1.0)
        colour = GREEN if share >= 0.6 else ORANGE if share >= 0.3 else RED
        axes.barh(row, length, left=start, color=colour, height=0.7)
        layer = task.layer.rsplit("/", 1)[-1]
        label = f"{layer + ': ' if layer else ''}{task.label}  {length:.1f} us, {share:.0%}"
        axes.annotate(
            label, (start + length, row), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=7, color=INK,
        )  # fmt: skip
        start += length
    axes.set_ylim(len(tasks) - 0.4, -0.6)
    axes.set_xlim(0, start * 1.35)
    axes.set_yticks([])
    axes.set_xlabel("microseconds, the kernels of one step after one another", color=SOFT)
    axes.set_title(
        f"{profile.step.step_seconds * 1e6:.0f} us a step on {profile.step.threads} threads; "
        "share of the roof: green from 60 %, orange from 30 %, red below",
        fontsize=10, color=INK, loc="left",
    )  # fmt: skip
    figure.savefig(path)
    return Path(path)
