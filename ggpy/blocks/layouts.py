"""Formats whose layout is known and whose decoding is not written: a reader can size, show and copy such tensors.

Fields as in ggml's `ggml-common.h`. A format that gains a decoder gets a file of its own.
"""

from __future__ import annotations

from ggpy.blocks.block_format import F16, I8, U8, U16, BlockFormat, Field

Q8_1 = BlockFormat("Q8_1", 9, 32, (Field("d", F16, 1), Field("s", F16, 1), Field("qs", I8, 32)))

IQ2_XXS = BlockFormat("IQ2_XXS", 16, 256, (Field("d", F16, 1), Field("qs", U16, 32)))
IQ2_XS = BlockFormat("IQ2_XS", 17, 256, (Field("d", F16, 1), Field("qs", U16, 32), Field("scales", U8, 8)))
IQ3_XXS = BlockFormat("IQ3_XXS", 18, 256, (Field("d", F16, 1), Field("qs", U8, 96)))
IQ1_S = BlockFormat("IQ1_S", 19, 256, (Field("d", F16, 1), Field("qs", U8, 32), Field("qh", U16, 8)))
IQ3_S = BlockFormat(
    "IQ3_S", 21, 256, (Field("d", F16, 1), Field("qs", U8, 64), Field("qh", U8, 8), Field("signs", U8, 32), Field("scales", U8, 4))
)
IQ2_S = BlockFormat("IQ2_S", 22, 256, (Field("d", F16, 1), Field("qs", U8, 64), Field("qh", U8, 8), Field("scales", U8, 8)))
IQ1_M = BlockFormat("IQ1_M", 29, 256, (Field("qs", U8, 32), Field("qh", U8, 16), Field("scales", U8, 8)))

NVFP4 = BlockFormat("NVFP4", 40, 64, (Field("d", U8, 4), Field("qs", U8, 32)))

Q1_0 = BlockFormat("Q1_0", 41, 128, (Field("d", F16, 1), Field("qs", U8, 16)))
Q2_0 = BlockFormat("Q2_0", 42, 64, (Field("d", F16, 1), Field("qs", U8, 16)))
