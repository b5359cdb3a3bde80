"""The base of callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Logs = dict[str, Any]

BATCH_HOOKS = {
    "train": (
        *("on_train_batch_begin", "on_train_batch_end"),
        *("on_batch_begin", "on_batch_end"),
    ),
    "test": ("on_test_batch_begin", "on_test_batch_end"),
    "predict": ("on_predict_batch_begin", "on_predict_batch_end"),
}


class Callback:
    """What happens between the steps of a run: override the methods you need.

    model    the model that runs
    params   {"verbose": ..., "epochs": ..., "steps": ...}

    Overriding a batch hook, on the class or the instance, makes `fit` run one step at a time, so
    that the hook sees each. `on_steps_end` is lamina's own and free: it is called whenever some
    steps have been done, several of them in one native call.
    """

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self._model: Any = None

    def set_params(self, params: Mapping[str, Any]) -> None:
        self.params = dict(params)

    def set_model(self, model: Any) -> None:
        self._model = model

    @property
    def model(self) -> Any:
        return getattr(self, "_model", None)  # a subclass may not have called our constructor

    def on_steps_end(self, mode: str, batch: int, logs: Logs | None = None) -> None:
        """Steps up to number `batch` are done; mode is "train", "test" or "predict"."""

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Another name of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Another name of `on_train_batch_end`."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before the first step of an epoch; epochs count from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After an epoch and its validation; `logs` holds both, and may be added to."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before step `batch` of an epoch."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After step `batch`; `logs` holds averages of the epoch so far."""
        self.on_batch_end(batch, logs=logs)

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a step of `evaluate` or of validation."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a step of `evaluate` or of validation."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a step of `predict`."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a step of `predict`; logs["outputs"] is what it gave."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before `fit` does anything."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After `fit`, with the logs of the last epoch."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before `evaluate` or a validation."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After `evaluate` or a validation, with its results."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Before `predict` does anything."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """After `predict`."""


def overrides(callback: Any, hook: str) -> bool:
    """Whether the callback's class or the instance itself defines this hook anew."""
    if hook in vars(callback):
        return True
    own = getattr(type(callback), hook, None)
    return own is not None and own is not getattr(Callback, hook)
