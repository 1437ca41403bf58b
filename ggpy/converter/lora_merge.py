"""Adapters merged into a checkpoint's tensors: W + Σ weight · s · B A, row by row on the way to the encoder, in float32.

Nothing is held but the rows at hand and A: beside those, merging takes no more memory than converting the checkpoint alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ggpy.arch import Architecture, TensorRule
from ggpy.arch.hf_config import HFConfig
from ggpy.converter.lora import Adapter, LowRank
from ggpy.converter.safetensors import StoredTensor
from ggpy.converter.source import RowReader, SourceTensor, reordered, shifted
from ggpy.errors import CheckpointError, printable
from ggpy.runtime.encode import widened


@dataclass(frozen=True)
class Weighted:
    """An adapter's directory and how much of what it adds is taken."""

    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class _Change:
    """What adapters do to one tensor. added: with their weights. whole: what takes its place first."""

    added: tuple[tuple[LowRank, float], ...] = ()
    whole: StoredTensor | None = None


@dataclass(frozen=True)
class Merged:
    """A checkpoint with adapters in it. tensors: what is to be converted. apart: heads that are tied to an embedding, but are stored apart
    where an adapter does not change both alike, with the embedding's name."""

    tensors: list[SourceTensor]
    apart: dict[str, str]
    _changes: dict[str, _Change]

    def adapted(self, name: str, read: RowReader) -> RowReader:
        """The rows of the tensor called `name`, in the checkpoint's order, where `read` gives them without the adapters."""
        change = self._changes.get(name, _Change())
        if change.whole is not None:
            read = change.whole.read
        return _added(read, change, None) if change.added else read


def merge_adapters(
    tensors: Sequence[SourceTensor], adapters: Sequence[tuple[Adapter, float]], arch: Architecture, config: HFConfig, warnings: list[str]
) -> Merged:
    """Put adapters into `tensors`, those of a checkpoint. Raises CheckpointError for an adapter of another model: names or shapes that the
    checkpoint has not."""
    for adapter, _ in adapters:
        warnings += adapter.warnings
    found = {tensor.origin: tensor for tensor in tensors}
    apart = {}
    for rule in arch.rules:
        if rule.tied and rule.hf not in found and rule.tied in found:
            _untie(found, rule, [adapter for adapter, _ in adapters], warnings)
            if rule.hf in found:
                apart[rule.hf] = rule.tied
    for adapter, _ in adapters:
        unknown = sorted(adapter.tensors - set(found))
        if unknown:
            names = ", ".join(printable(name, 80) for name in unknown[:5]) + (", …" if len(unknown) > 5 else "")
            raise CheckpointError(
                f"{adapter.path}: changes {len(unknown)} tensors that {config.where} gives no place: {names}: another base?"
            )
    changes = {origin: _change(origin, adapters) for origin in found}
    merged = [_merged(tensor, changes[origin], _rule(origin, arch), config) for origin, tensor in found.items()]
    return Merged(merged, apart, changes)


def _untie(found: dict[str, SourceTensor], rule: TensorRule, adapters: list[Adapter], warnings: list[str]) -> None:
    """Give the head a place of its own, unless no adapter touches the shared tensor, or all do the same to both."""
    assert rule.tied is not None
    touching = [adapter for adapter in adapters if {rule.hf, rule.tied} & adapter.tensors]
    if not touching:
        return
    if all(adapter.ties for adapter in touching):
        for adapter in touching:
            adapter.share(rule.hf, rule.tied)
        return
    found[rule.hf] = replace(found[rule.tied], name=rule.gguf, origin=rule.hf)
    changed = sorted({rule.hf, rule.tied} & set().union(*(adapter.tensors for adapter in touching)))
    warnings.append(f"{rule.hf} is tied to {rule.tied}, and the adapter changes {' and '.join(changed)}: the two are stored apart")


def _change(origin: str, adapters: Sequence[tuple[Adapter, float]]) -> _Change:
    whole = [(adapter, weight) for adapter, weight in adapters if origin in adapter.replaced]
    if len(whole) > 1:
        raise CheckpointError(
            f"{whole[1][0].path}: puts another {printable(origin)} in place, as {printable(whole[0][0].path)} does already"
        )
    if whole and whole[0][1] != 1:
        raise CheckpointError(
            f"{whole[0][0].path}: puts another {printable(origin)} in place, which weight {whole[0][1]:g} cannot; expected 1"
        )
    added = tuple((adapter.low_rank[origin], weight) for adapter, weight in adapters if origin in adapter.low_rank)
    return _Change(added, whole[0][0].replaced[origin] if whole else None)


def _rule(origin: str, arch: Architecture) -> TensorRule | None:
    return next((rule for rule in arch.rules if re.fullmatch(re.escape(rule.hf).replace(r"\{i\}", r"\d+"), origin)), None)


def _order(tensor: SourceTensor, rule: TensorRule | None, config: HFConfig) -> np.ndarray:
    """For each row of the GGUF tensor (each value of a vector) the row of the checkpoint's."""
    n = tensor.rows if len(tensor.shape) > 1 else tensor.columns
    return np.arange(n) if rule is None or rule.row_order is None else rule.row_order(config, n)


def _merged(tensor: SourceTensor, change: _Change, rule: TensorRule | None, config: HFConfig) -> SourceTensor:
    for where, shape in [
        *((low_rank.a, low_rank.shape) for low_rank, _ in change.added),
        *([(change.whole, change.whole.shape)] if change.whole else []),
    ]:
        if shape != tensor.shape:
            raise CheckpointError(
                f"{where.file.path}: tensor {printable(where.name)} is for a tensor of shape {list(shape)}, "
                f"expected {list(tensor.shape)} for {printable(tensor.origin)}: another base?"
            )
    if not change.added and change.whole is None:
        return tensor
    dtype = "F32" if change.added or change.whole is None else change.whole.dtype
    order, plus = _order(tensor, rule, config), rule.plus if rule else 0.0
    return SourceTensor(tensor.name, tensor.origin, tensor.shape, dtype, tensor.kept, partial(_open, tensor, change, order, plus))


def _open(tensor: SourceTensor, change: _Change, order: np.ndarray, plus: float) -> RowReader:
    base = tensor.open() if change.whole is None else _in_order(change.whole, order)
    if change.whole is not None and plus:
        base = shifted(base, plus)
    return _added(base, change, order) if change.added else base


def _added(base: RowReader, change: _Change, order: np.ndarray | None) -> RowReader:
    def read(start: int, stop: int) -> np.ndarray:
        values = widened(base(start, stop))
        wanted = np.arange(start, stop) if order is None else order[start:stop]
        for low_rank, weight in change.added:
            values = values + np.float32(weight) * low_rank.rows(wanted)
        return values

    return read


def _in_order(tensor: StoredTensor, order: np.ndarray) -> RowReader:
    if len(tensor.shape) == 1:
        return lambda start, stop: tensor.read(start, stop)[:, order]
    return reordered(tensor.read, order)
