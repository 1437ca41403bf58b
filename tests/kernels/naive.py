"""Slow NumPy twins of the kernels' own formats, and calls of single kernels on plain arrays."""

from __future__ import annotations

import numpy as np

from ggpy.runtime.compiled import kernel
from ggpy.runtime.parallel import run_kernel
from ggpy.simd.target import target

TILED_FROM = 5


def aligned(shape, dtype=np.float32) -> np.ndarray:
    """Zeros at a 64-byte boundary."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(n_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n_bytes].view(dtype).reshape(shape)


def words(*values) -> np.ndarray:
    """Kernel words: arrays stand for their address, floats for their float32 bits."""
    out = np.zeros(16, np.int64)
    for i, value in enumerate(values):
        if isinstance(value, np.ndarray):
            out[i] = value.ctypes.data
        elif isinstance(value, float):
            out[i] = int(np.float32(value).view(np.uint32))
        else:
            out[i] = value
    return out


def call(module: str, name: str, *values, threads: int = 1) -> None:
    run_kernel(kernel(module, name), words(*values), threads)


def count(n: int) -> np.ndarray:
    return np.array([n], np.int64)


def quantized(x: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(integers, scale of each value) of activations (tokens, k) as the int8 kinds round them."""
    blocks = x.reshape(x.shape[0], -1, block)
    amax = np.abs(blocks).max(2, keepdims=True)
    inverse = np.divide(np.float32(127), amax, out=np.zeros_like(amax), where=amax > 0)
    q = np.rint(blocks * inverse).astype(np.int32)
    return q.reshape(x.shape), np.repeat(amax / np.float32(127), block, axis=2).reshape(x.shape)


def tile_width(n_tokens: int) -> int:
    return target().tile_tokens if n_tokens >= TILED_FROM else 1


def activations(x: np.ndarray, kind: str) -> np.ndarray:
    """The bytes that a product reads for activations x (tokens, k), made by the kernel of `kind`."""
    n, k = x.shape
    padded = -(-n // tile_width(n)) * tile_width(n)
    out = aligned(padded * (4 * k if kind == "float32" else k + k // 2), np.uint8)
    call("activations", kind, x, out, k, count(n), count(0))
    return out
