"""Trainer: compile, the three steps that users may override, and what they are made of."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lamina import metrics as metrics_module
from lamina import ops, tree
from lamina import optimizers as optimizers_module
from lamina.data import unpack_data
from lamina.errors import LaminaError, layout
from lamina.tensor import convert
from lamina.trace import gradient_nodes
from lamina.training.locks import ReadWriteLock
from lamina.training.losses import CompiledLoss, align, output_names
from lamina.training.metrics import CompiledMetrics
from lamina.training.steps import StepCache


class NotCompiledError(LaminaError, ValueError, RuntimeError):
    """A model is trained or evaluated before `compile` was called."""


class Trainer:
    """The part of a model that learns; `Model` joins it with `Layer`."""

    def _init_trainer(self) -> None:
        self.compiled = False
        self.optimizer: Any = None
        self.loss: Any = None
        self.history: Any = None
        self.stop_training = False
        self.stop_evaluating = False
        self.stop_predicting = False
        self.run_eagerly = False
        self.steps_per_execution = 1
        self.jit_compile: Any = "auto"
        self._compile_arguments: dict[str, Any] | None = None
        self._compile_loss: CompiledLoss | None = None
        self._compile_metrics: CompiledMetrics | None = None
        self._loss_tracker: Any = None
        self._initial_epoch: int | None = None
        self._make_runtime()

    def _make_runtime(self) -> None:
        """What is never copied or saved: locks, and the steps that were compiled."""
        self._steps = StepCache()
        self._state_lock = ReadWriteLock()
        self._run_lock = threading.RLock()

    # ------------------------------------------------------------------------- compile

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Say how the model learns and is measured.

        optimizer            a string, a configuration or an Optimizer
        loss                 a string, function or Loss; for several outputs a list, dict or nesting
        loss_weights         numbers nested like `loss`
        metrics              strings, functions or Metrics; they see no sample weights
        weighted_metrics     the same, with sample weights
        run_eagerly          run `train_step` with real values, so that print and pdb work
        steps_per_execution  batch hooks of callbacks are called every so many steps
        jit_compile          accepted for Keras's sake: steps are always compiled, unless
                             `run_eagerly` is set
        auto_scale_loss      with the dtype policy mixed_float16, scale the loss dynamically

        raises   ValueError or TypeError for a name that is not known, with the nearest ones
        """
        if steps_per_execution < 1:
            raise ValueError(f"steps_per_execution must be at least 1, got {steps_per_execution}.")
        names = getattr(self, "output_names", None)
        new_optimizer = optimizers_module.get(optimizer)
        new_loss = None if loss is None else CompiledLoss(loss, loss_weights, names)
        new_metrics = CompiledMetrics(metrics, weighted_metrics, names)
        if auto_scale_loss and self.dtype_policy.name == "mixed_float16":  # type: ignore[attr-defined]  # Layer has it
            scaled = optimizers_module.LossScaleOptimizer
            if new_optimizer is not None and not isinstance(new_optimizer, scaled):
                new_optimizer = scaled(new_optimizer)
        self.optimizer = new_optimizer
        self.loss = loss
        self._compile_loss = new_loss
        self._compile_metrics = new_metrics
        self._loss_tracker = metrics_module.Mean(name="loss")
        self.run_eagerly = bool(run_eagerly)
        self.steps_per_execution = steps_per_execution
        self.jit_compile = jit_compile
        self.stop_training = False
        self._compile_arguments = {
            "optimizer": self.optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": self.run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": False if jit_compile == "auto" else bool(jit_compile),
        }
        self.compiled = True
        self._steps.clear()

    def _assert_compiled(self, method: str) -> None:
        if not self.compiled:
            raise NotCompiledError(
                layout(
                    f"{method}: the model is not compiled.",
                    hint='call model.compile(optimizer="adam", loss="mse") first',
                )
            )

    # ------------------------------------------------------------------------- metrics

    @property
    def metrics(self) -> list[Any]:
        """Every metric: the mean loss, those of `compile`, of single outputs, of the layers."""
        return [
            *([self._loss_tracker] if self._loss_tracker is not None else []),
            *(self._compile_metrics.metrics if self._compile_metrics is not None else []),
            *(self._compile_loss.metrics if self._compile_loss is not None else []),
            *self._own_metrics(),
        ]

    def _own_metrics(self) -> list[Any]:
        """Metrics that are attributes of the model or of its layers; `Model` finds them."""
        return []

    def named_metrics(self) -> dict[str, Any]:
        """Every metric by its name in the logs: loss, those of `compile`, single losses, others."""
        named: dict[str, Any] = {}
        if self._loss_tracker is not None:
            named["loss"] = self._loss_tracker
        if self._compile_metrics is not None:
            named.update(self._compile_metrics.named())
        single = self._compile_loss.metrics if self._compile_loss is not None else []
        for metric in (*single, *self._own_metrics()):
            named.setdefault(metric.name, metric)
        return named

    @property
    def metrics_names(self) -> list[str]:
        """The names of what `evaluate` returns, in its order."""
        return self._list_order(self.named_metrics())

    def _list_order(self, names: Iterable[str]) -> list[str]:
        """Names as Keras lists their values: by the metrics' own names, then the rest sorted.

        So of one output come loss and metrics in the order of `compile`; of several come the
        loss, the losses of the outputs, and then their metrics by name.
        """
        given = list(names)
        own = [metric.name for metric in self.metrics]
        first = [name for name in dict.fromkeys(own) if name in given]
        return [*first, *sorted(name for name in given if name not in first)]

    def reset_metrics(self) -> None:
        """Let every metric begin anew."""
        for metric in self.metrics:
            if type(metric).reset_state is metrics_module.Metric.reset_state:
                for variable in metric.variables:
                    variable.buffer.fill(0)
            else:
                metric.reset_state()

    def get_metrics_result(self) -> dict[str, Any]:
        """The value of every metric by its name; a metric that gives a dict gives its entries."""
        results: dict[str, Any] = {}
        for name, metric in self.named_metrics().items():
            value = metric.result()
            if isinstance(value, Mapping):
                results.update(value)
            else:
                results[name] = value
        return results

    # --------------------------------------------------------------------------- steps

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The total loss, a scalar: that of `compile`, and what layers and regularizers add.

        Override it for a loss of your own; `train_step` and `test_step` call it.

        raises   ValueError if there is nothing to minimise
        """
        del training
        total: Any = None
        if self._compile_loss is not None:
            total = self._compile_loss(y, y_pred, sample_weight, batch_rows(x, y_pred))
        for loss in self.losses:  # type: ignore[attr-defined]  # Layer has it
            value = ops.sum(ops.cast(loss, "float32"))
            total = value if total is None else total + value
        if total is None:
            raise ValueError(
                layout(
                    "there is no loss to compute.",
                    hint="pass loss=... to compile(), or call add_loss() in a layer",
                )
            )
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Update the metrics of `compile` and give every metric's value, a dict by name."""
        del x
        if self._compile_metrics is not None:
            targets: list[Any] | None = None
            if y is not None and self._compile_loss is not None:
                targets = self._compile_loss.targets(y, y_pred)
            elif y is not None:
                names = output_names(y_pred, getattr(self, "output_names", None))
                targets = align(y, y_pred, names, "y")
            self._compile_metrics.update_state(targets, y_pred, sample_weight)
        return self.get_metrics_result()

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of learning on a batch: the body of `fit`, traced and compiled.

        data      x, (x, y) or (x, y, sample_weight), tensors
        returns   the logs: values by name
        """
        x, y, sample_weight = unpack_data(data)
        y_pred = self._call_on(x, training=True)
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
        self._loss_tracker.update_state(loss, sample_weight=batch_rows(x, y_pred))
        self._minimise(loss)
        logs: dict[str, Any] = self.compute_metrics(x, y, y_pred, sample_weight)
        return logs

    def _minimise(self, loss: Any) -> None:
        variables = self.trainable_variables  # type: ignore[attr-defined]  # Layer has it
        if not variables:
            return
        if hasattr(self.optimizer, "scale_loss"):
            loss = self.optimizer.scale_loss(loss)
        self.optimizer.apply(gradient_nodes(loss, variables), variables)

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of `evaluate`."""
        x, y, sample_weight = unpack_data(data)
        y_pred = self._call_on(x, training=False)
        loss = self.compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False
        )
        self._loss_tracker.update_state(loss, sample_weight=batch_rows(x, y_pred))
        logs: dict[str, Any] = self.compute_metrics(x, y, y_pred, sample_weight)
        return logs

    def predict_step(self, data: Any) -> Any:
        """One step of `predict`: the outputs for a batch."""
        x, _, _ = unpack_data(data)
        return self._call_on(x, training=False)

    def _call_on(self, x: Any, *, training: bool) -> Any:
        if getattr(self, "_call_has_training_arg", True):
            return self(x, training=training)  # type: ignore[operator]  # Layer has it
        return self(x)  # type: ignore[operator]

    # ------------------------------------------------------------------------- support

    def _step_signature(self, kind: str) -> Any:
        """What a compiled step depends on besides its data: which layers and weights train."""
        layers, weights = self._structure()
        if kind == "predict":
            return kind, tuple(map(id, layers)), tuple([layer._trainable for layer in layers])
        flags = [layer._trainable for layer in layers] + [one.trainable for one in weights]
        return kind, tuple(map(id, weights)), tuple(flags)

    def _structure(self) -> tuple[list[Any], list[Any]]:
        """The layers and weights of which the model is made now."""
        return self._flatten_layers(), self.weights  # type: ignore[attr-defined]  # Layer has it

    def get_compile_config(self) -> dict[str, Any] | None:
        """The arguments of `compile`, for a file; None where it was not called."""
        return dict(self._compile_arguments) if self._compile_arguments is not None else None


def batch_rows(x: Any, y_pred: Any) -> Any:
    """The number of rows of a batch as a scalar tensor; inside a step it follows the batch."""
    leaves = [leaf for leaf in (*tree.flatten(x), *tree.flatten(y_pred)) if leaf is not None]
    for leaf in leaves:
        if len(leaf.shape):
            return convert(leaf.shape[0], "float32")
    return convert(1.0, "float32")


def as_number(value: Any) -> Any:
    """A Python float of a scalar; an array of anything larger."""
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array


def pythonic(logs: Any) -> dict[str, Any]:
    """Logs as Python floats, sorted by name, as callbacks get them."""
    if not isinstance(logs, Mapping):
        raise TypeError(
            layout(
                f"train_step and test_step return a dict of logs, got {type(logs).__name__}.",
                hint="return {'loss': loss}",
            )
        )
    flat: dict[str, Any] = {}
    for name, value in logs.items():
        if isinstance(value, Mapping):
            flat.update(value)
        else:
            flat[name] = value
    return {name: as_number(flat[name]) for name in sorted(flat)}
