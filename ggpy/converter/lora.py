"""PEFT LoRA adapters on disk: adapter_config.json and adapter_model.safetensors, read with types, every variant that means more refused.

A LoRA adapter changes W (out, in) to W + s · B A with A (r, in), B (out, r) and s = alpha / r, or alpha / √r with `use_rslora`
(Hu et al. 2021, arXiv:2106.09685; Kalajdzievski 2023, arXiv:2312.03732). Of an embedding (n, d) it changes, A is (r, n) and B (d, r), and
what is added is s · (B A)ᵀ.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.files import read_json
from ggpy.converter.safetensors import SafetensorsFile, StoredTensor
from ggpy.errors import CheckpointError, printable
from ggpy.runtime.encode import FLOATS, widened

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1 << 20
_ROOT = "base_model.model."
_PART = re.compile(r"(?P<module>.+?)\.lora_(?P<part>A|B|embedding_A|embedding_B)(?:\.default)?(?:\.weight)?")
_WHOLE = re.compile(r"\.(?:modules_to_save|original_module|base_layer)(?:\.default)?(?=\.)")
_PATTERN = re.compile(r"[\w.\\^$-]+")  # names, without anything that makes matching slow
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal")
# What says nothing about what the tensors mean. Whatever else is set may, as use_dora does, and is refused.
_HARMLESS = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform",
    "loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core", "modules_to_save",
    "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules",
    "task_type", "use_rslora",
}  # fmt: skip


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one matrix. a, b: as in the module's docstring. scale: s. flipped: whether the matrix is an embedding."""

    a: StoredTensor
    b: StoredTensor
    scale: float
    flipped: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix that is changed, rows first."""
        return (self.a.columns, self.b.rows) if self.flipped else (self.b.rows, self.a.columns)

    def rows(self, wanted: np.ndarray) -> np.ndarray:
        """s · B A at rows `wanted`, indices into the matrix as the checkpoint has it: float32 (len(wanted), columns)."""
        if not len(wanted):
            return np.zeros((0, self.shape[1]), np.float32)
        first, stop = int(wanted.min()), int(wanted.max()) + 1
        if self.flipped:
            left, right = _columns(self.a, first, stop).T, widened(self.b.read(0, self.b.rows)).T
        else:
            left, right = widened(self.b.read(first, stop)), widened(self.a.read(0, self.a.rows))
        return np.float32(self.scale) * (np.ascontiguousarray(left[wanted - first]) @ np.ascontiguousarray(right))


def _columns(tensor: StoredTensor, start: int, stop: int) -> np.ndarray:
    """Columns [start, stop): float32 (rows, stop - start); nothing else is read."""
    dtype = FLOATS[tensor.dtype]
    pieces = [
        tensor.file.read(tensor.offset + (row * tensor.columns + start) * dtype.itemsize, (stop - start) * dtype.itemsize).view(dtype)
        for row in range(tensor.rows)
    ]
    return widened(np.stack(pieces))


class Adapter:
    """An open adapter; a context manager.

    low_rank: by the checkpoint's name of the tensor it changes. replaced: tensors that take another's place whole (`modules_to_save`).
    copies: those of the replaced that peft keeps as the base of a low-rank change, as of an embedding.
    base: what the adapter says it was trained on, or "". ties: whether what is done to a tied embedding is done to the head as well.
    Raises CheckpointError for what is damaged, or is more than LoRA.
    """

    def __init__(self, path: Path):
        self.path = path
        if not is_adapter(path):
            raise CheckpointError(f"{printable(path)}: no {CONFIG}, expected the directory of a PEFT adapter")
        config = HFConfig(read_json(path / CONFIG, MAX_CONFIG_BYTES), str(path / CONFIG))
        _refuse_variants(config)
        self.warnings = _remarks(config)
        self.base = config.string("base_model_name_or_path", "")
        self.ties = config.boolean("ensure_weight_tying", False)
        if not (path / WEIGHTS).exists() and list(path.glob("adapter_model.bin")):
            raise CheckpointError(
                f"{path}: the adapter is pickled (adapter_model.bin); loading a pickle can run code, so it is never read. Load it with "
                "peft and call save_pretrained(..., safe_serialization=True)"
            )
        self._file = SafetensorsFile(path / WEIGHTS)
        try:
            self.low_rank, self.replaced = _sort(self._file, config)
            self.copies = {name for name in self.replaced if ".base_layer." in self.replaced[name].name}
        except BaseException:
            self.close()
            raise

    @property
    def tensors(self) -> set[str]:
        """The checkpoint's names of the tensors it changes."""
        return {*self.low_rank, *self.replaced}

    def share(self, head: str, embedding: str) -> None:
        """Of a head tied to an embedding, take what is done to the one as done to both: to the embedding, where it is given for both."""
        for changes in (self.low_rank, self.replaced):
            change = changes.pop(head, None)
            if change is not None:
                changes.setdefault(embedding, change)  # pyright: ignore[reportArgumentType]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Adapter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def is_adapter(path: Path) -> bool:
    """Whether `path` is the directory of an adapter."""
    return (path / CONFIG).is_file()


