"""Weights files in Keras's own layout, read without trusting what stands in them.

Every object with variables has a group `<path>/vars` with datasets `0`, `1`, ... The path is made
of attribute names; members of a list are named by their class and a number: `layers/dense_1/vars`.
What Keras does not keep, the state of random generators, stands apart in `lamina/state`, so that
a run continues from a file exactly as it would have without it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lamina.errors import FileFormatError, LaminaError, ShapeError, layout
from lamina.layers.layer import Layer
from lamina.layers.tracking import NOT_OWNED
from lamina.naming import to_snake_case
from lamina.types import numpy_dtype

# A dataset may take this many times its bytes on disk; more is a decompression bomb.
MAXIMUM_EXPANSION = 1100
UNCHECKED_BYTES = 1 << 26
EXTRA = "lamina/state"


class WeightsMismatchError(LaminaError, ValueError):
    """A weights file belongs to another model: which layer and which shapes is in the message."""


# ------------------------------------------------------------------------------------ walk


def is_saveable(value: Any) -> bool:
    """Whether the object keeps variables of its own in files: layers, optimizers, metrics."""
    return (
        not isinstance(value, type)
        and hasattr(value, "save_own_variables")
        and hasattr(value, "load_own_variables")
    )


def walk(saveable: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Every object with variables below `saveable`, itself first, with its path in the file."""
    seen = set() if seen is None else seen
    if id(saveable) in seen:
        return
    seen.add(id(saveable))
    yield path, saveable
    for name, child in _children(saveable):
        inner = f"{path}/{name}" if path else name
        if is_saveable(child):
            yield from walk(child, inner, seen)
        elif isinstance(child, (list, tuple, dict)):
            yield from _walk_container(child, inner, seen, set())


# Attributes that refer to other objects without owning them.
PASSED_OVER = NOT_OWNED - {"optimizer"} | {"_added", "_losses_of"}


