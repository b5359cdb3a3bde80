"""Which symbols an object file defines and which it needs: ELF, Mach-O and COFF, 64 bits.

LLVM's just-in-time loader finalises an object with an unresolved symbol without a word, and the
process dies at the first call of it. So every object is read here before it is loaded.
"""

from __future__ import annotations

import struct

from lamina.errors import LaminaError
from lamina.llvm import archive
from lamina.llvm.elf import UNDEFINED, ElfFile


class ObjectError(LaminaError, ValueError):
    """The bytes are no object file of a known kind, or a damaged one."""


def symbols(code: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """(defined, needed): the names of global symbols in `code`, an object file or several.

    What one object of an archive needs and another defines is not needed. Names are as in the
    source: the underscore that Mach-O puts before each is taken off.

    raises   ObjectError if `code` is no object file of a known kind
    """
    try:
        each = [_symbols(part) for part in archive.unpack(code)]
    except (struct.error, IndexError, ValueError, OverflowError) as failure:
        raise ObjectError(f"a damaged object file of {len(code)} bytes: {failure}") from None
    defined = frozenset().union(*(ours for ours, _ in each))
    return defined, frozenset().union(*(needed for _, needed in each)) - defined


def _symbols(code: bytes) -> tuple[frozenset[str], frozenset[str]]:
    if code[:4] == b"\x7fELF":
        return _elf(code)
    if code[:4] == b"\xcf\xfa\xed\xfe":
        return _mach_o(code)
    if code[:2] in {b"\x64\x86", b"\x64\xaa"}:
        return _coff(code)
    raise ObjectError(f"{len(code)} bytes that are no object file of a known kind")


def _name(table: bytes, start: int) -> str:
    return table[start : table.index(b"\0", start)].decode()


def _elf(code: bytes) -> tuple[frozenset[str], frozenset[str]]:
    outer = [symbol for symbol in list(ElfFile(code).symbols())[1:] if not symbol.is_local]
    needed = frozenset(symbol.name for symbol in outer if symbol.section == UNDEFINED)
    return frozenset(symbol.name for symbol in outer) - needed, needed


def _mach_o(code: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """mach_header_64, symtab_command and nlist_64 of <mach-o/loader.h> and <mach-o/nlist.h>."""
    (commands,) = struct.unpack_from("<I", code, 16)
    defined: set[str] = set()
    needed: set[str] = set()
    at = 32
    for _ in range(commands):
        command, size = struct.unpack_from("<II", code, at)
        if command == 2:  # LC_SYMTAB
            offset, count, text_offset, text_size = struct.unpack_from("<IIII", code, at + 8)
            text = code[text_offset : text_offset + text_size]
            for index in range(count):
                name, kind = struct.unpack_from("<IB", code, offset + 16 * index)
                if kind & 0xE0 or not kind & 1:  # a debugging symbol, or a local one
                    continue
                plain = _name(text, name).removeprefix("_")
                (needed if kind & 0x0E == 0 else defined).add(plain)
        at += size
    return frozenset(defined), frozenset(needed)


def _coff(code: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """COFF file header and symbol table (Microsoft PE format, sections 3.3 and 5.4)."""
    offset, count = struct.unpack_from("<II", code, 8)
    text = code[offset + 18 * count :]
    defined: set[str] = set()
    needed: set[str] = set()
    index = 0
    while index < count:
        at = offset + 18 * index
        raw = code[at : at + 8]
        section, _, storage, extra = struct.unpack_from("<hHBB", code, at + 12)
        index += 1 + extra
        if storage != 2:  # IMAGE_SYM_CLASS_EXTERNAL
            continue
        if raw[:4] == b"\0\0\0\0":
            name = _name(text, struct.unpack_from("<I", raw, 4)[0])
        else:
            name = raw.rstrip(b"\0").decode()
        (needed if section == 0 else defined).add(name)
    return frozenset(defined), frozenset(needed)
