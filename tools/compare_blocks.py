"""Hold the block formats to ggml itself, bit for bit, on random weights and bytes of many kinds: what the golden vectors are too few for.

    python tools/compare_blocks.py PATH/libggml-base.so [--format Q4_K,IQ4_NL] [--seconds 5] [--seed 1]

For each format: decoding of random bytes, encoding, and encoding with a row of importance, each for that many seconds. ggml must be built
without fused multiply-add in this library, as its CMake files do unless told otherwise. The exit code says whether all agreed.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from ggpy.blocks import BLOCKS, BlockFormat, dequantize

ROWS, COLS = 64, 512
LARGEST = 3.4e38
NOT_COMPARED = ("Q8_1", "Q8_K")  # of activations: ggml has no function that takes them alone


class Ggml:
    """The few functions of ggml's C library that blocks are made and read by."""

    def __init__(self, path: Path):
        self._library = ctypes.CDLL(str(path))
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        self._quantize = self._library.ggml_quantize_chunk
        self._quantize.restype = ctypes.c_size_t
        self._quantize.argtypes = (ctypes.c_int, pointer, pointer, count, count, count, pointer)

    def encode(self, rows: np.ndarray, block_format: BlockFormat, importance: np.ndarray | None) -> np.ndarray:
        blocks = np.zeros((len(rows), block_format.row_bytes(rows.shape[1])), np.uint8)
        weights = None if importance is None else importance.ctypes.data
        self._quantize(block_format.ggml_type, rows.ctypes.data, blocks.ctypes.data, 0, *rows.shape, weights)
        return blocks

    def decode(self, blocks: np.ndarray, block_format: BlockFormat) -> np.ndarray:
        name = block_format.name
        function = self._library[f"dequantize_row_{name[:-1].lower()}K" if name.endswith("_K") else f"dequantize_row_{name.lower()}"]
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        values = np.empty((len(blocks), blocks.shape[1] // block_format.block_bytes * block_format.block_values), np.float32)
        function(blocks.ctypes.data, values.ctypes.data, values.size)
        return values


def random_rows(random: np.random.Generator) -> np.ndarray:
    """float32 (ROWS, COLS), each row of a kind of its own: ordinary, tied, sparse, far apart, nearly equal, of any magnitude."""
    shape = (ROWS, COLS)
    normal, size = random.standard_normal(shape), 10.0 ** random.uniform(-4, 1, (ROWS, 1))
    kinds = (
        normal * size,
        random.laplace(size=shape) * size,
        random.integers(-8, 9, shape) * size,
        random.integers(-2, 3, shape) / 4,
        np.abs(normal) * size,
        -np.abs(normal) * size,
        np.where(random.random(shape) < 0.95, 0, normal),
        np.where(random.random(shape) < 0.5, -0.0, normal * 1e-3),
        normal * np.repeat(10.0 ** random.uniform(-8, 4, (ROWS, COLS // 32)), 32, axis=1),
        np.where(random.random(shape) < 0.003, normal * 1000, normal * 0.01),
        np.repeat(random.standard_normal((ROWS, COLS // 16)), 16, axis=1),
        1 + normal * 1e-6,
        normal * 10.0 ** random.uniform(-44, 37, (ROWS, 1)),
    )
    chosen = random.integers(0, len(kinds), ROWS)
    rows = np.stack([kinds[kind][row] for row, kind in enumerate(chosen)])
    return np.clip(rows, -LARGEST, LARGEST).astype(np.float32)


def random_importance(random: np.random.Generator) -> np.ndarray:
    """float32 (COLS,): even, uneven, half of it zero, of all magnitudes, or all zero."""
    even = random.random(COLS)
    kinds = (even, even**8, np.where(even < 0.5, 0, even), 10.0 ** random.uniform(-8, 6, COLS), np.zeros(COLS))
    return kinds[random.integers(0, len(kinds))].astype(np.float32)


class Reference(Protocol):
    """What is compared with: encode gives uint8 (rows, row_bytes), decode float32 (rows, cols)."""

    def encode(self, rows: np.ndarray, block_format: BlockFormat, importance: np.ndarray | None) -> np.ndarray: ...

    def decode(self, blocks: np.ndarray, block_format: BlockFormat) -> np.ndarray: ...


def differing(ggml: Reference, block_format: BlockFormat, random: np.random.Generator) -> Iterator[tuple[str, Callable[[], int]]]:
    """(what is compared, a function that compares ROWS rows and counts those that differ)"""
    encode, encode_weighted = block_format.encode, block_format.encode_weighted

    def decoding() -> int:
        n_bytes = block_format.row_bytes(COLS)
        blocks = random.integers(0, 256, (ROWS, n_bytes), dtype=np.uint8)
        ours, theirs = dequantize(blocks, block_format), ggml.decode(blocks, block_format)
        same = (ours.view(np.uint32) == theirs.view(np.uint32)) | (np.isnan(ours) & np.isnan(theirs))
        return int((~same).any(axis=1).sum())

    yield "decoding", decoding
    if encode is not None:

        def encoding() -> int:
            rows = random_rows(random)
            ours = encode(rows.reshape(-1, block_format.block_values)).reshape(ROWS, -1)
            return int((ours != ggml.encode(rows, block_format, None)).any(axis=1).sum())

        yield "encoding", encoding
    if encode_weighted is not None:

        def weighted() -> int:
            rows, importance = random_rows(random), random_importance(random)
            return int((encode_weighted(rows, importance) != ggml.encode(rows, block_format, importance)).any(axis=1).sum())

        yield "with importance", weighted


def main(argv: list[str] | None = None) -> int:
    named = [f.name for f in BLOCKS.values() if f.block_values > 1 and f.decode is not None and f.name not in NOT_COMPARED]
    parser = argparse.ArgumentParser(description="Hold the block formats to ggml, bit for bit.")
    parser.add_argument("library", type=Path, help="libggml-base.so of a build of llama.cpp")
    parser.add_argument("--format", default=",".join(named), help="names, with commas between; all of them")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each comparison; 2")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    names = options.format.split(",")
    if unknown := [name for name in names if name not in named]:
        parser.error(f"no format to compare: {', '.join(unknown)}; there are {', '.join(named)}")
    if not options.library.is_file():
        parser.error(f"no library at {options.library}")
    ggml, failed = Ggml(options.library.resolve()), False
    for name in names:
        for what, compare in differing(ggml, BLOCKS[name], np.random.default_rng(options.seed)):
            rows, wrong, end = 0, 0, time.monotonic() + options.seconds
            while rows == 0 or time.monotonic() < end:
                rows, wrong = rows + ROWS, wrong + compare()
            print(f"{name:8} {what:16} {wrong} of {rows} rows differ", flush=True)
            failed |= wrong > 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
