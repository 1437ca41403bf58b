"""IQ1_M: the low bytes of 32 indices into IQ1_S's grid, a nibble for each, three bits above them and the shift's sign, and four words with
sixteen 3-bit scales, whose upper nibbles are a float16 d; value = d * (2 * scale + 1) * (grid value ± 1 / 8)."""

from __future__ import annotations

from ggpy.blocks.grids import IQ1_S as GRID
from ggpy.kernels.grids import packed_grid, shifted, widen
from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.arithmetic import f16_from_bits
from ggpy.simd.memory import load, load_i64, load_u8x16, load_u8x32
from ggpy.simd.vectors import Vector, bitcast, concat, constant, i16x32, permute, u8x16, u16x16, u16x32

CENTER = 9

u16x4 = Vector("u16", 4)
_look_up, _take_0, _take_1, _take_2, _take_3 = packed_grid(8 * GRID.groups, CENTER)
_load, _each_twice, _each = load(u16x4), permute(u8x16, [i // 2 for i in range(32)]), permute(u16x4, [i // 4 for i in range(16)])
_up, _top_bits, _sign_up = constant(u16x32, [8, 4] * 16), constant(u16x32, 0x700), constant(u16x32, [4, 0] * 16)
_join, _down, _three_bits = concat(u16x16), constant(u16x32, [0, 3, 6, 9] * 8), constant(u16x32, 7)
_one, _words = constant(u16x32, 1), bitcast(u16x32, i16x32)


@inline
def values(w):
    each = widen(_each_twice(load_u8x16(w + 32)))
    found = _look_up(widen(load_u8x32(w)) | ((each << _up()) & _top_bits()))
    return shifted(_take_0(found), _take_1(found), _take_2(found), _take_3(found), each << _sign_up())


@inline
def words(v, w):
    scales = (_join(_each(_load(v + 48)), _each(_load(w + 48))) >> _down()) & _three_bits()
    return _words(scales + scales + _one())


@inline
def step(w):
    scales = load_i64(w + 48)
    bits = ((scales >> 12) & 0xF) | ((scales >> 24) & 0xF0) | ((scales >> 36) & 0xF00) | ((scales >> 48) & 0xF000)
    return f16_from_bits(bits)


linear, embed = superblock_kernels(values, words, block_bytes=56, group=16, scale_lanes=range(16), center=CENTER, unit=1 / 8, step=step)
