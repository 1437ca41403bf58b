"""IQ2_S: f16 d, the low bytes of 32 indices into a grid of eight values, 256 signs, the indices' upper two bits, sixteen 4-bit scales;
value = d * (2 * scale + 1) / 8 * grid value."""

from __future__ import annotations

from ggpy.blocks.grids import IQ2_S as GRID
from ggpy.kernels.grids import NIBBLE_LANES, load_u8x8, odd_nibbles, packed_grid, u8x8, widen, with_stored_signs
from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.memory import load_u8x32
from ggpy.simd.vectors import constant, permute, u16x32

CENTER = 43

_look_up, _take_0, _take_1, _take_2, _take_3 = packed_grid(GRID.groups, CENTER)
_with_signs, _each = with_stored_signs(CENTER), permute(u8x8, [i // 4 for i in range(32)])
_up, _top_bits = constant(u16x32, [8, 6, 4, 2] * 8), constant(u16x32, 0x300)


@inline
def values(w):
    top = (widen(_each(load_u8x8(w + 66))) << _up()) & _top_bits()
    found = _look_up(widen(load_u8x32(w + 2)) | top)
    return _with_signs(_take_0(found), _take_1(found), _take_2(found), _take_3(found), w + 34)


@inline
def words(v, w):
    return odd_nibbles(v + 74, w + 74)


linear, embed = superblock_kernels(
    values, words, block_bytes=82, group=16, scale_lanes=NIBBLE_LANES, center=CENTER, largest=2 * CENTER, unit=1 / 8
)
