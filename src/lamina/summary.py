"""The table of a model's layers: coloured on a terminal, the same text elsewhere."""

from __future__ import annotations

import io
import itertools
import math
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lamina import tree
from lamina.errors import LaminaError
from lamina.layers.symbolic import OpOperation
from lamina.types import Batch, itemsize

STYLES = {"name": "", "type": "color(33)", "number": "color(34)", "none": "color(45)"}


def parameter_count(variables: Iterable[Any]) -> int:
    """The number of values in these variables, each counted once."""
    return sum(math.prod(v.shape) for v in {id(v): v for v in variables}.values())


def memory_size(variables: Iterable[Any]) -> int:
    """Their bytes."""
    unique = {id(v): v for v in variables}.values()
    return sum(math.prod(v.shape) * itemsize(str(v.dtype)) for v in unique)


def readable_size(size: float) -> str:
    """Bytes in the unit that fits, in steps of 1024.

    >>> readable_size(852), readable_size(4200000)
    ('852.00 B', '4.01 MB')
    """
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} PB"


def shape_text(shape: Sequence[Any]) -> str:
    """A shape with None where a dimension is not known before the run.

    >>> shape_text((None, 8))
    '(None, 8)'
    """
    return f"({', '.join('None' if isinstance(d, Batch) else str(d) for d in shape)})"


def output_shape_text(layer: Any) -> str:
    """The output shape of a layer, "?" where it has not been called."""
    nodes = getattr(layer, "_inbound_nodes", ())
    if nodes:
        outputs = nodes[-1].output_tensors if hasattr(nodes[-1], "output_tensors") else None
        if outputs is not None:
            shapes = [shape_text(tensor.shape) for tensor in tree.flatten(outputs)]
            return shapes[0] if len(shapes) == 1 else f"[{', '.join(shapes)}]"
    shape = _computed_shape(layer)
    if shape is None:
        return "?"
    if isinstance(shape, (list, tuple)) and shape and isinstance(shape[0], (list, tuple)):
        return f"[{', '.join(map(shape_text, shape))}]"
    if isinstance(shape, dict):
        return "{" + ", ".join(f"{key}: {shape_text(one)}" for key, one in shape.items()) + "}"
    return shape_text(shape)


def _class_text(layer: Any) -> str:
    """The class of a layer; for an op, what Keras calls its class."""
    if isinstance(layer, OpOperation):
        return "".join(part.title() for part in layer.function.__name__.split("_"))
    return type(layer).__name__


def _computed_shape(layer: Any) -> Any:
    given = getattr(layer, "_build_shapes", None)
    if not given or not layer.built:
        return None
    try:
        return layer.compute_output_shape(*given.values())
    except (LaminaError, NotImplementedError, TypeError, ValueError):
        return None  # the layer takes other arguments too, or says nothing of its output


def _rows(
    layers: Iterable[Any],
    connected: Callable[[Any], str] | None,
    depth: int,
    *,
    expand_nested: bool,
    show_trainable: bool,
) -> Iterable[list[str]]:
    for layer in layers:
        prefix = "   " * depth + "└ " if depth else ""
        built = getattr(layer, "built", True)
        own = getattr(layer, "weights", ())
        count = f"{parameter_count(own):,}" if built else "0 (unbuilt)"
        row = [
            f"{prefix}{layer.name} ({_class_text(layer)})",
            output_shape_text(layer),
            count,
        ]
        if connected is not None:
            row.append(connected(layer))
        if show_trainable:
            row.append(("Y" if layer.trainable else "N") if own else "-")
        yield row
        if expand_nested and getattr(layer, "layers", None):
            yield from _rows(
                layer.layers,
                connected,
                depth + 1,
                expand_nested=True,
                show_trainable=show_trainable,
            )


