"""A Hugging Face checkpoint as a source: its tensors under their GGUF names, everything missing or left over decided aloud."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ggpy.arch import Architecture, TensorRule
from ggpy.arch.hf_config import HFConfig
from ggpy.converter.checkpoint import Checkpoint
from ggpy.converter.identity import identity_metadata, model_name
from ggpy.converter.prequantized import QuantizedMatrix, dequantized
from ggpy.converter.recipes import QUANTIZATION_VERSION, Recipe
from ggpy.converter.recognise import recognise
from ggpy.converter.rules import expand, first_five, names_of, not_ignored
from ggpy.converter.safetensors import StoredTensor
from ggpy.converter.source import RowReader, SourceTensor, model_facts, reordered, shifted
from ggpy.converter.stacks import stacked
from ggpy.converter.text_part import text_part
from ggpy.errors import CheckpointError, TokenizerError, printable
from ggpy.gguf import GGUFWriter, ValueType
from ggpy.runtime.encode import FLOATS

if TYPE_CHECKING:
    from ggpy.converter.lora import Adapter
    from ggpy.converter.lora_merge import Merged, Weighted
    from ggpy.converter.vocabulary import Vocabulary

_COMPARE_BYTES = 1 << 24

CheckpointTensor = StoredTensor | QuantizedMatrix
"""A tensor as it is stored, or several that stand for one quantized weight."""


class HuggingFaceSource:
    """The tensors and metadata of a checkpoint directory; see `Source`. Raises CheckpointError for what cannot be converted.

    config: its config.json, or of a model that also sees that of its text model. weights: its tensors under their own names, quantized ones
    as floats.
    """

    alignment = 32

    def __init__(self, path: Path, adapters: Sequence[Weighted] = ()):
        self.name = "-".join([model_name(path), *(model_name(adapter.path) for adapter in adapters)])
        self.scaled: frozenset[str] = frozenset()
        self._adapters: list[Adapter] = []
        self._changed: Merged | None = None
        self.checkpoint = Checkpoint(path)
        try:
            config, tensors, left = text_part(self.checkpoint.config, self.checkpoint.tensors)
            self.files = _identities(path)
            self.weights = dequantized(config, tensors)
            self._arch, self.config, notice = recognise(config, self.weights)
            config = self.config
            self.metadata: Mapping[str, Any] = self._arch.metadata(config)
            self.architecture = self._arch.name
            self.warnings = left + notice + self._arch.remarks(config)
            if "auto_map" in config and not notice:
                self.warnings.append(
                    "config.json names code of its own (auto_map): it is not run, the model is taken for what its class says"
                )
            self.tensors = _match(self._arch, config, self.weights, self.metadata, self.warnings)
            self.merged = self._merge(adapters)
            self.tensors += _extra_tensors(self._arch, config)
        except BaseException:
            self.close()
            raise
        self.facts = model_facts(self.metadata, self._arch.name)

    @property
    def apart(self) -> dict[str, str]:
        """Tensors that the new file has apart though they are tied: the checkpoint's name, and the one of the tensor that stands for it."""
        return self._changed.apart if self._changed else {}

    def adapted(self, name: str, read: RowReader) -> RowReader:
        """Rows of the checkpoint's tensor `name` with adapters in them, where `read` gives them without."""
        return self._changed.adapted(name, read) if self._changed else read

    def _merge(self, adapters: Sequence[Weighted]) -> tuple[str, ...]:
        """Put the adapters into the tensors; one line for each."""
        if not adapters:
            return ()
        from ggpy.converter.lora import Adapter
        from ggpy.converter.lora_merge import merge_adapters

        for adapter in adapters:
            self._adapters.append(Adapter(adapter.path))
            self.files |= _identities(adapter.path)
        pairs = [(opened, adapter.weight) for opened, adapter in zip(self._adapters, adapters, strict=True)]
        self._changed = merge_adapters(self.tensors, pairs, self._arch, self.config, self.warnings)
        self.tensors = self._changed.tensors
        return tuple(f"merged {printable(a.path)} into {len(a.tensors)} tensors with weight {weight:g}" for a, weight in pairs)

    def describe(self, writer: GGUFWriter, recipe: Recipe, added: Mapping[str, str | int]) -> None:
        n_values = sum(tensor.n_values for tensor in self.tensors)
        values = {
            "general.architecture": self._arch.name,
            **identity_metadata(self.checkpoint.path, n_values, self.warnings),
            **self.metadata,
            "general.file_type": recipe.file_type,
            "general.quantization_version": QUANTIZATION_VERSION,
            **added,
            **self._vocabulary.metadata,
        }
        for key, value in values.items():
            writer.add(key, value, ValueType.STRING if _is_empty_list(value) else None)

    def prove_tokenizer(self) -> str | None:
        return self._proof

    @cached_property
    def _proof(self) -> str | None:
        from ggpy.converter.vocabulary_proof import prove_tokenizer

        try:
            filled = {key: value for key, value in self._vocabulary.metadata.items() if not _is_empty_list(value)}
            proof = prove_tokenizer(filled, self.checkpoint.path)
        except (CheckpointError, TokenizerError) as error:
            self.warnings.append(f"the tokenizer could not be checked: {error}")
            return None
        if proof.n_different:
            self.warnings.append(str(proof))
        self.warnings.extend(proof.told_elsewhere())
        return str(proof)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        from ggpy.converter.vocabulary import read_vocabulary

        vocabulary = read_vocabulary(self.checkpoint.path, self.config)
        self.warnings += vocabulary.warnings
        return vocabulary

    def close(self) -> None:
        for adapter in self._adapters:
            adapter.close()
        self.checkpoint.close()


