"""Q3_K: 256 values in 16 sub-blocks of 16, each with a 6-bit scale around 32; 3-bit quants around 4.

value = (d * (scale - 32)) * (q - 4)
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.planes import unpack_planes

FIELDS = (Field("hmask", U8, 32), Field("qs", U8, 64), Field("scales", U8, 12), Field("d", F16, 1))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    hmask, qs, scales, d = split_fields(blocks, FIELDS)
    six_bits = unpack_planes(scales[:, :8], 4) | (unpack_planes(scales[:, 8:], 2) << 4)
    scale = d.astype(np.float32) * (six_bits.astype(np.int8) - 32)  # (n, 16)
    quants = (unpack_planes(qs, 2) | (unpack_planes(hmask, 1) << 2)).astype(np.int8) - 4
    return (scale[..., None] * quants.reshape(-1, 16, 16)).reshape(-1, 256)


Q3_K = BlockFormat("Q3_K", 11, 256, FIELDS, decode)
