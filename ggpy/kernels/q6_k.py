"""Q6_K: 256 low nibbles, 256 upper two bits, sixteen int8 scales, f16 d; value = d * scale * (q - 32).

Of each half of 128 values, 64 bytes hold the low nibbles (first 64 values) and high nibbles (last 64); byte l of its 32 bytes of upper bits
holds, two bits each, those of values l, l + 32, l + 64 and l + 96.
"""

from __future__ import annotations

import numpy as np

from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.memory import load_f16, load_i8x16, load_u8x32, load_u8x64
from ggpy.simd.vectors import concat, constant, convert, f32x16, i8x16, i32x16, splat, u8x32, u8x64

_nibble, _top, _four = constant(u8x64, 15), constant(u8x64, 0x30), constant(u8x32, 4)
_join, _all, _all_x64, _all_f32 = concat(u8x32), splat(u8x32), splat(u8x64), splat(f32x16)
_widen, _to_f32 = convert(i8x16, i32x16), convert(i32x16, f32x16)


@inline
def values(w, c):
    half, high = c // 2, c % 2
    q = load_u8x64(w + 64 * half) >> _all_x64(np.uint8(4 * high))
    bits = load_u8x32(w + 128 + 32 * half) >> _all(np.uint8(4 * high))
    shifted = _join(bits << _four(), (bits << _all(np.uint8(2))))
    return (q & _nibble()) | (shifted & _top())


@inline
def scales(w):
    return _widen(load_i8x16(w + 192))


@inline
def step(w):
    return load_f16(w + 208)


@inline
def lows(w):
    return _to_f32(scales(w)) * _all_f32(load_f16(w + 208) * np.float32(32))


linear, embed = superblock_kernels(values, scales, step, lows, block_bytes=210, group=16)
