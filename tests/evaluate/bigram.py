"""A model whose predictions are a table, for what needs no real one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

BOS = 0


class BigramModel:
    """Predicts the next token from the last one only: row t of `table` (n_vocab, n_vocab) are the logits after token t."""

    def __init__(self, table: np.ndarray, *, add_bos: bool = False, path: str | Path = "bigram", context: int = 4096):
        self.table, self.path, self.seen = table.astype(np.float32), path, []
        self.context, self.threads = context, 2
        self.file = SimpleNamespace(paths=[Path(path)])
        self.config = "bigram"
        encode = lambda text, add_special: [BOS] * (add_bos and add_special) + [ord(c) - ord("a") for c in text]  # noqa: E731
        token_bytes = lambda id: bytes([ord("a") + id])  # noqa: E731
        self.tokenizer = SimpleNamespace(n_vocab=len(table), bos=BOS, add_bos=add_bos, encode=encode, token_bytes=token_bytes)

    def generator(self, context: int, threads: int) -> BigramModel:
        return self

    def logits_by_batch(self, ids: Sequence[int], first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """In two parts, as a model with a small batch does."""
        self.seen.append(list(ids))
        middle = (first + len(ids)) // 2
        for start, end in ((first, middle), (middle, len(ids))):
            yield start, self.table[list(ids[start:end])]

    def close(self) -> None:
        """Nothing is held."""


def random_table(seed: int, n_vocab: int = 26) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (n_vocab, n_vocab))


def random_text(n: int) -> str:
    return "".join(chr(ord("a") + t) for t in np.random.default_rng(5).integers(1, 26, n))


def tokens(text: str) -> list[int]:
    return [ord(c) - ord("a") for c in text]
