"""IQ4_NL: f16 scale, 32 nibbles that name one of sixteen levels; value = d * level[q].

Where the CPU's dot takes any unsigned byte, the sixteen are moved up by 128 and centered there, as in Q8_0.
"""

from __future__ import annotations

from ggpy.blocks.levels import LEVELS
from ggpy.kernels.bits import nibbles_32, nibbles_64
from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline
from ggpy.simd.tables import byte_table
from ggpy.simd.target import target
from ggpy.simd.vectors import u8x32, u8x64

SIGNED = not target().dots_any_u8
CENTER = 0 if SIGNED else 128
ENTRIES = [int(level) + CENTER for level in LEVELS]

_entry_32, _entry_64 = byte_table(ENTRIES, u8x32), byte_table(ENTRIES, u8x64)


@inline
def values(w):
    return _entry_32(nibbles_32(w + 2))


@inline
def pair(w):
    return _entry_64(nibbles_64(w + 2, w + 20))


linear, embed = block32_kernels(values, pair, block_bytes=18, center=CENTER, signed=SIGNED)
