"""The angles of rotary position embedding, computed once per batch in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

INTERLEAVED, HALVES = 1, 2  # how ggpy/kernels/rope.py numbers the two pairings


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotary settings of one kind of layer.

    head_dim: values per head, of which the first n_rot are turned. pairing: INTERLEAVED (2i, 2i + 1) or HALVES (i, i + n_rot / 2).
    base: theta. scale: positions are multiplied by it (linear scaling by a factor f is 1 / f).
    factors: divisors of the n_rot / 2 frequencies (Llama 3, YaRN, longrope), or None. amplitude: of cosines and sines (YaRN, longrope).
    """

    head_dim: int
    n_rot: int
    base: float
    pairing: int = INTERLEAVED
    scale: float = 1.0
    factors: np.ndarray | None = field(default=None)
    amplitude: float = 1.0

    def frequencies(self) -> np.ndarray:
        """Radians per position, float64 (n_rot / 2): base^(-2i / n_rot) / factors[i] * scale (Su et al., 2021, section 3.2.2)."""
        inverse = self.base ** (-np.arange(0, self.n_rot, 2, dtype=np.float64) / self.n_rot)
        return inverse * self.scale if self.factors is None else inverse * self.scale / self.factors.astype(np.float64)

    def tables(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(cosines, sines) of positions (n,): float32 (n, n_rot / 2) each."""
        angles = positions.astype(np.float64)[:, None] * self.frequencies()
        return (self.amplitude * np.cos(angles)).astype(np.float32), (self.amplitude * np.sin(angles)).astype(np.float32)


def yarn_factors(n_rot: int, base: float, factor: float, trained: int, fast: float = 32.0, slow: float = 1.0) -> np.ndarray:
    """By how much YaRN slows each rotary pair down: float64 (n_rot / 2,), from 1 for fast pairs to `factor` for slow ones.

    A pair that turns `fast` times or more over the `trained` positions stays, one that turns `slow` times or less is slowed in full;
    between them frequencies are mixed by the pair's number. Peng et al., 2023, section 3.2; rounding of the limits as in transformers.
    """

    def turning(times: float) -> float:
        return n_rot * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(turning(fast)), 0), min(math.ceil(turning(slow)), n_rot - 1)
    slowed = np.clip((np.arange(n_rot // 2) - low) / max(high - low, 0.001), 0, 1)
    return 1 / (slowed / factor + (1 - slowed))


def dynamic_base(base: float, n_rot: int, factor: float, trained: int, length: int) -> float:
    """The base of a context of `length` positions, more than the `trained` ones, by dynamic NTK scaling.

    base * (factor * length / trained - factor + 1)^(n_rot / (n_rot - 2)) (transformers, `_compute_dynamic_ntk_parameters`).
    """
    return base * (factor * length / trained - factor + 1) ** (n_rot / (n_rot - 2))


def yarn_amplitude(factor: float) -> float:
    """What YaRN multiplies cosines and sines by: 0.1 ln(factor) + 1 (section 3.3, which has it as the root of a temperature)."""
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
