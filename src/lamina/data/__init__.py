"""Data for training: arrays in memory, and objects that yield batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lamina.data.arrays import (
    DEFAULT_BATCH_SIZE,
    ArraySource,
    UnrecognizedDataError,
    as_array,
    as_arrays,
    is_array_data,
    pack_data,
    sample_weights_of_classes,
    train_validation_split,
    unpack_data,
)
from lamina.data.batches import (
    BatchSource,
    as_batch,
    check_batch_arguments,
    is_batch_data,
    unusable,
)
from lamina.data.dataset import PyDataset
from lamina.errors import layout

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "ArraySource",
    "BatchSource",
    "PyDataset",
    "Source",
    "UnrecognizedDataError",
    "as_array",
    "as_arrays",
    "as_batch",
    "is_array_data",
    "pack_data",
    "sample_weights_of_classes",
    "source_of",
    "train_validation_split",
    "unpack_data",
]

Source = ArraySource | BatchSource


def __getattr__(name: str) -> Any:
    if name in ("Dataset", "AUTOTUNE", "TFRecordDataset", "TextLineDataset"):
        raise AttributeError(
            layout(
                f"module 'lamina.data' has no attribute {name!r}.",
                hint="instead of tf.data, give fit arrays (it shuffles and batches them), "
                "a PyDataset, or a generator of batches",
            ),
            name=name,
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def source_of(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool | str = False,
    class_weight: Mapping[int, float] | None = None,
) -> Source:
    """The source of batches that the arguments of `fit` and its like mean.

    raises   UnrecognizedDataError, ShapeError, ValueError: each names the argument
    """
    if x is None:
        raise ValueError("x is missing: no data was given.")
    if not isinstance(x, np.ndarray) and is_batch_data(x):
        check_batch_arguments(y, sample_weight)
        return BatchSource(x, steps=steps, shuffle=shuffle, class_weight=class_weight)
    if not is_array_data(x):
        raise unusable(x)
    return ArraySource(
        x,
        y,
        sample_weight,
        batch_size=batch_size,
        steps=steps,
        shuffle=shuffle,
        class_weight=class_weight,
    )
