"""Lists of different lengths become one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lamina.errors import ShapeError, layout

SIDES = ("pre", "post")


def pad_sequences(
    sequences: Sequence[Any],
    maxlen: int | None = None,
    dtype: str = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: float | str = 0.0,
) -> np.ndarray:
    """Make sequences equally long: short ones are padded, long ones cut.

    sequences   N lists of numbers, or of arrays that have one shape
    maxlen      the length; by default that of the longest
    padding     "pre" or "post": where `value` is put
    truncating  "pre" or "post": where a sequence longer than `maxlen` is cut
    returns     (N, maxlen, ...) of `dtype`
    raises      ShapeError for something that is not a sequence of sequences

    >>> pad_sequences([[1], [2, 3], [4, 5, 6]], maxlen=2)
    array([[0, 1],
           [2, 3],
           [5, 6]], dtype=int32)
    """
    for name, side in (("padding", padding), ("truncating", truncating)):
        if side not in SIDES:
            raise ValueError(f"pad_sequences: {name} must be 'pre' or 'post', got {side!r}")
    for place, row in enumerate(sequences):
        if not hasattr(row, "__len__"):
            raise ShapeError(
                layout(
                    "pad_sequences: expected a list of sequences.",
                    [("got", f"{type(row).__name__} at place {place}")],
                    hint="put a single sequence into a list",
                )
            )
    length = max((len(row) for row in sequences), default=0) if maxlen is None else maxlen
    arrays = [np.asarray(row) for row in sequences]
    inner = next((array.shape[1:] for array in arrays if len(array)), ())
    kind: Any = object if isinstance(value, str) and dtype == "object" else dtype
    result = np.full((len(arrays), length, *inner), value, dtype=kind)
    for place, array in enumerate(arrays):
        if not len(array) or not length:
            continue
        kept = array[-length:] if truncating == "pre" else array[:length]
        if kept.shape[1:] != inner:
            raise ShapeError(
                f"pad_sequences: sequence {place} holds items of shape {kept.shape[1:]}, "
                f"the ones before it of shape {inner}"
            )
        if padding == "post":
            result[place, : len(kept)] = kept
        else:
            result[place, length - len(kept) :] = kept
    return result
