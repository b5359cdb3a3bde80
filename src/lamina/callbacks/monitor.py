"""Callbacks that watch one logged value: stop early, save the best, lower the learning rate."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lamina.callbacks.callback import Callback, Logs
from lamina.errors import LaminaError, layout, near_matches


class MonitorError(LaminaError, ValueError):
    """A callback watches a value that no run of this model logs, or whose direction is unknown."""


class MonitorCallback(Callback):
    """The shared part: which value is watched, and which of two values is better.

    monitor     the name in the logs, such as "val_loss" or "accuracy"
    mode        "min", "max", or "auto": by the metric's own direction
    baseline    the value to beat at first
    min_delta   the least change that counts
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: str = "auto",
        baseline: float | None = None,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ValueError(
                f"{type(self).__name__}: mode is 'auto', 'min' or 'max', got {mode!r}."
            )
        self.monitor = monitor
        self.mode = mode
        self.best = baseline
        self.min_delta = abs(min_delta)
        self._sign: int | None = None

    def direction(self) -> int:
        """-1 where smaller is better, +1 where larger is."""
        if self._sign is None:
            self._sign = {"min": -1, "max": 1}.get(self.mode) or self._find_direction()
        return self._sign

    def _find_direction(self) -> int:
        name = self.monitor.removeprefix("val_")
        if name == "loss" or name.endswith("_loss"):
            return -1
        for key, metric in getattr(self.model, "named_metrics", dict)().items():
            if key == name and getattr(metric, "_direction", None) in ("up", "down"):
                return 1 if metric._direction == "up" else -1
        raise MonitorError(
            layout(
                f"{type(self).__name__}: should {self.monitor!r} grow or shrink? That is unknown.",
                hint="pass mode='max' if larger is better, mode='min' if smaller is",
            )
        )

    def is_improvement(self, value: float, reference: float | None) -> bool:
        """Whether `value` beats `reference` by more than `min_delta`."""
        if reference is None:
            return True
        if self.direction() < 0:
            return bool(value + self.min_delta < reference)
        return bool(value - self.min_delta > reference)

    def watched(self, logs: Logs | None) -> float | None:
        """The watched value; None, with a warning, where this epoch has none.

        raises   MonitorError if the name is not that of a value this model logs
        """
        logs = logs or {}
        if self.monitor in logs:
            value = logs[self.monitor]
            if np.ndim(value) > 0:
                raise MonitorError(
                    f"{type(self).__name__}: {self.monitor!r} is an array of shape "
                    f"{np.shape(value)}, not a number."
                )
            return float(value)
        known = {name.removeprefix("val_") for name in logs}
        if self.monitor.removeprefix("val_") not in known:
            possible = {*logs, *(f"val_{name}" for name in known)}
            raise MonitorError(
                layout(
                    f"{type(self).__name__} monitors {self.monitor!r}, which this run does not "
                    f"log.{near_matches(self.monitor, possible)}",
                    [("logged", ", ".join(sorted(logs)))],
                )
            )
        warnings.warn(
            f"{type(self).__name__} monitors {self.monitor!r}, which is not available after this "
            f"epoch; available are: {', '.join(sorted(logs))}. Validation data is given to fit() "
            "as validation_data or validation_split.",
            stacklevel=2,
        )
        return None


