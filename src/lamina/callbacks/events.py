"""Event files as TensorBoard reads them: records of a small protocol-buffer message each.

A record is its length (uint64), the masked CRC-32C of the length, the data, and the masked CRC-32C
of the data (TensorFlow, `tfrecord` format). The message is `Event`: wall time (1, double), step
(2, varint), file version (3, string), summary (5), of which value (1) has tag (1), simple value
(2, float) or histogram (5).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
_MASK_DELTA = 0xA282EAD8


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_CRC = _table()


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _bytes_field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _double_field(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _doubles_field(number: int, values: Iterable[float]) -> bytes:
    return _bytes_field(number, b"".join(struct.pack("<d", value) for value in values))


class EventWriter:
    """Appends events to a new file in a folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.v2"
        self._file = (Path(folder) / name).open("wb")
        self._record(_bytes_field(3, b"brain.Event:2"))

    def _record(self, content: bytes) -> None:
        data = _double_field(1, time.time()) + content
        length = struct.pack("<Q", len(data))
        self._file.write(length + _masked(length) + data + _masked(data))

    def _summary(self, tag: str, content: bytes, step: int) -> None:
        value = _bytes_field(1, _bytes_field(1, tag.encode()) + content)
        self._record(_varint(2 << 3) + _varint(step) + _bytes_field(5, value))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """One point of the curve `tag`."""
        self._summary(tag, _varint(2 << 3 | 5) + struct.pack("<f", value), step)

    def histogram(self, tag: str, values: Any, step: int, bins: int = 30) -> None:
        """How the values are spread."""
        flat = np.asarray(values, np.float64).reshape(-1)
        flat = flat[np.isfinite(flat)]
        if not flat.size:
            return
        counts, edges = np.histogram(flat, bins)
        content = (
            _double_field(1, float(flat.min()))
            + _double_field(2, float(flat.max()))
            + _double_field(3, float(flat.size))
            + _double_field(4, float(flat.sum()))
            + _double_field(5, float(np.square(flat).sum()))
            + _doubles_field(6, edges[1:])
            + _doubles_field(7, counts)
        )
        self._summary(tag, _bytes_field(5, content), step)

    def flush(self) -> None:
        """Let readers see what was written."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()
