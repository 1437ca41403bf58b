"""What a file's weights take: tensors counted by block format and by the part of the model they belong to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ggpy.gguf.tensor import Tensor

# The first pattern that is found in a tensor's name decides; the last one is found in every name.
KINDS: tuple[tuple[str, str], ...] = (
    ("norms", r"norm"),
    ("token embedding", r"token_embd"),
    ("output", r"^output\."),
    ("attention", r"\.attn_"),
    ("experts", r"\.ffn_.*_(exps|shexp)\."),
    ("feed-forward", r"\.ffn_"),
    ("state space", r"\.ssm_"),
    ("other", r""),
)


@dataclass(frozen=True)
class Share:
    """The tensors of one format or one kind together. `n_bytes` is their data without padding."""

    label: str
    n_tensors: int
    n_values: int
    n_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """0.0 where there are no weights."""
        return 8 * self.n_bytes / self.n_values if self.n_values else 0.0


def kind_of(name: str) -> str:
    """The part of the model a tensor belongs to, by its GGUF name."""
    return next(kind for kind, pattern in KINDS if re.search(pattern, name))


def total(tensors: Iterable[Tensor]) -> Share:
    """All tensors together."""
    shares = _group(tensors, lambda _: "total")
    return shares[0] if shares else Share("total", 0, 0, 0)


def by_format(tensors: Iterable[Tensor]) -> list[Share]:
    """One Share for each block format, the one with most bytes first."""
    return sorted(_group(tensors, lambda tensor: tensor.format.name), key=lambda share: -share.n_bytes)


def by_kind(tensors: Iterable[Tensor]) -> list[Share]:
    """One Share for each kind of tensor, the one with most bytes first."""
    return sorted(_group(tensors, lambda tensor: kind_of(tensor.name)), key=lambda share: -share.n_bytes)


def _group(tensors: Iterable[Tensor], label: Callable[[Tensor], str]) -> list[Share]:
    groups: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(label(tensor), []).append(tensor)
    return [Share(name, len(group), sum(t.n_values for t in group), sum(t.n_bytes for t in group)) for name, group in groups.items()]
