"""Which activations a format's product reads: part of the format, as ggml pairs them; and how much memory that takes. Imports no numba.

Where the CPU has AMX, BF16_FROM tokens and more are bfloat16 for all formats but F32 and F16, whatever they are for fewer.
"""

from __future__ import annotations

from ggpy.blocks import BLOCKS
from ggpy.simd.target import target

TILED_FROM = 5  # tokens: below, a dot per row and token; from here on, rows are unpacked and multiplied with tiles of tokens
LANES_UP_TO = 32  # tokens: so many share rows that are not turned into panels of sixteen, where registers are wide
BF16_FROM = 32  # tokens: from here on, where the CPU has AMX, rows are unpacked to bfloat16: more work a row, less a token
BF16_STEP = 32  # values that one bfloat16 product sums: rows are padded with zeros to a multiple

BF16_ROWS = 128  # most rows of a panel of unpacked weights,
BF16_COLUMNS = 2048  # most of their values: with 512 kB, a panel stays in a second-level cache of 1 MB or more
BF16_TOKENS = 512  # most tokens whose sums are kept from one piece of k to the next: 256 kB
BF16_UNPACKED = 512  # values of sixteen rows that are unpacked before they are widened, in the first-level cache


def activation_kind(format_name: str) -> str:
    """ "float32", "int8_32", "int8_256" or "bfloat16": the kernel in `activations.py` that prepares what the format's `linear` reads.

    "bfloat16", for weights of that type and only with AMX, is float32 for few tokens; all other kinds but float32 become bfloat16 for many.
    """
    if format_name == "BF16" and target().amx:
        return "bfloat16"
    values = BLOCKS[format_name].block_values
    return "float32" if values == 1 else f"int8_{values}"


def activation_bytes(kind: str, k: int) -> int:
    """Bytes per token of k activations of a kind, whatever the number of tokens."""
    many = 2 * bf16_width(k) if target().amx and kind != "float32" else 0
    return max(many, k + k // 2 if kind.startswith("int8") else 4 * k)


def bf16_width(k: int) -> int:
    """Values per row of bfloat16 activations or weights."""
    return -(-k // BF16_STEP) * BF16_STEP


def unpacked_stride(k: int) -> int:
    """Bytes from one unpacked row of k values to the next: no large power of two, so that sixteen do not fall into one set of a cache."""
    return (k + 63) // 64 * 64 + 64


def scratch_bytes(format_name: str, k: int, tile_tokens: int) -> int:
    """Scratch that a format's `linear` or `embed` needs per thread for rows of k values."""
    many = _bf16_scratch_bytes(k) if target().amx and format_name not in ("F32", "F16") else 0
    if BLOCKS[format_name].block_values == 1:
        stride = (k + 15) // 16 * 64
        return max(many, 16 * stride + 64 * tile_tokens + 16 * stride)
    stride = (k + 63) // 64 * 64
    return max(many, 16 * unpacked_stride(k) + 64 * tile_tokens + 2 * (16 * stride + 2 * 64 * (k // 16)) + 4096)


BF16_UNPACKED_BYTES = 2 * 16 * unpacked_stride(BF16_UNPACKED) + 2 * 64 * (BF16_UNPACKED // 16)
"""Sixteen rows of int8 before and after they are turned, and their scales and mins."""


def _bf16_scratch_bytes(k: int) -> int:
    """As `tiled_bf16.py` lays it out: a tile configuration, four tiles, unpacked rows, a panel, sums."""
    sums = 4 * BF16_ROWS * BF16_TOKENS if k > BF16_COLUMNS else 0
    return 64 + 4096 + BF16_UNPACKED_BYTES + 2 * BF16_ROWS * min(bf16_width(k), BF16_COLUMNS) + sums
