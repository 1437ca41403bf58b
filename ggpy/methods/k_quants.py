"""K-quants: super-blocks of 256 weights in sub-blocks of 16 or 32, whose scales (and minimums) are small whole numbers under one or two
half-precision numbers.

K is the family of formats. S, M and L in file types such as Q4_K_M are not part of a format: they say which tensors of a model get one of
more bits, and a file of such a type holds tensors of several formats.
Scales are not read off the extremes but searched, by weighted squared error; with an importance matrix, the mean squares of activations,
those weigh in.
Source: llama.cpp's pull request 1684 and ggml-quants.c, whose bytes `ggpy.blocks` gives; formats/blocks has each as a page.
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks import BLOCKS, dequantize
from ggpy.methods.quantized import DoesNotFit, Matrix, Quantized, check


def quantize(weights: Matrix, activations: Matrix, *, format: str = "Q4_K", important: bool = False) -> Quantized:
    """The blocks of a GGUF format; `important`: as llama-quantize writes them with an importance matrix of these activations."""
    check(weights, activations)
    block_format = BLOCKS[format]
    rows, cols = weights.shape
    if cols % block_format.block_values:
        raise DoesNotFit(f"rows of {cols} values are not whole {format} blocks of {block_format.block_values}")
    encode, encode_weighted = block_format.encode, block_format.encode_weighted
    if encode is None:
        raise ValueError(f"{format} cannot be written")
    if important and encode_weighted is not None:
        data = encode_weighted(weights, np.square(activations).mean(axis=0))
    else:
        data = encode(weights.reshape(-1, block_format.block_values)).reshape(rows, -1)
    return Quantized(dequantize(data, block_format), block_format.bits_per_weight)
