"""Q8_K: 256 values, one float32 scale, int8 quants, their sums per 16: how activations meet the K formats. value = d * q."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F32, I8, I16, BlockFormat, Blocks, Field, Values, split_fields

FIELDS = (Field("d", F32, 1), Field("qs", I8, 256), Field("bsums", I16, 16))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs, _ = split_fields(blocks, FIELDS)
    return d * qs


Q8_K = BlockFormat("Q8_K", 15, 256, FIELDS, decode)
