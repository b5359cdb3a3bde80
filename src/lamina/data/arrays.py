"""Arrays in memory: what users pass as x, y and weights, as contiguous NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lamina import tree
from lamina.errors import DtypeError, ShapeError, layout
from lamina.types import DTYPES, dtype_name

DEFAULT_BATCH_SIZE = 32


class UnrecognizedDataError(DtypeError, ValueError):
    """Data of a kind that cannot be used; the message names the argument and the remedy."""


def is_array(value: object) -> bool:
    """Whether the value is an array of any library, or a data frame: it has a shape and a type."""
    return isinstance(value, np.ndarray) or (
        hasattr(value, "shape")
        and (hasattr(value, "__array__") or hasattr(value, "numpy") or hasattr(value, "to_numpy"))
    )


def as_array(value: Any, name: str) -> np.ndarray:
    """One array, contiguous and in this machine's byte order, without a copy where possible.

    value    an array of NumPy, lamina, JAX, PyTorch or TensorFlow, or a pandas object
    name     how messages call it: "x", "y['mask']"
    raises   UnrecognizedDataError for lists of numbers, objects, text and other kinds
    """
    if type(value) is np.ndarray and _is_ready(value):
        return value
    if not is_array(value):
        raise UnrecognizedDataError(_unrecognized(value, name))
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "to_numpy"):
        array = value.to_numpy()
    elif hasattr(value, "detach"):
        array = value.detach().cpu().numpy()
    else:
        array = np.asarray(value)
    if array.dtype.name not in DTYPES:
        array = _known_dtype(array, name)
    if array.ndim == 0:
        raise ShapeError(
            layout(
                f"{name}: expected an array whose first axis is the samples, got a single number.",
                hint="a batch of one sample is array[None]",
            )
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.ascontiguousarray(array)


def _is_ready(array: np.ndarray) -> bool:
    """Whether there is nothing to convert and nothing to object to, as in most calls."""
    dtype = array.dtype
    return (
        array.ndim > 0
        and array.flags.c_contiguous
        and dtype.isnative
        and dtype_name(dtype) in DTYPES
    )


def _known_dtype(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind == "O" and array.size:
        first = array.reshape(-1)[0]
        if isinstance(first, (bool, int, float, np.number, np.bool_)):
            raise UnrecognizedDataError(
                layout(
                    f"{name}: the array holds Python objects, not numbers.",
                    [("got", f"object {_shown(array.shape)}")],
                    hint="convert it, for example with array.astype('float32')",
                )
            )
        if isinstance(first, (list, tuple, np.ndarray)):
            raise UnrecognizedDataError(
                layout(
                    f"{name}: the rows have different lengths, so they are no array.",
                    [("got", f"object {_shown(array.shape)}")],
                    hint="make them equally long with lamina.utils.pad_sequences(rows)",
                )
            )
    if array.dtype.kind in "OSUT":
        hint = "turn text into numbers first, for example with layers.TextVectorization"
    elif array.dtype.kind == "c":
        hint = "split it into real and imaginary parts: np.stack([a.real, a.imag], -1)"
    elif array.dtype.kind in "mM":
        hint = "turn times into numbers first, for example with array.astype('int64')"
    elif array.dtype.kind == "f":
        return array.astype(np.float64)
    else:
        hint = "convert it to numbers first"
    raise UnrecognizedDataError(
        layout(
            f"{name}: arrays of dtype {array.dtype.name} cannot be used.",
            [("got", f"{array.dtype.name} {_shown(array.shape)}")],
            hint=hint,
        )
    )


def _unrecognized(value: Any, name: str) -> str:
    kind = type(value).__name__
    if isinstance(value, (bool, int, float, complex)):
        return layout(
            f"Unrecognized data type for {name}: {kind}; a list of numbers is not an array.",
            hint="pass np.array(...): a list is read as several inputs, each of them an array",
        )
    if isinstance(value, str):
        return layout(
            f"Unrecognized data type for {name}: str.",
            hint="turn text into numbers first, for example with layers.TextVectorization",
        )
    return layout(
        f"Unrecognized data type for {name}: {kind}.",
        hint="pass NumPy arrays, lists or dicts of arrays, a generator of batches, or a PyDataset",
    )


def _shown(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def path_name(argument: str, path: tuple[Any, ...]) -> str:
    """How messages call a part of an argument.

    >>> path_name("x", ("mask", 0))
    "x['mask'][0]"
    """
    return argument + "".join(f"[{key!r}]" for key in path)


def as_arrays(structure: Any, argument: str) -> Any:
    """The same nesting with every leaf made an array; None stays."""
    if structure is None:
        return None
    if not tree.is_nested(structure):
        return as_array(structure, argument)
    leaves = [
        None if value is None else as_array(value, path_name(argument, path))
        for path, value in tree.flatten_with_path(structure)
    ]
    return tree.pack(structure, leaves)


def is_array_data(structure: Any) -> bool:
    """Whether x is arrays in memory rather than something that yields batches."""
    if isinstance(structure, np.ndarray):
        return True
    leaves = tree.flatten(structure)
    return bool(leaves) and all(is_array(leaf) or _is_scalar(leaf) for leaf in leaves)


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, complex, str))


class ArraySource:
    """Samples held in memory, cut into batches of `batch_size`; the last batch may be short.

    template     (x, y, sample_weight) nested as given, trailing parts left out where None
    leaves       its arrays in the order of `tree.flatten`, None where a part is absent
    rows         the number of samples
    batch_size   samples a step
    shuffle      True: a new order each pass; "batch": a new order inside each batch
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int | None = None,
        steps: int | None = None,
        shuffle: bool | str = False,
        class_weight: Mapping[int, float] | None = None,
    ) -> None:
        x, y = as_arrays(x, "x"), as_arrays(y, "y")
        sample_weight = as_arrays(sample_weight, "sample_weight")
        if class_weight is not None:
            if sample_weight is not None:
                raise ValueError(
                    "class_weight and sample_weight cannot both be given: each decides how much "
                    "a sample counts."
                )
            sample_weight = sample_weights_of_classes(y, class_weight)
        self.template = pack_data(x, y, sample_weight)
        self.leaves: list[np.ndarray | None] = tree.flatten(self.template)
        self.rows = self._count_rows()
        self.batch_size = self._choose_batch_size(batch_size, steps)
        self.requested_steps = steps
        self.shuffle = shuffle

    def _count_rows(self) -> int:
        found = {len(leaf) for leaf in self.leaves if leaf is not None}
        if len(found) == 1 and 0 not in found:
            return found.pop()
        counts = {
            path_name(_ARGUMENTS[path[0]], path[1:]): len(leaf)
            for path, leaf in tree.flatten_with_path(self.template)
            if leaf is not None
        }
        if not counts:
            raise ValueError("x: no data was given.")
        if len(found) > 1:
            raise ShapeError(
                layout(
                    "Data cardinality is ambiguous: the arrays hold different numbers of samples.",
                    [(name, str(count)) for name, count in counts.items()],
                    hint="make sure all arrays contain the same number of samples (the first axis)",
                )
            )
        raise ShapeError(
            layout(
                "the data is empty: there are 0 samples.",
                [
                    (path_name(_ARGUMENTS[path[0]], path[1:]), _shown(leaf.shape))
                    for path, leaf in tree.flatten_with_path(self.template)
                    if leaf is not None
                ],
            )
        )

    def _choose_batch_size(self, batch_size: int | None, steps: int | None) -> int:
        if batch_size is None:
            batch_size = math.ceil(self.rows / steps) if steps else DEFAULT_BATCH_SIZE
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)):
            raise TypeError(f"batch_size is a whole number, got {type(batch_size).__name__}.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        return int(batch_size)

    @property
    def batches(self) -> int:
        """Batches in one pass over the samples."""
        return math.ceil(self.rows / self.batch_size)

    @property
    def steps(self) -> int:
        """Steps in one epoch."""
        return self.requested_steps or self.batches

    def order(self) -> np.ndarray | None:
        """The order of the samples in the next pass, int64, or None for the order they lie in.

        Drawn from NumPy's global generator, which `lamina.utils.set_random_seed` seeds.
        """
        if not self.shuffle:
            return None
        if self.shuffle == "batch":
            starts = range(0, self.rows, self.batch_size)
            parts = [
                np.random.permutation(min(self.batch_size, self.rows - start)) + start
                for start in starts
            ]
            return np.concatenate(parts).astype(np.int64, copy=False)
        return np.random.permutation(self.rows).astype(np.int64, copy=False)

    def first_batch(self) -> Any:
        """The first samples, nested like the data: what a model is built from."""
        return tree.map_structure(
            lambda leaf: None if leaf is None else leaf[: self.batch_size], self.template
        )


_ARGUMENTS = ("x", "y", "sample_weight")


def pack_data(x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, ...]:
    """(x,), (x, y) or (x, y, sample_weight)."""
    if sample_weight is not None:
        return x, y, sample_weight
    return (x,) if y is None else (x, y)


def unpack_data(data: Any) -> tuple[Any, Any, Any]:
    """x, y and sample_weight of a batch: a tuple or list of one to three parts, or x alone.

    raises   ValueError for more than three parts
    """
    if isinstance(data, list):
        data = tuple(data)
    if not isinstance(data, tuple):
        return data, None, None
    if len(data) > 3 or not data:
        raise ValueError(
            layout(
                f"a batch is (x,), (x, y) or (x, y, sample_weight), got a tuple of {len(data)}.",
                hint="several inputs are one list: yield ([a, b], y)",
            )
        )
    return (*data, None, None)[:3]


def sample_weights_of_classes(y: Any, class_weight: Mapping[int, float]) -> np.ndarray:
    """The weight of each sample's class, float32; a class that is not named counts 1.

    y            (N,) or (N, 1) class numbers, or (N, C) one-hot rows
    raises       ValueError where there is no single y, or the weights are not a dict
    """
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            f"class_weight is a dict from class to weight, got {type(class_weight).__name__}."
        )
    if y is None or tree.is_nested(y):
        raise ValueError("`class_weight` is only supported for Models with a single output.")
    if y.ndim > 1:
        y = np.argmax(y, axis=-1) if y.shape[-1] != 1 else np.squeeze(y, axis=-1)
    labels = np.round(y).astype(np.int32)
    present, position = np.unique(labels, return_inverse=True)
    weights = np.array([class_weight.get(int(label), 1.0) for label in present], np.float32)
    return weights[position].reshape(labels.shape)


def train_validation_split(
    arrays: tuple[Any, Any, Any], validation_split: float
) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """The first samples for training and the last `validation_split` of them for validation.

    raises   ValueError if the data is no array, or one side would be empty
    """
    if not 0.0 < validation_split < 1.0:
        raise ValueError(f"validation_split must be between 0 and 1, got {validation_split}.")
    names = dict(zip(_ARGUMENTS, arrays, strict=True))
    parts = [as_arrays(value, name) for name, value in names.items()]
    leaves = [leaf for leaf in tree.flatten(parts) if leaf is not None]
    rows = len(leaves[0]) if leaves else 0
    kept = math.floor(rows * (1.0 - validation_split))
    if kept in (0, rows):
        raise ValueError(
            layout(
                f"validation_split={validation_split} of {rows} samples leaves "
                f"{kept} for training and {rows - kept} for validation.",
                hint="use more data, another fraction, or validation_data",
            )
        )

    def cut(start: int, stop: int) -> tuple[Any, Any, Any]:
        x, y, weight = (
            tree.map_structure(lambda leaf: None if leaf is None else leaf[start:stop], part)
            for part in parts
        )
        return x, y, weight

    return cut(0, kept), cut(kept, rows)
