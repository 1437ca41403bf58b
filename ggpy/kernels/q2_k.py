"""Q2_K: sixteen bytes of 4-bit scale and 4-bit min, 256 two-bit values, f16 d, f16 dmin; value = d * scale * q - dmin * min.

Of each half of 128 values, byte l of its 32 bytes holds values l, l + 32, l + 64 and l + 96, two bits each.
"""

from __future__ import annotations

import numpy as np

from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.memory import load_f16, load_u8x16, load_u8x32
from ggpy.simd.vectors import concat, constant, convert, f32x16, i32x16, splat, u8x16, u8x32

_three, _nibble, _four = constant(u8x32, 3), constant(u8x16, 15), constant(u8x16, 4)
_join, _all, _all_f32 = concat(u8x32), splat(u8x32), splat(f32x16)
_widen, _to_f32 = convert(u8x16, i32x16), convert(i32x16, f32x16)


@inline
def values(w, c):
    q = load_u8x32(w + 16 + 32 * (c // 2)) >> _all(np.uint8(4 * (c % 2)))
    return _join(q & _three(), (q >> _all(np.uint8(2))) & _three())


@inline
def scales(w):
    return _widen(load_u8x16(w) & _nibble())


@inline
def step(w):
    return load_f16(w + 80)


@inline
def lows(w):
    return _to_f32(_widen(load_u8x16(w) >> _four())) * _all_f32(load_f16(w + 82))


linear, embed = superblock_kernels(values, scales, step, lows, block_bytes=84, group=16)
