"""Q3_K: 256 third bits, 256 two-bit values, sixteen 6-bit scales in twelve bytes, f16 d; value = d * (scale - 32) * (q - 4).

Bit 4h + j of byte l of the third bits belongs to value l + 32 j of half h; two-bit values lie as in Q2_K. Scales: the low nibbles of
sixteen in bytes 0-7 (0-7 low, 8-15 high), their upper two bits in bytes 8-11, for scales s, s + 4, s + 8, s + 12 from the lowest up."""

from __future__ import annotations

import numpy as np
from numba.core import types

from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.memory import load_f16, load_u8x32, load_u32
from ggpy.simd.vectors import bitcast, concat, constant, convert, f32x16, i32x16, splat, u8x8, u8x16, u8x32

_U32, _U64 = types.uint32, types.uint64
_three, _one = constant(u8x32, 3), constant(u8x32, 1)
_join, _all, _all_f32 = concat(u8x32), splat(u8x32), splat(f32x16)
_bytes, _sixteen, _widen = bitcast(types.uint64, u8x8), concat(u8x8), convert(u8x16, i32x16)
_middle, _to_f32 = constant(i32x16, 32), convert(i32x16, f32x16)


@inline
def values(w, c):
    pair = 2 * (c % 2)
    q = load_u8x32(w + 32 + 32 * (c // 2)) >> _all(np.uint8(2 * pair))
    bits = load_u8x32(w) >> _all(np.uint8(4 * (c // 2) + pair))
    first = (q & _three()) | ((bits & _one()) << _all(np.uint8(2)))
    second = ((q >> _all(np.uint8(2))) & _three()) | (((bits >> _one()) & _one()) << _all(np.uint8(2)))
    return _join(first, second)


@inline
def _four_scales(nibbles, top):
    return _U64((nibbles & _U32(0x0F0F0F0F)) | ((top & _U32(0x03030303)) << _U32(4)))


@inline
def scales(w):
    a, b, top = load_u32(w + 96), load_u32(w + 100), load_u32(w + 104)
    low = _four_scales(a, top) | (_four_scales(b, top >> _U32(2)) << _U64(32))
    high = _four_scales(a >> _U32(4), top >> _U32(4)) | (_four_scales(b >> _U32(4), top >> _U32(6)) << _U64(32))
    return _widen(_sixteen(_bytes(low), _bytes(high))) - _middle()


@inline
def step(w):
    return load_f16(w + 108)


@inline
def lows(w):
    return _to_f32(scales(w)) * _all_f32(load_f16(w + 108) * np.float32(4))


linear, embed = superblock_kernels(values, scales, step, lows, block_bytes=110, group=16)
