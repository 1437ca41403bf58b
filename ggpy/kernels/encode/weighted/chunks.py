"""The loops around encoders with importance.

Words, int64: those of `ggpy.kernels.encode.chunks`, then the address of the importance, float32, one for each column, and the number of
blocks in a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.kernels.encode.chunks import chunk_encoder, chunk_size, no_magnitudes, value_bytes
from ggpy.kernels.encode.weighted.weights import ROWS, mean_squares
from ggpy.kernels.options import Kernel, kernel
from ggpy.simd.lanes import larger, largest_lane, scratch
from ggpy.simd.memory import atomic_add, atomic_max, load_i64


def by_blocks(encode_blocks: Callable, block_values: int, block_bytes: int, together: int) -> Kernel:
    """The kernel that encodes by `encode_blocks(source, target, count, block, about)` as `chunk_encoder` has it; about: (address of the
    importance, blocks in a row), blocks being counted from the first row on."""
    chunk, encode_chunk = chunk_size(block_values, together), chunk_encoder(encode_blocks, block_values, block_bytes, together)

    @kernel
    def encode(args, ith, nth):
        source, target, blocks = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        counter, fault, peak, kind = load_i64(args + 24), load_i64(args + 32), load_i64(args + 40), load_i64(args + 48)
        about = (load_i64(args + 56), load_i64(args + 64))
        first, most = atomic_add(counter, chunk), no_magnitudes()
        while first < blocks:
            most = larger(most, encode_chunk(source, kind, target, first, min(first + chunk, blocks), fault, about))
            first = atomic_add(counter, chunk)
        atomic_max(peak, np.int64(largest_lane(most)))

    return encode


def by_rows(encode_blocks: Callable, block_values: int, block_bytes: int, together: int) -> Kernel:
    """`by_blocks` for formats that take the mean square of a row; threads take whole rows.

    about: (address of the importance, blocks in a row, address of mean squares, float32, number of the block that their first row begins
    with).
    """
    encode_chunk = chunk_encoder(encode_blocks, block_values, block_bytes, together)
    means_of_rows = scratch(4 * ROWS)

    @kernel
    def encode(args, ith, nth):
        source, target, blocks = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        counter, fault, peak, kind = load_i64(args + 24), load_i64(args + 32), load_i64(args + 40), load_i64(args + 48)
        importance, row_blocks = load_i64(args + 56), load_i64(args + 64)
        means, chunk, cols = means_of_rows(), ROWS * row_blocks, row_blocks * block_values
        first, most = atomic_add(counter, chunk), no_magnitudes()
        while first < blocks:
            last = min(first + chunk, blocks)
            rows = source + value_bytes(kind) * block_values * first
            mean_squares(rows, kind, cols, (last - first) // row_blocks, np.float32(1), np.float32(cols), means)
            about = (importance, row_blocks, means, first)
            most = larger(most, encode_chunk(source, kind, target, first, last, fault, about))
            first = atomic_add(counter, chunk)
        atomic_max(peak, np.int64(largest_lane(most)))

    return encode
