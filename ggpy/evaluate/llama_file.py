"""A base's log-probabilities in a file that llama-perplexity wrote with --kl-divergence-base.

Layout: "_logits_", int32 n_ctx, n_vocab, n_chunk, int32 tokens (n_chunk, n_ctx), then per scored position float32 step, float32 smallest
log-probability, uint16 (n_vocab rounded up to even): log-probability = smallest + step * value. What lies more than 16 below a row's
largest was raised to that; as llama-perplexity does, log-probabilities of at most -16 are left out of a divergence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ggpy.errors import GGPyError, printable
from ggpy.evaluate.store import file_digest
from ggpy.evaluate.windows import Window, chunk_window

_MAGIC = b"_logits_"
_HEADER = len(_MAGIC) + 3 * 4
_LEAST = -16.0


def is_stored_base(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as those that llama-perplexity writes."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


@dataclass(frozen=True)
class LlamaRows:
    """Predictions for one chunk. values: uint16 (n, 4 + n_vocab rounded up to even), as they lie in the file."""

    values: np.ndarray
    n_vocab: int
    losses: np.ndarray

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(log-probabilities, probabilities) of one row, float32 (n_vocab,) each; a probability of 0 was not stored."""
        log_probs = _log_probs(self.values[index], self.n_vocab)
        return log_probs, np.exp(log_probs) * (log_probs > _LEAST)


class StoredBase:
    """The base of such a file. GGPyError for a file that is damaged."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        size = self.path.stat().st_size
        with open(path, "rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise GGPyError(f"{printable(path)}: not a file of log-probabilities by llama-perplexity")
            sizes = np.frombuffer(file.read(3 * 4).ljust(3 * 4, b"\0"), "<i4").tolist()
        self.n_ctx, self.n_vocab, self.n_chunk = sizes
        if self.n_ctx < 3 or self.n_vocab < 1 or self.n_chunk < 1:
            raise GGPyError(
                f"{printable(path)}: n_ctx {self.n_ctx}, n_vocab {self.n_vocab}, n_chunk {self.n_chunk}: expected at least 3, 1, 1"
            )
        self._scored = self.n_ctx - 1 - self.n_ctx // 2
        self._width = 4 + (self.n_vocab + 1) // 2 * 2
        expected = _HEADER + self.n_chunk * (4 * self.n_ctx + 2 * self._scored * self._width)
        if size < expected:
            raise GGPyError(f"{printable(path)}: has {size} bytes, expected {expected} for {self.n_chunk} chunks of {self.n_ctx} tokens")
        self.tokens = np.fromfile(path, "<i4", self.n_chunk * self.n_ctx, offset=_HEADER).reshape(self.n_chunk, self.n_ctx)
        rows = (self.n_chunk, self._scored, self._width)
        self._rows = np.memmap(path, "<u2", "r", offset=_HEADER + self.tokens.nbytes, shape=rows)

    @cached_property
    def key(self) -> str:
        """Names what the file holds."""
        return file_digest(self.path)

    def check(self, windows: Sequence[Window], context: int) -> None:
        """GGPyError if these are not the file's chunks."""
        if context != self.n_ctx:
            raise GGPyError(f"{printable(self.path)}: has chunks of {self.n_ctx} tokens, not {context}; evaluate with --ctx {self.n_ctx}")
        if len(windows) > self.n_chunk:
            raise GGPyError(
                f"{printable(self.path)}: has {self.n_chunk} chunks, the text {len(windows)}; evaluate with --chunks {self.n_chunk}"
            )
        for number, window in enumerate(windows):
            part = tuple(self.tokens[number].tolist())
            stored = chunk_window(part, number * context, None)
            if (stored.ids[1:], stored.targets) != (window.ids[1:], window.targets):
                raise GGPyError(f"{printable(self.path)}: chunk {number + 1} has other tokens; it was made of another text or vocabulary")

    def rows(self, window: Window) -> LlamaRows:
        """The base's predictions for a chunk."""
        values = self._rows[window.position // self.n_ctx]
        losses = [-float(_log_probs(row, self.n_vocab)[target]) for row, target in zip(values, window.targets, strict=True)]
        return LlamaRows(values, self.n_vocab, np.array(losses))

    def close(self) -> None:
        """Nothing is held but the map."""


def _log_probs(values: np.ndarray, n_vocab: int) -> np.ndarray:
    step, least = values[:4].view("<f4")
    log_probs = values[4 : 4 + n_vocab].astype(np.float32)
    log_probs *= step
    log_probs += least
    return log_probs
