"""IQ2_S: 256 values in 16 sub-blocks of 16, each with a 4-bit scale; groups of 8 from a grid of 1024, and 8 bits of signs.

value = sign * (d * (scale + 1/2) / 4) * grid value
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.grids import IQ2_S as GRID
from ggpy.blocks.grids import signs_of
from ggpy.blocks.planes import unpack_planes

FIELDS = (Field("d", F16, 1), Field("qs", U8, 64), Field("qh", U8, 8), Field("scales", U8, 8))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs, qh, scales = split_fields(blocks, FIELDS)
    low, signs = qs[:, :32], qs[:, 32:]
    index = low | (unpack_planes(qh, 2, row=1).astype(np.uint16) << 8)
    scale = (d.astype(np.float32) * (np.float32(0.5) + unpack_planes(scales, 4, row=1))) * np.float32(0.25)  # (n, 16)
    values = scale[..., None] * GRID.groups[index].reshape(-1, 16, 16)
    return values.reshape(-1, 256) * signs_of(signs)


IQ2_S = BlockFormat("IQ2_S", 22, 256, FIELDS, decode)
