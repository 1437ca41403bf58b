"""Q2_K: 256 values in 16 sub-blocks of 16, each with a 4-bit scale and a 4-bit min; 2-bit quants.

value = (d * scale) * q - (dmin * min)
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.planes import unpack_planes

FIELDS = (Field("scales", U8, 16), Field("qs", U8, 64), Field("d", F16, 1), Field("dmin", F16, 1))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    scales, qs, d, dmin = split_fields(blocks, FIELDS)
    scale = d.astype(np.float32) * (scales & 0x0F)  # (n, 16)
    minimum = dmin.astype(np.float32) * (scales >> 4)
    quants = unpack_planes(qs, 2).reshape(-1, 16, 16)
    return (scale[..., None] * quants - minimum[..., None]).reshape(-1, 256)


Q2_K = BlockFormat("Q2_K", 10, 256, FIELDS, decode)
