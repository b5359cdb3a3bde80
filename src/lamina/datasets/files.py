"""Where data files lie, how they are downloaded, and how their contents are checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from lamina import config
from lamina.errors import LaminaError, layout

CHUNK = 1 << 16
SECONDS = 20


class DatasetError(LaminaError, OSError):
    """A data set is neither here nor can it be fetched, or its file is damaged."""


def folders() -> list[Path]:
    """Where data files are looked for, in this order.

    LAMINA_DATA, the folder `datasets` in lamina's cache folder, Keras's own folder of data sets.
    """
    found = [config.data_folder()]
    cache = config.cache_folder()
    found.append(cache / "datasets" if cache is not None else None)
    home = os.environ.get("KERAS_HOME")
    found.append((Path(home) if home else Path.home() / ".keras") / "datasets")
    return [folder for folder in found if folder is not None]


def find(name: str) -> Path | None:
    """The first file of this name in the folders, or None."""
    return next((f / name for f in folders() if (f / name).is_file()), None)


def fetch(name: str, url: str, sha256: str, *, instead: str = "") -> Path:
    """Download a file into lamina's cache folder, with progress, and check its SHA-256.

    name     the file's name in the folder
    instead  what a user without a network may do; stands in the error's hint
    returns  the file's path; nothing is left behind when the download fails
    raises   DatasetError when the file cannot be fetched, or is not the expected one
    """
    cache = config.cache_folder()
    folder = cache / "datasets" if cache is not None else Path(tempfile.gettempdir())
    remedy = f"put {name} into a folder and name that folder by LAMINA_DATA"
    hint = f"{remedy}; {instead}" if instead else remedy
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=name, suffix=".part", dir=folder)
    except OSError as error:
        raise DatasetError(
            layout(
                f"{name}: cannot be stored.",
                [("folder", str(folder)), ("cause", str(error))],
                hint=hint,
            )
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            digest = _download(name, url, file.write)
        if digest != sha256:
            raise DatasetError(
                layout(
                    f"{name}: the downloaded file is not the expected one.",
                    [("from", url), ("expected", f"SHA-256 {sha256}"), ("got", digest)],
                    hint=hint,
                )
            )
        Path(temporary).replace(folder / name)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        cause = getattr(error, "reason", error)
        raise DatasetError(
            layout(
                f"{name}: is not on this computer and cannot be downloaded.",
                [
                    ("from", url),
                    ("cause", str(cause)),
                    ("looked in", ", ".join(str(f) for f in folders())),
                ],
                hint=hint,
            )
        ) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
    return folder / name


def _download(name: str, url: str, write: object) -> str:
    """Copy the address's bytes to `write`, tell how far it is, and return their SHA-256."""
    assert callable(write)
    digest = hashlib.sha256()
    live = sys.stdout.isatty()
    with urllib.request.urlopen(url, timeout=SECONDS) as source:  # noqa: S310
        total = int(source.headers.get("Content-Length") or 0)
        size = f" ({total / 1e6:.1f} MB)" if total else ""
        title = f"Downloading {name}{size}"
        done = 0
        while chunk := source.read(CHUNK):
            write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if live and total:
                sys.stdout.write(f"\r{title} {100 * done // total:3d} %")
                sys.stdout.flush()
        sys.stdout.write("\n" if live and total else f"{title}\n")
    return digest.hexdigest()
