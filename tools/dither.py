"""Make ordinary weights of a quantized GGUF file: decode it and add uniform noise of one quantization step.

    python tools/dither.py QUANTIZED.gguf OUT-bf16.gguf [--seed 1234]

Weights that were quantized lie on a grid, and a quantizer that finds the grid again seems to lose nothing. With noise of one step, from
half a step below to half a step above, they are spread like weights that were never quantized: what quantization costs can then be judged
on models of which only a quantized file is at hand. Matrices become BF16, vectors stay as they are. No tensor is ever held in memory whole.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ggpy.blocks import BLOCKS, BlockFormat
from ggpy.blocks.block_format import dequantize, split_fields
from ggpy.errors import GGPyError
from ggpy.gguf import GGUFWriter, Tensor, ValueType, open_gguf

_QUANTS = {
    "Q4_0": ("qs", 0x11), "Q4_1": ("qs", 0x11), "Q5_0": ("qs", 0x11), "Q5_1": ("qs", 0x11), "Q8_0": ("qs", 0x01),
    "Q2_K": ("qs", 0x55), "Q4_K": ("qs", 0x11), "Q5_K": ("qs", 0x11), "Q6_K": ("ql", 0x11),
}  # fmt: skip
"""The field that holds a format's quants, or their low bits, and the byte that makes each of them one where they were zero."""
_CHUNK_VALUES = 1 << 22
_FILE_TYPE_BF16 = 32


def steps(data: np.ndarray, format: BlockFormat) -> np.ndarray:
    """The quantization step at every weight, float32 (rows, cols), of blocks uint8 (rows, row_bytes)."""
    if format.name not in _QUANTS:
        raise GGPyError(f"{format.name} has no uniform step; formats that have one: {', '.join(_QUANTS)}")
    field, one = _QUANTS[format.name]
    index = [f.name for f in format.fields].index(field)
    levels = []
    for quants in (0, one):
        blocks = np.ascontiguousarray(data).reshape(-1, format.block_bytes).copy()
        split_fields(blocks, format.fields)[index][...] = quants
        levels.append(dequantize(blocks.reshape(data.shape), format))
    return np.abs(levels[1] - levels[0])


def dithered(tensor: Tensor, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The tensor's rows with their noise, as BF16 blocks, uint8 (n, row_bytes), piece by piece."""
    bf16 = BLOCKS["BF16"]
    assert bf16.encode is not None
    rows = tensor.data.reshape(-1, tensor.data.shape[-1])
    step = max(1, _CHUNK_VALUES // tensor.shape[-1])
    for first in range(0, len(rows), step):
        data = rows[first : first + step]
        values = dequantize(data, tensor.format)
        if tensor.format.block_values > 1:
            values += (rng.random(values.shape, dtype=np.float32) - np.float32(0.5)) * steps(data, tensor.format)
        yield bf16.encode(values.reshape(-1, bf16.block_values)).reshape(len(data), -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1234)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    with open_gguf(args.file) as source, GGUFWriter(args.out) as writer:
        for key in source.metadata:
            if key == "general.file_type":
                writer.add(key, _FILE_TYPE_BF16, ValueType.UINT32)
            elif key != "general.quantization_version":
                writer.copy(source.metadata, key)
        for tensor in source.tensors.values():
            writer.add_tensor(tensor.name, tensor.shape, BLOCKS["BF16"] if len(tensor.shape) > 1 else tensor.format)
        for tensor in source.tensors.values():
            writer.write_tensor(tensor.name, dithered(tensor, rng) if len(tensor.shape) > 1 else tensor.data)
    print(args.out)


if __name__ == "__main__":
    main()
