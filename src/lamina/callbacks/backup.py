"""BackupAndRestore: continue a run that was interrupted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from lamina.callbacks.callback import Callback, Logs
from lamina.errors import FileFormatError


class BackupAndRestore(Callback):
    """Keep weights, optimiser state, epoch and random state on disk while `fit` runs.

    A second run of the same program continues after the last finished epoch, with the same
    numbers as a run that was never interrupted.

    backup_dir          a folder for this callback alone
    save_freq           "epoch", or a number of steps (then an interrupted epoch starts again,
                        from the weights saved last)
    double_checkpoint   keep the backup before the last too, and fall back on it
    delete_checkpoint   remove the folder when the run has ended
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if not os.fspath(backup_dir):
            raise ValueError("BackupAndRestore: backup_dir is empty.")
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq > 0):
            raise ValueError(
                f"BackupAndRestore: save_freq is 'epoch' or a number of steps, got {save_freq!r}."
            )
        self.backup_dir = os.fspath(backup_dir)
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self._epoch = 0
        self._batches = 0
        if save_freq != "epoch":
            self.on_train_batch_end = self._after_batch  # type: ignore[method-assign]  # defined only where each step is wanted

    @property
    def _weights(self) -> Path:
        return Path(self.backup_dir) / "latest.weights.h5"

    @property
    def _metadata(self) -> Path:
        return Path(self.backup_dir) / "training_metadata.json"

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._epoch = 0
        self._batches = 0
        if not self._weights.exists():
            return
        try:
            self._restore(self._weights, self._metadata)
        except (OSError, FileFormatError):
            before = _previous(self._weights), _previous(self._metadata)
            if not before[0].exists():
                raise
            self._restore(*before)

    def _restore(self, weights: Path, metadata: Path) -> None:
        if not self.model.built:
            raise ValueError(
                "BackupAndRestore: the model must be built before fit(); call it on a batch, "
                "or give it an Input."
            )
        optimizer = self.model.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        self.model.load_weights(weights)
        if metadata.exists():
            state = json.loads(metadata.read_text(encoding="utf-8"))
            self._epoch = int(state["epoch"])
            self.model._initial_epoch = self._epoch
            if "numpy_random" in state:
                np.random.set_state(_state_from_json(state["numpy_random"]))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch + 1
        if self.save_freq == "epoch":
            self._save()

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        self._batches += 1
        if self._batches >= int(self.save_freq):
            self._batches = 0
            self._save()

    def _save(self) -> None:
        Path(self.backup_dir).mkdir(parents=True, exist_ok=True)
        if self.double_checkpoint and self._weights.exists() and self._metadata.exists():
            shutil.copy2(self._weights, _previous(self._weights))
            shutil.copy2(self._metadata, _previous(self._metadata))
        self.model.save_weights(self._weights, overwrite=True)
        state = {
            "epoch": self._epoch,
            "batch": self._batches,
            "numpy_random": _state_to_json(np.random.get_state()),
        }
        waiting = self._metadata.with_suffix(".partial")
        waiting.write_text(json.dumps(state), encoding="utf-8")
        waiting.replace(self._metadata)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.delete_checkpoint and Path(self.backup_dir).exists():
            shutil.rmtree(self.backup_dir)


def _previous(path: Path) -> Path:
    return (
        path.with_name(f"{path.name.removesuffix('.weights.h5')}.previous.weights.h5")
        if (path.name.endswith(".weights.h5"))
        else path.with_name(f"{path.name}.previous")
    )


def _state_to_json(state: Any) -> list[Any]:
    name, keys, position, has_gauss, gauss = state
    return [name, [int(key) for key in keys], int(position), int(has_gauss), float(gauss)]


def _state_from_json(state: list[Any]) -> tuple[Any, ...]:
    name, keys, position, has_gauss, gauss = state
    return name, np.array(keys, np.uint32), position, has_gauss, gauss
