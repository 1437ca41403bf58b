"""Segments: the tokens of a batch that follow each other in one sequence; and how attention divides them. Imports no numba.

A segment is SEGMENT_WORDS int64, by byte offset: SLOT of the cache that holds the sequence, FIRST of its tokens in the batch, their COUNT,
and the POSITION of the first in the sequence. No two segments of a batch have the same slot.
"""

from __future__ import annotations

SEGMENT_WORDS, SEGMENT_BYTES = 4, 32
SLOT, FIRST, COUNT, POSITION = 0, 8, 16, 24

TOKENS = 8  # tokens of a segment that walk the cache together
BLOCK = 64  # positions whose scores are computed before their values are summed: both stay in the first-level cache
CHUNK = 512  # positions of a unit where a segment has a single token


def scratch_bytes(group: int, head_dim: int) -> int:
    """Scratch that `attention` needs per thread: a tile's queries, results and scores. group: query heads per key-value head."""
    padded = -(-head_dim // 16) * 16
    return group * TOKENS * (4 * padded + _row_bytes(head_dim) + 4 * BLOCK)


def partial_bytes(heads: int, head_dim: int, positions: int) -> int:
    """Memory for the results of all chunks of a segment."""
    return -(-positions // CHUNK) * heads * _row_bytes(head_dim)


def _row_bytes(head_dim: int) -> int:
    return 4 * (-(-head_dim // 16) * 16) + 128
