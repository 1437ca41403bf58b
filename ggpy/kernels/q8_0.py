"""Q8_0: f16 scale, 32 int8; value = d * q.

Where the CPU's dot takes any unsigned byte, integers are moved up by 128 and centered there: one instruction, and no signs to handle.
"""

from __future__ import annotations

from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_i8x32, load_u8x32
from ggpy.simd.target import target
from ggpy.simd.vectors import concat, constant, i8x32, u8x32, u8x64

_moved = target().dots_any_u8
_sign, _sign_64, _join, _join_signed = constant(u8x32, 0x80), constant(u8x64, 0x80), concat(u8x32), concat(i8x32)


@inline
def moved_values(w):
    return load_u8x32(w + 2) ^ _sign()


@inline
def moved_pair(w):
    return _join(load_u8x32(w + 2), load_u8x32(w + 36)) ^ _sign_64()


@inline
def signed_values(w):
    return load_i8x32(w + 2)


@inline
def signed_pair(w):
    return _join_signed(load_i8x32(w + 2), load_i8x32(w + 36))


linear, embed = (
    block32_kernels(moved_values, moved_pair, block_bytes=34, center=128)
    if _moved
    else block32_kernels(signed_values, signed_pair, block_bytes=34, signed=True)
)
