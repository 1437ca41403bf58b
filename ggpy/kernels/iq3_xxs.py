"""IQ3_XXS: f16 d, 64 bytes, indices into a grid of four values, and for each 32 values 32 bits of signs and scale as in IQ2_XXS;
value = d * (2 * scale + 1) / 4 * grid value."""

from __future__ import annotations

from ggpy.blocks.grids import IQ3_XXS as GRID
from ggpy.kernels.grids import all_signs, packed_grid, signed_by, widen
from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.memory import load, load_u8x32
from ggpy.simd.tables import seven_bits
from ggpy.simd.vectors import concat, constant, convert, i16x16, u32x8, u32x16

CENTER = 62

_look_up, _take_0, _take_1 = packed_grid(GRID.groups, CENTER)
_with_signs, _load = signed_by(CENTER), load(u32x8)
_join, _down, _one, _narrow = concat(u32x8), constant(u32x16, 27), constant(u32x16, 1), convert(u32x16, i16x16)


@inline
def values(w):
    first, second = _look_up(widen(load_u8x32(w + 2))), _look_up(widen(load_u8x32(w + 34)))
    return _with_signs(_take_0(first), _take_1(first), _take_0(second), _take_1(second), all_signs(seven_bits(_load(w + 66))))


@inline
def words(v, w):
    return _narrow((_join(_load(v + 66), _load(w + 66)) >> _down()) | _one())


linear, embed = superblock_kernels(
    values, words, block_bytes=98, scale_lanes=range(8), n_words=8, center=CENTER, largest=2 * CENTER, unit=1 / 4
)
