"""Object code into memory, without LLVM, where that is simple: ELF for x86-64 or ARM64 that needs nothing but its own sections.

Loading LLVM to link a few kB takes 45 ms and 40 MB. A kernel's object file has code, constants, and a handful of places where the address
of one goes into the other. Anything beyond that is left to LLVM: `load` returns None.

Layout: System V ABI, chapter 4 (Object Files); its AMD64 supplement, section 4.4 (Relocation); ELF for the Arm 64-bit Architecture, section
5.7 (Relocation).
"""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
from collections.abc import Callable
from typing import NamedTuple

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size
_SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size
_RELOCATION = struct.Struct("<QQq")  # offset, symbol << 32 | type, addend
_IDENTITY = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
_RELOCATABLE = 1
X86_64, ARM64 = 62, 183  # machines
_SYMBOLS, _RELA, _NO_BITS, _REL = 2, 4, 8, 9  # section types
_ALLOCATED = 2  # section flag
_FIRST_RESERVED = 0xFF00  # section numbers from here on mean something else
_PAGE = 4096  # sections may ask for no more alignment; memory comes with it
_MAX_IMAGE = 2**26
_READ, _WRITE, _EXECUTE = 1, 2, 4
_PRIVATE_ANONYMOUS = 0x22


class Linked(NamedTuple):
    """Code for memory at `base`; `entry` is an address."""

    image: bytes
    base: int
    entry: int


def load(code: bytes, entry: str) -> int | None:
    """The address of `entry` once the object file `code` is in executable memory; None where it is not of the simple kind."""
    machine = {"x86_64": X86_64, "aarch64": ARM64}.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        return None
    try:
        linked = link(code, entry, machine, _allocate)
        return linked.entry if linked is not None and _start(linked, machine) else None
    except (struct.error, LookupError, ValueError, OverflowError, OSError):
        return None


def link(code: bytes, entry: str, machine: int, allocate: Callable[[int], int]) -> Linked | None:
    """The object file `code` for where `allocate` has room for its bytes, a multiple of 4096; None where it is not of the simple kind."""
    identity, kind, own_machine, *_, sections_at, _, _, _, _, section_bytes, n_sections, _ = _HEADER.unpack_from(code)
    if not identity.startswith(_IDENTITY) or (kind, own_machine, section_bytes) != (_RELOCATABLE, machine, _SECTION.size):
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
    if entry.encode() not in symbols or any(section[1] == _REL for section in sections):
        return None
    base = allocate(size)
    for section in sections:
        if section[1] == _RELA and not _relocate(code, section, sections, places, symbols, image, base, _FORMS[machine]):
            return None
    return Linked(bytes(image), base, base + symbols[entry.encode()])


def _start(linked: Linked, machine: int) -> bool:
    """Put the code where it is to run; whether it may."""
    ctypes.memmove(linked.base, linked.image, len(linked.image))
    if _libc().mprotect(linked.base, len(linked.image), _READ | _EXECUTE):
        return False
    if machine == ARM64:  # whose caches of instructions do not see what is stored
        ctypes.CDLL("libgcc_s.so.1").__clear_cache(ctypes.c_void_p(linked.base), ctypes.c_void_p(linked.base + len(linked.image)))
    return True


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
    forms: dict[int, tuple[int, Callable[[int, int, int, int], int]]],
) -> bool:
    """Fill in the addresses that a section of relocations asks for; False where one asks for what is not here."""
    target = section[7]
    if target not in places:
        return True  # of what is not loaded, such as debugging information
    for at in range(section[4], section[4] + section[5], _RELOCATION.size):
        offset, info, addend = _RELOCATION.unpack_from(code, at)
        symbol, (width, form) = symbols.get(info >> 32), forms.get(info & 0xFFFFFFFF, (0, _absolute))
        if symbol is None or not width or offset + width > sections[target][5]:
            return False
        place = places[target] + offset
        value = form(int.from_bytes(image[place : place + width], "little"), symbol + addend, place, base)
        image[place : place + width] = value.to_bytes(width, "little", signed=value < 0)
    return True


def _absolute(before: int, to: int, place: int, base: int) -> int:
    return base + to


def _relative(before: int, to: int, place: int, base: int) -> int:
    return to - place


def _page(before: int, to: int, place: int, base: int) -> int:
    """Of ADRP: how many pages away; its lowest two bits from bit 29 on, the others from bit 5 on."""
    pages = _fitting((to >> 12) - (place >> 12), 21)
    return before & ~0x60FFFFE0 | (pages & 3) << 29 | (pages >> 2) << 5


def _branch(before: int, to: int, place: int, base: int) -> int:
    return before & ~0x3FFFFFF | _fitting((to - place) >> 2, 26)


def _sixteen(part: int) -> Callable[[int, int, int, int], int]:
    """Of MOVZ and MOVK: 16 bits of the address."""
    return lambda before, to, place, base: before & ~0x1FFFE0 | (base + to >> 16 * part & 0xFFFF) << 5


def _within_page(shift: int) -> Callable[[int, int, int, int], int]:
    """Of ADD, or of a load or store of 2^shift bytes, which counts in these: the address's lowest twelve bits."""

    def form(before: int, to: int, place: int, base: int) -> int:
        if to & ((1 << shift) - 1):
            raise ValueError("not aligned")
        return before & ~0x3FFC00 | (to & 0xFFF) >> shift << 10

    return form


def _fitting(value: int, bits: int) -> int:
    """The two's complement of a number that has room in so many bits."""
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise OverflowError("too far away")
    return value & ((1 << bits) - 1)


_LOW = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}  # ADD, and loads and stores by their size
_PARTS = {264: 0, 266: 1, 268: 2, 269: 3}  # of an address that may lie anywhere
_FORMS = {
    X86_64: {1: (8, _absolute), 2: (4, _relative), 4: (4, _relative), 24: (8, _relative)},
    ARM64: {257: (8, _absolute), 260: (8, _relative), 261: (4, _relative), 275: (4, _page), 282: (4, _branch), 283: (4, _branch)}
    | {number: (4, _within_page(shift)) for number, shift in _LOW.items()}
    | {number: (4, _sixteen(part)) for number, part in _PARTS.items()},
}
