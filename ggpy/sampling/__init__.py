"""From logits to a token: penalty, top-k, top-p, min-p, temperature, and a draw that a seed determines. NumPy only."""

from __future__ import annotations

from ggpy.sampling.sampler import Sampler

__all__ = ["Sampler"]
