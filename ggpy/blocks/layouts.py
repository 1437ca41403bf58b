"""Formats whose layout is known and whose decoding is not written: a reader can size, show and copy such tensors.

Fields as in ggml's `ggml-common.h`. A format that gains a decoder gets a file of its own.
"""

from __future__ import annotations

from ggpy.blocks.block_format import F16, I8, BlockFormat, Field

Q8_1 = BlockFormat("Q8_1", 9, 32, (Field("d", F16, 1), Field("s", F16, 1), Field("qs", I8, 32)))
