"""Quants narrower than a byte, in bit planes: neighbouring values lie in neighbouring bytes, at the same bits.

A byte row of k bytes holds 8 // width planes of k values each, plane p at bits p * width upwards. The formats of 32 values have one
such row; the K formats have rows of 32 bytes, each followed by the next.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unpack_planes(packed: np.ndarray, width: int, row: int = 32) -> NDArray[np.uint8]:
    """uint8 (n, m), rows of at most `row` bytes -> uint8 (n, m * 8 // width): the planes of the first row, then of the next."""
    n, n_bytes = packed.shape
    row = min(row, n_bytes)
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    planes = (packed.reshape(n, n_bytes // row, 1, row) >> shifts) & np.uint8((1 << width) - 1)  # (n, rows, planes, row)
    return planes.reshape(n, n_bytes * 8 // width)


def pack_planes(quants: np.ndarray, width: int, row: int = 32) -> NDArray[np.uint8]:
    """Integers below 2**width, (n, m * 8 // width) -> uint8 (n, m): the inverse of `unpack_planes`."""
    n, n_bytes = len(quants), quants.shape[1] * width // 8
    row = min(row, n_bytes)
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    planes = quants.astype(np.uint8).reshape(n, n_bytes // row, 8 // width, row)
    return np.bitwise_or.reduce(planes << shifts, axis=2).reshape(n, n_bytes)


def unpack_bits(packed: np.ndarray) -> NDArray[np.uint8]:
    """uint8 (n, m) -> 0 or 1, uint8 (n, 8m): bit i of byte j is value 8j + i, as the formats of 32 values keep their fifth bits."""
    return np.unpackbits(packed, axis=1, bitorder="little")


def pack_bits(bits: np.ndarray) -> NDArray[np.uint8]:
    """0 or 1 (n, 8m) -> uint8 (n, m): the inverse of `unpack_bits`."""
    return np.packbits(bits.astype(np.uint8), axis=1, bitorder="little")
