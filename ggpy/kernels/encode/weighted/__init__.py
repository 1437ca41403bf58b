"""Compiled encoders that take a row of an importance matrix, a module per block format with the kernel `encode`, bit for bit what
`BlockFormat.encode_weighted` of `ggpy.blocks` writes.

chunks.py       the loops around them: over blocks, and over rows where a format takes the mean square of whole rows
weights.py      mean squares of many rows at a time; the weights of values
positive.py     multiples of one number for the scales, or mins, of a super-block
scale_min.py    super-blocks with scales and mins
block32.py      blocks of 32 values

They serve where importance is given; without it those of `ggpy.kernels.encode` do. Formats that have none do not depend on importance.
"""
