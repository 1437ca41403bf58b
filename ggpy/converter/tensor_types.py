"""The block format of every tensor: a recipe applied to a model as llama-quantize applies it, and what the user asks of single tensors.

Tensors fall into few categories by name; the rules look at how many tensors of a category came before. Source: llama.cpp,
src/llama-quant.cpp (`llama_tensor_get_type`, `tensor_type_fallback`, `tensor_allows_quantization`, `tensor_requires_imatrix`).
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ggpy.blocks import BLOCKS
from ggpy.converter.recipes import ModelFacts, Place, Recipe
from ggpy.errors import GGPyError, printable


@dataclass(frozen=True)
class TensorInfo:
    """A tensor to be planned. shape: rows first. stored: the format it has or, coming from a checkpoint, that it keeps when no recipe
    applies to it."""

    name: str
    shape: tuple[int, ...]
    stored: str


@dataclass(frozen=True)
class PlannedTensor:
    """`format`: name of the block format the tensor gets. `wanted`: what was asked for where rows of that length do not allow it.

    needs_importance: whether it must not be encoded without an importance matrix, too much would be lost.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    wanted: str | None = None
    needs_importance: bool = False


@dataclass(frozen=True)
class Override:
    """Tensors in whose name `pattern` is found, whatever its case, get `format`."""

    pattern: re.Pattern[str]
    format: str


@dataclass(frozen=True)
class Choices:
    """What the user asks beside the recipe.

    overrides: the first that is found in a tensor's name counts. output: format of the output matrix, and of the embedding where that
    stands for both; embedding: of the embedding, before all else. pure: no exceptions, all matrices in the recipe's default. keep_output:
    output.weight keeps what it has. weighted: an importance matrix is at hand, which changes some rules.
    """

    overrides: tuple[Override, ...] = ()
    output: str | None = None
    embedding: str | None = None
    pure: bool = False
    keep_output: bool = False
    weighted: bool = False


# A part of the name decides; the first that matches counts.
_CATEGORIES = (
    ("attn_qkv.weight", "attn_v"),
    ("attn_kv_b.weight", "attn_v"),
    ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"),
    ("attn_output.weight", "attn_output"),
    ("ffn_down", "ffn_down"),
)
OUTPUT = "output.weight"
EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")

# Small or delicate tensors that keep the format they have, as llama-quantize leaves them. Norms end in `_norm.weight`.
_KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel|per_layer_model_proj|^position_embd\.weight$"
    r"|^token_types\.weight$|ssm_conv1d|shortconv\.conv\.weight|indexer\.[kq]_proj\.weight|time_mix_(first|[wv][012]|a[012]|g[12]"
    r"|decay_w[12]|lerp_fused)\.weight|attn_rel_b\.weight|\.position_embd|sam\.pos_embd|sam\.neck\.|sam\.net_|\.rel_pos|\.patch_embd"
    r"|\.patch_merger|a\.rvq\.codebook|mm\.a\.code_embd"
)

# Where a row is no multiple of the super-block: the block of 32 that comes nearest.
_FALLBACKS = {
    "IQ4_XS": "IQ4_NL",
    "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0",
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}


def plan(tensors: Sequence[TensorInfo], recipe: Recipe, facts: ModelFacts, choices: Choices = Choices()) -> list[PlannedTensor]:
    """The format of every tensor, in the order given.

    Matrices get the recipe's formats, everything else keeps its own. llama-quantize counts tensors by layer, then name, so the result does
    not depend on their order.
    """
    planner = _Planner(tensors, recipe, facts, choices)
    in_order = sorted(tensors, key=lambda tensor: (_layer(tensor.name), tensor.name.encode()))
    planned = {tensor.name: planner.planned(tensor) for tensor in in_order}
    return [planned[tensor.name] for tensor in tensors]


def fit_rows(format: str, columns: int) -> str:
    """`format`, or what stands in for it where rows of `columns` values are no whole number of its blocks; F16 at the last."""
    for candidate in (format, _FALLBACKS.get(format, format)):
        if columns % BLOCKS[candidate].block_values == 0:
            return candidate
    return "F16"


def find_format(name: str, what: str) -> str:
    """The block format called `name`, in any case; raises GGPyError naming `what` it was for, for what tensors cannot be encoded in."""
    format = BLOCKS.get(name.upper().strip())
    known = [block.name for block in BLOCKS.values() if block.encode and block.name != "Q8_K"]  # Q8_K is of activations
    if format is None or format.name not in known:
        raise GGPyError(f"{what}: {printable(repr(name), 40)} is no type that ggpy encodes, expected one of {', '.join(known)}")
    return format.name


