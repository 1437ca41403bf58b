"""IQ3_S: 256 values in 8 sub-blocks of 32, each with a 4-bit scale; groups of 4 from a grid of 512, and a sign bit for each value.

value = sign * (d * (2 * scale + 1)) * grid value
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.grids import IQ3_S as GRID
from ggpy.blocks.grids import signs_of
from ggpy.blocks.planes import unpack_bits, unpack_planes

FIELDS = (Field("d", F16, 1), Field("qs", U8, 64), Field("qh", U8, 8), Field("signs", U8, 32), Field("scales", U8, 4))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs, qh, signs, scales = split_fields(blocks, FIELDS)
    index = qs | (unpack_bits(qh).astype(np.uint16) << 8)
    scale = d.astype(np.float32) * (2 * unpack_planes(scales, 4, row=1) + 1).astype(np.float32)  # (n, 8)
    values = scale[..., None] * GRID.groups[index].reshape(-1, 8, 32)
    return values.reshape(-1, 256) * signs_of(signs)


IQ3_S = BlockFormat("IQ3_S", 21, 256, FIELDS, decode)
