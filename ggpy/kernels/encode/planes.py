"""Quants of a super-block, 256 of a byte each, in planes of two bits and of one."""

from __future__ import annotations

from ggpy.kernels.options import inline
from ggpy.simd.memory import load_u8x32, store_u8x32
from ggpy.simd.vectors import constant, u8x32

_none, _one, _two, _four, _six = (constant(u8x32, n) for n in (0, 1, 2, 4, 6))
_low_bits, _seven = constant(u8x32, 3), constant(u8x32, 7)


@inline
def store_two_bits(target, quants):
    """64 bytes: the low two bits of quants 0, 32, 64, 96 of each half, from the low bits up."""
    for half in range(2):
        q = quants + 128 * half
        q1, q2 = load_u8x32(q) & _low_bits(), load_u8x32(q + 32) & _low_bits()
        q3, q4 = load_u8x32(q + 64) & _low_bits(), load_u8x32(q + 96)
        store_u8x32(target + 32 * half, q1 | q2 << _two() | q3 << _four() | q4 << _six())


@inline
def store_third_bits(target, quants):
    """32 bytes: bit k of byte j is the third bit of quant 32 * k + j, quants being 0..7."""
    bits = _none()
    for k in range(0, 256, 32):
        bits = bits >> _one() | load_u8x32(quants + k) >> _two() << _seven()
    store_u8x32(target, bits)
