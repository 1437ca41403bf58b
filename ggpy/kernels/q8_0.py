"""Q8_0: f16 scale, 32 int8; value = d * q.

Where the CPU's dot takes any unsigned byte, integers are moved up by 128 and centered there: one instruction, and no signs to handle.
"""

from __future__ import annotations

from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_i8x32, load_u8x32
from ggpy.simd.target import target
from ggpy.simd.vectors import constant, u8x32

_moved = target().dots_any_u8
_sign = constant(u8x32, 0x80)


@inline
def moved_values(w):
    return load_u8x32(w + 2) ^ _sign()


@inline
def signed_values(w):
    return load_i8x32(w + 2)


linear, embed = block32_kernels(moved_values if _moved else signed_values, block_bytes=34, center=128 if _moved else 0, signed=not _moved)
