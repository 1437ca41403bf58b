"""Q4_K: f16 d, f16 dmin, 6-bit scales and mins of eight sub-blocks, 256 nibbles; value = d * scale * q - dmin * min."""

from __future__ import annotations

from ggpy.kernels.options import inline
from ggpy.kernels.packed_scales import packed_lows, packed_scales
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.memory import load_f16, load_u8x32
from ggpy.simd.vectors import concat, constant, u8x32

_low, _four, _join = constant(u8x32, 15), constant(u8x32, 4), concat(u8x32)


@inline
def values(w, c):
    q = load_u8x32(w + 16 + 32 * c)
    return _join(q & _low(), q >> _four())


@inline
def scales(w):
    return packed_scales(w + 4)


@inline
def step(w):
    return load_f16(w)


@inline
def lows(w):
    return packed_lows(w + 2, w + 4)


linear, embed = superblock_kernels(values, scales, step, lows, block_bytes=144, group=32)
