"""SwapEMAWeights: evaluate with the moving averages of the weights."""

from __future__ import annotations

from typing import Any

from lamina.callbacks.callback import Callback, Logs


class SwapEMAWeights(Callback):
    """Exchange weights and their moving averages while the model is measured.

    Needs an optimizer made with `use_ema=True`. Before each `evaluate`, validation and `predict`
    the averages become the weights, and afterwards they change back.

    swap_on_epoch   exchange at the end of each epoch too, so that callbacks such as
                    ModelCheckpoint see the averages, and back at the beginning of the next
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._swapped = False

    def _pairs(self) -> list[tuple[Any, Any]]:
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        if not getattr(optimizer, "use_ema", False):
            raise ValueError(
                "SwapEMAWeights: the optimizer keeps no averages; make it with use_ema=True."
            )
        return list(zip(optimizer._trainable_variables, optimizer._averages, strict=True))

    def _swap(self, *, averages: bool) -> None:
        """Let the model hold the averages, or its own weights."""
        if averages != self._swapped:
            for weight, average in self._pairs():
                kept = weight.numpy()
                weight.assign(average.numpy())
                average.assign(kept)
            self._swapped = averages

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self.swap_on_epoch:
            self._swap(averages=False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if not self.swap_on_epoch:
            return
        self._swap(averages=True)
        if epoch == self.params.get("epochs", 0) - 1:
            # `fit` ends by assigning the averages to the weights, where they already are.
            for weight, average in self._pairs():
                average.assign(weight.numpy())
            self._swapped = False

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._swap(averages=True)

    def on_test_end(self, logs: Logs | None = None) -> None:
        self._swap(averages=False)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._swap(averages=True)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._swap(averages=False)
