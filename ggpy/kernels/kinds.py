"""Which activations a format's product reads: part of the format, as ggml pairs them. Imports no numba."""

from __future__ import annotations

from ggpy.blocks import BLOCKS

SPAN = 256  # values of a row of quantized weights that are unpacked at a time
SPAN_STRIDE = SPAN + 64  # no power of two, so that sixteen rows lie in different sets of the first-level cache


def activation_kind(format_name: str) -> str:
    """ "float32", "int8_32" or "int8_256": the kernel in `activations.py` that prepares what the format's `linear` reads."""
    values = BLOCKS[format_name].block_values
    return "float32" if values == 1 else f"int8_{values}"


def activation_bytes(kind: str, k: int) -> int:
    """Bytes per token of k activations of a kind."""
    return 4 * k if kind == "float32" else k + k // 2


def scratch_bytes(format_name: str, k: int, tile_tokens: int) -> int:
    """Scratch that a format's `linear` or `embed` needs per thread for rows of k values."""
    if BLOCKS[format_name].block_values == 1:
        stride = (k + 15) // 16 * 64
        return 16 * stride + 64 * tile_tokens + 16 * stride
    stride = (k + 63) // 64 * 64
    return 16 * SPAN_STRIDE + 64 * tile_tokens + 2 * (16 * stride + 2 * 64 * (k // 16)) + 4096
