"""IQ1_S: 256 values in 8 sub-blocks of 32, each with a 3-bit scale and a shift; groups of 8 from a grid of 2048.

value = (d * (2 * scale + 1)) * (grid value + shift), the shift being 1/8 or -1/8
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, U16, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.grids import IQ1_S as GRID

FIELDS = (Field("d", F16, 1), Field("qs", U8, 32), Field("qh", U16, 8))
SHIFT = np.float32(0.125)
HIGH_SHIFTS = np.arange(0, 12, 3, dtype=np.uint16)  # where in qh the high bits of the indices of a sub-block are


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs, qh = split_fields(blocks, FIELDS)
    high = ((qh[..., None] >> HIGH_SHIFTS) & 7).reshape(-1, 32)
    scale = d.astype(np.float32) * (2 * ((qh >> 12) & 7) + 1).astype(np.float32)  # (n, 8)
    shift = np.where(qh >> 15, -SHIFT, SHIFT)
    values = GRID.groups[qs | (high << 8)].reshape(-1, 8, 32) + shift[..., None]
    return (scale[..., None] * values).reshape(-1, 256)


IQ1_S = BlockFormat("IQ1_S", 19, 256, FIELDS, decode)
