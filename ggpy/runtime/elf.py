"""Object code into memory, without LLVM, where that is simple: ELF for x86-64 that needs nothing but its own sections.

Loading LLVM to link a few kB takes 45 ms and 40 MB. A kernel's object file has code, constants, and a handful of places where the address
of one goes into the other. Anything beyond that is left to LLVM: `load` returns None.

Layout: System V ABI, chapter 4 (Object Files), and its AMD64 supplement, section 4.4 (Relocation).
"""

from __future__ import annotations

import ctypes
import platform
import struct
import sys

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size
_SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size
_RELOCATION = struct.Struct("<QQq")  # offset, symbol << 32 | type, addend
_IDENTITY = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
_RELOCATABLE, _X86_64 = 1, 62
_SYMBOLS, _RELA, _NO_BITS, _REL = 2, 4, 8, 9  # section types
_ALLOCATED = 2  # section flag
_ABSOLUTE_64, _RELATIVE_32, _CALL_32, _RELATIVE_64 = 1, 2, 4, 24  # relocation types
_FIRST_RESERVED = 0xFF00  # section numbers from here on mean something else
_PAGE = 4096  # sections may ask for no more alignment; memory comes with it
_MAX_IMAGE = 2**26
_READ, _WRITE, _EXECUTE = 1, 2, 4
_PRIVATE_ANONYMOUS = 0x22


def load(code: bytes, entry: str) -> int | None:
    """The address of `entry` once the object file `code` is in executable memory; None where it is not of the simple kind."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    try:
        return _load(code, entry.encode())
    except (struct.error, LookupError, ValueError, OverflowError, OSError):
        return None


def _load(code: bytes, entry: bytes) -> int | None:
    identity, kind, machine, *_, sections_at, _, _, _, _, section_bytes, n_sections, _ = _HEADER.unpack_from(code)
    if not identity.startswith(_IDENTITY) or (kind, machine, section_bytes) != (_RELOCATABLE, _X86_64, _SECTION.size):
        return None
    sections = [_SECTION.unpack_from(code, sections_at + i * _SECTION.size) for i in range(n_sections)]
    places, size = _places(sections, len(code))
    tables = [section for section in sections if section[1] == _SYMBOLS]
    if places is None or not 0 < size < _MAX_IMAGE or len(tables) != 1:
        return None
    image = bytearray(size)
    for i, place in places.items():
        if sections[i][1] != _NO_BITS:
            image[place : place + sections[i][5]] = code[sections[i][4] : sections[i][4] + sections[i][5]]
    symbols = _symbols(code, sections, tables[0], places)
    if entry not in symbols or any(section[1] == _REL for section in sections):
        return None
    base = _allocate(size)
    for section in sections:
        if section[1] == _RELA and not _relocate(code, section, sections, places, symbols, image, base):
            return None
    ctypes.memmove(base, bytes(image), size)
    if _libc().mprotect(base, size, _READ | _EXECUTE):
        return None
    return base + symbols[entry]


def _allocate(n_bytes: int) -> int:
    """The address of memory that stays as long as the process lives: a thread may be at work in it until the very end."""
    base = _libc().mmap(None, n_bytes, _READ | _WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    if base in (None, ctypes.c_void_p(-1).value):
        raise OSError("no memory for code")
    return base


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.mmap.restype = ctypes.c_void_p
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc


def _places(sections: list[tuple], n_bytes: int) -> tuple[dict[int, int] | None, int]:
    """Where each allocated section goes, one behind the other, and the bytes in all; None for one that lies outside the file."""
    places, end = {}, 0
    for i, (_, kind, flags, _, offset, size, _, _, alignment, _) in enumerate(sections):
        if not flags & _ALLOCATED:
            continue
        alignment = max(alignment, 1)
        if alignment & (alignment - 1) or alignment > _PAGE or (kind != _NO_BITS and offset + size > n_bytes):
            return None, 0
        places[i] = (end + alignment - 1) & -alignment
        end = places[i] + size
    return places, end


def _symbols(code: bytes, sections: list[tuple], table: tuple, places: dict[int, int]) -> dict[int | bytes, int]:
    """Number and name -> offset in memory, of the symbols that lie in allocated sections."""
    strings_at, strings_end = sections[table[6]][4], sections[table[6]][4] + sections[table[6]][5]
    symbols: dict[int | bytes, int] = {}
    for number in range(table[5] // _SYMBOL.size):
        name, _, _, section, value, _ = _SYMBOL.unpack_from(code, table[4] + number * _SYMBOL.size)
        if section < _FIRST_RESERVED and section in places and value <= sections[section][5]:
            symbols[number] = symbols[code[strings_at + name : code.index(b"\0", strings_at + name, strings_end)]] = places[section] + value
    return symbols


def _relocate(
    code: bytes,
    section: tuple,
    sections: list[tuple],
    places: dict[int, int],
    symbols: dict[int | bytes, int],
    image: bytearray,
    base: int,
) -> bool:
    """Fill in the addresses that a section of relocations asks for; False where one asks for what is not here."""
    target = section[7]
    if target not in places:
        return True  # of what is not loaded, such as debugging information
    for at in range(section[4], section[4] + section[5], _RELOCATION.size):
        offset, info, addend = _RELOCATION.unpack_from(code, at)
        symbol, kind = symbols.get(info >> 32), info & 0xFFFFFFFF
        width = 4 if kind in (_RELATIVE_32, _CALL_32) else 8
        if symbol is None or kind not in (_ABSOLUTE_64, _RELATIVE_32, _CALL_32, _RELATIVE_64) or offset + width > sections[target][5]:
            return False
        place = places[target] + offset
        value = symbol + addend + (base if kind == _ABSOLUTE_64 else -place)
        image[place : place + width] = value.to_bytes(width, "little", signed=kind != _ABSOLUTE_64)
    return True
