"""Random blocks of any format: every integer, under scales of ordinary size."""

from __future__ import annotations

import numpy as np

from ggpy.blocks import BlockFormat


def random_fields(fmt: BlockFormat, n_blocks: int, rng: np.random.Generator, deviation: float) -> np.ndarray:
    """uint8 (n_blocks, block bytes); scales, where they are floats, are normal of that deviation."""
    data, start = rng.integers(0, 256, (n_blocks, fmt.block_bytes), dtype=np.uint8), 0
    for field in fmt.fields:
        part = data[:, start : start + field.n_bytes]
        numbers = rng.normal(0, deviation, (n_blocks, field.count))
        if field.dtype.kind == "f":
            part[:] = numbers.astype(field.dtype).view(np.uint8)
        elif fmt.name == "BF16":
            part[:] = (numbers.astype(np.float32).view(np.uint32) >> 16).astype("<u2").view(np.uint8)
        elif (fmt.name, field.name) == ("MXFP4", "e"):  # 2 to the power of e - 128
            part[:] = np.rint(128 + np.log2(np.abs(numbers) + deviation / 8))
        elif (fmt.name, field.name) == ("IQ1_M", "scales"):  # whose upper nibbles are a float16
            bits = numbers[:, :1].astype("<f2").view("<u2")
            words = part.view("<u2")
            words[:] = words & 0x0FFF | (bits >> np.arange(0, 16, 4, dtype=np.uint16) & 15) << 12
        start += field.n_bytes
    return data