class EarlyStopping(MonitorCallback):
    """Stop when the watched value has not improved for `patience` epochs.

    monitor, min_delta, mode   what is watched, and what counts as better
    patience                   epochs without improvement that are allowed
    baseline                   a value that has to be beaten
    restore_best_weights       end with the weights of the best epoch, stopped early or not
    start_from_epoch           epochs before watching begins
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.wait = 0
        self.stopped_epoch = 0
        self.best_epoch = 0
        self.best_weights: list[np.ndarray] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best = None
        self.best_epoch = 0
        self.best_weights = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        current = self.watched(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights = self.model.get_weights()
            self.best_epoch = epoch
        self.wait += 1
        if self.is_improvement(current, self.best):
            self.best = current
            self.best_epoch = epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.is_improvement(current, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch > 0 and self.verbose > 0:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")  # noqa: T201 (asked for by verbose)
        if self.best_weights is not None:
            if self.verbose > 0:
                print(  # noqa: T201 (the same)
                    "Restoring model weights from the end of the best epoch: "
                    f"{self.best_epoch + 1}."
                )
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(MonitorCallback):
    """Save the model, or its weights, after each epoch or some number of steps.

    filepath                  may hold {epoch}, {batch} and logged names, as in
                              "best-{val_loss:.2f}.keras"; ends with .weights.h5 for weights only
    save_best_only            overwrite only when the watched value has improved
    save_freq                 "epoch", or a number of steps
    initial_value_threshold   the value to beat at first
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq > 0):
            raise ValueError(
                f"ModelCheckpoint: save_freq is 'epoch' or a number of steps, got {save_freq!r}."
            )
        ending = ".weights.h5" if save_weights_only else ".keras"
        if not self.filepath.endswith(ending):
            what = "save_weights_only=True" if save_weights_only else "a whole model"
            raise ValueError(
                f"ModelCheckpoint: for {what} the filepath must end in {ending}, "
                f"got {self.filepath!r}."
            )
        self._epoch = 0
        self._batches = 0
        if save_freq != "epoch":
            self.on_train_batch_end = self._after_batch  # type: ignore[method-assign]  # defined only where each step is wanted

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        self._batches += 1
        if self._batches >= int(self.save_freq):
            self._batches = 0
            self._save(self._epoch, batch, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: Logs) -> None:
        values = {**logs, "epoch": epoch + 1}
        if batch is not None:
            values.setdefault("batch", batch + 1)
        try:
            path = self.filepath.format(**values)
        except KeyError as error:
            raise KeyError(
                f"ModelCheckpoint: {self.filepath!r} names {error}, which is not logged; "
                f"logged are: {', '.join(sorted(values))}."
            ) from None
        if self.save_best_only:
            current = self.watched(logs)
            if current is not None and not self.is_improvement(current, self.best):
                self._say(f"Epoch {epoch + 1}: {self.monitor} did not improve from {self.best:.5f}")
                return
            if current is not None:
                before = "None" if self.best is None else f"{self.best:.5f}"
                self._say(
                    f"Epoch {epoch + 1}: {self.monitor} improved from {before} to {current:.5f}, "
                    f"saving model to {path}"
                )
                self.best = current
        else:
            self._say(f"Epoch {epoch + 1}: saving model to {path}")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_dir():
            raise IsADirectoryError(f"ModelCheckpoint: {path} is an existing folder.")
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)

    def _say(self, message: str) -> None:
        if self.verbose > 0:
            print(f"\n{message}")  # noqa: T201 (asked for by verbose)


class ReduceLROnPlateau(MonitorCallback):
    """Multiply the learning rate by `factor` when the watched value has stopped improving.

    patience   epochs without improvement before that
    cooldown   epochs after it in which nothing is counted
    min_lr     the least learning rate
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        if factor >= 1.0:
            raise ValueError(f"ReduceLROnPlateau: factor must be below 1.0, got {factor}.")
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.cooldown_counter = 0
        self.wait = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.best = None
        self.cooldown_counter = 0
        self.wait = 0

    def in_cooldown(self) -> bool:
        return self.cooldown_counter > 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = {} if logs is None else logs
        optimizer = self.model.optimizer
        logs["learning_rate"] = float(np.asarray(optimizer.learning_rate))
        current = self.watched(logs)
        if current is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self.is_improvement(current, self.best):
            self.best = current
            self.wait = 0
        elif not self.in_cooldown():
            self.wait += 1
            rate = float(np.asarray(optimizer.learning_rate))
            if self.wait >= self.patience and rate > np.float32(self.min_lr):
                optimizer.learning_rate = max(rate * self.factor, self.min_lr)
                if self.verbose > 0:
                    print(  # noqa: T201 (asked for by verbose)
                        f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to "
                        f"{float(np.asarray(optimizer.learning_rate))}."
                    )
                self.cooldown_counter = self.cooldown
                self.wait = 0


def learning_rate_of(model: Any) -> float:
    """The learning rate that the model's optimiser uses now."""
    return float(np.asarray(model.optimizer.learning_rate))
