"""Float32 products of whole matrices by the kernel of F32 weights, whose sums do not depend on the number of threads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.kernels.kinds import TILED_FROM, scratch_bytes
from ggpy.runtime.compiled import kernel
from ggpy.runtime.parallel import run_kernel
from ggpy.simd.target import target

Array = NDArray[np.float32]

_LINE = 64  # bytes that scratch memory is aligned to


def product_kernel() -> int:
    """The address of the kernel, compiled where it is not yet."""
    return kernel("f32", "linear")


def padded_tokens(count: int) -> int:
    """Tokens that the kernel takes in place of `count`: whole tiles, and a few of them at least."""
    tile = target().tile_tokens
    return -(-max(count, TILED_FROM) // tile) * tile


def tiled(x: Array) -> Array:
    """x (n, k) as the kernel reads its activations: (tiles, k, tokens of a tile), padded with zeros."""
    tokens, padded = padded_tokens(len(x)), x
    if tokens != len(x):
        padded = np.zeros((tokens, x.shape[1]), np.float32)
        padded[: len(x)] = x
    return np.ascontiguousarray(padded.reshape(-1, target().tile_tokens, x.shape[1]).transpose(0, 2, 1), np.float32)


def multiply(address: int, tiles: Array, weights: Array, result: Array, column: int = 0, *, add: bool = False) -> None:
    """Write x @ weights.T into the columns of `result` from `column` on, on the calling thread; x is what `tiles` were made of.

    address: of `product_kernel`. weights: float32 (rows, k), each row contiguous. result: float32 (padded tokens, columns), contiguous.
    add: to what lies there. See `ggpy.kernels.linear` for the kernel's words.
    """
    k, out = weights.shape[1], result.ctypes.data + 4 * column
    assert weights.strides[1] == 4 and result.flags.c_contiguous
    scratch = np.empty(scratch_bytes("F32", k, tiles.shape[2]) + _LINE, np.uint8)
    count = np.array([len(result), 0], np.int64)  # tokens, and the counter of claims
    words = (
        weights.ctypes.data, weights.strides[0], len(weights), k, tiles.ctypes.data,
        out, 4 * result.shape[1], count.ctypes.data, count.ctypes.data + 8,
        scratch.ctypes.data + -scratch.ctypes.data % _LINE, 0, out if add else 0, 4 * result.shape[1], 0, 0,
    )  # fmt: skip
    run_kernel(address, np.array(words, np.int64))
