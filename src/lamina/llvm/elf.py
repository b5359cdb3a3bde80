"""Read relocatable ELF object files of 64 bits (System V ABI, chapters 4 and 5)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")

MACHINE_X86_64 = 62
PROGRAM_BITS, SYMBOL_TABLE, RELOCATIONS, NO_BITS = 1, 2, 4, 8
WRITE, ALLOCATE, EXECUTE = 1, 2, 4
UNDEFINED = 0


@dataclass(frozen=True)
class Section:
    """A section: where its bytes stand in the file, and how they are to stand in memory."""

    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


@dataclass(frozen=True)
class Symbol:
    """A symbol: `value` counts from the start of section number `section` (0: it is needed)."""

    name: str
    value: int
    section: int
    is_local: bool


class ElfFile:
    """The headers of an object file. Raises struct.error or ValueError if they make no sense."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        header = _HEADER.unpack_from(code, 0)
        if header[0][:6] != b"\x7fELF\x02\x01":
            raise ValueError("no ELF file of 64 bits, lowest byte first")
        self.machine: int = header[2]
        table, size, count, names = header[6], header[11], header[12], header[13]
        raw = [_SECTION.unpack_from(code, table + index * size) for index in range(count)]
        name_table = self._bytes(raw[names][4], raw[names][5])
        self.sections = [
            Section(_text(name_table, name), kind, flags, offset, size, link, info, alignment)
            for name, kind, flags, _, offset, size, link, info, alignment, _ in raw
        ]

    def _bytes(self, offset: int, size: int) -> bytes:
        if offset + size > len(self.code):
            raise ValueError("a section reaches past the end of the file")
        return self.code[offset : offset + size]

    def content(self, section: Section) -> bytes:
        """The bytes of a section."""
        if section.kind == NO_BITS:
            return bytes(section.size)
        return self._bytes(section.offset, section.size)

    def symbols(self) -> Iterator[Symbol]:
        """All symbols in the order in which relocations number them; the first is none."""
        for section in self.sections:
            if section.kind == SYMBOL_TABLE:
                names = self.content(self.sections[section.link])
                for name, info, _, place, value, _ in _SYMBOL.iter_unpack(self.content(section)):
                    yield Symbol(_text(names, name), value, place, info >> 4 == 0)


def _text(table: bytes, start: int) -> str:
    return table[start : table.index(b"\0", start)].decode()
