"""The `loss` argument of `compile`, resolved against the outputs of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lamina import losses as losses_module
from lamina import metrics as metrics_module
from lamina import ops, tree
from lamina.errors import BatchError, LaminaError, ShapeError, layout, near_matches


class StructureError(LaminaError, ValueError, KeyError):
    """Losses, metrics, weights or targets do not fit the outputs of the model."""

    __str__ = Exception.__str__  # KeyError would print the message quoted


def output_names(y_pred: Any, names: Sequence[str] | None) -> list[str]:
    """A name for each flat output: dict keys, else the model's own names, else numbers.

    >>> output_names({"b": 1, "a": 2}, None)
    ['a', 'b']
    """
    paths = [path for path, _ in tree.flatten_with_path(y_pred)]
    if isinstance(y_pred, dict):
        return ["/".join(map(str, path)) for path in paths]
    if names and len(names) == len(paths):
        return list(names)
    return [f"output_{index}" for index in range(len(paths))]


def align(
    given: Any, y_pred: Any, names: Sequence[str], what: str, *, spread: bool = False
) -> list[Any]:
    """One entry of `given` for each flat output of the model; None where there is none.

    given    a dict by output name, a list in the order of the outputs, the outputs' own nesting,
             or one entry for a model with one output
    spread   one entry stands for every output
    raises   StructureError that names what does not fit
    """
    count = len(names)
    if given is None:
        return [None] * count
    if not tree.is_nested(given):
        if spread or count == 1:
            return [given] * count
        raise StructureError(_misfit(what, given, names))
    if isinstance(given, dict) and (not isinstance(y_pred, dict) or set(given) <= set(names)):
        unknown = [key for key in given if key not in names]
        if unknown:
            raise StructureError(
                layout(
                    f"{what}: the model has no output {unknown[0]!r}."
                    f"{near_matches(str(unknown[0]), names)}",
                    [("outputs", ", ".join(names))],
                )
            )
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)) and len(given) == count:
        return list(given)
    flat = tree.flatten(given)
    if len(flat) == count and tree.is_nested(y_pred):
        return flat
    raise StructureError(_misfit(what, given, names))


def _misfit(what: str, given: Any, names: Sequence[str]) -> str:
    size = f"{type(given).__name__} of {len(given)}" if tree.is_nested(given) else "one value"
    return layout(
        f"{what} must have one entry for each output of the model.",
        [("outputs", ", ".join(names)), ("got", size)],
        hint=f"give a list of {len(names)}, or a dict by output name",
    )


@dataclass
class OutputLoss:
    """The loss of one output: its function, its weight, and the tracker of its mean."""

    place: int
    function: Callable[..., Any]
    weight: float | None
    tracker: Any


class CompiledLoss:
    """The total loss: each output's loss by its weight. Resolved when the shapes are first known.

    loss           a string, function or Loss, or a list, dict or nesting of them
    loss_weights   a number, or numbers nested like `loss`
    """

    def __init__(self, loss: Any, loss_weights: Any, names: Sequence[str] | None) -> None:
        for leaf in tree.flatten(loss):
            if not (isinstance(leaf, str) and leaf.lower() in losses_module.CHOSEN_BY_SHAPE):
                losses_module.get(leaf)  # a misspelt name is told at once
        if loss_weights is not None and not isinstance(
            loss_weights, (list, tuple, dict, float, int)
        ):
            raise TypeError(
                "loss_weights is a number, or a list or dict of numbers, "
                f"got {type(loss_weights).__name__}."
            )
        self.loss = loss
        self.loss_weights = loss_weights
        self.model_names = names
        self.parts: list[OutputLoss] | None = None
        self.names: list[str] = []

    @property
    def metrics(self) -> list[Any]:
        """The means of the single losses, where there are several."""
        return [part.tracker for part in self.parts or [] if part.tracker is not None]

    def build(self, y_true: list[Any], y_pred: Any) -> None:
        """Resolve strings by the shapes; `y_true` stands in the order of the flat outputs."""
        flat = tree.flatten(y_pred)
        given = align(self.loss, y_pred, self.names, "loss", spread=True)
        weights = align(self.loss_weights, y_pred, self.names, "loss_weights", spread=True)
        several = sum(one is not None for one in given) > 1
        places = list(range(len(given)))
        if isinstance(self.loss, dict) and isinstance(y_pred, dict):
            # Keras lists the single losses in the order of the dict.
            places = [self.names.index(name) for name in self.loss if name in self.names]
        self.parts = [
            OutputLoss(
                place,
                losses_module.get_loss(one, y_true[place], flat[place]),
                weights[place],
                metrics_module.Mean(name=f"{self.names[place]}_loss") if several else None,
            )
            for place in places
            if (one := given[place]) is not None
        ]

    def targets(self, y_true: Any, y_pred: Any) -> list[Any]:
        """A target for each flat output; outputs without a loss may be left out."""
        self.names = output_names(y_pred, self.model_names)
        given = align(self.loss, y_pred, self.names, "loss", spread=True)
        wanted = [place for place, one in enumerate(given) if one is not None]
        flat = tree.flatten(y_true)
        if len(flat) == len(wanted) < len(given) and not isinstance(y_true, dict):
            targets: list[Any] = [None] * len(given)
            for place, target in zip(wanted, flat, strict=True):
                targets[place] = target
        else:
            targets = align(y_true, y_pred, self.names, "y")
        for place in wanted:
            if targets[place] is None:
                raise StructureError(
                    layout(
                        f"y: there is no target for the output {self.names[place]!r}.",
                        [("outputs", ", ".join(self.names))],
                        hint="pass y to fit, or set that output's loss to None",
                    )
                )
        return targets

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any, rows: Any) -> Any:
        """The total loss, a scalar; None where no output has a loss.

        rows   how many samples the batch holds, by which the trackers weigh it
        """
        targets = self.targets(y_true, y_pred)
        if self.parts is None:
            self.build(targets, y_pred)
        weights = align(sample_weight, y_pred, self.names, "sample_weight", spread=True)
        flat = tree.flatten(y_pred)
        total: Any = None
        for part in self.parts or ():
            place = part.place
            value = self._value(part, targets[place], flat[place], weights[place])
            value = ops.cast(value, "float32")
            if part.tracker is not None:
                part.tracker.update_state(value, sample_weight=rows)
            if part.weight is not None:
                value = value * part.weight
            total = value if total is None else total + value
        return total

    def _value(self, part: OutputLoss, y_true: Any, y_pred: Any, weight: Any) -> Any:
        try:
            return part.function(y_true, y_pred, weight)
        except BatchError:
            raise
        except ShapeError as error:
            raise ShapeError(
                layout(
                    f"the targets do not fit the output {self.names[part.place]!r}.",
                    [
                        ("loss", getattr(part.function, "name", "") or str(part.function)),
                        ("y", _described(y_true)),
                        ("output", _described(y_pred)),
                        *([("weights", _described(weight))] if weight is not None else []),
                        ("because", str(error).splitlines()[0]),
                    ],
                    hint="\n           ".join(
                        line.removeprefix("  hint     ")
                        for line in str(error).splitlines()
                        if line.startswith("  hint")
                    ),
                )
            ) from error


def _described(value: Any) -> str:
    leaves = tree.flatten(value)
    return ", ".join(f"{leaf.dtype} ({', '.join(map(str, leaf.shape))})" for leaf in leaves)
