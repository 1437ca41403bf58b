"""A base's log-probabilities in two bytes each, so that they can be kept.

A row is stored as distances below its largest value, in steps that grow with the distance: distance = reach * (code / 65535)², where
`reach` is the row's largest. Steps are finest where probabilities are high (0.00002 at a distance of 0.01, 0.0002 at 1, where reach is 30),
nothing is cut off, and a row is normalised again when it is unpacked. That makes the error of a divergence a product of the rounding and of
what the two models differ by. llama-perplexity's scheme, of as many bytes, has even steps of 0.0002 and cuts at 16 below the largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ggpy.evaluate.probabilities import log_softmax

_TOP = 65535


@dataclass(frozen=True)
class PackedRows:
    """Predictions for one window. losses: float64 (n,); reaches: float32 (n,); codes: uint16 (n, n_vocab)."""

    losses: np.ndarray
    reaches: np.ndarray
    codes: np.ndarray

    @classmethod
    def empty(cls, n: int, n_vocab: int) -> PackedRows:
        """Room for n rows."""
        return cls(np.zeros(n, "<f8"), np.zeros(n, "<f4"), np.empty((n, n_vocab), "<u2"))

    def put(self, first: int, logits: np.ndarray, losses: np.ndarray) -> None:
        """Pack logits float32 (m, n_vocab), with the losses float64 (m,) that they mean, as the rows from `first` on."""
        self.losses[first : first + len(logits)] = losses
        codes = np.empty(logits.shape[1], np.float32)
        for index, row in enumerate(logits, first):
            top = row.max()
            self.reaches[index] = reach = top - row.min()
            if reach:
                np.subtract(top, row, out=codes)
                codes *= np.float32(1 / reach)
                np.sqrt(codes, out=codes)
                codes *= _TOP
                np.rint(codes, out=codes)
            else:
                codes[:] = 0
            self.codes[index] = codes

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(log-probabilities, probabilities) of one row, float32 (n_vocab,) each; they sum to 1."""
        log_probs = self.codes[index].astype(np.float32)
        np.square(log_probs, out=log_probs)
        log_probs *= np.float32(-float(self.reaches[index]) / _TOP**2)
        probs = np.exp(log_probs)
        total = probs.sum(dtype=np.float64)
        log_probs -= np.float32(np.log(total))
        probs *= np.float32(1 / total)
        return log_probs, probs

    def to_bytes(self) -> bytes:
        """All three arrays, one behind the other."""
        return self.losses.tobytes() + self.reaches.tobytes() + self.codes.tobytes()

    @classmethod
    def from_bytes(cls, content: bytes, n: int, n_vocab: int) -> PackedRows | None:
        """What `to_bytes` wrote of n rows; None if it is not of that size."""
        if len(content) != n_bytes(n, n_vocab):
            return None
        losses = np.frombuffer(content, "<f8", n)
        reaches = np.frombuffer(content, "<f4", n, offset=losses.nbytes)
        codes = np.frombuffer(content, "<u2", n * n_vocab, offset=losses.nbytes + reaches.nbytes)
        return cls(losses, reaches, codes.reshape(n, n_vocab))


def n_bytes(n: int, n_vocab: int) -> int:
    """Bytes of n packed rows."""
    return n * (8 + 4 + 2 * n_vocab)


def losses_of(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Negative log-likelihoods float64 (n,) of the tokens that came, from logits (n, n_vocab)."""
    return np.array([-float(log_softmax(row)[target]) for row, target in zip(logits, targets, strict=True)])
