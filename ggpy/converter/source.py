"""What the streaming loop reads from: named tensors of float rows, wherever they lie, and the metadata that goes with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ggpy.arch import ARCHS
from ggpy.converter.recipes import ModelFacts, Recipe
from ggpy.gguf import GGUFWriter
from ggpy.runtime.encode import widened

RowReader = Callable[[int, int], np.ndarray]
"""(start, stop) -> rows [start, stop), (stop - start, columns), of a dtype in `ggpy.runtime.encode.FLOATS`; may be called from several
threads."""


@dataclass(frozen=True)
class Quantized:
    """How the weights of a checkpoint's tensor were quantized, and what holds them.

    method: such as "GPTQ 4-bit". fits: block formats that hold its grid as it is, the smallest first. exact: formats that hold its values
    bit for bit, the smallest first; formats in `fits` alone hold the quants as they are, scales or minimums rounded to half precision.
    nearest: the block format that comes close enough where none fits.
    """

    method: str
    fits: tuple[str, ...]
    exact: tuple[str, ...]
    nearest: str


@dataclass(frozen=True)
class SourceTensor:
    """One tensor on its way into a GGUF file.

    name: in GGUF. origin: in the source. shape: rows first. dtype: how the source stores it. kept: the block format it has in GGUF when no
    recipe applies to it. open(): a reader of its rows, asked for once, just before they are needed. raw(start, stop): rows as stored, uint8
    (stop - start, row_bytes), where the source is GGUF already. quantized: where a checkpoint was quantized by other means, how; then
    `repacked` has, for every format in `fits`, what `open` is for floats: a function that gives a reader of rows as blocks of that format.
    """

    name: str
    origin: str
    shape: tuple[int, ...]
    dtype: str
    kept: str
    open: Callable[[], RowReader]
    raw: Callable[[int, int], np.ndarray] | None = None
    quantized: Quantized | None = None
    repacked: Mapping[str, Callable[[], RowReader]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        return self.shape[-1]

    @property
    def n_values(self) -> int:
        return math.prod(self.shape)


def reordered(read: RowReader, order: np.ndarray) -> RowReader:
    """Rows as `read` gives them, row i being its row order[i]. Of a piece, everything between its first and its last row is read: an order
    that moves rows within heads takes no more memory than a piece and a head."""

    def read_rows(start: int, stop: int) -> np.ndarray:
        wanted = order[start:stop]
        if not len(wanted):
            return read(0, 0)
        first = int(wanted.min())
        return read(first, int(wanted.max()) + 1)[wanted - first]

    return read_rows


def shifted(read: RowReader, plus: float) -> RowReader:
    """Rows as `read` gives them, in float32, `plus` added to each value."""
    return lambda start, stop: widened(read(start, stop)) + np.float32(plus)


def model_facts(metadata: Mapping[str, Any], arch: str) -> ModelFacts:
    """What recipes look at, from a model's metadata under GGUF's keys. A number that differs from layer to layer counts as in the first."""
    numbers = {}
    for key in ("block_count", "expert_count", "attention.head_count", "attention.head_count_kv"):
        value = np.ravel(metadata.get(f"{arch}.{key}", 0))
        numbers[key] = int(value[0]) if value.size and value.dtype.kind in "iu" else 0
    heads, kv_heads = numbers["attention.head_count"], numbers["attention.head_count_kv"]
    known = ARCHS.get(arch)
    boost = known.attn_v_boost(metadata) if known else False
    return ModelFacts(numbers["block_count"], numbers["expert_count"], boost, heads // kv_heads if kv_heads > 0 else 1)


class Source(Protocol):
    """A model to convert. `architecture`: as GGUF names it; `metadata`: at least the keys that carry that name. `warnings`: what was
    decided for the user, one line each. `files`: (device, inode) of what is being read. `merged`: the adapters that were merged into it,
    one line each. `scaled`: tensors that give other columns than the model's own, which the matrices that read them make up for."""

    name: str
    architecture: str
    tensors: list[SourceTensor]
    facts: ModelFacts
    metadata: Mapping[str, Any]
    warnings: list[str]
    files: set[tuple[int, int]]
    merged: tuple[str, ...]
    scaled: frozenset[str]
    alignment: int

    def describe(self, writer: GGUFWriter, recipe: Recipe, added: Mapping[str, str | int]) -> None:
        """Declare all metadata; `added` replaces the source's own."""
        ...

    def prove_tokenizer(self) -> str | None:
        """How the described tokenizer compares with the source's own, in one line; None where it was taken over as it is."""
        ...

    def close(self) -> None: ...
