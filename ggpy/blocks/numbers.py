"""F64 and the integers I8 I16 I32 I64: side data in a file, read as float32 and never written for weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks import block_format
from ggpy.blocks.block_format import BlockFormat, Blocks, Field, Values, split_fields


def _number(name: str, ggml_type: int, dtype: np.dtype) -> BlockFormat:
    fields = (Field("value", dtype, 1),)
    return BlockFormat(name, ggml_type, 1, fields, _decoder(fields))


def _decoder(fields: tuple[Field]) -> Callable[[Blocks], Values]:
    @np.errstate(over="ignore", under="ignore", invalid="ignore")
    def decode(blocks: Blocks) -> Values:
        (value,) = split_fields(blocks, fields)
        return value.astype(np.float32)

    return decode


I8 = _number("I8", 24, block_format.I8)
I16 = _number("I16", 25, block_format.I16)
I32 = _number("I32", 26, block_format.I32)
I64 = _number("I64", 27, block_format.I64)
F64 = _number("F64", 28, block_format.F64)
