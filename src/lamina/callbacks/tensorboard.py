"""TensorBoard: curves of a run in files that TensorBoard shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from lamina.callbacks.callback import Callback, Logs
from lamina.callbacks.events import EventWriter
from lamina.callbacks.monitor import learning_rate_of


class TensorBoard(Callback):
    """Write the logs to `log_dir/train` and `log_dir/validation`, for `tensorboard --logdir`.

    log_dir          the folder
    histogram_freq   every so many epochs, how the weights are spread; 0: never
    update_freq      "epoch", "batch", or a number of steps between two points of the batch curves
    write_graph, write_images, write_steps_per_second, profile_batch, embeddings_freq,
    embeddings_metadata   accepted for Keras's sake; of these `write_steps_per_second` does nothing
                     else than the progress bar shows, and the others nothing

    The curves are called as in Keras: `epoch_loss`, `epoch_learning_rate`, `batch_loss`.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        super().__init__()
        del write_graph, write_images, write_steps_per_second, profile_batch
        del embeddings_freq, embeddings_metadata
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = histogram_freq
        self.update_freq = 1 if update_freq == "batch" else update_freq
        if self.update_freq != "epoch" and not (
            isinstance(self.update_freq, int) and self.update_freq > 0
        ):
            raise ValueError(
                "TensorBoard: update_freq is 'epoch', 'batch' or a number of steps, "
                f"got {update_freq!r}."
            )
        self._writers: dict[str, EventWriter] = {}
        self._step = 0
        if self.update_freq != "epoch":
            self.on_train_batch_end = self._after_batch  # type: ignore[method-assign]  # defined only where each step is wanted

    def _writer(self, run: str) -> EventWriter:
        if run not in self._writers:
            self._writers[run] = EventWriter(Path(self.log_dir) / run)
        return self._writers[run]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._step = 0

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        self._step += 1
        if self._step % int(self.update_freq) == 0:
            self._scalars("train", "batch_", logs or {}, self._step)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = dict(logs or {})
        if getattr(self.model, "optimizer", None) is not None:
            logs.setdefault("learning_rate", learning_rate_of(self.model))
        validation = {
            name.removeprefix("val_"): value
            for name, value in logs.items()
            if name.startswith("val_")
        }
        training = {name: value for name, value in logs.items() if not name.startswith("val_")}
        self._scalars("train", "epoch_", training, epoch)
        if validation:
            self._scalars("validation", "epoch_", validation, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            for weight in self.model.weights:
                self._writer("train").histogram(weight.path, weight.numpy(), epoch)
        for writer in self._writers.values():
            writer.flush()

    def _scalars(self, run: str, prefix: str, logs: Logs, step: int) -> None:
        for name, value in logs.items():
            if np.ndim(value) == 0:
                self._writer(run).scalar(f"{prefix}{name}", float(value), step)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Close the files, also after an exception in the run."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