def _children(saveable: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(saveable, "_keras_layers_first"):
        yield "layers", saveable.layers
    kind = type(saveable)
    hidden = PASSED_OVER | getattr(kind, "_not_saved", frozenset())
    names = {name for name in vars(saveable) if name not in hidden and not name.startswith("__")}
    # Keras finds inner layers by properties too: `query_dense` of a MultiHeadAttention.
    for base in kind.__mro__[: kind.__mro__.index(Layer)] if issubclass(kind, Layer) else ():
        if base.__module__.startswith("lamina.layers."):
            names.update(name for name, value in vars(base).items() if isinstance(value, property))
    # Private attributes come last.
    for name in sorted(names, key=lambda one: f"~{one}" if one.startswith("_") else one):
        yield name, getattr(saveable, name)


def _walk_container(
    container: Any, path: str, seen: set[int], inside: set[int]
) -> Iterator[tuple[str, Any]]:
    if id(container) in inside:
        return
    inside.add(id(container))
    used: dict[str, int] = {}
    for child in container.values() if isinstance(container, dict) else container:
        if is_saveable(child):
            name = _numbered(to_snake_case(type(child).__name__), used)
            yield from walk(child, f"{path}/{name}", seen)
        elif isinstance(child, (list, tuple, dict)):
            name = _numbered("container", used)
            yield from _walk_container(child, f"{path}/{name}", seen, inside)


def _numbered(name: str, used: dict[str, int]) -> str:
    count = used.get(name, 0)
    used[name] = count + 1
    return f"{name}_{count}" if count else name


def extra_variables(model: Any) -> list[Any]:
    """Variables that are neither weights nor metrics: the states of random generators."""
    known = {id(variable) for variable in model.weights}
    for metric in getattr(model, "metrics", ()):
        known.update(id(variable) for variable in metric.variables)
    return [variable for variable in model.variables if id(variable) not in known]


# ----------------------------------------------------------------------------------- write


def write_weights(model: Any, file: Any) -> None:
    """Write every variable of the model and its optimizer into an open h5py file or group."""
    for path, saveable in walk(model):
        store: dict[str, Any] = {}
        saveable.save_own_variables(store)
        group = file.create_group(f"{path}/vars" if path else "vars")
        name = getattr(saveable, "name", None)
        if isinstance(name, str):
            group.attrs["name"] = name
        for key, value in store.items():
            _write_array(group, str(key), value)
    extras = extra_variables(model)
    if extras:
        group = file.create_group(EXTRA)
        for number, variable in enumerate(extras):
            _write_array(group, str(number), variable)


def _write_array(group: Any, key: str, value: Any) -> None:
    array = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
    if array.dtype == numpy_dtype("bfloat16") and array.dtype.kind == "V":
        group.create_dataset(key, data=array.astype(np.float32)).attrs["dtype"] = "bfloat16"
    else:
        group.create_dataset(key, data=array)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file beside `path` to write into, which takes its place only if all went well."""
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is an existing folder.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {target.parent} does not exist.")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    os.close(handle)
    waiting = Path(name)
    try:
        yield waiting
        mask = os.umask(0)
        os.umask(mask)
        waiting.chmod(0o666 & ~mask)
        waiting.replace(target)
    finally:
        waiting.unlink(missing_ok=True)


def save_weights(model: Any, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write the weights, and the optimizer's state where compiled, to a `.weights.h5` file.

    raises   ValueError for another ending or a model without weights yet; FileExistsError if the
             file exists and `overwrite` is False
    """
    import h5py

    path = os.fspath(filepath)
    if not path.endswith(".weights.h5"):
        raise ValueError(f"save_weights: the filename must end in .weights.h5, got {path!r}.")
    if not model.built:
        raise ValueError(
            layout(
                f"save_weights: {model.name} has no weights yet.",
                hint="call it on a batch of data, or give it an Input, first",
            )
        )
    if not overwrite and Path(path).exists():
        raise FileExistsError(f"{path} exists, and overwrite=False.")
    with replacing(path) as waiting, h5py.File(waiting, "w") as file:
        write_weights(model, file)


# ------------------------------------------------------------------------------------ read


class Store(Mapping[str, Any]):
    """The datasets of one group as arrays; nothing is followed out of the file."""

    def __init__(self, group: Any, path: str) -> None:
        self.group = group
        self.path = path

    def __getitem__(self, key: str) -> np.ndarray:
        dataset = plain_member(self.group, str(key), self.path)
        return read_array(dataset, f"{self.path}/{key}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.group.keys() if self.group is not None else ())

    def __len__(self) -> int:
        return len(self.group) if self.group is not None else 0


def plain_member(group: Any, key: str, path: str) -> Any:
    """A member that lies in this file itself; links elsewhere are refused."""
    import h5py

    if group is None or key not in group:
        raise KeyError(f"{path}/{key} is not in the file")
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise FileFormatError(f"{path}/{key} is a link, which a weights file may not hold.")
    return group[key]


def read_array(dataset: Any, path: str) -> np.ndarray:
    """A dataset's values, refused where it refers to other files or unfolds to too much."""
    if not hasattr(dataset, "shape") or dataset.shape is None:
        raise FileFormatError(f"{path} is no array.")
    if dataset.external or getattr(dataset, "is_virtual", False):
        raise FileFormatError(f"{path} refers to another file, which a weights file may not do.")
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > max(UNCHECKED_BYTES, stored * MAXIMUM_EXPANSION):
        raise FileFormatError(
            f"{path} claims {dataset.nbytes:,} bytes, but only {stored:,} are stored."
        )
    array = np.asarray(dataset[()])
    if dataset.attrs.get("dtype") == "bfloat16":
        bfloat16 = numpy_dtype("bfloat16")
        return array.view(bfloat16) if array.dtype.kind == "V" else array.astype(bfloat16)
    return array


def group_at(file: Any, path: str) -> Any | None:
    """The group of that path, or None; every step of it must lie in the file."""
    group = file
    for part in path.split("/") if path else ():
        if not hasattr(group, "keys") or part not in group:
            return None
        group = plain_member(group, part, path)
    return group


def read_weights(model: Any, file: Any, skip_mismatch: bool = False) -> None:
    """Give the model the weights of an open h5py file.

    The model is changed only if everything fits; with `skip_mismatch`, objects that do not fit
    keep what they have, and a warning names them.

    raises   WeightsMismatchError
    """
    before = [(variable, variable.numpy()) for variable in model.variables]
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        before += [(variable, variable.numpy()) for variable in optimizer.variables]
    try:
        failures = _read_all(model, file)
        _read_extras(model, file)
        if failures and not skip_mismatch:
            raise WeightsMismatchError(_mismatch(failures, file))
    except BaseException:
        for variable, value in before:
            variable.assign(value)
        raise
    if failures:
        names = ", ".join(name for name, _ in failures)
        warnings.warn(f"weights were not loaded, because they do not fit: {names}.", stacklevel=3)


def _read_all(model: Any, file: Any) -> list[tuple[str, str]]:
    failures: list[tuple[str, str]] = []
    for path, saveable in walk(model):
        group = group_at(file, f"{path}/vars" if path else "vars")
        if saveable is getattr(model, "optimizer", None):
            _read_optimizer(saveable, group)
            continue
        store = Store(group, path or saveable.name)
        kept = [(variable, variable.numpy()) for variable in _own_variables(saveable)]
        try:
            saveable.load_own_variables(store)
        except FileFormatError:
            raise
        except (ValueError, KeyError, ShapeError, IndexError, TypeError) as error:
            for variable, value in kept:
                variable.assign(value)
            reason = str(error.args[0]) if error.args else type(error).__name__
            failures.append((path or saveable.name, _reason(saveable, store, reason)))
    return failures


def _read_optimizer(optimizer: Any, group: Any) -> None:
    """Give the optimizer its state, if the file holds one that fits; else it begins anew."""
    if group is None or not len(group):
        return  # the file is of a model that was not compiled
    store = Store(group, "optimizer")
    own = list(optimizer.variables)
    shapes = [store.group[key].shape for key in sorted(store, key=int)]
    if shapes == [variable.shape for variable in own]:
        optimizer.load_own_variables(store)
    elif len(shapes) <= 2 and shapes == [variable.shape for variable in own[: len(shapes)]]:
        # Written before the first step: the number of steps and the learning rate.
        for number, variable in enumerate(own[: len(shapes)]):
            variable.assign(store[str(number)])
    else:
        warnings.warn(
            f"the state of the optimizer {optimizer.name} was not loaded: it has "
            f"{len(own)} variables, the file {len(shapes)} or others.",
            stacklevel=5,
        )


def _own_variables(saveable: Any) -> list[Any]:
    own = getattr(saveable, "_own_variables", None)
    return list(own if isinstance(own, (list, tuple)) else getattr(saveable, "variables", ()))


def _reason(saveable: Any, store: Store, reason: str) -> str:
    expected = [variable.shape for variable in _own_variables(saveable)]
    try:
        found = [store.group[key].shape for key in sorted(store, key=int)]
    except (ValueError, AttributeError, TypeError):
        return reason.splitlines()[0]
    if len(found) != len(expected) or found != expected:
        return f"this model has {_shapes(expected)}, the file {_shapes(found)}"
    return reason.splitlines()[0]


def _shapes(shapes: list[Any]) -> str:
    return ", ".join(str(tuple(shape)) for shape in shapes) if shapes else "no weights"


def _read_extras(model: Any, file: Any) -> None:
    group = group_at(file, EXTRA)
    extras = extra_variables(model)
    if group is None or len(group) != len(extras):
        return  # written by Keras, or by a model with other random layers: seeds begin anew
    store = Store(group, EXTRA)
    for number, variable in enumerate(extras):
        value = store[str(number)]
        if value.shape == variable.shape:
            variable.assign(value)


def _mismatch(failures: list[tuple[str, str]], file: Any) -> str:
    held = group_at(file, "layers")
    listed = ", ".join(held.keys()) if held is not None else "none"
    return layout(
        f"the weights do not fit this model: {failures[0][0]}.",
        [
            *((name.rsplit("/", maxsplit=1)[-1], reason) for name, reason in failures[:5]),
            *([("and", f"{len(failures) - 5} more")] if len(failures) > 5 else []),
            ("in file", listed),
        ],
        hint="load them into a model of the same layers in the same order, "
        "or pass skip_mismatch=True",
    )


@contextlib.contextmanager
def opened(source: Any, name: str) -> Iterator[Any]:
    """An h5py file of a path or of open bytes.

    raises   FileFormatError if it is damaged
    """
    import h5py

    try:
        file = h5py.File(source, "r")
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
            raise
        raise FileFormatError(
            layout(
                f"{name} is no readable HDF5 file: it is damaged, truncated, or something else.",
                [("HDF5", str(error).splitlines()[0])],
            )
        ) from None
    try:
        yield file
    except (RuntimeError, OSError) as error:
        # HDF5 reports damage inside a file, found on reading, in these ways.
        raise FileFormatError(
            layout(f"{name} is damaged.", [("HDF5", str(error).splitlines()[0])])
        ) from error
    finally:
        file.close()


def load_weights(model: Any, filepath: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
    """Read weights from a `.weights.h5` file, of lamina or of Keras 3.

    raises   WeightsMismatchError if they belong to another model, which keeps its weights;
             FileFormatError if the file is damaged
    """
    path = os.fspath(filepath)
    if not path.endswith(".weights.h5"):
        raise ValueError(f"load_weights: expected a .weights.h5 or .keras file, got {path!r}.")
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {path}.")
    check_built(model)
    with opened(path, path) as file:
        read_weights(model, file, skip_mismatch)


def check_built(model: Any) -> None:
    """Raise ValueError for a model without weights; build an optimizer that waits for them."""
    if not model.built:
        raise ValueError(
            layout(
                f"load_weights: {model.name} has no weights yet.",
                hint="call it on a batch of data, or give it an Input, first",
            )
        )
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
        optimizer.built = True
