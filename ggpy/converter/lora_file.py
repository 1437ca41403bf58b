"""An adapter as a GGUF file of its own, to be put onto a model when it runs: what llama.cpp's `--lora` reads.

Two tensors for each matrix, `NAME.lora_a` (r, in) and `NAME.lora_b` (out, r), whose product a reader scales by `adapter.lora.alpha` / r;
of an embedding (n, d), (n, r) and (d, r).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggpy.arch import Architecture, TensorRule
from ggpy.arch.hf_config import HFConfig
from ggpy.blocks import BLOCKS
from ggpy.converter.checkpoint import MAX_CONFIG_BYTES
from ggpy.converter.files import read_json
from ggpy.converter.identity import model_name
from ggpy.converter.lora import Adapter, LowRank
from ggpy.converter.recipes import find_recipe
from ggpy.converter.recognise import find_architecture
from ggpy.errors import CheckpointError, GGPyError, printable
from ggpy.gguf import GGUFWriter, ValueType
from ggpy.runtime.encode import encode_measured, widened

TYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class AdapterReport:
    """A written adapter. tensors: GGUF names of the matrices it changes. alpha: what the file says."""

    path: Path
    type: str
    tensors: tuple[str, ...]
    alpha: float
    file_bytes: int
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        return f"{printable(self.path)}: an adapter of {len(self.tensors)} tensors in {self.type}, {self.file_bytes / 1e6:.1f} MB"


def convert_adapter(
    src: str | os.PathLike[str],
    base: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    type: str = "f32",
    *,
    force: bool = False,
) -> AdapterReport:
    """Write the PEFT LoRA adapter in the directory `src` as the GGUF file `out`.

    base: the checkpoint directory it was trained on, of which only config.json is read. out: default is the adapter's name and type, in
    the current directory. type: f32, f16 or bf16. force: replace an existing file.
    Raises CheckpointError for what is no LoRA adapter of that base, or what GGUF adapters cannot hold; GGPyError for a bad type or target.
    """
    recipe = find_recipe(type)
    if recipe.name not in TYPES:
        raise GGPyError(f"type {recipe.name} is none of {', '.join(TYPES)}, which adapters are written in")
    where = Path(base) / "config.json"
    config = HFConfig(read_json(where, MAX_CONFIG_BYTES), str(where))
    arch = find_architecture(config)
    target = Path(out) if out is not None else Path(f"{model_name(Path(src))}-{recipe.name}.gguf")
    with Adapter(Path(src)) as adapter:
        _refuse_whole(adapter)
        changes = dict(_changes(adapter, arch, config))
        first = next(iter(changes.values()))[0]
        alpha = first.scale * first.b.columns
        with GGUFWriter(target, force=force) as writer:
            _describe(writer, adapter, arch, alpha, recipe.file_type)
            for name, (low_rank, _) in changes.items():
                a, b = low_rank.a.shape, low_rank.b.shape
                writer.add_tensor(f"{name}.lora_a", a[::-1] if low_rank.flipped else a, BLOCKS[recipe.name])
                writer.add_tensor(f"{name}.lora_b", b, BLOCKS[recipe.name])
            for name, (low_rank, order) in changes.items():
                for part, values in zip(("lora_a", "lora_b"), _matrices(low_rank, order, alpha), strict=True):
                    writer.write_tensor(f"{name}.{part}", _encoded(adapter, f"{name}.{part}", values, recipe.name))
            n_bytes = writer.file_size
        return AdapterReport(target, recipe.name, tuple(changes), alpha, n_bytes, tuple(adapter.warnings))


def _encoded(adapter: Adapter, name: str, values: np.ndarray, type: str) -> np.ndarray:
    if not np.isfinite(values).all():
        raise CheckpointError(f"{adapter.path}: {name} holds NaN or infinity, expected finite weights: damaged?")
    encoded = encode_measured(values, BLOCKS[type])
    if type == "F16" and encoded.peak >= 65504:
        raise CheckpointError(f"{adapter.path}: {name} holds values up to {encoded.peak:g}, which overflow F16; expected type f32 or bf16")
    return encoded.blocks


def _refuse_whole(adapter: Adapter) -> None:
    for name in sorted(adapter.copies):
        adapter.warnings.append(f"{adapter.path}: its copy of {printable(name)} is left out, and taken to be what the base has")
    whole = set(adapter.replaced) - adapter.copies
    if whole:
        names = ", ".join(printable(name, 80) for name in sorted(whole)[:5])
        raise CheckpointError(
            f"{adapter.path}: puts {len(whole)} tensors in place whole ({names}), which GGUF adapters cannot: "
            "merge it, with ggpy-convert BASE --lora ADAPTER"
        )


def _changes(adapter: Adapter, arch: Architecture, config: HFConfig) -> Iterator[tuple[str, tuple[LowRank, np.ndarray | None]]]:
    """GGUF name -> what is added to the matrix, and in which order its rows lie there."""
    sizes, tied = arch.sizes(config), config.boolean("tie_word_embeddings", False)
    n_layers = arch.metadata(config)[f"{arch.name}.block_count"]
    for name, low_rank in adapter.low_rank.items():
        rule, layer = _rule(name, arch)
        if rule is None or int(layer or 0) >= n_layers:
            raise CheckpointError(f"{adapter.path}: changes {printable(name)}, which {config.where} gives no place: another base?")
        if tied and (rule.tied or name in {other.tied for other in arch.rules}):
            raise CheckpointError(
                f"{adapter.path}: changes {printable(name)}; embedding and head are tied, one tensor in a GGUF file, and an adapter cannot "
                "change one of them: merge it, with ggpy-convert BASE --lora ADAPTER"
            )
        shape = tuple(sizes[size] for size in rule.shape)
        if low_rank.shape != shape:
            raise CheckpointError(
                f"{adapter.path}: {printable(name)} is for a tensor of shape {list(low_rank.shape)}, expected {list(shape)}: another base?"
            )
        order = None if rule.row_order is None else rule.row_order(config, shape[0])
        yield rule.gguf.replace("{i}", layer), (low_rank, order)


def _rule(name: str, arch: Architecture) -> tuple[TensorRule | None, str]:
    for rule in arch.rules:
        found = re.fullmatch(re.escape(rule.hf).replace(r"\{i\}", r"(\d+)"), name)
        if found and len(rule.shape) == 2:
            return rule, "".join(found.groups())
    return None, ""


def _matrices(low_rank: LowRank, order: np.ndarray | None, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """A and B as the file has them; where scale is not alpha / r, as the reader will take it, B makes up for it."""
    a, b = widened(low_rank.a.read(0, low_rank.a.rows)), widened(low_rank.b.read(0, low_rank.b.rows))
    factor = low_rank.scale * b.shape[1] / alpha
    if abs(factor - 1) > 1e-12:
        b = np.float32(factor) * b
    if order is not None:
        b = b[order]
    return np.ascontiguousarray(a.T if low_rank.flipped else a), np.ascontiguousarray(b)


def _describe(writer: GGUFWriter, adapter: Adapter, arch: Architecture, alpha: float, file_type: int) -> None:
    writer.add("general.architecture", arch.name)
    writer.add("general.type", "adapter")
    writer.add("adapter.type", "lora")
    writer.add("general.name", model_name(adapter.path).replace("-", " ").replace("_", " "))
    if adapter.base:
        writer.add("general.base_model.count", 1, ValueType.UINT32)
        writer.add("general.base_model.0.name", adapter.base.rstrip("/").rpartition("/")[2])
    writer.add("adapter.lora.alpha", alpha, ValueType.FLOAT32)
    writer.add("general.file_type", file_type, ValueType.UINT32)
