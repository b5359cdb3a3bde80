"""What a layer expects of its inputs, and the errors for what it gets instead."""

from __future__ import annotations

import math
from typing import Any

from lamina import tree
from lamina.errors import ShapeError, layout
from lamina.tensor.values import where_called
from lamina.types import Batch


class InputSpec:
    """Expected rank, shape, dtype and sizes of axes of one input; None leaves a thing open.

    shape      the whole shape, None for sizes that may be anything
    ndim       the number of axes; or bounds: min_ndim, max_ndim
    axes       {axis: size} for axes that must have a size
    """

    def __init__(
        self,
        dtype: str | None = None,
        shape: Any = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: dict[int, int | None] | None = None,
        allow_last_axis_squeeze: bool = False,
        name: str | None = None,
        optional: bool = False,
    ) -> None:
        self.dtype = dtype
        self.shape = None if shape is None else tuple(shape)
        exact = min_ndim if min_ndim == max_ndim else None
        self.ndim = len(self.shape) if self.shape is not None else exact if ndim is None else ndim
        self.max_ndim = max_ndim
        self.min_ndim = min_ndim
        self.axes = {int(axis): size for axis, size in (axes or {}).items()}
        self.allow_last_axis_squeeze = allow_last_axis_squeeze
        self.name = name
        self.optional = optional

    def __repr__(self) -> str:
        known = {key: value for key, value in vars(self).items() if value}
        return f"InputSpec({', '.join(f'{key}={value!r}' for key, value in known.items())})"

    def get_config(self) -> dict[str, Any]:
        return {
            name: getattr(self, name)
            for name in ("dtype", "shape", "ndim", "max_ndim", "min_ndim", "axes")
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InputSpec:
        return cls(**config)


def described(x: Any) -> str:
    """dtype and shape of a tensor, for messages: "float32 (32, 28, 28)"."""
    sizes = ", ".join(str(size) for size in x.shape)
    return f"{x.dtype} ({sizes})"


def check(layer: Any, spec: Any, inputs: Any) -> None:
    """Raise ShapeError unless `inputs` are what the layer's `input_spec` says."""
    if spec is None:
        return
    specs = tree.flatten(spec)
    tensors = tree.flatten(inputs)
    if isinstance(spec, dict) and isinstance(inputs, dict):
        specs = [spec[key] for key in spec]
        tensors = [inputs.get(key) for key in spec]
    if len(specs) != len(tensors):
        raise ShapeError(
            layout(
                f"{layer.name}: expected {len(specs)} inputs, got {len(tensors)}.",
                [(f"input {i + 1}", described(x)) for i, x in enumerate(tensors) if x is not None],
            )
        )
    for one, x in zip(specs, tensors, strict=True):
        if one is None or x is None or not hasattr(x, "shape"):
            continue
        problem, hint = _problem(one, tuple(x.shape), x)
        if problem:
            details = [("inputs", described(x)), *_weights(layer), *where_called()]
            raise ShapeError(layout(f"{layer.name}: {problem}", details, hint=hint))


def _weights(layer: Any) -> list[tuple[str, str]]:
    found = [weight for weight in getattr(layer, "weights", []) if weight.name == "kernel"]
    return [("kernel", f"{w.dtype} {w.shape}, built from an earlier call") for w in found[:1]]


def _problem(spec: InputSpec, shape: tuple[Any, ...], x: Any) -> tuple[str, str]:
    """(what is wrong, what to do about it), or two empty strings."""
    rank = len(shape)
    if spec.allow_last_axis_squeeze and spec.shape is not None:
        if shape and shape[-1] == 1 and len(spec.shape) == rank - 1:
            shape, rank = shape[:-1], rank - 1
        elif spec.shape and spec.shape[-1] == 1 and len(spec.shape) == rank + 1:
            return "", ""
    if spec.ndim is not None and rank != spec.ndim:
        return f"expected {spec.ndim} axes, got {rank}.", _rank_hint(rank, spec.ndim)
    if spec.max_ndim is not None and rank > spec.max_ndim:
        return f"expected at most {spec.max_ndim} axes, got {rank}.", ""
    if spec.min_ndim is not None and rank < spec.min_ndim:
        return f"expected at least {spec.min_ndim} axes, got {rank}.", _rank_hint(
            rank, spec.min_ndim
        )
    if spec.dtype is not None and x.dtype != spec.dtype:
        return f"expected {spec.dtype}, got {x.dtype}.", ""
    for axis, size in spec.axes.items():
        if -rank <= axis < rank and not _fits(shape[axis], size):
            last = axis % rank == rank - 1
            if last:
                return (
                    f"expected {size} features on the last axis, got {shape[axis]}.",
                    _flatten_hint(shape, size),
                )
            return f"expected size {size} on axis {axis}, got {shape[axis]}.", ""
    if spec.shape is not None:
        for axis, (size, given) in enumerate(zip(spec.shape, shape, strict=True)):
            if axis and not _fits(given, size):
                return f"expected the shape {spec.shape}, got {shape}.", ""
    return "", ""


def _fits(given: Any, wanted: Any) -> bool:
    return wanted is None or given is None or isinstance(given, Batch) or given == wanted


def _rank_hint(given: int, wanted: int) -> str:
    if given == wanted - 1:
        return (
            "one axis is missing: a batch axis in front (x[None]) or channels behind (x[..., None])"
        )
    return ""


def _flatten_hint(shape: tuple[Any, ...], size: Any) -> str:
    inner = [s for s in shape[1:] if isinstance(s, int)]
    if len(inner) == len(shape) - 1 and len(inner) > 1 and math.prod(inner) == size:
        return f"flattening the input gives {size} features: add Flatten() before this layer"
    return ""
