"""IQ2_XXS: 256 values in 8 sub-blocks of 32, each with a 4-bit scale; groups of 8 from a grid of 256, and 7 bits of signs.

value = sign * (d * (scale + 1/2) / 4) * grid value
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U16, U32, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.grids import IQ2_XXS as GRID
from ggpy.blocks.grids import signs_of, with_parity

FIELDS = (Field("d", F16, 1), Field("qs", U16, 32))
SIGN_SHIFTS = np.arange(0, 28, 7, dtype=np.uint32)  # of the groups of a sub-block; above them is the scale


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs = split_fields(blocks, FIELDS)
    words = np.ascontiguousarray(qs).view(U32).reshape(-1, 8, 2)  # four indices; signs and scale
    index = np.ascontiguousarray(words[..., 0]).view(np.uint8).reshape(-1, 32)
    signs = with_parity(((words[..., 1:] >> SIGN_SHIFTS) & 127).astype(np.uint8)).reshape(-1, 32)
    scale = (d.astype(np.float32) * (np.float32(0.5) + (words[..., 1] >> 28).astype(np.float32))) * np.float32(0.25)  # (n, 8)
    values = scale[..., None] * GRID.groups[index].reshape(-1, 8, 32)
    return values.reshape(-1, 256) * signs_of(signs)


IQ2_XXS = BlockFormat("IQ2_XXS", 16, 256, FIELDS, decode)
