"""IQ2_XS: f16 d, 32 words of which each names eight values of a grid by 9 bits, with 7 bits of signs as in IQ2_XXS above them; sixteen
4-bit scales; value = d * (2 * scale + 1) / 8 * grid value."""

from __future__ import annotations

from ggpy.blocks.grids import IQ2_XS as GRID
from ggpy.kernels.grids import NIBBLE_LANES, all_signs, narrow, odd_nibbles, packed_grid, signed_by
from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.memory import load
from ggpy.simd.vectors import constant, u16x32

CENTER = 43

_look_up, _take_0, _take_1, _take_2, _take_3 = packed_grid(GRID.groups, CENTER)
_with_signs, _load, _index_bits, _nine = signed_by(CENTER), load(u16x32), constant(u16x32, 511), constant(u16x32, 9)


@inline
def values(w):
    packed = _load(w + 2)
    found, signs = _look_up(packed & _index_bits()), all_signs(narrow(packed >> _nine()))
    return _with_signs(_take_0(found), _take_1(found), _take_2(found), _take_3(found), signs)


@inline
def words(v, w):
    return odd_nibbles(v + 66, w + 66)


linear, embed = superblock_kernels(
    values, words, block_bytes=74, group=16, scale_lanes=NIBBLE_LANES, center=CENTER, largest=2 * CENTER, unit=1 / 8
)
