"""Slow NumPy twins of the kernels' own formats, and calls of single kernels on plain arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

from ggpy.kernels.kinds import BF16_FROM, TILED_FROM, bf16_width
from ggpy.runtime.compiled import kernel, object_code
from ggpy.runtime.parallel import run_kernel
from ggpy.simd.target import target
from tests.emulation import arm64


def aligned(shape, dtype=np.float32, fill: int = 0) -> np.ndarray:
    """Bytes of `fill` at a 64-byte boundary."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.full(n_bytes + 64, fill, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n_bytes].view(dtype).reshape(shape)


def words(*values, address: Callable[[np.ndarray], int] = lambda array: array.ctypes.data) -> np.ndarray:
    """Kernel words: arrays stand for their address, floats for their float32 bits."""
    out = np.zeros(22, np.int64)
    for i, value in enumerate(values):
        if isinstance(value, np.ndarray):
            out[i] = address(value)
        elif isinstance(value, float):
            out[i] = int(np.float32(value).view(np.uint32))
        else:
            out[i] = value
    return out


@functools.cache
def _code(module: str, name: str) -> tuple[bytes, str]:
    return object_code([(module, name)])[module, name]


def call(module: str, name: str, *values, threads: int = 1) -> None:
    """Run a kernel: on threads here, or, compiled for another kind of machine, under emulation as if one thread came after the other."""
    if not target().triple:
        run_kernel(kernel(module, name), words(*values), threads)
    elif arm64.emulator() is None:
        pytest.skip("no qemu-aarch64 (Debian's package qemu-user) to run code for ARM64")
    else:
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        arm64.run(_code(module, name), arrays, lambda address: words(*values, address=address), threads)


def count(n: int) -> np.ndarray:
    return np.array([n], np.int64)


def quantized(x: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(integers, scale of each value) of activations (tokens, k) as the int8 kinds round them."""
    blocks = x.reshape(x.shape[0], -1, block)
    amax = np.abs(blocks).max(2, keepdims=True)
    inverse = np.divide(np.float32(127), amax, out=np.zeros_like(amax), where=amax > 0)
    q = np.rint(blocks * inverse).astype(np.int32)
    return q.reshape(x.shape), np.repeat(amax / np.float32(127), block, axis=2).reshape(x.shape)


def rounded_to_bf16(x: np.ndarray) -> np.ndarray:
    """float32 values rounded to bfloat16, to nearest even; finite ones only."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def is_bf16(n_tokens: int, kind: str) -> bool:
    """Whether activations of `kind` are bfloat16 for so many tokens."""
    return target().amx and n_tokens >= BF16_FROM and kind != "float32"


def tile_width(n_tokens: int) -> int:
    return target().tile_tokens if n_tokens >= TILED_FROM else 1


def activations(x: np.ndarray, kind: str) -> np.ndarray:
    """The bytes that a product reads for activations x (tokens, k), made by the kernel of `kind`; where it writes none, they are 255."""
    n, k = x.shape
    width = 16 if is_bf16(n, kind) else tile_width(n)
    per_token = 2 * bf16_width(k) if is_bf16(n, kind) else k + k // 2 if kind.startswith("int8") else 4 * k
    out = aligned(-(-n // width) * width * per_token, np.uint8, fill=255)
    call("activations", kind, x, out, k, count(n), count(0))
    return out