def parse_overrides(overrides: Iterable[tuple[str, str]]) -> tuple[Override, ...]:
    """(pattern, name of a block format) pairs; raises GGPyError for what is no regular expression, or no such format."""
    found = []
    for pattern, name in overrides:
        what = f"tensor type {printable(repr(f'{pattern}={name}'), 100)}"
        if not pattern:
            raise GGPyError(f"{what}: a pattern is missing, expected PATTERN=TYPE as in attn_v=q8_0")
        try:
            with warnings.catch_warnings(action="ignore"):  # of sets like [[a], which mean what they say
                compiled = re.compile(pattern, re.ASCII | re.IGNORECASE)
        except (re.error, OverflowError, RecursionError) as error:
            raise GGPyError(f"{what}: not a regular expression: {printable(error)}") from None
        found.append(Override(compiled, find_format(name, what)))
    return tuple(found)


class _Planner:
    """Plans tensors in the order in which llama-quantize counts them."""

    def __init__(self, tensors: Sequence[TensorInfo], recipe: Recipe, facts: ModelFacts, choices: Choices):
        names = [tensor.name for tensor in tensors]
        self._recipe, self._facts, self._choices = recipe, facts, choices
        self._counts = {"attn_v": sum(_category(name) == "attn_v" for name in names), "ffn_down": facts.n_layers}
        self._tied = OUTPUT not in names
        self._seen: Counter[str] = Counter()

    def planned(self, tensor: TensorInfo) -> PlannedTensor:
        if not is_quantizable(tensor) or (self._choices.keep_output and tensor.name == OUTPUT):
            return PlannedTensor(tensor.name, tensor.shape, tensor.stored)
        wanted = self._wanted(tensor)
        format = fit_rows(wanted, tensor.shape[-1])
        exempt = tensor.name == OUTPUT or tensor.name in EMBEDDINGS
        needs_importance = self._recipe.needs_importance and format == self._recipe.default and not exempt
        return PlannedTensor(tensor.name, tensor.shape, format, wanted if format != wanted else None, needs_importance)

    def _wanted(self, tensor: TensorInfo) -> str:
        choices, recipe, name = self._choices, self._recipe, tensor.name
        override = next((o.format for o in choices.overrides if o.pattern.search(name)), None)
        if choices.embedding and name in EMBEDDINGS and not (override and name != EMBEDDINGS[0]):
            return choices.embedding
        if choices.output and name == OUTPUT:
            return choices.output
        if override:
            return override
        if choices.pure or not recipe.quantized:
            return recipe.experts or recipe.default
        if name == OUTPUT or (self._tied and name in EMBEDDINGS):
            return choices.output or recipe.output
        if recipe.experts:
            stacked = len(tensor.shape) > 2 and tensor.shape[-3] > 1
            return recipe.experts if stacked else recipe.default
        if name in EMBEDDINGS:
            return recipe.embedding or recipe.default
        return self._by_rules(name)

    def _by_rules(self, name: str) -> str:
        recipe, facts, category = self._recipe, self._facts, _category(name)
        # with experts a layer may have several ffn_down: the layer's number counts, not the tensor's
        by_layer = facts.n_experts > 1 and category == "ffn_down"
        index = _layer(name) if by_layer else self._seen[category]
        self._seen[category] += 1
        rule = recipe.rules.get(category)
        place = Place(index, self._counts.get(category, 0), facts, self._choices.weighted)
        wanted = (rule and rule(place)) or recipe.default
        if category == "attn_v" and facts.attn_v_boost and wanted in ("Q3_K", "Q4_K"):
            wanted = "Q5_K"
        if facts.n_experts == 8 and category in ("attn_v", "attn_k"):
            wanted = "Q8_0"
        if facts.n_experts == 8 and category == "attn_output":
            wanted = recipe.eight_experts or recipe.default
        return wanted


def _category(name: str) -> str:
    if name == OUTPUT or name in EMBEDDINGS:
        return "other"
    return next((category for part, category in _CATEGORIES if part in name), "other")


def is_quantizable(tensor: TensorInfo) -> bool:
    """Whether recipes apply to a tensor: a matrix or a stack of them, and none of those that stay as they are."""
    is_matrix = any(size > 1 for size in tensor.shape[:-1])
    return is_matrix and tensor.name.endswith("weight") and not _KEPT.search(tensor.name)


def _layer(name: str) -> int:
    layer = re.match(r"blk\.(\d{1,9})\.", name)
    return int(layer[1]) if layer else -1
