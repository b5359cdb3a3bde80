"""Several object files in one: the `ar` format, in its plainest form.

A step that is compiled in parts is kept, cached and loaded as one piece of bytes all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60
_END = b"`\n"


def pack(objects: Sequence[bytes]) -> bytes:
    """An archive of the objects in this order; a single object is left as it is.

    >>> unpack(pack([b"one", b"three"]))
    [b'one', b'three']
    """
    if len(objects) == 1:
        return objects[0]
    parts = [MAGIC]
    for number, code in enumerate(objects):
        name = f"part{number}/"
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{0:<8}{len(code):<10}".encode() + _END
        parts += [header, code, b"\n" * (len(code) % 2)]
    return b"".join(parts)


def unpack(code: bytes) -> list[bytes]:
    """The objects in `code`, which is an archive or one object; ValueError if it is damaged."""
    if not code.startswith(MAGIC):
        return [code]
    objects = []
    at = len(MAGIC)
    while at < len(code):
        header = code[at : at + _HEADER_BYTES]
        if len(header) < _HEADER_BYTES or not header.endswith(_END):
            raise ValueError("a damaged archive of objects")
        size = int(header[48:58])
        start = at + _HEADER_BYTES
        if size < 0 or start + size > len(code):
            raise ValueError("an archive of objects that ends too early")
        objects.append(code[start : start + size])
        at = start + size + size % 2
    return objects
