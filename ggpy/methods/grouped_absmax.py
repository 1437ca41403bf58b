"""Grouped absmax: absmax with a scale for every few neighbours in a row, so that an outlier costs only its own group.

The idea of all formats of 4 bits and fewer: GGUF's Q4_0 is this with groups of 32 and one level more on the side of the largest value.
Source: block-wise quantization, Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization" (arXiv:2110.02861), section 2.1.
"""

from __future__ import annotations

from ggpy.methods.grids import absmax_grid
from ggpy.methods.quantized import SCALE_BITS, Matrix, Quantized, check, in_groups


def quantize(weights: Matrix, activations: Matrix, *, bits: int = 4, group: int = 64) -> Quantized:
    """W ≈ s · q with a half-precision s for every `group` weights."""
    check(weights, activations)
    groups = in_groups(weights, group)
    values = absmax_grid(groups, bits).nearest(groups)
    return Quantized(values.reshape(weights.shape), bits + SCALE_BITS / group)
