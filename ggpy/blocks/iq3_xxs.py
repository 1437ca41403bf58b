"""IQ3_XXS: 256 values in 8 sub-blocks of 32, each with a 4-bit scale; groups of 4 from a grid of 256, 7 bits of signs for two.

value = sign * (d * (scale + 1/2) / 2) * grid value
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, U32, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.grids import IQ3_XXS as GRID
from ggpy.blocks.grids import signs_of, with_parity

FIELDS = (Field("d", F16, 1), Field("qs", U8, 96))
SIGN_SHIFTS = np.arange(0, 28, 7, dtype=np.uint32)  # of the pairs of groups of a sub-block; above them is the scale


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs = split_fields(blocks, FIELDS)
    index, words = qs[:, :64], np.ascontiguousarray(qs[:, 64:]).view(U32)  # (n, 64), (n, 8)
    signs = with_parity(((words[..., None] >> SIGN_SHIFTS) & 127).astype(np.uint8)).reshape(-1, 32)
    scale = (d.astype(np.float32) * (np.float32(0.5) + (words >> 28).astype(np.float32))) * np.float32(0.5)  # (n, 8)
    values = scale[..., None] * GRID.groups[index].reshape(-1, 8, 32)
    return values.reshape(-1, 256) * signs_of(signs)


IQ3_XXS = BlockFormat("IQ3_XXS", 18, 256, FIELDS, decode)
