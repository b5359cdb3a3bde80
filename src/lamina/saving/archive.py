"""`.keras` files: a zip of the configuration as JSON and the weights as HDF5."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lamina.errors import FileFormatError, layout
from lamina.saving.weights import check_built, opened, read_weights, replacing, write_weights
from lamina.serialization import (
    MAXIMUM_DEPTH,
    deserialize_keras_object,
    serialize_keras_object,
)

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
# The release of Keras whose format this is; Keras shows it, and refuses nothing by it.
KERAS_VERSION = "3.15.1"
MAXIMUM_CONFIG_BYTES = 1 << 28
MAXIMUM_EXPANSION = 1100
UNCHECKED_BYTES = 1 << 26


def model_data(model: Any) -> dict[str, Any]:
    """The configuration of a model as plain data, as it stands in config.json."""
    data: dict[str, Any] = serialize_keras_object(model)
    return data


def save_model(
    model: Any,
    filepath: str | os.PathLike[str],
    overwrite: bool = True,
    zipped: bool | None = None,
) -> None:
    """Write configuration, weights and optimizer state of a model to a `.keras` file.

    zipped   False: write a folder of the same three files instead
    raises   ValueError for another ending; FileExistsError if `overwrite` is False;
             TypeError if a part has no configuration (a lambda, say). The old file then stays.
    """
    path = os.fspath(filepath)
    zipped = zipped is not False
    if zipped and not path.endswith(".keras"):
        hint = (
            "save_weights() writes .weights.h5"
            if path.endswith(".h5")
            else "zipped=False writes a folder"
        )
        raise ValueError(layout(f"save: the filename must end in .keras, got {path!r}.", hint=hint))
    if not zipped and path.endswith((".keras", ".h5", ".hdf5")):
        raise ValueError(f"save: a folder's name must not end like a file, got {path!r}.")
    if not overwrite and Path(path).exists():
        raise FileExistsError(f"{path} exists, and overwrite=False.")
    config = json.dumps(model_data(model)).encode()
    metadata = json.dumps(
        {
            "keras_version": KERAS_VERSION,
            "date_saved": datetime.now(UTC).strftime("%Y-%m-%d@%H:%M:%S"),
            "writer": "lamina",
        }
    ).encode()
    weights = _weights_bytes(model)
    parts = {METADATA: metadata, CONFIG: config, WEIGHTS: weights}
    if zipped:
        with replacing(path) as waiting, zipfile.ZipFile(waiting, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        return
    Path(path).mkdir(parents=True, exist_ok=True)
    for name, content in parts.items():
        with replacing(Path(path) / name) as waiting:
            waiting.write_bytes(content)


def _weights_bytes(model: Any) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        write_weights(model, file)
    return buffer.getvalue()


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> Any:
    """The model of a `.keras` file or folder, written by lamina or by Keras 3.

    custom_objects   your own classes and functions by name, where they are not registered
    compile          also restore loss, metrics and optimizer
    safe_mode        accepted for Keras's sake: nothing in a file is ever run

    raises   FileFormatError if the file is damaged, truncated or something else;
             UnknownObjectError for a class that lamina does not know
    """
    path = Path(filepath)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}.")
    parts = _folder_parts(path) if path.is_dir() else _zip_parts(path)
    data = _config_data(parts[CONFIG], path)
    if not compile:
        data["compile_config"] = None
    model = deserialize_keras_object(data, custom_objects, safe_mode)
    if not hasattr(model, "weights"):
        raise FileFormatError(f"{path} describes a {type(model).__name__}, which is no model.")
    if model.built:
        check_built(model)
        with opened(io.BytesIO(parts[WEIGHTS]), f"{WEIGHTS} in {path}") as file:
            read_weights(model, file)
    return model


def load_archived_weights(
    model: Any, filepath: str | os.PathLike[str], skip_mismatch: bool = False
) -> None:
    """Only the weights of a `.keras` file, into a model that exists."""
    path = Path(filepath)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}.")
    check_built(model)
    content = _zip_parts(path)[WEIGHTS]
    with opened(io.BytesIO(content), f"{WEIGHTS} in {path}") as file:
        read_weights(model, file, skip_mismatch)


def _config_data(content: bytes, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = str(error) or f"nested more than {MAXIMUM_DEPTH} deep"
        raise FileFormatError(
            layout(f"{CONFIG} in {path} is no readable JSON.", [("JSON", reason)])
        ) from None
    if not isinstance(data, dict) or "class_name" not in data:
        raise FileFormatError(f"{CONFIG} in {path} describes no object.")
    return data


def _folder_parts(path: Path) -> dict[str, bytes]:
    parts = {}
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise FileFormatError(f"the folder {path} holds no {name}, so it is no saved model.")
        parts[name] = (path / name).read_bytes()
    return parts


def _zip_parts(path: Path) -> dict[str, bytes]:
    if path.suffix in {".h5", ".hdf5"} and not path.name.endswith(".weights.h5"):
        raise FileFormatError(
            layout(
                f"{path} is in the format of Keras 2, which lamina does not read.",
                hint="load it with Keras and save it again as .keras",
            )
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _member(archive, name, path) for name in (CONFIG, WEIGHTS)}
    except zipfile.BadZipFile as error:
        raise FileFormatError(
            layout(
                f"{path} is no readable .keras file: it is damaged, truncated, or something else.",
                [("zip", str(error))],
            )
        ) from None


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise FileFormatError(
            layout(
                f"{path} holds no {name}, so it is no saved model.",
                [("holds", ", ".join(archive.namelist()[:8]) or "nothing")],
            )
        ) from None
    allowed = max(UNCHECKED_BYTES, info.compress_size * MAXIMUM_EXPANSION)
    if info.file_size > allowed or (name == CONFIG and info.file_size > MAXIMUM_CONFIG_BYTES):
        raise FileFormatError(
            f"{name} in {path} claims {info.file_size:,} bytes, but only "
            f"{info.compress_size:,} are stored."
        )
    try:
        return archive.read(info)
    except (NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise FileFormatError(
            layout(f"{name} in {path} cannot be read.", [("zip", str(error))])
        ) from None
