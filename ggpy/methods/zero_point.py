"""Zero-point: levels from the least to the largest value, so that none is spent on a side where there are no weights.

Source: the affine scheme of Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (arXiv:1712.05877), section 2.1.
"""

from __future__ import annotations

from ggpy.methods.grids import affine_grid
from ggpy.methods.quantized import SCALE_BITS, Matrix, Quantized, check, in_groups


def quantize(weights: Matrix, activations: Matrix, *, bits: int = 8, group: int | None = None) -> Quantized:
    """W ≈ s · (q - z), q and z from 0 to 2**bits - 1; s and z for every `group` weights, or for every row."""
    check(weights, activations)
    groups = in_groups(weights, group)
    values = affine_grid(groups, bits).nearest(groups)
    return Quantized(values.reshape(weights.shape), bits + affine_bits(bits) / groups.shape[-1])


def affine_bits(bits: int) -> int:
    """Of a scale and a zero point."""
    return SCALE_BITS + bits
