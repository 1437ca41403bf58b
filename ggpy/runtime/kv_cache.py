"""Keys and values of all positions so far, float16, laid out as the attention kernel walks them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CacheShape:
    """Layers, key-value heads and head dimension of a model's cache."""

    n_layers: int
    n_kv_heads: int
    head_dim: int

    @property
    def padded_dim(self) -> int:
        return (self.head_dim + 15) // 16 * 16

    def bytes_per_position(self) -> int:
        return 2 * self.n_layers * self.n_kv_heads * (self.head_dim + self.padded_dim)


class KVCache:
    """Room for `positions` (rounded up to 64) of every layer; memory is touched only as positions fill.

    keys[layer]: float16 (n_kv_heads, positions / 16, head_dim, 16); values[layer]: float16 (n_kv_heads, positions, padded_dim).
    """

    def __init__(self, shape: CacheShape, positions: int):
        self.shape = shape
        self.positions = (positions + 63) // 64 * 64
        blocks = self.positions // 16
        self.keys = [np.zeros((shape.n_kv_heads, blocks, shape.head_dim, 16), np.float16) for _ in range(shape.n_layers)]
        self.values = [np.zeros((shape.n_kv_heads, self.positions, shape.padded_dim), np.float16) for _ in range(shape.n_layers)]

    def read(self, layer: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(keys, values) of the first `count` positions, float32 (count, n_kv_heads, head_dim): for comparison, not for speed."""
        keys = self.keys[layer].transpose(1, 3, 0, 2).reshape(self.positions, self.shape.n_kv_heads, self.shape.head_dim)
        values = self.values[layer].transpose(1, 0, 2)[:, :, : self.shape.head_dim]
        return keys[:count].astype(np.float32), values[:count].astype(np.float32)
