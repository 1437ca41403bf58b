"""Integers of a few bits, packed low bits first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unpack_stream(packed: np.ndarray, bits: int) -> NDArray[np.uint8]:
    """uint8 (rows, n) -> uint8 (rows, 8n / bits): each row one stream of integers of 2, 3, 4 or 8 bits, n a multiple of 3 for 3 bits."""
    rows, n = packed.shape
    if bits == 8:
        return packed
    unit = 3 if bits == 3 else 1  # bytes that hold a whole number of integers
    group = packed.reshape(rows, n // unit, unit)
    found = np.empty((rows, n // unit, 8 * unit // bits), np.uint8)
    for i in range(found.shape[2]):
        byte, shift = divmod(i * bits, 8)
        integer = group[:, :, byte] >> shift
        if shift + bits > 8:
            integer |= group[:, :, byte + 1] << (8 - shift)
        np.bitwise_and(integer, (1 << bits) - 1, out=found[:, :, i])
    return found.reshape(rows, -1)


def unpack_words(words: np.ndarray, bits: int, count: int) -> NDArray[np.uint8]:
    """uint32 (rows, n) -> uint8 (rows, count): each word holds 32 // bits integers, of up to 8 bits, and its other bits nothing."""
    per_word = 32 // bits
    found = np.empty((*words.shape, per_word), np.uint8)
    for i in range(per_word):
        found[:, :, i] = (words >> np.uint32(i * bits)) & np.uint32((1 << bits) - 1)
    return found.reshape(len(words), -1)[:, :count]
