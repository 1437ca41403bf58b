"""IQ1_S: f16 d, the low bytes of 32 indices into a grid of eight values -1, 0 or 1, and for each 32 values a word: the upper three bits of
four indices, a 3-bit scale, and whether an eighth is taken from every value or added; value = d * (2 * scale + 1) * (grid value ± 1 / 8).

In eighths, a grid value and its shift are an integer from -9 to 9.
"""

from __future__ import annotations

from ggpy.blocks.grids import IQ1_S as GRID
from ggpy.kernels.grids import packed_grid, shifted, widen
from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.memory import load, load_u8x32
from ggpy.simd.vectors import Vector, bitcast, concat, constant, i16x16, permute, u16x16, u16x32

CENTER = 9

u16x8 = Vector("u16", 8)
_look_up, _take_0, _take_1, _take_2, _take_3 = packed_grid(8 * GRID.groups, CENTER)
_load, _each, _join = load(u16x8), permute(u16x8, [i // 4 for i in range(32)]), concat(u16x8)
_down, _three_bits, _eight = constant(u16x32, [0, 3, 6, 9] * 8), constant(u16x32, 7), constant(u16x32, 8)
_eleven, _odd, _one, _words = constant(u16x16, 11), constant(u16x16, 14), constant(u16x16, 1), bitcast(u16x16, i16x16)


@inline
def values(w):
    each = _each(_load(w + 34))
    found = _look_up(widen(load_u8x32(w + 2)) | (((each >> _down()) & _three_bits()) << _eight()))
    return shifted(_take_0(found), _take_1(found), _take_2(found), _take_3(found), each >> _eight())


@inline
def words(v, w):
    return _words(((_join(_load(v + 34), _load(w + 34)) >> _eleven()) & _odd()) | _one())


linear, embed = superblock_kernels(values, words, block_bytes=50, scale_lanes=range(8), n_words=8, center=CENTER, unit=1 / 8)
