"""Small helpers around training, under Keras's names."""

from __future__ import annotations

import math
import random as python_random
from collections.abc import Iterable
from typing import Any

import numpy as np

from lamina import config, naming, random, tree
from lamina.data import PyDataset, as_arrays, is_array_data, pack_data, unpack_data
from lamina.errors import DtypeError, layout
from lamina.preprocessing.image import array_to_img, img_to_array, load_img, save_img
from lamina.preprocessing.sequence import pad_sequences
from lamina.progress import Progress
from lamina.serialization import (
    custom_object_scope,
    deserialize_keras_object,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
    serialize_keras_object,
)
from lamina.types import numpy_dtype

CustomObjectScope = custom_object_scope
Sequence = PyDataset

__all__ = [
    "CustomObjectScope",
    "Progbar",
    "PyDataset",
    "Sequence",
    "array_to_img",
    "clear_session",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "img_to_array",
    "load_img",
    "normalize",
    "pack_x_y_sample_weight",
    "pad_sequences",
    "register_keras_serializable",
    "save_img",
    "serialize_keras_object",
    "set_random_seed",
    "split_dataset",
    "timeseries_dataset_from_array",
    "to_categorical",
    "unpack_x_y_sample_weight",
]


def set_random_seed(seed: int) -> None:
    """Seed Python's, NumPy's and lamina's own generators: the same seed gives the same run.

    seed     0 to 2**32 - 1
    raises   ValueError for a seed outside that range
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise DtypeError(f"a seed is a whole number, got {type(seed).__name__}.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"a seed is between 0 and 2**32 - 1, got {seed}.")
    python_random.seed(int(seed))
    np.random.seed(int(seed))
    random.set_seed(int(seed))


def clear_session(free_memory: bool = True) -> None:
    """Number the names of layers anew, from `dense` on. Models keep what they have."""
    del free_memory
    naming.reset_unique_names()


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Class numbers as one-hot rows of the default float type.

    x            integers in [0, num_classes), any shape; a last axis of size one is dropped
    num_classes  default: the largest number plus one
    returns      the shape of x, and an axis of num_classes
    raises       ValueError that names the first number outside the range

    >>> to_categorical([0, 2])
    array([[1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    labels = np.asarray(x)
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.floor(labels)):
        raise DtypeError("to_categorical: class numbers are whole numbers, these are not.")
    if labels.dtype.kind not in "fiub":
        raise DtypeError(f"to_categorical: class numbers are integers, got {labels.dtype}.")
    labels = labels.astype(np.int64)
    shape = labels.shape
    if len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    flat = labels.reshape(-1)
    if num_classes is None:
        num_classes = int(flat.max()) + 1 if flat.size else 0
    outside = (flat < 0) | (flat >= num_classes)
    if outside.any():
        place = int(np.argmax(outside))
        raise ValueError(
            layout(
                f"to_categorical: the class number {flat[place]} at position {place} is outside "
                f"0 to {num_classes - 1}.",
                [("classes", str(num_classes))],
                hint="give a larger num_classes, or check whether classes count from 0",
            )
        )
    rows = np.zeros((flat.size, num_classes), numpy_dtype(config.floatx()))
    rows[np.arange(flat.size), flat] = 1
    return rows.reshape((*shape, num_classes))


def normalize(x: Any, axis: int = -1, order: float = 2) -> np.ndarray:
    """Scale vectors along `axis` to norm 1; vectors of zeros stay.

    >>> normalize(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    array = np.asarray(x)
    length = np.atleast_1d(np.linalg.norm(array, order, axis, keepdims=True))
    length[length == 0] = 1
    return np.asarray(array / length)


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """What a generator yields: x alone, (x, y) or (x, y, sample_weight).

    >>> pack_x_y_sample_weight(1, 2)
    (1, 2)
    """
    if y is None and sample_weight is None:
        return (x,) if tree.is_nested(x) else x
    return pack_data(x, y, sample_weight)


def unpack_x_y_sample_weight(data: Any) -> tuple[Any, Any, Any]:
    """x, y and sample_weight of what a generator yields; absent parts are None.

    >>> unpack_x_y_sample_weight((1, 2))
    (1, 2, None)
    """
    return unpack_data(data)


def split_dataset(
    dataset: Any,
    left_size: float | None = None,
    right_size: float | None = None,
    shuffle: bool = False,
    seed: int | None = None,
) -> tuple[Any, Any]:
    """Cut arrays (or nested arrays, or a list of samples) in two along their first axis.

    left_size, right_size   numbers of samples, or shares between 0 and 1; one may be left out
    shuffle, seed           mix the samples first
    """
    arrays = as_arrays(dataset, "dataset") if is_array_data(dataset) else None
    samples = list(dataset) if arrays is None else None
    total = len(samples) if samples is not None else len(tree.flatten(arrays)[0])
    left, right = _sizes(total, left_size, right_size)
    order = np.random.default_rng(seed).permutation(total) if shuffle else np.arange(total)
    parts = order[:left], order[total - right :] if shuffle else order[left : left + right]
    if samples is not None:
        return tuple([samples[i] for i in part] for part in parts)  # type: ignore[return-value]
    first, second = (
        tree.map_structure(lambda leaf, part=part: leaf[part], arrays) for part in parts
    )
    return first, second


def _sizes(total: int, left: float | None, right: float | None) -> tuple[int, int]:
    def absolute(size: float | None) -> int | None:
        if size is None:
            return None
        if isinstance(size, float) and not 0.0 < size < 1.0:
            raise ValueError(f"split_dataset: a share lies between 0 and 1, got {size}.")
        return round(size * total) if isinstance(size, float) else int(size)

    first, second = absolute(left), absolute(right)
    if first is None and second is None:
        raise ValueError("split_dataset: give left_size, right_size or both.")
    first = total - (second or 0) if first is None else first
    second = total - first if second is None else second
    if first < 0 or second < 0 or first + second > total:
        raise ValueError(f"split_dataset: {total} samples cannot give {first} and {second}.")
    return first, second


class _Windows(PyDataset):
    """Batches of windows over a series."""

    def __init__(
        self, data: np.ndarray, targets: Any, starts: np.ndarray, span: np.ndarray, size: int
    ) -> None:
        super().__init__()
        self.data, self.targets, self.starts = data, targets, starts
        self.span, self.size = span, size

    def __len__(self) -> int:
        return math.ceil(len(self.starts) / self.size)

    def __getitem__(self, index: int) -> Any:
        starts = self.starts[index * self.size : (index + 1) * self.size]
        windows = self.data[starts[:, None] + self.span]
        return (windows,) if self.targets is None else (windows, self.targets[starts])


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
) -> PyDataset:
    """Windows over a series as batches for `fit`.

    data              (T, ...) the series
    targets           (T, ...) or None; the target of a window is the one at its first step
    sequence_length   steps in a window, `sampling_rate` apart
    sequence_stride   steps between the starts of two windows
    """
    series = np.asarray(data)
    first, end = start_index or 0, len(series) if end_index is None else end_index
    last_start = end - (sequence_length - 1) * sampling_rate
    if targets is not None:
        targets = np.asarray(targets)
        last_start = min(last_start, first + len(targets))
    starts = np.arange(first, max(first, last_start), sequence_stride)
    if shuffle:
        starts = np.random.default_rng(seed).permutation(starts)
    return _Windows(series, targets, starts, np.arange(sequence_length) * sampling_rate, batch_size)


