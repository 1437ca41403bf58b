"""Compiled encoders: float32 to blocks, a module per block format with the kernel `encode`, bit for bit what `ggpy.blocks` writes.

No operation is fused or reordered: sums run one term after the other, as in ggml's reference code. Speed comes from lanes that hold
independent sub-blocks, and from threads that take chunks of blocks.

chunks.py     the loop around every encoder: words, chunks, narrower floats, the first NaN or Inf, the largest magnitude
rounding.py   float to integer, as `ggpy.blocks.rounding`
wide.py       vectors of many sub-blocks, rounded and clamped in few instructions
extremes.py   the first of the farthest, smallest and largest of 32 values
nibbles.py    quants of a block of 32 packed to four bits and one
planes.py     quants of a super-block packed to two bits and one
affine.py     the search for scale and min that Q2_K, Q4_K and Q5_K share
symmetric.py  the search for the scale of quants around zero
refine.py     quants moved one after the other while that helps
scale_min.py  super-blocks of Q4_K and Q5_K

This package imports no numba; its modules do. Call them through `ggpy.runtime.encode`.
"""
