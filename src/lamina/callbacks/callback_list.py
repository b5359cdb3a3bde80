"""CallbackList: calls several callbacks in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lamina import tree
from lamina.callbacks.callback import BATCH_HOOKS, Callback, Logs, overrides
from lamina.callbacks.history import History
from lamina.callbacks.progbar import ProgbarLogger


class CallbackList(Callback):
    """Calls each hook of several callbacks, in the order given.

    callbacks    callbacks, lists of them, or None
    add_history  put a `History` in front where none is there
    add_progbar  put a `ProgbarLogger` behind where none is there
    params       given to each callback: verbose, epochs, steps
    """

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        super().__init__()
        self.callbacks: list[Any] = [
            callback for callback in tree.flatten(callbacks or []) if callback is not None
        ]
        for callback in self.callbacks:
            if not hasattr(callback, "set_model"):
                raise TypeError(
                    f"callbacks: expected Callback objects, got {type(callback).__name__}."
                    + (" Did you forget the ()?" if isinstance(callback, type) else "")
                )
        if add_history and not any(isinstance(one, History) for one in self.callbacks):
            self.callbacks.append(History())
        if add_progbar and not any(isinstance(one, ProgbarLogger) for one in self.callbacks):
            self.callbacks.append(ProgbarLogger())
        self.history = next((one for one in self.callbacks if isinstance(one, History)), None)
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def append(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def set_params(self, params: Mapping[str, Any]) -> None:
        super().set_params(params)
        if params:
            for callback in self.callbacks:
                callback.set_params(dict(params))

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if self.history is not None:
            model.history = self.history
        for callback in self.callbacks:
            callback.set_model(model)

    def wants_each_step(self, mode: str) -> bool:
        """Whether a callback defines a batch hook of this mode: "train", "test" or "predict"."""
        return any(
            overrides(callback, hook) for callback in self.callbacks for hook in BATCH_HOOKS[mode]
        )

    def wants_stop_on_nan(self) -> bool:
        """Whether a callback asks that the run stops after a step whose loss is not finite."""
        return any(getattr(callback, "stops_on_nan", False) for callback in self.callbacks)

    def abandon(self) -> None:
        """Let callbacks that hold the terminal give it back, after an exception."""
        for callback in self.callbacks:
            if hasattr(callback, "abandon"):
                callback.abandon()

    def _each(self, hook: str, *arguments: Any, logs: Logs | None) -> None:
        logs = {} if logs is None else logs
        for callback in self.callbacks:
            getattr(callback, hook)(*arguments, logs=logs)

    def on_steps_end(self, mode: str, batch: int, logs: Logs | None = None) -> None:
        logs = {} if logs is None else logs
        for callback in self.callbacks:
            if hasattr(callback, "on_steps_end"):  # a callback of another library has none
                callback.on_steps_end(mode, batch, logs=logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._each("on_batch_begin", batch, logs=logs)

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._each("on_batch_end", batch, logs=logs)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._each("on_epoch_begin", epoch, logs=logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._each("on_epoch_end", epoch, logs=logs)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._each("on_train_batch_begin", batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._each("on_train_batch_end", batch, logs=logs)

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._each("on_test_batch_begin", batch, logs=logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._each("on_test_batch_end", batch, logs=logs)

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._each("on_predict_batch_begin", batch, logs=logs)

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._each("on_predict_batch_end", batch, logs=logs)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._each("on_train_begin", logs=logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._each("on_train_end", logs=logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._each("on_test_begin", logs=logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        self._each("on_test_end", logs=logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._each("on_predict_begin", logs=logs)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._each("on_predict_end", logs=logs)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.callbacks)
