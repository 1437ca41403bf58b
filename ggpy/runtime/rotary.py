"""The angles of rotary position embedding, computed once per batch in float64."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

INTERLEAVED, HALVES = 1, 2  # how ggpy/kernels/rope.py numbers the two pairings


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotary settings of one kind of layer.

    head_dim: values per head, of which the first n_rot are turned. pairing: INTERLEAVED (2i, 2i + 1) or HALVES (i, i + n_rot / 2).
    base: theta. scale: positions are multiplied by it (linear scaling by a factor f is 1 / f).
    factors: divisors of the n_rot / 2 frequencies (Llama 3 and longrope), or None.
    """

    head_dim: int
    n_rot: int
    base: float
    pairing: int = INTERLEAVED
    scale: float = 1.0
    factors: np.ndarray | None = field(default=None)

    def frequencies(self) -> np.ndarray:
        """Radians per position, float64 (n_rot / 2): base^(-2i / n_rot) / factors[i] * scale (Su et al., 2021, section 3.2.2)."""
        inverse = self.base ** (-np.arange(0, self.n_rot, 2, dtype=np.float64) / self.n_rot)
        return inverse * self.scale if self.factors is None else inverse * self.scale / self.factors.astype(np.float64)

    def tables(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(cosines, sines) of positions (n,): float32 (n, n_rot / 2) each."""
        angles = positions.astype(np.float64)[:, None] * self.frequencies()
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