def _in_range(layers: list[Any], layer_range: Sequence[str] | None) -> list[Any]:
    if layer_range is None:
        return layers
    if len(layer_range) != 2 or not all(isinstance(name, str) for name in layer_range):
        raise ValueError("summary: layer_range is two layer names or patterns.")
    ends = [
        [i for i, layer in enumerate(layers) if re.match(pattern, layer.name)]
        for pattern in layer_range
    ]
    if not all(ends):
        raise ValueError(f"summary: no layer is called {layer_range[0]!r} or {layer_range[1]!r}.")
    places = [place for end in ends for place in end]
    return layers[min(places) : max(places) + 1]


def print_summary(
    model: Any,
    line_length: int | None = None,
    positions: Sequence[float] | None = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> None:
    """Print a table of the layers and the number of their weights.

    line_length    columns of text; default 88, 108 with connections, at most the terminal
    positions      ends of the columns as shares of the line
    print_fn       called once with the whole text, instead of printing
    expand_nested  show the layers of models inside
    layer_range    names or patterns of the first and last layer shown
    """
    import rich.console
    import rich.table
    import rich.text

    connections = getattr(model, "_connections", lambda: None)()
    header = ["Layer (type)", "Output Shape", "Param #"]
    width, ends = 88, [0.45, 0.80, 1.0]
    if connections is not None:
        header.append("Connected to")
        width, ends = 108, [0.3, 0.56, 0.74, 1.0]
    ends = list(positions or ends)
    if show_trainable:
        header.append("Trainable")
        width, ends = width + 12, [*(0.9 * end for end in ends), 1.0]
    width = line_length or min(width, shutil.get_terminal_size().columns - 4)
    bounds = [0, *(int(end * width) for end in ends)]
    if min(b - a for a, b in itertools.pairwise(bounds)) < 4:
        raise ValueError(f"summary: {width} columns are too few for {len(header)} columns.")
    table = rich.table.Table(width=width, show_lines=True)
    for name, start, end in zip(header, bounds, bounds[1:], strict=False):
        justify: Any = {"Param #": "right", "Trainable": "center"}.get(name, "left")
        table.add_column(name, justify=justify, width=end - start)
    listed = _in_range(list(model.layers), layer_range)
    if connections is not None:
        listed = _in_range(list(model._operations), layer_range)
    rows = _rows(
        listed,
        connections,
        0,
        expand_nested=expand_nested,
        show_trainable=show_trainable,
    )
    for row in rows:
        table.add_row(*(_coloured(cell, place) for place, cell in enumerate(row)))
    stream = io.StringIO() if print_fn is not None else None
    console = rich.console.Console(
        file=stream, highlight=False, width=max(width, 40) if stream is not None else None
    )
    console.print(rich.text.Text(f'Model: "{model.name}"', style="bold"))
    console.print(table)
    for label, variables in _totals(model):
        line = rich.text.Text(f" {label} params: ", style="bold")
        line.append(f"{parameter_count(variables):,}", style="not bold color(34)")
        line.append(f" ({readable_size(memory_size(variables))})", style="not bold")
        console.print(line)
    if print_fn is not None and stream is not None:
        print_fn(stream.getvalue())


def _coloured(cell: str, place: int) -> Any:
    import rich.text

    text = rich.text.Text(cell)
    if place == 0:
        text.highlight_regex(r"\(([^()]*)\)$", STYLES["type"])
    else:
        text.highlight_regex(r"\d[\d,]*", STYLES["number"])
        text.highlight_regex(r"None", STYLES["none"])
    return text


def _totals(model: Any) -> list[tuple[str, list[Any]]]:
    trainable = list(model.trainable_weights)
    fixed = list(model.non_trainable_weights)
    optimizer: Any = getattr(model, "optimizer", None)
    slots = list(optimizer.variables) if getattr(optimizer, "built", False) else None
    totals = [
        ("Total", [*trainable, *fixed, *(slots or [])]),
        ("Trainable", trainable),
        ("Non-trainable", fixed),
    ]
    return totals if slots is None else [*totals, ("Optimizer", slots)]
