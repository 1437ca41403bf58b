"""An architecture's rules, written out for a checkpoint: which tensors it has to have."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from ggpy.arch import Architecture, TensorRule
from ggpy.errors import printable


def expand(rules: tuple[TensorRule, ...], n_layers: int) -> Iterator[tuple[TensorRule, int]]:
    """Rules in file order: neighbouring rules for layers are repeated layer by layer."""
    for per_layer, group in itertools.groupby(rules, lambda rule: "{i}" in rule.gguf):
        group = list(group)
        for layer in range(n_layers if per_layer else 1):
            yield from ((rule, layer) for rule in group)


def names_of(rule: TensorRule, layer: int, n_experts: int) -> list[str]:
    """The tensors of a checkpoint that a rule means in one layer: one, or one of each expert."""
    name = rule.hf.replace("{i}", str(layer))
    return [name.replace("{e}", str(e)) for e in range(n_experts)] if "{e}" in name else [name]


def stored_shape(rule: TensorRule, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a rule's tensor, which becomes one of `shape`, in a checkpoint: there each expert has one of its own."""
    if "{e}" in rule.hf:
        return shape[1:]
    return (1, *shape) if rule.one_row else shape


def not_ignored(arch: Architecture, names: Iterable[str]) -> list[str]:
    """Those of `names` that have to have a place in a file."""
    ignored = re.compile("|".join(re.escape(name).replace(r"\{i\}", r"\d+") for name in arch.ignored) or r"(?!)")
    return [name for name in names if not ignored.fullmatch(name)]


def first_five(names: list[str]) -> str:
    """As many, of tensors' names, for one line."""
    return ", ".join(printable(name, 80) for name in names[:5]) + (", …" if len(names) > 5 else "")
