"""Quants of a block of 32, in two vectors of sixteen, stored as nibbles and fifth bits."""

from __future__ import annotations

import numpy as np

from ggpy.kernels.encode.rounding import to_u8
from ggpy.kernels.options import inline
from ggpy.simd.lanes import lanes_less
from ggpy.simd.memory import store_u8x16, store_u32
from ggpy.simd.vectors import constant, i32x16

_low_bits, _four, _fifteen = constant(i32x16, 0x0F), constant(i32x16, 4), constant(i32x16, 15)


@inline
def store_nibbles(target, low, high):
    """Sixteen bytes: the low four bits of value j in the low nibble, those of value j + 16 above."""
    store_u8x16(target, to_u8((low & _low_bits()) | ((high & _low_bits()) << _four())))


@inline
def store_fifth_bits(target, low, high):
    """Four bytes: bit j set where quant j, 0..31, is above 15."""
    bits = lanes_less(_fifteen(), low) | lanes_less(_fifteen(), high) << 16
    store_u32(target, np.uint32(bits))
