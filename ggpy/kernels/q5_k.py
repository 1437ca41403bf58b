"""Q5_K: as Q4_K, with 256 fifth bits before the nibbles: bit j of byte i belongs to value i of sub-block j."""

from __future__ import annotations

import numpy as np

from ggpy.kernels.options import inline
from ggpy.kernels.packed_scales import packed_lows, packed_scales
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.memory import load_f16, load_u8x32
from ggpy.simd.vectors import concat, constant, splat, u8x32

_low, _four, _one, _join, _all = constant(u8x32, 15), constant(u8x32, 4), constant(u8x32, 1), concat(u8x32), splat(u8x32)


@inline
def values(w, c):
    q, bits = load_u8x32(w + 48 + 32 * c), load_u8x32(w + 16)
    even = ((bits >> _all(np.uint8(2 * c))) & _one()) << _four()
    odd = ((bits >> _all(np.uint8(2 * c + 1))) & _one()) << _four()
    return _join((q & _low()) | even, (q >> _four()) | odd)


@inline
def scales(w):
    return packed_scales(w + 4)


@inline
def step(w):
    return load_f16(w)


@inline
def lows(w):
    return packed_lows(w + 2, w + 4)


linear, embed = superblock_kernels(values, scales, step, lows, block_bytes=176, group=32)
