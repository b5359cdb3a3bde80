"""The `metrics` and `weighted_metrics` arguments of `compile`, resolved against the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina import metrics as metrics_module
from lamina import tree
from lamina.training.losses import StructureError, align, output_names


def _check(given: Any, argument: str) -> None:
    if given is not None and not isinstance(given, (list, tuple, dict)):
        raise TypeError(
            f"{argument} is a list, tuple or dict of metrics, got {type(given).__name__}."
        )
    for leaf in tree.flatten(given):
        if not (isinstance(leaf, str) and leaf.lower() in metrics_module.CHOSEN_BY_SHAPE):
            metrics_module.get(leaf)  # a misspelt name is told at once


class CompiledMetrics:
    """All metrics of a compiled model, by output and by the name they have in the logs."""

    def __init__(self, metrics: Any, weighted_metrics: Any, names: Sequence[str] | None) -> None:
        _check(metrics, "metrics")
        _check(weighted_metrics, "weighted_metrics")
        self.given = metrics
        self.given_weighted = weighted_metrics
        self.model_names = names
        self.built = False
        self.plain: list[list[Any]] = []
        self.weighted: list[list[Any]] = []
        self.names: list[str] = []

    def build(self, y_true: list[Any], y_pred: Any) -> None:
        """Make the metric objects, now that the shapes are known."""
        flat = tree.flatten(y_pred)
        self.plain = self._build(self.given, y_true, flat, y_pred, "metrics")
        self.weighted = self._build(self.given_weighted, y_true, flat, y_pred, "weighted_metrics")
        self.built = True

    def _build(
        self, given: Any, y_true: list[Any], flat: list[Any], y_pred: Any, argument: str
    ) -> list[list[Any]]:
        if not given:
            return [[] for _ in flat]
        per_output = (
            [tree.flatten(given)] if len(flat) == 1 else align(given, y_pred, self.names, argument)
        )
        return [
            [
                metrics_module.get_metric(one, target, output)
                for one in (tree.flatten(group) if group is not None else [])
                if one is not None
            ]
            for group, target, output in zip(per_output, y_true, flat, strict=True)
        ]

    @property
    def metrics(self) -> list[Any]:
        return [metric for group in (*self.plain, *self.weighted) for metric in group]

    def named(self) -> dict[str, Any]:
        """The metric objects by their names in the logs, in the order of `compile`.

        On a model with several outputs the output's name stands in front; of equal names the
        second gets `_1`, and a weighted one `weighted_`.
        """
        found: dict[str, Any] = {}
        seen: dict[str, int] = {}
        several = len(self.names) > 1

        def key(output: str, name: str) -> str:
            return f"{output}_{name}" if several else name

        for is_weighted, groups in ((False, self.plain), (True, self.weighted)):
            for output, group in zip(self.names, groups, strict=False):
                for metric in group:
                    name = key(output, metric.name)
                    if name in seen and is_weighted:
                        weighted = f"weighted_{metric.name}"
                        name = key(output, weighted)
                    if name in seen:
                        seen[name] += 1
                        name = f"{name}_{seen[name] - 1}"
                    else:
                        seen[name] = 1
                    found[name] = metric
        return found

    def update_state(self, targets: list[Any] | None, y_pred: Any, sample_weight: Any) -> None:
        """Let every metric see a batch.

        targets   one for each flat output, None where there is none; or None without any
        """
        if not self.given and not self.given_weighted:
            return
        self.names = output_names(y_pred, self.model_names)
        targets = targets or [None] * len(self.names)
        if not self.built:
            self.build(targets, y_pred)
        flat = tree.flatten(y_pred)
        weights = align(sample_weight, y_pred, self.names, "sample_weight", spread=True)
        for place, (group, weighted) in enumerate(zip(self.plain, self.weighted, strict=True)):
            if (group or weighted) and targets[place] is None:
                raise StructureError(
                    f"y: there is no target for the output {self.names[place]!r}, "
                    "which has metrics."
                )
            for metric in group:
                metric.update_state(targets[place], flat[place])
            for metric in weighted:
                metric.update_state(targets[place], flat[place], sample_weight=weights[place])