class Progbar:
    """A progress bar for loops of one's own.

    target              the number of steps, or None
    verbose             0 silent, 1 a bar on a terminal and a line elsewhere, 2 a line
    stateful_metrics    names whose last value is shown; of others the mean over the steps
    """

    def __init__(
        self,
        target: int | None,
        width: int = 20,
        verbose: int = 1,
        interval: float = 0.05,
        stateful_metrics: Iterable[str] | None = None,
        unit_name: str = "step",
    ) -> None:
        del width, interval
        self.target = target
        self.stateful_metrics = set(stateful_metrics or ())
        self._progress = Progress("", target, verbose, unit=unit_name)
        self._progress.start()
        self._sums: dict[str, tuple[float, float]] = {}
        self._seen = 0
        self._finished = False

    def update(
        self,
        current: int,
        values: Iterable[tuple[str, Any]] | None = None,
        finalize: bool | None = None,
    ) -> None:
        """`current` steps are done; `values` are pairs of a name and the value of these steps."""
        for name, value in values or ():
            steps = max(current - self._seen, 1)
            total, count = self._sums.get(name, (0.0, 0.0))
            if name in self.stateful_metrics:
                total, count = 0.0, 0.0
                steps = 1
            self._sums[name] = total + float(value) * steps, count + steps
        self._seen = current
        logs = {name: total / count for name, (total, count) in self._sums.items()}
        self._progress.update(current, logs)
        ended = self.target is not None and current >= self.target
        if (ended if finalize is None else finalize) and not self._finished:
            self._finished = True
            self._progress.finish(logs)

    def add(self, n: int, values: Iterable[tuple[str, Any]] | None = None) -> None:
        """`n` more steps are done."""
        self.update(self._seen + n, values)
