"""Compiled objects on disk, so that a second start of the same model does not compile.

An entry is one file. A reader believes nothing of it before its digest has been checked, because a
damaged object would end the process inside LLVM; an entry that is not whole is a miss, and is
removed. Entries appear by renaming a finished file, so any number of processes may share a folder.
The folder must belong to this user alone; otherwise it is left alone and nothing is cached.

File: MAGIC, lengths of key, manifest and object (three little-endian u64), BLAKE2b-256 digest of
all the rest, key, manifest (JSON), object.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import secrets
import stat
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lamina
from lamina import config
from lamina.llvm import binding

MAGIC = b"lamina object 1\n"
_LENGTHS = struct.Struct("<QQQ")
_DIGEST_BYTES = 32
_HEADER = len(MAGIC) + _LENGTHS.size + _DIGEST_BYTES

MOST_BYTES = 1 << 30
# A hit renews an entry's time at most this often: a time stamp is a write.
_RENEW_SECONDS = 3600
_FORGOTTEN_SECONDS = 3600
_IMPORTED = time.time()


@dataclass(frozen=True)
class Entry:
    """A compiled object with what its user needs to call it."""

    code: bytes
    manifest: dict[str, Any]


@functools.cache
def generator_digest() -> str:
    """A digest of what generates code: llvm, ir, transform, types, and the version of LLVM.

    Part of every key, so an object of another version is never used. Taken by the files' contents,
    once a process. Where a file was changed after this module was imported, the code that runs is
    not the code that lies there, so the digest is this process's own and nothing is shared.
    """
    root = Path(lamina.__file__).parent
    digest = hashlib.blake2b(f"{binding.version()}\n".encode(), digest_size=16)
    files = [root / "types.py"]
    for room in ("ir", "llvm", "transform"):
        files += sorted((root / room).rglob("*.py"))
    for file in files:
        try:
            text = file.read_bytes()
            changed = file.stat().st_mtime > _IMPORTED
        except OSError:  # installed without sources: there is nothing to compare
            changed = True
        if changed:
            return secrets.token_hex(16)
        digest.update(f"{file.relative_to(root).as_posix()} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


def folder() -> Path | None:
    """The folder in use, made if need be; None where caching is off or the folder is not ours."""
    wanted = config.cache_folder()
    return None if wanted is None or refusal(wanted) else wanted


@functools.lru_cache(maxsize=8)
def refusal(wanted: Path) -> str:
    """Why `wanted` cannot hold the cache, or "" where it can. Makes the folder if it is missing."""
    try:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = wanted.lstat()
    except OSError as failure:
        return f"cannot be made: {failure.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return "is no folder (a link is not followed)"
    if sys.platform != "win32":
        if found.st_uid != os.getuid():
            return "belongs to another user"
        if stat.S_IMODE(found.st_mode) & 0o077:
            return f"is open to other users (mode {stat.S_IMODE(found.st_mode):o}; 700 is needed)"
    return ""


def path_of(key: str, where: Path) -> Path:
    """The file of `key` in the folder `where`."""
    return where / f"{hashlib.blake2b(key.encode(), digest_size=20).hexdigest()}.lamina"


def fetch(key: str) -> Entry | None:
    """The object stored under `key`, or None. Never raises: whatever is wrong is a miss."""
    where = folder()
    if where is None:
        return None
    file = path_of(key, where)
    try:
        content, age = _read(file)
    except OSError:
        return None
    entry = decode(content, key)
    with contextlib.suppress(OSError):
        if entry is None:
            file.unlink()
        elif age > _RENEW_SECONDS:
            os.utime(file)
    return entry


def _read(file: Path) -> tuple[bytes, float]:
    """The file's bytes and its age in seconds; links and other users' files are refused."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(file, flags)
    with os.fdopen(handle, "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError("no plain file")
        if sys.platform != "win32" and found.st_uid != os.getuid():
            raise OSError("another user's file")
        return stream.read(), time.time() - found.st_mtime


def store(key: str, code: bytes, manifest: Mapping[str, Any]) -> bool:
    """Keep `code` and its manifest under `key`; whether that worked. Never raises OSError."""
    where = folder()
    if where is None:
        return False
    content = encode(key, code, manifest)
    draft = where / f"{os.getpid()}-{secrets.token_hex(8)}.draft"
    try:
        with draft.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path_of(key, where))
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        return False
    trim(where, MOST_BYTES)
    return True


def encode(key: str, code: bytes, manifest: Mapping[str, Any]) -> bytes:
    """The bytes of an entry's file."""
    name = key.encode()
    described = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
    lengths = _LENGTHS.pack(len(name), len(described), len(code))
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in (lengths, name, described, code):
        digest.update(part)
    return b"".join((MAGIC, lengths, digest.digest(), name, described, code))


def decode(content: bytes, key: str) -> Entry | None:
    """The entry in `content`, or None if it is damaged, truncated or of another key."""
    if len(content) < _HEADER or not content.startswith(MAGIC):
        return None
    lengths = content[len(MAGIC) : len(MAGIC) + _LENGTHS.size]
    name_length, manifest_length, code_length = _LENGTHS.unpack(lengths)
    if len(content) != _HEADER + name_length + manifest_length + code_length:
        return None
    digest = hashlib.blake2b(lengths, digest_size=_DIGEST_BYTES)
    digest.update(memoryview(content)[_HEADER:])
    if digest.digest() != content[_HEADER - _DIGEST_BYTES : _HEADER]:
        return None
    name, rest = content[_HEADER : _HEADER + name_length], content[_HEADER + name_length :]
    if name != key.encode():
        return None
    try:
        manifest = json.loads(rest[:manifest_length])
    except ValueError:
        return None
    return Entry(rest[manifest_length:], manifest) if isinstance(manifest, dict) else None


def trim(where: Path, most: int) -> int:
    """Remove the least recently used entries until at most `most` bytes are left; how many went.

    Drafts that a killed process left behind go as well.
    """
    found: list[tuple[float, int, str]] = []
    removed = 0
    now = time.time()
    try:
        with os.scandir(where) as listing:
            for item in listing:
                with contextlib.suppress(OSError):
                    status = item.stat(follow_symlinks=False)
                    if item.name.endswith(".lamina"):
                        found.append((status.st_mtime, status.st_size, item.path))
                    elif (
                        item.name.endswith(".draft") and now - status.st_mtime > _FORGOTTEN_SECONDS
                    ):
                        Path(item.path).unlink()
    except OSError:
        return removed
    total = sum(size for _, size, _ in found)
    for _, size, name in sorted(found):
        if total <= most:
            break
        with contextlib.suppress(OSError):
            Path(name).unlink()
            removed += 1
        total -= size
    return removed


def clear() -> int:
    """Remove every entry of the folder in use; how many there were."""
    where = folder()
    return trim(where, -1) if where is not None else 0
