"""ProgbarLogger: shows how far a run is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamina.callbacks.callback import Callback, Logs
from lamina.progress import Progress


class ProgbarLogger(Callback):
    """A live bar on a terminal, one line an epoch elsewhere; silent inside a validation."""

    def __init__(self) -> None:
        super().__init__()
        self.verbose = 1
        self.epochs = 1
        self.target: int | None = None
        self.progress: Progress | None = None
        self._in_fit = False

    def set_params(self, params: Mapping[str, Any]) -> None:
        super().set_params(params)
        self.verbose = 1 if params["verbose"] == "auto" else int(params["verbose"])
        self.epochs = params["epochs"]
        self.target = params["steps"]

    def _begin(self, label: str = "") -> None:
        self.progress = Progress(label, self.target, self.verbose)
        self.progress.start()

    def _finish(self, logs: Logs | None) -> None:
        if self.progress is not None:
            self.target = self.target or self.progress.done
            self.progress.finish(logs)
            self.progress = None

    def abandon(self) -> None:
        """Give the terminal back after an exception."""
        self._in_fit = False
        if self.progress is not None:
            self.progress.abandon()
            self.progress = None

    def on_steps_end(self, mode: str, batch: int, logs: Logs | None = None) -> None:
        if self.progress is not None and (mode == "train" or not self._in_fit):
            self.progress.update(batch + 1, None if mode == "predict" else logs)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._in_fit = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._in_fit = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._begin(f"Epoch {epoch + 1}/{self.epochs}" if self.epochs > 1 else "")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._finish(logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        if not self._in_fit:
            self._begin()

    def on_test_end(self, logs: Logs | None = None) -> None:
        if not self._in_fit:
            self._finish(logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._begin()

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._finish(None)
