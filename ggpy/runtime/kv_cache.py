"""Keys and values of all positions so far, float16, laid out as the attention kernel walks them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LINE = 64  # bytes of a cache line


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
    """`slots` sequences, with room for `positions` (rounded up to 64) each, of every layer; memory is touched only as positions fill.

    keys[layer]: float16 (slots, n_kv_heads, positions / 16, head_dim, 16); values[layer]: float16 (slots, n_kv_heads, positions,
    padded_dim).
    """

    def __init__(self, shape: CacheShape, positions: int, slots: int = 1):
        self.shape, self.slots = shape, slots
        self.positions = (positions + 63) // 64 * 64
        keys, values = (self.positions // 16, shape.head_dim, 16), (self.positions, shape.padded_dim)
        self.keys = [_untouched((slots, shape.n_kv_heads, *keys)) for _ in range(shape.n_layers)]
        self.values = [_untouched((slots, shape.n_kv_heads, *values)) for _ in range(shape.n_layers)]

    def copy(self, source: KVCache, source_slot: int, slot: int, count: int) -> None:
        """Make the first `count` positions of `slot` those of a slot of `source`, a cache of the same shape or this one."""
        assert source.shape == self.shape and count <= min(source.positions, self.positions)
        blocks = -(-count // 16)
        for to, of in zip(self.keys, source.keys, strict=True):
            to[slot, :, :blocks] = of[source_slot, :, :blocks]
        for to, of in zip(self.values, source.values, strict=True):
            to[slot, :, :count] = of[source_slot, :, :count]

    def read(self, layer: int, count: int, slot: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(keys, values) of the first `count` positions, float32 (count, n_kv_heads, head_dim): for comparison, not for speed."""
        keys = self.keys[layer][slot].transpose(1, 3, 0, 2).reshape(self.positions, self.shape.n_kv_heads, self.shape.head_dim)
        values = self.values[layer][slot].transpose(1, 0, 2)[:, :, : self.shape.head_dim]
        return keys[:count].astype(np.float32), values[:count].astype(np.float32)


def _untouched(shape: tuple[int, ...]) -> np.ndarray:
    """float16 zeros from the system, which takes memory for them only when they are written; no vector of theirs crosses a cache line."""
    raw = np.zeros(2 * math.prod(shape) + LINE, np.uint8)
    return raw[-raw.ctypes.data % LINE :][: 2 * math.prod(shape)].view(np.float16).reshape(shape)
