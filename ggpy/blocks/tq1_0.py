"""TQ1_0: 256 values, one scale, each quant -1, 0 or 1, five to a byte. value = (q - 1) * d.

A byte stands for a fraction of 256: its digits in base 3, first to last, are the quants. The last four bytes hold four each.
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, BlockFormat, Blocks, Field, Values, join_fields, require_finite, split_fields
from ggpy.blocks.rounding import half_away, reciprocal

FIELDS = (Field("qs", U8, 48), Field("qh", U8, 4), Field("d", F16, 1))
RUNS = ((0, 32, 5), (32, 48, 5), (48, 52, 4))  # bytes from, to, and digits of each: neighbouring values lie in neighbouring bytes
DIGITS = 5


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    *_, d = split_fields(blocks, FIELDS)
    quants = []
    for start, stop, digits in RUNS:
        rest = blocks[:, start:stop]
        for _ in range(digits):
            quants.append((rest.astype(np.uint16) * 3) >> 8)
            rest = rest * np.uint8(3)  # modulo 256: the fraction after the digit
    return (np.concatenate(quants, axis=1).astype(np.int8) - 1) * d.astype(np.float32)


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    """The largest magnitude becomes 1 or -1; quants round halves away from zero. A byte is the smallest that has its digits."""
    require_finite(values, "TQ1_0")
    d = np.abs(values).max(axis=1, keepdims=True)
    quants = half_away(values * reciprocal(d)) + 1
    packed, first = [], 0
    for start, stop, digits in RUNS:
        number = np.zeros((len(values), stop - start), np.int32)
        for _ in range(digits):
            number = number * 3 + quants[:, first : first + stop - start]
            first += stop - start
        number *= 3 ** (DIGITS - digits)
        packed.append((number * 256 + 3**DIGITS - 1) // 3**DIGITS)
    qs = np.concatenate(packed[:2], axis=1)
    return join_fields(FIELDS, qs, packed[2], d.astype(np.float16))


TQ1_0 = BlockFormat("TQ1_0", 34, 256, FIELDS, decode, encode)