def _is_empty_list(value: object) -> bool:
    """As of merges, of a tokenizer that knows single bytes alone."""
    return isinstance(value, list) and not value


def _identities(path: Path) -> set[tuple[int, int]]:
    """(device, inode) of the files of a checkpoint directory, where GGUF files are not part of the checkpoint."""
    statuses = [file.stat() for file in path.iterdir() if file.is_file() and file.suffix != ".gguf"]
    return {(status.st_dev, status.st_ino) for status in statuses}


def _match(
    arch: Architecture, config: HFConfig, stored: Mapping[str, CheckpointTensor], metadata: Mapping[str, object], warnings: list[str]
) -> list[SourceTensor]:
    n_layers = metadata[f"{arch.name}.block_count"]
    assert isinstance(n_layers, int)
    left, missing, found, sizes = dict(stored), [], [], arch.sizes(config)
    for rule, layer in expand(arch.rules, n_layers):
        if rule.switch and not config.boolean(rule.switch, False):
            continue
        name = rule.hf.replace("{i}", str(layer))
        if "{e}" in name:
            names = names_of(rule, layer, sizes[rule.shape[0]])
            missing += [name for name in names if name not in left]
            if not missing:
                shape = tuple(sizes[size] for size in rule.shape)
                parts = [_source_tensor(name, left.pop(name), shape[1:], rule, config) for name in names]
                found.append(stacked(rule.gguf.replace("{i}", str(layer)), name.replace("{e}", f"0…{len(parts) - 1}"), parts))
            continue
        tensor = left.pop(name, None)
        if rule.tied:
            tensor = _untied(tensor, name, stored.get(rule.tied), config, warnings)
            if tensor is None:
                continue
        if tensor is None:
            missing.append(name)
        else:
            shape = tuple(sizes[size] for size in rule.shape)
            found.append(_source_tensor(rule.gguf.replace("{i}", str(layer)), tensor, shape, rule, config))
    if missing:
        raise CheckpointError(f"{config.where}: {len(missing)} tensors are missing from the shards beside it: {first_five(missing)}")
    unexpected = not_ignored(arch, left)
    if unexpected:
        warnings.append(f"{len(unexpected)} tensors have no place in a {arch.name} model and are left out: {first_five(unexpected)}")
    return found


def _untied(
    tensor: CheckpointTensor | None, name: str, twin: CheckpointTensor | None, config: HFConfig, warnings: list[str]
) -> CheckpointTensor | None:
    """The tensor if the model has it apart from its `twin`, None if the twin stands for both."""
    tied = config.boolean("tie_word_embeddings", False)
    if tensor is None:
        if not tied:
            warnings.append(f"{name} is missing, though tie_word_embeddings is not true: the embedding stands for it")
        return None
    if tied and twin is not None and not _equal(tensor, twin):
        warnings.append(f"{name} differs from {twin.name}, though tie_word_embeddings is true: left out, as transformers does")
    return None if tied else tensor


def _equal(a: CheckpointTensor, b: CheckpointTensor) -> bool:
    if isinstance(a, QuantizedMatrix) or isinstance(b, QuantizedMatrix) or (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    pieces = ((at, min(_COMPARE_BYTES, a.n_bytes - at)) for at in range(0, a.n_bytes, _COMPARE_BYTES))
    return all(np.array_equal(a.file.read(a.offset + at, n), b.file.read(b.offset + at, n)) for at, n in pieces)


def _source_tensor(name: str, tensor: CheckpointTensor, shape: tuple[int, ...], rule: TensorRule, config: HFConfig) -> SourceTensor:
    where = f"{tensor.path}: tensor {printable(tensor.name)}"
    if isinstance(tensor, StoredTensor) and tensor.dtype not in FLOATS:
        raise CheckpointError(f"{where} is {tensor.dtype}, expected one of {', '.join(FLOATS)}")
    stored = (1, *shape) if rule.one_row else shape
    if tensor.shape != stored:
        raise CheckpointError(f"{where} has shape {list(tensor.shape)}, expected {list(stored)} by config.json")

    def ordered(read: RowReader) -> RowReader:
        if rule.plus:
            read = shifted(read, rule.plus)
        if rule.row_order is None:
            return read
        if len(shape) == 1:
            order = rule.row_order(config, shape[0])
            return lambda start, stop: read(start, stop)[:, order]
        return reordered(read, rule.row_order(config, math.prod(shape[:-1])))

    if isinstance(tensor, StoredTensor):
        return SourceTensor(name, tensor.name, shape, tensor.dtype, "F32", lambda: ordered(tensor.read))
    repacked = {format: (lambda open=open: ordered(open())) for format, open in tensor.repacked.items()}
    return SourceTensor(
        name, tensor.name, shape, tensor.quantized.method, "F32", lambda: ordered(tensor.open()), None, tensor.quantized, repacked
    )


def _extra_tensors(arch: Architecture, config: HFConfig) -> Iterator[SourceTensor]:
    for name, values in arch.extra_tensors(config).items():
        rows = values.reshape(-1, values.shape[-1])
        yield SourceTensor(name, "config.json", values.shape, "F32", "F32", lambda rows=rows: lambda start, stop: rows[start:stop])
