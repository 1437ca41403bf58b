"""IQ2_XXS: f16 d, then for each 32 values four bytes, indices into a grid of eight values, and 32 bits: 7 bits of signs for each eight, the
eighth sign making them even, and a 4-bit scale; value = d * (2 * scale + 1) / 8 * grid value."""

from __future__ import annotations

from ggpy.blocks.grids import IQ2_XXS as GRID
from ggpy.kernels.grids import all_signs, packed_grid, signed_by, widen
from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.memory import load
from ggpy.simd.tables import seven_bits
from ggpy.simd.vectors import bitcast, concat, constant, convert, i16x16, permute, u8x32, u32x8, u32x16

CENTER = 43

_look_up, _take_0, _take_1, _take_2, _take_3 = packed_grid(GRID.groups, CENTER)
_with_signs, _load = signed_by(CENTER), load(u32x16)
_even, _odd, _bytes = permute(u32x16, range(0, 16, 2)), permute(u32x16, range(1, 16, 2)), bitcast(u32x8, u8x32)
_join, _down, _one, _narrow = concat(u32x8), constant(u32x16, 27), constant(u32x16, 1), convert(u32x16, i16x16)


@inline
def values(w):
    packed = _load(w + 2)
    found, signs = _look_up(widen(_bytes(_even(packed)))), all_signs(seven_bits(_odd(packed)))
    return _with_signs(_take_0(found), _take_1(found), _take_2(found), _take_3(found), signs)


@inline
def words(v, w):
    return _narrow((_join(_odd(_load(v + 2)), _odd(_load(w + 2))) >> _down()) | _one())


linear, embed = superblock_kernels(
    values, words, block_bytes=66, scale_lanes=range(8), n_words=8, center=CENTER, largest=2 * CENTER, unit=1 / 8
)
