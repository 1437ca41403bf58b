"""CRC-32 of bytes that were looked at in pieces, by several threads."""

from __future__ import annotations

from collections.abc import Iterable

_POLYNOMIAL = 0xEDB88320  # CRC-32's, bit 31 standing for x⁰


def joined_crc32(pieces: Iterable[tuple[int, int]]) -> int:
    """The CRC-32 of bytes that follow each other, from (number of bytes, CRC-32) of each piece.

    A CRC is a remainder modulo a polynomial; to go on by n bytes is to multiply it by x^8n.
    """
    total, powers = 0, {}
    for n_bytes, checksum in pieces:
        if n_bytes not in powers:
            powers[n_bytes] = _power_of_x(8 * n_bytes)
        total = _product(powers[n_bytes], total) ^ checksum
    return total


def _product(a: int, b: int) -> int:
    """a * b modulo the polynomial."""
    result = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            result ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return result


def _power_of_x(exponent: int) -> int:
    result, square = 1 << 31, 1 << 30
    while exponent:
        if exponent & 1:
            result = _product(result, square)
        square, exponent = _product(square, square), exponent >> 1
    return result
