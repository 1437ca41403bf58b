"""What is wrong with a GGUF file, and what to do about it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ggpy.converter.recipes import RECIPES, Recipe
from ggpy.converter.requantize import GGUFSource
from ggpy.converter.tensor_types import Choices, TensorInfo, plan
from ggpy.errors import GGPyError, GGUFError, printable
from ggpy.gguf import GGUFFile, open_gguf
from ggpy.mend.ailments import Finding, tokenizer_findings
from ggpy.mend.scan import scan

_MIN_CONTEXT, _MAX_CONTEXT = 32, 1 << 24
_LLAMA_3_SCALED = re.compile(r"llama[-_ ]?3[.-][123]", re.IGNORECASE)
_SHOWN = 3


@dataclass(frozen=True)
class Diagnosis:
    """findings: faults first, notes after them. n_tensors: how many were looked at."""

    path: Path
    findings: tuple[Finding, ...]
    n_tensors: int

    @property
    def healthy(self) -> bool:
        """Whether there is no fault; notes are no faults."""
        return not any(finding.fault for finding in self.findings)

    def __str__(self) -> str:
        lines = [str(finding) for finding in self.findings]
        if self.healthy:
            lines.append(f"{printable(self.path)}: nothing wrong found, {self.n_tensors} tensors looked at")
        return "\n".join(lines)


def examine(path: Path, threads: int, on_bytes: Callable[[str, int], None] = lambda name, n: None) -> Diagnosis:
    """Look for everything that is known to make files fail or talk nonsense. Raises GGUFError only for a file that is not there."""
    try:
        gguf = open_gguf(path)
    except GGUFError as error:
        if not path.is_file():
            raise
        return Diagnosis(path, (_unreadable(error),), 0)
    with gguf:
        quiet = logging.getLogger("ggpy.tokenizer")
        level = quiet.level
        quiet.setLevel(logging.CRITICAL)  # what it would warn of is found here, with what to do
        try:
            findings = [*_general(gguf), *_context(gguf), *_rotary(gguf), *tokenizer_findings(gguf)]
        finally:
            quiet.setLevel(level)
    if any(finding.kind == "architecture" for finding in findings):
        return Diagnosis(path, tuple(findings), 0)  # no more can be told
    source = GGUFSource(path)
    try:
        findings += [*_label(source, gguf), *_data(source, path, threads, on_bytes)]
        n_tensors = len(source.tensors)
    finally:
        source.close()
    return Diagnosis(path, tuple(sorted(findings, key=lambda finding: not finding.fault)), n_tensors)


def _unreadable(error: GGUFError) -> Finding:
    if "cut short" in error.what:
        return Finding("truncated", f"the file is cut short: {error.what}", "download or copy it again")
    return Finding("unreadable", str(error), "download it again, or convert it again")


def _general(gguf: GGUFFile) -> Iterator[Finding]:
    metadata, file = gguf.metadata, printable(gguf.path)
    if not isinstance(metadata.get("general.architecture"), str):
        yield Finding(
            "architecture",
            "general.architecture is missing: no program can load it",
            f"ggpy edit {file} --set general.architecture:string=NAME",
        )
    if not metadata.get("general.name"):
        yield Finding("general", "general.name is missing", f"ggpy edit {file} --set general.name:string=NAME", fault=False)
    quantized = any(tensor.format.block_values > 1 for tensor in gguf.tensors.values())
    if "general.file_type" not in metadata:
        yield Finding("general", "general.file_type is missing", f"ggpy edit {file} --set general.file_type:uint32=NUMBER", fault=False)
    if quantized and "general.quantization_version" not in metadata:
        remedy = f"ggpy edit {file} --set general.quantization_version:uint32=2"
        yield Finding("general", "general.quantization_version is missing, though there are quantized tensors", remedy)


def _context(gguf: GGUFFile) -> Iterator[Finding]:
    arch = gguf.metadata.get("general.architecture")
    key = f"{arch}.context_length"
    value = gguf.metadata.get(key)
    remedy = f"ggpy edit {printable(gguf.path)} --set {printable(key, 80)}:uint32=NUMBER, as config.json's max_position_embeddings"
    if not isinstance(value, int):
        if gguf.tensors:
            yield Finding("context", f"{printable(key, 80)} is missing", remedy)
    elif not _MIN_CONTEXT <= value <= _MAX_CONTEXT:
        yield Finding("context", f"{printable(key, 80)} is {value}, which no model was trained on", remedy)
    elif value % 2:
        yield Finding("context", f"{printable(key, 80)} is {value}, an odd number", remedy, fault=False)


def _rotary(gguf: GGUFFile) -> Iterator[Finding]:
    metadata = gguf.metadata
    names = [metadata.get(key) for key in ("general.name", "general.basename")]
    named = next((name for name in names if isinstance(name, str) and _LLAMA_3_SCALED.search(name)), None)
    scaled = "rope_freqs.weight" in gguf.tensors or "llama.rope.scaling.type" in metadata
    if named and metadata.get("general.architecture") == "llama" and gguf.tensors and not scaled:
        what = f"'{printable(named, 60)}' is a Llama 3 with scaled rotary frequencies, but the file has no rope_freqs.weight"
        yield Finding("rope", what, "convert it again from its checkpoint, with rope_scaling in config.json")


def _label(source: GGUFSource, gguf: GGUFFile) -> Iterator[Finding]:
    """Whether `general.file_type` says what most of the weights are."""
    number = gguf.metadata.get("general.file_type")
    recipe = next((recipe for recipe in RECIPES.values() if recipe.file_type == number), None)
    matrices = {t.name: t for t in source.tensors if len(t.shape) > 1 and t.n_values}
    if not matrices or not isinstance(number, int) or recipe is None:
        return
    if _agreement(recipe, source) >= 0.5:
        return
    best = max(RECIPES.values(), key=lambda other: _agreement(other, source))
    counts: dict[str, int] = {}
    for tensor in matrices.values():
        counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.n_values
    mix = ", ".join(f"{n / sum(counts.values()):.0%} {name}" for name, n in sorted(counts.items(), key=lambda item: -item[1])[:_SHOWN])
    what = f"general.file_type is {number} ({recipe.name}), but the weights are {mix}"
    fits = f"ggpy edit {printable(gguf.path)} --set general.file_type={best.file_type} ({best.name})"
    yield Finding(
        "label", what, fits if _agreement(best, source) >= 0.5 else "a mix no recipe names: delete the key, or say so in general.name"
    )


def _agreement(recipe: Recipe, source: GGUFSource) -> float:
    """Share of the weights in matrices that have the format the recipe would give them."""
    infos = [TensorInfo(t.name, t.shape, t.dtype) for t in source.tensors if t.n_values]
    planned = {p.name: p.format for p in plan(infos, recipe, source.facts, Choices(weighted=source.weighted))}
    matrices = [t for t in source.tensors if len(t.shape) > 1 and t.n_values]
    return sum(t.n_values for t in matrices if planned[t.name] == t.dtype) / sum(t.n_values for t in matrices)


def _data(source: GGUFSource, path: Path, threads: int, on_bytes: Callable[[str, int], None]) -> Iterator[Finding]:
    faults, zeros, ranks = [], [], {t.name: len(t.shape) for t in source.tensors}
    try:
        for tensor in scan(source, threads, on_bytes):
            if tensor.fault:
                faults.append(f"{tensor.name} {tensor.fault}")
            if tensor.zero and ranks[tensor.name] > 1:
                zeros.append(tensor.name)
    except GGPyError as error:
        yield Finding("truncated", str(error), "download or copy it again")
    again = "convert it again; if its source has them too, look for another one"
    if faults:
        yield Finding("finite", f"{len(faults)} tensors hold numbers that are none: {_some(faults)}", again)
    if zeros:
        yield Finding(
            "zeros", f"{len(zeros)} tensors hold nothing but zeros: {_some(zeros)}", "download or convert it again: never filled in?"
        )


def _some(names: list[str]) -> str:
    return "; ".join(printable(name, 100) for name in names[:_SHOWN]) + ("; …" if len(names) > _SHOWN else "")
