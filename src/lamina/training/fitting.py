"""fit, evaluate, predict, and their versions for one batch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lamina import tree
from lamina.callbacks import CallbackList, History
from lamina.data import (
    ArraySource,
    Source,
    as_batch,
    is_array_data,
    pack_data,
    sample_weights_of_classes,
    source_of,
    train_validation_split,
    unpack_data,
)
from lamina.errors import layout
from lamina.training.predicting import Prediction
from lamina.training.profiling import Profile, note_fit, profile_step
from lamina.training.runs import Hooks, Pass, logs_of
from lamina.training.trainer import Trainer, pythonic


class Fitting(Trainer):
    """The loops of a model over data."""

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> History:
        """Learn from data.

        x, y              arrays, or lists or dicts of arrays; or x alone: a generator, PyDataset or
                          other iterable of batches (x, y) or (x, y, sample_weight)
        batch_size        samples a step, default 32; the last step of an epoch may have fewer
        epochs            the number of the last epoch; `initial_epoch` that of the first
        verbose           0 silent, 1 a bar on a terminal, 2 a line an epoch, "auto": 1
        validation_split  the share of the samples, taken from the end, that validate
        validation_data   (x, y) or (x, y, sample_weight), or an iterable of batches
        shuffle           a new order of the samples each epoch; "batch": within the batches
        class_weight      a dict from class number to weight
        sample_weight     a weight for each sample
        steps_per_epoch   steps in an epoch, needed where the data has no end
        validation_freq   validate every so many epochs, or after the epochs of a list (from 1)

        returns  History: `.history` maps each name to its values, one an epoch
        raises   ShapeError, UnrecognizedDataError, ValueError, IndexRangeError; the model is
                 usable after any of them, and after Ctrl-C
        """
        self._assert_compiled("fit")
        with self._run_lock:
            training, validation = self._fit_sources(
                x,
                y,
                sample_weight,
                validation_split,
                validation_data,
                class_weight,
                batch_size=batch_size,
                shuffle=shuffle,
                steps=_steps("steps_per_epoch", steps_per_epoch),
                validation_steps=_steps("validation_steps", validation_steps),
                validation_batch_size=validation_batch_size,
            )
            self._build_from(training)
            note_fit(self, training)
            called = self._callback_list(callbacks, verbose, epochs, training.steps, history=True)
            try:
                self._run_epochs(
                    training, validation, called, epochs, initial_epoch, validation_freq
                )
            finally:
                called.abandon()
            return self.history  # type: ignore[no-any-return]

    def _fit_sources(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        validation_split: float,
        validation_data: Any,
        class_weight: Mapping[int, float] | None,
        *,
        batch_size: int | None,
        shuffle: bool | str,
        steps: int | None,
        validation_steps: int | None,
        validation_batch_size: int | None,
    ) -> tuple[Source, Source | None]:
        validation: tuple[Any, Any, Any] | None = None
        if validation_data is not None:
            validation = _validation_parts(validation_data)
        elif validation_split:
            if not is_array_data(x):
                raise ValueError(
                    layout(
                        "validation_split needs arrays in memory: batches that come one by one "
                        "have no last samples.",
                        hint="pass validation_data instead",
                    )
                )
            (x, y, sample_weight), validation = train_validation_split(
                (x, y, sample_weight), validation_split
            )
        training = source_of(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            steps=steps,
            shuffle=shuffle,
            class_weight=class_weight,
        )
        if validation is None:
            return training, None
        size = validation_batch_size or batch_size
        return training, source_of(*validation, batch_size=size, steps=validation_steps)

    def _run_epochs(
        self,
        training: Source,
        validation: Source | None,
        called: CallbackList,
        epochs: int,
        initial_epoch: int,
        validation_freq: int | Sequence[int],
    ) -> None:
        self.stop_training = False
        run = Pass(self, "train", training, stop_nan=called.wants_stop_on_nan())
        check = None if validation is None else Pass(self, "test", validation)
        logs: dict[str, Any] = {}
        called.on_train_begin()
        try:
            for epoch in range(self._initial_epoch or initial_epoch, epochs):
                self.reset_metrics()
                called.on_epoch_begin(epoch)
                result = run.epoch(self._hooks("train", called))
                if result is None:
                    break
                logs = logs_of(result)
                if check is not None and _validates(epoch, validation_freq):
                    measured = self._evaluate(check, called)
                    logs.update({f"val_{name}": value for name, value in measured.items()})
                    logs = pythonic(logs)
                called.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
        finally:
            self._initial_epoch = None
            if hasattr(self.optimizer, "finalize_variable_values"):
                self.optimizer.finalize_variable_values(self.trainable_variables)  # type: ignore[attr-defined]  # Layer has it
        called.on_train_end(logs)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Loss and metrics over data, with layers in inference mode.

        The arguments are those of `fit`.

        returns  the loss; or [loss, metrics in the order of compile, losses of single outputs]
                 where there are metrics; or all by name with `return_dict`
        """
        self._assert_compiled("evaluate")
        with self._run_lock:
            source = source_of(
                x, y, sample_weight, batch_size=batch_size, steps=_steps("steps", steps)
            )
            self._build_from(source)
            called = self._callback_list(callbacks, verbose, 1, source.steps)
            try:
                logs = self._evaluate(Pass(self, "test", source), called)
            finally:
                called.abandon()
        return logs if return_dict else self._in_order(logs)

    def _evaluate(self, run: Pass, called: CallbackList) -> dict[str, Any]:
        self.stop_evaluating = False
        called.on_test_begin()
        self.reset_metrics()
        logs = logs_of(run.epoch(self._hooks("test", called)))
        called.on_test_end(logs)
        return logs

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The model's outputs for all samples of `x`, NumPy arrays nested like the outputs.

        batch_size   samples a step, default 32; it changes no result
        verbose      "auto": a bar on a terminal, nothing elsewhere

        Several threads may call it on one model. Row i does not depend on the other rows.
        """
        source = source_of(x, batch_size=batch_size, steps=_steps("steps", steps))
        self._build_from(source)
        prediction = Prediction(self, source)
        if callbacks is None and not _shown(verbose, quiet=True):
            self.stop_predicting = False
            return prediction.run(Hooks(stopped=lambda: self.stop_predicting))
        called = self._callback_list(callbacks, verbose, 1, source.steps, quiet=True)
        self.stop_predicting = False
        try:
            called.on_predict_begin()
            outputs = prediction.run(self._hooks("predict", called))
            called.on_predict_end()
        finally:
            called.abandon()
        return outputs

    def profile(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        sample_weight: Any = None,
        steps: int = 50,
    ) -> Profile:
        """Time every kernel of the compiled step, beside what the machine could do.

        x, y, ...  data as for `fit`; without `y`, or before `compile`, the step of `predict`
        steps      how many steps are measured

        The model does not change. `print(model.profile(x, y))` shows the table;
        `lamina.pictures.step_timeline` draws it.
        """
        with self._run_lock:
            self._build_from(source_of(x, y, sample_weight, batch_size=batch_size))
            return profile_step(self, x, y, sample_weight, batch_size, steps)

    # ---------------------------------------------------------------------- one batch

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One step of learning; gives the loss and metrics of this batch alone, as `evaluate`."""
        self._assert_compiled("train_on_batch")
        if class_weight is not None:
            if sample_weight is not None:
                raise ValueError(
                    "class_weight and sample_weight cannot both be given: each decides how much "
                    "a sample counts."
                )
            sample_weight = sample_weights_of_classes(np.asarray(y), class_weight)
        return self._on_batch("train", pack_data(x, y, sample_weight), return_dict=return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Loss and metrics of one batch."""
        self._assert_compiled("test_on_batch")
        return self._on_batch("test", pack_data(x, y, sample_weight), return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch."""
        batch = as_batch((x,))
        self._build_from_batch(batch)
        rows = len(next(leaf for leaf in tree.flatten(batch) if leaf is not None))
        source = ArraySource(x, batch_size=rows)
        return Prediction(self, source).run(Hooks())

    def _on_batch(self, kind: str, data: tuple[Any, ...], *, return_dict: bool) -> Any:
        with self._run_lock:
            batch = as_batch(data)
            self._build_from_batch(batch)
            self.reset_metrics()
            source = ArraySource(*batch, batch_size=1)
            logs = pythonic(Pass(self, kind, source).on_batch(batch))
        return logs if return_dict else self._in_order(logs)

    # ------------------------------------------------------------------------ support

    def _build_from(self, source: Source) -> None:
        if not self._is_ready():
            self._build_from_batch(source.first_batch())

    def _build_from_batch(self, batch: Any) -> None:
        if not self._is_ready():
            self._build_on(unpack_data(batch)[0])
        optimizer = self.optimizer
        if self.compiled and optimizer is not None and not getattr(optimizer, "built", True):
            optimizer.build(self.trainable_variables)  # type: ignore[attr-defined]  # Layer has it
            optimizer.built = True

    def _is_ready(self) -> bool:
        built = bool(self.built)  # type: ignore[attr-defined]  # Layer has it
        if not self.compiled or self.optimizer is None:
            return built
        return built and bool(getattr(self.optimizer, "built", True))

    def _build_on(self, x: Any) -> None:
        raise NotImplementedError

    def _callback_list(
        self,
        callbacks: Any,
        verbose: str | int,
        epochs: int,
        steps: int | None,
        *,
        history: bool = False,
        quiet: bool = False,
    ) -> CallbackList:
        if isinstance(callbacks, CallbackList):
            return callbacks
        shown = _shown(verbose, quiet=quiet)
        return CallbackList(
            callbacks,
            add_history=history,
            add_progbar=shown != 0,
            model=self,
            verbose=shown,
            epochs=epochs,
            steps=steps,
        )

    def _hooks(self, kind: str, called: CallbackList) -> Hooks:
        begin = getattr(called, f"on_{kind}_batch_begin")
        end = getattr(called, f"on_{kind}_batch_end")
        stop = {"train": "stop_training", "test": "stop_evaluating", "predict": "stop_predicting"}

        def logs(result: Any) -> dict[str, Any]:
            return {"outputs": result} if kind == "predict" else logs_of(result)

        return Hooks(
            each=called.wants_each_step(kind),
            every=self.steps_per_execution,
            begin=lambda batch: begin(batch, {}),
            end=lambda batch, result: end(batch, logs(result)),
            done=lambda batch, result: called.on_steps_end(kind, batch, logs(result)),
            stopped=lambda: bool(getattr(self, stop[kind])),
        )

    def _in_order(self, logs: Mapping[str, Any]) -> Any:
        """The logs as a list in the order of `metrics_names`; a lone one as it is."""
        values = [logs[name] for name in self._list_order(logs)]
        return values[0] if len(values) == 1 else values


def _shown(verbose: str | int, *, quiet: bool) -> int:
    """0, 1 or 2; what "auto" means depends on whether the run is `quiet` off a terminal."""
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose is 'auto', 0, 1 or 2, got {verbose!r}.")
    if verbose == "auto":
        return int(sys.stdout.isatty()) if quiet else 1
    return int(verbose)


def _steps(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} is a whole number of at least 1, got {value!r}.")
    return int(value)


def _validates(epoch: int, frequency: int | Sequence[int]) -> bool:
    if isinstance(frequency, (int, np.integer)):
        if frequency < 1:
            raise ValueError(f"validation_freq must be at least 1, got {frequency}.")
        return bool((epoch + 1) % frequency == 0)
    if isinstance(frequency, (list, tuple, set)):
        return epoch + 1 in frequency
    raise TypeError(
        f"validation_freq is a number or a list of epochs, got {type(frequency).__name__}."
    )


def _validation_parts(data: Any) -> tuple[Any, Any, Any]:
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        return unpack_data(tuple(data))
    if isinstance(data, (tuple, list)):
        raise ValueError(  # noqa: TRY004 (the length is wrong, not the type)
            layout(
                "validation_data is (x, y), (x, y, sample_weight) or an iterable of batches, "
                f"got {type(data).__name__} of {len(data)}.",
                hint="several inputs are one list: validation_data=([a, b], y)",
            )
        )
    return data, None, None
