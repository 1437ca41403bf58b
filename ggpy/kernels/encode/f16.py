"""F16: float32 rounded to binary16, to nearest even. Words count groups of sixteen values."""

from __future__ import annotations

from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_f32x16, store_f16x16
from ggpy.simd.vectors import convert, f16x16, f32x16

_to_f16 = convert(f32x16, f16x16)


@inline
def encode_group(source, target, count):
    store_f16x16(target, _to_f16(load_f32x16(source)))


encode = encoder(encode_group, block_values=16, block_bytes=32)
