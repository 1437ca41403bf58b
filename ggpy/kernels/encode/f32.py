"""F32: as it is, widened where the source is narrower. Words count groups of sixteen values."""

from __future__ import annotations

from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_f32x16, store_f32x16


@inline
def encode_group(source, target, count):
    store_f32x16(target, load_f32x16(source))


encode = encoder(encode_group, block_values=16, block_bytes=64)
