"""Q1_0: 128 values, one scale, a sign each. value = d where the bit is set, else -d."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.planes import unpack_bits

FIELDS = (Field("d", F16, 1), Field("qs", U8, 16))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs = split_fields(blocks, FIELDS)
    scale = d.astype(np.float32)
    return np.where(unpack_bits(qs), scale, -scale)


Q1_0 = BlockFormat("Q1_0", 41, 128, FIELDS, decode)
