"""IQ3_S: f16 d, the low bytes of 64 indices into a grid of four values, their ninth bits, 256 signs, eight 4-bit scales;
value = d * (2 * scale + 1) * grid value."""

from __future__ import annotations

from ggpy.blocks.grids import IQ3_S as GRID
from ggpy.kernels.grids import load_u8x4, packed_grid, u8x4, u8x8, widen, with_stored_signs
from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.bits import bit_fields
from ggpy.simd.memory import load_u8x32
from ggpy.simd.tables import replace_where
from ggpy.simd.vectors import concat, constant, convert, i16x16, permute, u8x16, u16x32

CENTER = 16

_look_up, _take_0, _take_1 = packed_grid(GRID.groups, CENTER)
_with_signs, _where, _ninth = with_stored_signs(CENTER), replace_where(u16x32, stored=True), constant(u16x32, 0x100)
_join, _twice, _nibbles, _one = concat(u8x4), concat(u8x8), bit_fields(u8x16, [(0, 4, 1), (4, 4, 1)]), constant(u8x16, 1)
_by_rows, _widen = permute(u8x16, [*range(4), *range(8, 12), *range(4, 8), *range(12, 16)]), convert(u8x16, i16x16)


@inline
def indices(low, ninth):
    low = widen(load_u8x32(low))
    return _where(load_u8x4(ninth), low | _ninth(), low)


@inline
def values(w):
    first, second = _look_up(indices(w + 2, w + 66)), _look_up(indices(w + 34, w + 70))
    return _with_signs(_take_0(first), _take_1(first), _take_0(second), _take_1(second), w + 74)


@inline
def words(v, w):
    both = _join(load_u8x4(v + 106), load_u8x4(w + 106))
    return _widen(_by_rows(_nibbles(_twice(both, both)) | _one()))


linear, embed = superblock_kernels(
    values, words, block_bytes=110, scale_lanes=[4 * (i % 2) + i // 2 for i in range(8)], n_words=8, center=CENTER
)