def _refuse_variants(config: HFConfig) -> None:
    if config.string("peft_type", "LORA") != "LORA":
        raise config.refuse("peft_type", "LORA; other kinds of adapters are merged by peft itself (merge_and_unload, then save_pretrained)")
    for key in config:
        if key not in _HARMLESS and config[key]:
            raise config.refuse(key, "nothing: this variant of LoRA is not known here; merge it with peft (merge_and_unload), then convert")
    start = config.get("init_lora_weights", True)
    if not isinstance(start, bool) and start not in _PLAIN_STARTS:
        raise config.refuse(
            "init_lora_weights",
            f"true, false or one of {', '.join(_PLAIN_STARTS)}: others change the base's weights as well; "
            "save it with peft's path_initial_model_for_weight_conversion, or merge it with peft",
        )


def _remarks(config: HFConfig) -> list[str]:
    if not config.boolean("fan_in_fan_out", False):
        return []
    return [f"{config.where}: fan_in_fan_out is left aside, as peft does: the model's layers are linear, (out, in)"]


def _sort(file: SafetensorsFile, config: HFConfig) -> tuple[dict[str, LowRank], dict[str, StoredTensor]]:
    """The tensors of an adapter by the checkpoint's name of what they change."""
    halves: dict[str, dict[str, StoredTensor]] = {}
    replaced: dict[str, StoredTensor] = {}
    for name, tensor in file.tensors.items():
        where, bare = f"{file.path}: tensor {printable(name)}", name.removeprefix(_ROOT)
        if tensor.dtype not in FLOATS:
            raise CheckpointError(f"{where} is {tensor.dtype}, expected one of {', '.join(FLOATS)}")
        if found := _PART.fullmatch(bare):
            if len(tensor.shape) != 2:
                raise CheckpointError(f"{where} has shape {list(tensor.shape)}, expected two dimensions")
            halves.setdefault(found["module"], {})[found["part"]] = tensor
            continue
        whole = _WHOLE.sub("", bare)
        if "lora" in whole or not whole.endswith((".weight", ".bias")) or whole in replaced:
            expected = "none, as DoRA is not supported" if "magnitude" in whole else "lora_A, lora_B or a whole weight"
            raise CheckpointError(f"{where}: expected {expected}")
        replaced[whole] = tensor
    low_rank = {f"{module}.weight": _low_rank(module, parts, file, config) for module, parts in halves.items()}
    if not low_rank and not replaced:
        raise CheckpointError(f"{file.path}: has no tensors, expected an adapter's")
    return low_rank, replaced


def _low_rank(module: str, parts: dict[str, StoredTensor], file: SafetensorsFile, config: HFConfig) -> LowRank:
    where, flipped = f"{file.path}: {printable(module)}", "embedding_A" in parts
    names = ("embedding_A", "embedding_B") if flipped else ("A", "B")
    if set(parts) != set(names):
        raise CheckpointError(f"{where} has lora_{', lora_'.join(sorted(parts))}, expected lora_A and lora_B")
    a, b = parts[names[0]], parts[names[1]]
    rank = _at(config, "rank_pattern", module, "r")
    if not a.rows == b.columns == rank:
        raise CheckpointError(f"{where} has lora_A of shape {list(a.shape)} and lora_B {list(b.shape)}, expected rank {rank:g} by {CONFIG}")
    alpha = _at(config, "alpha_pattern", module, "lora_alpha")
    return LowRank(a, b, alpha / (math.sqrt(rank) if config.boolean("use_rslora", False) else rank), flipped)


def _at(config: HFConfig, patterns: str, module: str, default: str) -> float:
    """A module's rank or alpha: the first pattern that matches the end of its name, as peft's get_pattern_key, or the default."""
    section = config.section(patterns)
    for pattern in section:
        if not _PATTERN.fullmatch(pattern):
            raise CheckpointError(f"{section.where}: key '{printable(pattern, 80)}', expected the end of a module's name")
        try:
            matches = re.match(rf"(.*\.)?({pattern})$", module)
        except re.error:
            raise CheckpointError(f"{section.where}: key '{printable(pattern, 80)}' is no pattern") from None
        if matches:
            return section.number(pattern, above=0)
    return config.number(default, above=0)
