"""What a conversion would give, before any weight is read: every tensor's type, the file's size, and what running it takes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ggpy.arch import ARCHS
from ggpy.converter.model_plan import plan_model
from ggpy.converter.on_grid import recognise
from ggpy.converter.options import Options
from ggpy.converter.pipeline import default_output, open_source
from ggpy.converter.progress import Warnings
from ggpy.converter.proof import Proof
from ggpy.converter.report import TensorReport, size_in_words, table
from ggpy.errors import printable
from ggpy.gguf import GGUFWriter
from ggpy.runtime.host import available_memory
from ggpy.runtime.kv_cache import CacheShape

DEFAULT_CONTEXT = 4096
BESIDE = 150 * 10**6
"""Bytes that running takes beside file and cache, at most for the shapes measured by tools/measure_memory.py (docs/performance.md)."""


@dataclass(frozen=True)
class Forecast:
    """path: where the file would go, of file_bytes. recipe: its type. cache_bytes: of the KV cache at `context` tokens; None where ggpy
    does not run the model. memory, disk: bytes that are free now; None where the system does not say."""

    path: Path
    recipe: str
    tensors: tuple[TensorReport, ...]
    file_bytes: int
    context: int
    cache_bytes: int | None
    memory: int | None
    disk: int | None
    warnings: tuple[str, ...] = ()
    imatrix: str | None = None

    @property
    def bits_per_weight(self) -> float:
        return 8 * sum(t.n_bytes for t in self.tensors) / max(1, sum(t.n_values for t in self.tensors))

    @property
    def run_bytes(self) -> int | None:
        """Memory to run the file: all of it mapped and resident, the cache full, and what the process takes."""
        return None if self.cache_bytes is None else self.file_bytes + self.cache_bytes + BESIDE

    def __str__(self) -> str:
        """Every tensor, then the sums, each with whether it fits here."""
        rows = [("tensor", "shape", "from", "to", "size")]
        for t in self.tensors:
            shape = " × ".join(map(str, t.shape))
            rows.append((printable(t.name, 64), shape, t.dtype, t.format, size_in_words(t.n_bytes)))
        lines = [*table(rows, left=4), ""]
        n_values = sum(t.n_values for t in self.tensors)
        lines.append(f"{self.recipe}: {n_values / 1e6:.1f} M weights, {self.bits_per_weight:.3f} bits per weight")
        lines += [self.imatrix] if self.imatrix else []
        fits = _fits(self.file_bytes, self.disk, "on that disk")
        lines.append(f"file: {printable(self.path)}, {self.file_bytes} bytes ({size_in_words(self.file_bytes)}); {fits}")
        if self.run_bytes is None or self.cache_bytes is None:
            lines.append("memory to run it: not known, ggpy does not run this architecture")
        else:
            parts = (
                f"file {size_in_words(self.file_bytes)}, KV cache {size_in_words(self.cache_bytes)}, about {size_in_words(BESIDE)} beside"
            )
            fits = _fits(self.run_bytes, self.memory, "of memory")
            lines.append(f"memory to run it at {self.context} tokens: {size_in_words(self.run_bytes)} ({parts}); {fits}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The forecast as JSON values."""
        kept = ("name", "origin", "dtype", "format", "shape", "n_bytes", "wanted")
        tensors = [{key: getattr(tensor, key) for key in kept} for tensor in self.tensors]
        found = {f: getattr(self, f) for f in ("file_bytes", "bits_per_weight", "context", "cache_bytes", "run_bytes", "memory", "disk")}
        return {
            "path": str(self.path),
            "type": self.recipe,
            **found,
            "fits_disk": None if self.disk is None else self.file_bytes <= self.disk,
            "fits_memory": None if self.run_bytes is None or self.memory is None else self.run_bytes <= self.memory,
            "warnings": list(self.warnings),
            "imatrix": self.imatrix,
            "tensors": tensors,
        }


def forecast(src: Path, out: Path | None, options: Options, context: int | None = None) -> Forecast:
    """What `ggpy.convert` would write with these options. context: tokens, by default the model's, at most 4096.

    Raises what `ggpy.convert` raises for sources, types and importance matrices. Only values that turn out not to fit their format, which
    are stored wider, are not foreseen.
    """
    options.check()
    warn, source = Warnings(options.strict, options.on_warning), open_source(src, options.lora)
    try:
        warn.extend(source.warnings)
        source.tensors = recognise(source.tensors)
        planned = plan_model(source, options)
        warn.extend(planned.warnings)
        target = out or default_output(source.name, planned.recipe)
        jobs = planned.jobs(source)
        writer = GGUFWriter(target, alignment=source.alignment)  # never entered: it only adds up
        source.describe(writer, planned.recipe, planned.metadata)
        Proof(source, target, options).reserve(writer)
        for job in jobs:
            writer.add_tensor(job.tensor.name, job.tensor.shape, job.format)
        warn.extend(source.warnings)
        shape, trained = _cache(source.metadata, source.architecture)
        context = context or min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        tensors = tuple(
            TensorReport(
                job.tensor.name,
                job.tensor.origin,
                job.tensor.dtype,
                job.format.name,
                job.tensor.shape,
                job.n_bytes,
                planned.tensors[job.tensor.name].wanted,
            )
            for job in jobs
        )
        return Forecast(
            target,
            planned.recipe.name,
            tensors,
            writer.file_size,
            context,
            shape.bytes_per_position() * -(-context // 64) * 64 if shape else None,
            available_memory(),
            _free(target),
            tuple(warn.said),
            planned.coverage,
        )
    finally:
        source.close()


def _cache(metadata: Mapping[str, Any], arch: str) -> tuple[CacheShape | None, int]:
    """The shape of the KV cache, None where it cannot be told; and the tokens the model was trained on, or 0."""

    def number(key: str, default: int = 0) -> int:
        value = np.ravel(metadata.get(f"{arch}.{key}", default))
        return int(value[0]) if value.size and value.dtype.kind in "iu" else 0

    layers, heads = number("block_count"), number("attention.head_count")
    kv_heads = number("attention.head_count_kv", heads)
    head_dim = number("attention.key_length") or (number("embedding_length") // heads if heads > 0 else 0)
    known = arch in ARCHS and min(layers, kv_heads, head_dim) > 0
    shape = CacheShape(layers, kv_heads, head_dim) if known else None
    return shape, number("context_length")


def _free(target: Path) -> int | None:
    try:
        return shutil.disk_usage(target.absolute().parent).free
    except (OSError, ValueError):
        return None


def _fits(needed: int, free: int | None, of_what: str) -> str:
    if free is None:
        return "the system does not say how much is free"
    return f"{'fits' if needed <= free else 'does not fit'}: {size_in_words(free)} free {of_what}"
