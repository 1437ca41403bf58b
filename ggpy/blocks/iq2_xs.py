"""IQ2_XS: 256 values in 16 sub-blocks of 16, each with a 4-bit scale; groups of 8 from a grid of 512, and 7 bits of signs.

value = sign * (d * (scale + 1/2) / 4) * grid value
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, U16, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.grids import IQ2_XS as GRID
from ggpy.blocks.grids import signs_of, with_parity
from ggpy.blocks.planes import unpack_planes

FIELDS = (Field("d", F16, 1), Field("qs", U16, 32), Field("scales", U8, 8))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs, scales = split_fields(blocks, FIELDS)
    signs = with_parity((qs >> 9).astype(np.uint8))
    scale = (d.astype(np.float32) * (np.float32(0.5) + unpack_planes(scales, 4, row=1))) * np.float32(0.25)  # (n, 16)
    values = scale[..., None] * GRID.groups[qs & 511].reshape(-1, 16, 16)
    return values.reshape(-1, 256) * signs_of(signs)


IQ2_XS = BlockFormat("IQ2_XS", 17, 256, FIELDS, decode)
