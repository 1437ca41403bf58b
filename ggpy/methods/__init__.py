"""The methods people compare, side by side: each a short function on a matrix and its activations, in NumPy, to be read and measured.

What files are written with is in `ggpy.blocks`; here the idea of each method stands alone. docs/quantization.md tells what each does and
how they compare on a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ggpy.methods import absmax, awq, gptq, grouped_absmax, k_quants, llm_int8, nf4, obq, spqr, zero_point
from ggpy.methods.quantized import DoesNotFit, Quantize, Quantized


@dataclass(frozen=True)
class Method:
    """quantize: the function. max_rows: of a method too slow for whole matrices, the rows of a sample."""

    quantize: Quantize
    max_rows: int | None = None


METHODS: dict[str, Method] = {
    "absmax 8-bit": Method(absmax.quantize),
    "absmax 4-bit": Method(partial(absmax.quantize, bits=4)),
    "zero-point 8-bit": Method(zero_point.quantize),
    "zero-point 4-bit": Method(partial(zero_point.quantize, bits=4)),
    "grouped absmax 4-bit": Method(grouped_absmax.quantize),
    "grouped zero-point 4-bit": Method(partial(zero_point.quantize, bits=4, group=64)),
    "LLM.int8()": Method(llm_int8.quantize),
    "NF4": Method(partial(nf4.quantize, double=False)),
    "NF4 double": Method(nf4.quantize),
    "OBQ 4-bit": Method(obq.quantize, max_rows=4),
    "GPTQ 4-bit, fixed grid": Method(partial(gptq.quantize, fixed_grid=True), max_rows=4),
    "GPTQ 4-bit": Method(gptq.quantize),
    "GPTQ 4-bit, activation order": Method(partial(gptq.quantize, activation_order=True)),
    "GPTQ 3-bit": Method(partial(gptq.quantize, bits=3)),
    "AWQ 4-bit": Method(awq.quantize),
    "SpQR 3-bit": Method(spqr.quantize),
    "Q4_0": Method(partial(k_quants.quantize, format="Q4_0")),
    "Q2_K": Method(partial(k_quants.quantize, format="Q2_K")),
    "Q3_K": Method(partial(k_quants.quantize, format="Q3_K")),
    "Q4_K": Method(k_quants.quantize),
    "Q4_K with importance": Method(partial(k_quants.quantize, important=True)),
    "Q5_K": Method(partial(k_quants.quantize, format="Q5_K")),
    "Q6_K": Method(partial(k_quants.quantize, format="Q6_K")),
}
"""By name; groups of 64 weights, but for the formats and SpQR. GPTQ on the grid and the rows of OBQ stands beside it: of the two, only the
order of columns differs then."""

__all__ = ["METHODS", "DoesNotFit", "Method", "Quantize", "Quantized"]
