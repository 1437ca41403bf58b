"""Weights of values: importance * sqrt(mean square + x * x), the mean being over a row, a super-block or a block.

A mean's sum runs one value after the other, as in ggml; those of LANES rows run side by side.
"""

from __future__ import annotations

from ggpy.kernels.encode.chunks import value_bytes, widen
from ggpy.kernels.encode.rounding import splat_f32
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, splat_wide, store_wide, to_lanes, wide_constant
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import square_root
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import load_f32, load_f32x16, store_f32x16

ROWS = LANES
SUPER_BLOCK_BYTES = 1024  # of float32 values

_zero = wide_constant(0.0)
_piece, _columns = scratch(64 * LANES), scratch(16 * VECTOR_BYTES)


@inline
def mean_squares(source, kind, cols, rows, share, count, target):
    """LANES float32: (share * sum of squares) / count of each row. The `rows` rows of `cols` floats of any kind, a multiple of sixteen,
    lie one after the other; the last fills the lanes."""
    piece, columns, total = _piece(), _columns(), _zero()
    for first in range(0, cols, 16):
        for i in range(LANES):
            widen(source + value_bytes(kind) * (min(i, rows - 1) * cols + first), kind, 16, piece + 64 * i)
        to_lanes(piece, 64, 64, columns)
        for i in range(0, 16 * VECTOR_BYTES, VECTOR_BYTES):
            x = load_wide(columns + i)
            total = total + x * x
    store_wide(target, (splat_wide(share) * total) / splat_wide(count))


@inline
def store_weights(source, importance, mean, count, target):
    """Those of `count` float32, a multiple of sixteen."""
    for i in range(0, 4 * count, 64):
        x = load_f32x16(source + i)
        store_f32x16(target + i, load_f32x16(importance + i) * square_root(splat_f32(mean) + x * x))


@inline
def store_super_block_weights(source, count, first, about, means, target, together):
    """Weights of the super-blocks that follow `first` in a group, `together` of them, of which those from `count` on may be anything.

    about: (address of the importance, super-blocks in a row, number of the group's first); means: of all in the group.
    """
    importance, row_blocks, block = about
    for i in range(together):
        at = first + min(i, count - first - 1)
        column = importance + SUPER_BLOCK_BYTES * ((block + at) % row_blocks)
        store_weights(source + SUPER_BLOCK_BYTES * at, column, load_f32(means + 4 * at), 256, target + SUPER_BLOCK_BYTES * i)


@inline
def sum_of_weights(lanes, size):
    """The sum of vectors in `size` bytes, one after the other."""
    total = _zero()
    for i in range(0, size, VECTOR_BYTES):
        total = total + load_wide(lanes + i)
    return total
