"""Put an object file into executable memory without LLVM: ELF on x86-64 Linux.

LLVM's own loader takes some milliseconds, has to be imported first (a tenth of a second and 50 MB
that a start from the cache does not need otherwise), and ends the process when sections lie far
apart. Objects of lamina are simple: code, constants, and five kinds of relocation.

Memory is one mapping: code and jumps to outside functions | constants and the table of
addresses | variables. It is written first, then code becomes executable and constants read-only;
nothing is ever writable and executable at once.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from collections.abc import Callable

import numpy as np

from lamina.llvm import archive
from lamina.llvm.elf import (
    ALLOCATE,
    EXECUTE,
    MACHINE_X86_64,
    RELOCATIONS,
    UNDEFINED,
    WRITE,
    ElfFile,
    Section,
    Symbol,
)
from lamina.llvm.symbols import ObjectError

_READ, _WRITE, _EXECUTE = 1, 2, 4
_PRIVATE_ANONYMOUS = 0x22
# System V ABI for AMD64, section 4.4.
_ABSOLUTE_64, _RELATIVE_32, _CALL_32 = 1, 2, 4
_TABLE_KINDS = (9, 41, 42)  # relative to the address table's entry of the symbol
_RELOCATION = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
# jmp *0(%rip), with the address behind it: outside functions lie too far for a call.
_JUMP = b"\xff\x25\0\0\0\0"
_JUMP_BYTES = 16
_MOST_BYTES = 1 << 30

_DAMAGE = (struct.error, ValueError, IndexError, KeyError, OverflowError, MemoryError)


def suits(triple: str) -> bool:
    """Whether objects for `triple` are of the kind that `Image` loads, on some machine."""
    return triple.startswith("x86_64-") and "-linux" in triple


def handles(code: bytes) -> bool:
    """Whether `Image` can load `code` on this machine."""
    if sys.platform != "linux" or struct.calcsize("P") != 8:
        return False
    machine = struct.pack("<H", MACHINE_X86_64)
    parts = archive.unpack(code)
    return all(part[:4] == b"\x7fELF" and part[18:20] == machine for part in parts)


class Image:
    """A loaded object file, or several that call each other. Addresses are valid until `close`.

    code      an object file or an archive for which `handles` is true
    outside   gives the address of a function that the object needs
    raises    ObjectError if the file makes no sense, or needs what this loader does not do;
              OSError if the system gives no executable memory
    """

    def __init__(self, code: bytes, outside: Callable[[str], int]) -> None:
        self.address = 0
        self.size = 0
        self.names: dict[str, int] = {}
        try:
            self._load([ElfFile(part) for part in archive.unpack(code)], outside)
        except _DAMAGE as failure:
            self.close()
            raise ObjectError(f"an object file that cannot be loaded: {failure}") from None
        except OSError:
            self.close()
            raise

    def _load(self, files: list[ElfFile], outside: Callable[[str], int]) -> None:
        symbols = [list(file.symbols()) for file in files]
        outer = [s for part in symbols for s in part[1:] if not s.is_local]
        defined = {symbol.name for symbol in outer if symbol.section != UNDEFINED}
        needed = sorted({symbol.name for symbol in outer} - defined)
        place = _Layout(files, len(needed), [len(part) for part in symbols])
        if place.size > _MOST_BYTES:
            raise ValueError(f"{place.size} bytes of code and constants")
        self.size = place.size
        self.address = _map(place.size)
        memory = np.zeros(place.size, np.uint8)
        for (number, index), offset in place.sections.items():
            content = np.frombuffer(files[number].content(files[number].sections[index]), np.uint8)
            memory[offset : offset + len(content)] = content
        places = {}
        for number, name in enumerate(needed):
            start = place.jumps + number * _JUMP_BYTES
            stub = _JUMP + struct.pack("<Q", outside(name))
            memory[start : start + len(stub)] = np.frombuffer(stub, np.uint8)
            places[name] = self.address + start
        values = [self._values(part, number, place) for number, part in enumerate(symbols)]
        places.update(self.names)
        for number, (file, part) in enumerate(zip(files, symbols, strict=True)):
            for index, symbol in enumerate(part[1:], 1):
                if symbol.section == UNDEFINED:
                    values[number][index] = places[symbol.name]
            table = place.tables[number]
            _put(memory, table + 8 * np.arange(len(part)), values[number], 8)
            for section in file.sections:
                start = place.sections.get((number, section.info), -1)
                if section.kind == RELOCATIONS and start >= 0:
                    relocations = np.frombuffer(file.content(section), _RELOCATION)
                    self._relocate(memory, relocations, start, values[number], table)
        ctypes.memmove(self.address, memory.ctypes.data, place.size)
        _protect(self.address, place.constants, _READ | _EXECUTE)
        _protect(self.address + place.constants, place.variables - place.constants, _READ)

    def _values(self, symbols: list[Symbol], number: int, place: _Layout) -> np.ndarray:
        """The addresses of a file's own symbols, 0 for others; global ones are noted by name."""
        values = np.zeros(len(symbols), np.int64)
        for index, symbol in enumerate(symbols[1:], 1):
            # A file's name or an absolute value has no place, and no code refers to it.
            start = place.sections.get((number, symbol.section))
            if start is not None and symbol.section != UNDEFINED:
                values[index] = self.address + start + symbol.value
                if not symbol.is_local:
                    self.names[symbol.name] = int(values[index])
        return values

    def _relocate(
        self,
        memory: np.ndarray,
        relocations: np.ndarray,
        start: int,
        values: np.ndarray,
        table: int,
    ) -> None:
        """Apply the relocations of the section at `start`."""
        kinds = relocations["info"] & 0xFFFFFFFF
        numbers = (relocations["info"] >> 32).astype(np.int64)
        offsets = start + relocations["offset"].astype(np.int64)
        targets = values[numbers] + relocations["addend"]
        entries = self.address + table + 8 * numbers + relocations["addend"]
        absolute = kinds == _ABSOLUTE_64
        through_table = np.isin(kinds, _TABLE_KINDS)
        relative = (kinds == _RELATIVE_32) | (kinds == _CALL_32) | through_table
        if not np.all(absolute | relative):
            unknown = sorted(set(kinds[~(absolute | relative)].tolist()))
            raise ValueError(f"relocations of kind {unknown}")
        if np.any(values[numbers] == 0):
            raise ValueError("a relocation refers to a section that is not loaded")
        _put(memory, offsets[absolute], targets[absolute], 8)
        distances = np.where(through_table, entries, targets) - (self.address + offsets)
        if np.any(np.abs(distances[relative]) >= 1 << 31):
            raise ValueError("a relocation reaches too far")
        _put(memory, offsets[relative], distances[relative], 4)

    def find(self, name: str) -> int:
        """The address of the function `name`, or 0."""
        return self.names.get(name, 0)

    def forget(self) -> None:
        """Leave the memory as it is for good."""
        self.address = 0

    def close(self) -> None:
        """Give the memory back."""
        address, self.address = self.address, 0
        if address:
            _libc().munmap(ctypes.c_void_p(address), ctypes.c_size_t(self.size))


