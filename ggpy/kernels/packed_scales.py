"""The 6-bit scales and mins of Q4_K and Q5_K: eight of each in twelve bytes.

Bytes 0-3: scales 0-3 (low 6 bits); 4-7: mins 0-3; 8-11: the low nibbles of scales 4-7 and, above them, of mins 4-7, whose upper two bits
are the top bits of bytes 0-3 and 4-7."""

from __future__ import annotations

from numba.core import types

from ggpy.kernels.options import inline
from ggpy.simd.memory import load_f16, load_u32
from ggpy.simd.vectors import bitcast, convert, f32x8, i32x8, splat, u8x8

_U32, _U64 = types.uint32, types.uint64
_bytes, _widen, _to_f32, _all = bitcast(types.uint64, u8x8), convert(u8x8, i32x8), convert(i32x8, f32x8), splat(f32x8)
_SIX, _FOUR, _TWO = 0x3F3F3F3F, 0x0F0F0F0F, 0x03030303


@inline
def _eight(low, high):
    return _widen(_bytes(_U64(low) | (_U64(high) << _U64(32))))


@inline
def packed_scales(p):
    """i32x8 from the twelve bytes at p."""
    a, c = load_u32(p), load_u32(p + 8)
    return _eight(a & _U32(_SIX), (c & _U32(_FOUR)) | (((a >> _U32(6)) & _U32(_TWO)) << _U32(4)))


@inline
def packed_lows(w, p):
    """f32x8: the mins in the twelve bytes at p times the super-block's f16 at w."""
    b, c = load_u32(p + 4), load_u32(p + 8)
    mins = _eight(b & _U32(_SIX), ((c >> _U32(4)) & _U32(_FOUR)) | (((b >> _U32(6)) & _U32(_TWO)) << _U32(4)))
    return _to_f32(mins) * _all(load_f16(w))
