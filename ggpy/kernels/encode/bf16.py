"""BF16: the upper half of float32, rounded to nearest even. Words count groups of sixteen values."""

from __future__ import annotations

from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.options import inline
from ggpy.simd.memory import load, store
from ggpy.simd.vectors import constant, convert, u16x16, u32x16

_load, _store = load(u32x16), store(u16x16)
_upper = convert(u32x16, u16x16)
_sixteen, _one, _below_half = constant(u32x16, 16), constant(u32x16, 1), constant(u32x16, 0x7FFF)


@inline
def encode_group(source, target, count):
    bits = _load(source)
    odd = (bits >> _sixteen()) & _one()
    _store(target, _upper((bits + (_below_half() + odd)) >> _sixteen()))


encode = encoder(encode_group, block_values=16, block_bytes=32)
