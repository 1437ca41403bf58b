"""Q6_K: 256 values in 16 sub-blocks of 16, each with an int8 scale; 6-bit quants around 32.

value = (d * scale) * (q - 32)
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, I8, U8, BlockFormat, Blocks, Field, Values, join_fields, require_finite, split_fields
from ggpy.blocks.planes import pack_planes, unpack_planes
from ggpy.blocks.rounding import first_peak, nearest_int, running_sum

FIELDS = (Field("ql", U8, 128), Field("qh", U8, 64), Field("scales", I8, 16), Field("d", F16, 1))
SUB_BLOCKS, SUB_VALUES = 16, 16
CENTRE = 32
NOTHING = np.float32(1e-15)  # magnitudes below this count as zero
TRIALS = tuple(k for k in range(-9, 10) if k != 0)  # trial k divides the peak into 32 + k / 10 quants


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    ql, qh, scales, d = split_fields(blocks, FIELDS)
    scale = d.astype(np.float32) * scales  # (n, 16)
    quants = (unpack_planes(ql, 4, row=64) | (unpack_planes(qh, 2) << 4)).astype(np.int8) - CENTRE
    return (scale[..., None] * quants.reshape(-1, SUB_BLOCKS, SUB_VALUES)).reshape(-1, 256)


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    require_finite(values, "Q6_K")
    sub_blocks = values.reshape(-1, SUB_VALUES)
    found, quants = _search(sub_blocks)
    found = found.reshape(len(values), SUB_BLOCKS)

    peak = first_peak(np.where(np.isnan(found), np.float32(0), found))  # NaN: sums that overflow for huge values
    empty = np.abs(peak) < NOTHING
    inverse = np.float32(-128) / peak
    d = (np.float32(1) / inverse).astype(np.float16)
    scales = np.minimum(nearest_int(inverse * found), 127).astype(np.int8)

    stored = (d.astype(np.float32) * scales).reshape(-1, 1)
    rounded = nearest_int(sub_blocks / stored).clip(-CENTRE, CENTRE - 1) + CENTRE
    quants = np.where(stored == 0, quants, rounded).reshape(values.shape)
    blocks = join_fields(FIELDS, pack_planes(quants & 0x0F, 4, row=64), pack_planes(quants >> 4, 2), scales, d)
    return np.where(empty, np.uint8(0), blocks)


def _search(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale, float32 (m,), and quants 0..63, int32 (m, 16), of sub-blocks `x`, float32 (m, 16).

    ggml's `make_qx_quants` with squares as weights: of the trials, the one whose least-squares scale explains most.
    """
    peak = first_peak(x)[:, 0]

    def rounded(inverse: np.ndarray) -> np.ndarray:
        return nearest_int(inverse[:, None] * x).clip(-CENTRE, CENTRE - 1)

    def sums(quants: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        l, w = quants.astype(np.float32), x * x
        return running_sum((w * x) * l), running_sum((w * l) * l)

    quants = rounded(np.float32(-CENTRE) / peak)
    sum_xl, sum_l2 = sums(quants)
    scale = np.where(sum_l2 != 0, sum_xl / sum_l2, np.float32(0))
    best = scale * sum_xl
    for k in TRIALS:
        trial = rounded(-(np.float32(CENTRE) + np.float32(0.1) * np.float32(k)) / peak)
        sum_xl, sum_l2 = sums(trial)
        better = (sum_l2 > 0) & (sum_xl * sum_xl > best * sum_l2)
        quants = np.where(better[:, None], trial, quants)
        scale = np.where(better, sum_xl / sum_l2, scale)
        best = np.where(better, scale * sum_xl, best)

    nothing = np.abs(peak) < NOTHING
    return np.where(nothing, np.float32(0), scale), np.where(nothing[:, None], 0, quants + CENTRE)


Q6_K = BlockFormat("Q6_K", 14, 256, FIELDS, decode, encode)