class _Layout:
    """Offsets of everything in the mapping; sections by the file's number and their own."""

    def __init__(self, files: list[ElfFile], needed: int, symbols: list[int]) -> None:
        self.sections: dict[tuple[int, int], int] = {}
        self._end = 0
        self._place(files, lambda section: bool(section.flags & EXECUTE))
        self.jumps = self._room(needed * _JUMP_BYTES, 16)
        self.constants = self._page()
        self._place(files, lambda section: not section.flags & (EXECUTE | WRITE))
        self.tables = [self._room(count * 8, 8) for count in symbols]
        self.variables = self._page()
        self._place(files, lambda section: bool(section.flags & WRITE))
        self.size = max(self._page(), mmap.PAGESIZE)

    def _room(self, size: int, alignment: int) -> int:
        start = -(-self._end // max(alignment, 1)) * max(alignment, 1)
        self._end = start + size
        return start

    def _page(self) -> int:
        return self._room(0, mmap.PAGESIZE)

    def _place(self, files: list[ElfFile], chosen: Callable[[Section], bool]) -> None:
        for number, file in enumerate(files):
            for index, section in enumerate(file.sections):
                # Tables for unwinding are left out: nothing is ever thrown through a step.
                wanted = section.flags & ALLOCATE and section.name != ".eh_frame"
                if wanted and chosen(section):
                    self.sections[number, index] = self._room(section.size, section.alignment)


def _put(memory: np.ndarray, offsets: np.ndarray, values: np.ndarray, width: int) -> None:
    """Write the low `width` bytes of each value at its offset, lowest byte first."""
    parts = values.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    places = offsets[:, None] + np.arange(width)
    if len(offsets) and not 0 <= places.min() <= places.max() < len(memory):
        raise ValueError("a relocation lies outside of its section")
    memory[places] = parts


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _map(size: int) -> int:
    call = _libc().mmap
    call.restype = ctypes.c_void_p
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address: int | None = call(None, size, _READ | _WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    if address is None or address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "the system gives no memory for code")
    return address


def _protect(address: int, size: int, rights: int) -> None:
    if size and _libc().mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), rights):
        raise OSError(ctypes.get_errno(), "the system does not let memory be executed")
