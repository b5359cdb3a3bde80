"""Batches that come one by one: generators, PyDatasets, loaders of other libraries."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lamina import tree
from lamina.data.arrays import (
    UnrecognizedDataError,
    as_arrays,
    is_array_data,
    pack_data,
    path_name,
    sample_weights_of_classes,
    unpack_data,
)
from lamina.data.dataset import PyDataset
from lamina.errors import ShapeError, layout

RAN_OUT = (
    "Your input ran out of data; interrupting training. Make sure that your dataset or generator "
    "can generate at least `steps_per_epoch * epochs` batches."
)


def as_batch(data: Any, class_weight: Mapping[int, float] | None = None) -> tuple[Any, ...]:
    """A batch as (x,), (x, y) or (x, y, sample_weight) of arrays with equally many rows.

    A Python number as a target, as small generators yield, is no array and is refused.
    """
    x, y, sample_weight = unpack_data(data)
    x, y = as_arrays(_listed(x), "x"), as_arrays(_listed(y), "y")
    sample_weight = as_arrays(_listed(sample_weight), "sample_weight")
    if class_weight is not None and sample_weight is None:
        sample_weight = sample_weights_of_classes(y, class_weight)
    packed = pack_data(x, y, sample_weight)
    rows = {
        path_name(("x", "y", "sample_weight")[path[0]], path[1:]): len(leaf)
        for path, leaf in tree.flatten_with_path(packed)
        if leaf is not None
    }
    if len(set(rows.values())) > 1:
        raise ShapeError(
            layout(
                "the arrays of a batch hold different numbers of samples.",
                [(name, str(count)) for name, count in rows.items()],
            )
        )
    return packed


def _listed(structure: Any) -> Any:
    """Rows given as lists of numbers, as simple generators yield them, made arrays."""
    numbers = isinstance(structure, list) and all(
        isinstance(value, (bool, int, float, np.number)) for value in structure
    )
    return np.asarray(structure) if numbers and structure else structure


class BatchSource:
    """An object that yields batches, walked once an epoch.

    steps   steps in one epoch, or None until the first pass has shown it
    """

    def __init__(
        self,
        data: Any,
        *,
        steps: int | None = None,
        shuffle: bool | str = False,
        class_weight: Mapping[int, float] | None = None,
    ) -> None:
        self.data = data
        self.requested_steps = steps
        self.class_weight = class_weight
        self.shuffle = shuffle
        self.one_shot = isinstance(data, Iterator)
        self.known_length = _length_of(data)
        self._running: Iterator[Any] | None = None
        self._first: list[Any] = []

    @property
    def steps(self) -> int | None:
        return self.requested_steps or self.known_length

    def first_batch(self) -> Any:
        """The first batch, kept to be the first of the first epoch too."""
        if not self._first:
            self._running = self._iterator()
            try:
                self._first.append(as_batch(next(self._running), self.class_weight))
            except StopIteration:
                raise ShapeError("the data is empty: it yielded no batch.") from None
        return self._first[0]

    def _iterator(self) -> Iterator[Any]:
        if isinstance(self.data, PyDataset):
            count = self.data.num_batches
            if count is None:
                return self.data.batches_in(_Endless())  # type: ignore[arg-type]
            order = np.random.permutation(count) if self.shuffle else np.arange(count)
            return self.data.batches_in([int(index) for index in order])
        return iter(self.data)

    def epoch(self) -> Iterator[tuple[Any, ...]]:
        """The batches of one epoch.

        With `steps` given, epochs continue where the last one stopped, and a source that ends
        within an epoch is warned of; without, an epoch is one whole pass.
        """
        if isinstance(self.data, PyDataset):
            self.data.on_epoch_begin()
        running = self._running if self._running is not None else self._iterator()
        self._running = None
        kept, self._first = self._first, []
        produced = 0
        stream = itertools.chain(kept, (as_batch(one, self.class_weight) for one in running))
        for batch in itertools.islice(stream, self.requested_steps):
            produced += 1
            yield batch
        if self.requested_steps:
            if produced < self.requested_steps:
                warnings.warn(RAN_OUT, stacklevel=2)
            elif self.known_length is None or self.one_shot:
                self._running = running
            else:
                self._running = self._unless_finished(running)
        elif self.known_length is None and not self.one_shot:
            self.known_length = produced
        if isinstance(self.data, PyDataset):
            self.data.on_epoch_end()

    def _unless_finished(self, running: Iterator[Any]) -> Iterator[Any] | None:
        """The iterator if it has another batch (which is kept), else None for a new pass."""
        try:
            self._first = [as_batch(next(running), self.class_weight)]
        except StopIteration:
            return None
        return running


class _Endless:
    def __iter__(self) -> Iterator[int]:
        return itertools.count()


def _length_of(data: Any) -> int | None:
    if isinstance(data, PyDataset):
        return data.num_batches
    try:
        return len(data)
    except TypeError:
        return None


def is_batch_data(data: Any) -> bool:
    """Whether this yields batches: an iterable that is no array and no list or dict of arrays."""
    if isinstance(data, (PyDataset, Iterator)):
        return True
    if tree.is_nested(data) or is_array_data(data):
        return False
    return hasattr(data, "__iter__")


def check_batch_arguments(y: Any, sample_weight: Any) -> None:
    """Raise ValueError if y or sample_weight come beside data that yields batches."""
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise ValueError(
                layout(
                    f"{name} cannot be given beside data that yields batches.",
                    hint="let it yield tuples (x, y) or (x, y, sample_weight)",
                )
            )


def unusable(data: Any) -> UnrecognizedDataError:
    """The exception for data of a kind that lamina cannot walk."""
    return UnrecognizedDataError(
        layout(
            f"Unrecognized data type: {type(data).__name__}.",
            hint="pass NumPy arrays, lists or dicts of arrays, a generator of batches, "
            "or a PyDataset",
        )
    )
