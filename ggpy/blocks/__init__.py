"""The block formats: how weights lie in a file, one module each, in NumPy. What runs fast is held to these bit for bit."""

from __future__ import annotations

from ggpy.blocks.bf16 import BF16
from ggpy.blocks.block_format import BlockFormat, Field, dequantize
from ggpy.blocks.f16 import F16
from ggpy.blocks.f32 import F32
from ggpy.blocks.iq1_m import IQ1_M
from ggpy.blocks.iq1_s import IQ1_S
from ggpy.blocks.iq2_s import IQ2_S
from ggpy.blocks.iq2_xs import IQ2_XS
from ggpy.blocks.iq2_xxs import IQ2_XXS
from ggpy.blocks.iq3_s import IQ3_S
from ggpy.blocks.iq3_xxs import IQ3_XXS
from ggpy.blocks.iq4_nl import IQ4_NL
from ggpy.blocks.iq4_xs import IQ4_XS
from ggpy.blocks.layouts import Q8_1
from ggpy.blocks.mxfp4 import MXFP4
from ggpy.blocks.numbers import F64, I8, I16, I32, I64
from ggpy.blocks.nvfp4 import NVFP4
from ggpy.blocks.q1_0 import Q1_0
from ggpy.blocks.q2_0 import Q2_0
from ggpy.blocks.q2_k import Q2_K
from ggpy.blocks.q3_k import Q3_K
from ggpy.blocks.q4_0 import Q4_0
from ggpy.blocks.q4_1 import Q4_1
from ggpy.blocks.q4_k import Q4_K
from ggpy.blocks.q5_0 import Q5_0
from ggpy.blocks.q5_1 import Q5_1
from ggpy.blocks.q5_k import Q5_K
from ggpy.blocks.q6_k import Q6_K
from ggpy.blocks.q8_0 import Q8_0
from ggpy.blocks.q8_k import Q8_K
from ggpy.blocks.tq1_0 import TQ1_0
from ggpy.blocks.tq2_0 import TQ2_0

# fmt: off
_FORMATS = (
    F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K,
    IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S, IQ4_NL, IQ3_S, IQ2_S, IQ4_XS, I8, I16, I32, I64, F64, IQ1_M, BF16,
    TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0, Q2_0,
)
# fmt: on

BLOCKS: dict[str, BlockFormat] = {block_format.name: block_format for block_format in _FORMATS}
BY_TYPE: dict[int, BlockFormat] = {block_format.ggml_type: block_format for block_format in _FORMATS}

__all__ = ["BLOCKS", "BY_TYPE", "BlockFormat", "Field", "dequantize"]
