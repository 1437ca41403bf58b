"""Absmax: every row has one scale, its largest magnitude becomes the outermost level.

The oldest way there is: one outlier in a row makes the steps of all its other weights coarse. 8 bits bear it, 4 bits do not.
Source: vector-wise quantization in Dettmers et al. 2022, "LLM.int8()" (arXiv:2208.07339), section 2.
"""

from __future__ import annotations

from ggpy.methods.grids import absmax_grid
from ggpy.methods.quantized import SCALE_BITS, Matrix, Quantized, check, in_groups


def quantize(weights: Matrix, activations: Matrix, *, bits: int = 8) -> Quantized:
    """W ≈ s · q, q whole numbers from -(2**(bits - 1) - 1) to 2**(bits - 1) - 1."""
    check(weights, activations)
    rows = in_groups(weights, None)
    values = absmax_grid(rows, bits).nearest(rows)
    return Quantized(values.reshape(weights.shape), bits + SCALE_BITS / weights.shape[1])
