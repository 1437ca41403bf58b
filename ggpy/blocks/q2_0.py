"""Q2_0: 64 values, one scale, each quant -1, 0, 1 or 2 in two bits. value = (q - 1) * d."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.planes import unpack_planes

FIELDS = (Field("d", F16, 1), Field("qs", U8, 16))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs = split_fields(blocks, FIELDS)
    return (unpack_planes(qs, 2, row=1).astype(np.int8) - 1) * d.astype(np.float32)


Q2_0 = BlockFormat("Q2_0", 42, 64, FIELDS, decode)
