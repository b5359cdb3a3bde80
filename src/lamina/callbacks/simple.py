"""Callbacks of a few lines each: schedules by epoch, NaN, functions, CSV."""

from __future__ import annotations

import csv
import inspect
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from lamina.callbacks.callback import Callback, Logs
from lamina.callbacks.monitor import learning_rate_of


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch: `schedule(epoch)` or `schedule(epoch, rate)`."""

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer = self.model.optimizer
        if not hasattr(optimizer, "learning_rate"):
            raise ValueError("LearningRateScheduler: the optimizer has no learning_rate.")
        if _positional(self.schedule) >= 2:
            rate = self.schedule(epoch, learning_rate_of(self.model))
        else:
            rate = self.schedule(epoch)
        if not isinstance(rate, (float, np.floating)) and np.ndim(rate) > 0:
            raise ValueError(
                f"LearningRateScheduler: the schedule gave {type(rate).__name__}, not a float."
            )
        optimizer.learning_rate = float(rate)
        if self.verbose > 0:
            print(  # noqa: T201 (asked for by verbose)
                f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}."
            )

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = learning_rate_of(self.model)


def _positional(function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return 2
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in kinds for one in parameters)


class TerminateOnNaN(Callback):
    """Stop after the first step whose loss is NaN or infinite.

    raise_error   raise RuntimeError at once, instead of ending the run in the usual way
    """

    stops_on_nan = True  # the native loop then leaves off after such a step

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error

    def on_steps_end(self, mode: str, batch: int, logs: Logs | None = None) -> None:
        loss = (logs or {}).get("loss")
        if mode != "train" or loss is None or np.isfinite(loss):
            return
        if self.raise_error:
            raise RuntimeError(f"the loss is {loss} after batch {batch}; training was ended.")
        print(f"Batch {batch}: Invalid loss, terminating training")  # noqa: T201 (Keras's message)
        self.model.stop_training = True


class LambdaCallback(Callback):
    """A callback of given functions: `LambdaCallback(on_epoch_end=lambda epoch, logs: ...)`.

    Any hook of `Callback` may be given by its name.
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **hooks: Callable[..., Any],
    ) -> None:
        super().__init__()
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **hooks,
        }
        for hook, function in given.items():
            if function is not None:
                setattr(self, hook, function)


class CSVLogger(Callback):
    """Write the logs of each epoch as a line of a CSV file.

    append   continue the file, with no second header
    """

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        super().__init__()
        self.filename = os.fspath(filename)
        self.sep = separator
        self.append = append
        self.keys: list[str] | None = None
        self._file: TextIO | None = None
        self._needs_header = True

    def on_train_begin(self, logs: Logs | None = None) -> None:
        path = Path(self.filename)
        self._needs_header = not (self.append and path.exists() and path.stat().st_size > 0)
        self._file = path.open("a" if self.append else "w", newline="", encoding="utf-8")
        self.keys = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        if self._file is None:
            raise RuntimeError("CSVLogger: on_epoch_end was called before on_train_begin.")
        if self.keys is None:
            self.keys = sorted(logs)
            if not any(name.startswith("val_") for name in self.keys):
                self.keys += [f"val_{name}" for name in self.keys]
            if self._needs_header:
                csv.writer(self._file, delimiter=self.sep).writerow(["epoch", *self.keys])
        row = [_cell(logs.get(name, "NA")) for name in self.keys]
        csv.writer(self._file, delimiter=self.sep).writerow([epoch, *row])
        self._file.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def abandon(self) -> None:
        """Close the file after an exception in the run."""
        self.on_train_end()


def _cell(value: Any) -> Any:
    if isinstance(value, Iterable) and not isinstance(value, str) and np.ndim(value) > 0:  # type: ignore[arg-type]
        return f'"[{", ".join(map(str, value))}]"'
    return value
