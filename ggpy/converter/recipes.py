"""Recipes: which tensor gets which block format, exactly as llama-quantize chooses without an importance matrix.

A recipe is a default format and the exceptions to it. Tensors fall into few categories by name; the exceptions look at how many tensors of
a category came before. Source of the rules: llama.cpp, src/llama-quant.cpp (`llama_tensor_get_type_impl`, `tensor_type_fallback`,
`tensor_allows_quantization`); of names, aliases and numbers: its tools/quantize/quantize.cpp and include/llama.h.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ggpy.blocks import BLOCKS
from ggpy.errors import GGPyError, printable

QUANTIZATION_VERSION = 2
"""`general.quantization_version`: the generation of block formats that files of these recipes hold."""


@dataclass(frozen=True)
class ModelFacts:
    """What of a model the rules look at. attn_v_boost: many heads share each attn_v, so more bits there cost little (the 70B shape)."""

    n_layers: int
    n_experts: int = 0
    attn_v_boost: bool = False


@dataclass(frozen=True)
class TensorInfo:
    """A tensor to be planned. shape: rows first. stored: the format it has or, coming from a checkpoint, that it keeps when no recipe
    applies to it."""

    name: str
    shape: tuple[int, ...]
    stored: str


@dataclass(frozen=True)
class PlannedTensor:
    """`format`: name of the block format the tensor gets. `wanted`: what the recipe asked for where rows of that length do not allow it."""

    name: str
    shape: tuple[int, ...]
    format: str
    wanted: str | None = None


Condition = Callable[[int, int], bool]
"""(index of the tensor among those of its category, how many there are) -> whether the exception applies."""


def _more_bits(index: int, count: int) -> bool:
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def _first_four(index: int, count: int) -> bool:
    return index < 4


def _first_eighth(index: int, count: int) -> bool:
    return index < count // 8


@dataclass(frozen=True)
class Recipe:
    """name: as llama-quantize spells it. file_type: `general.file_type`. default: block format of every matrix without an exception.

    exceptions: category -> (condition, format). eight_experts: format of attn_output in models with eight experts.
    """

    name: str
    file_type: int
    default: str
    exceptions: dict[str, tuple[Condition, str]] = field(default_factory=dict)
    eight_experts: str | None = None

    @property
    def quantized(self) -> bool:
        return BLOCKS[self.default].block_values > 1


_MORE_Q6_K = {"attn_v": (_more_bits, "Q6_K"), "ffn_down": (_more_bits, "Q6_K")}

_RECIPES = (
    Recipe("F32", 0, "F32"),
    Recipe("F16", 1, "F16"),
    Recipe("BF16", 32, "BF16"),
    Recipe("Q4_0", 2, "Q4_0"),
    Recipe("Q4_1", 3, "Q4_1"),
    Recipe("Q5_0", 8, "Q5_0"),
    Recipe("Q5_1", 9, "Q5_1"),
    Recipe("Q8_0", 7, "Q8_0"),
    Recipe("Q4_K_S", 14, "Q4_K", {"attn_v": (_first_four, "Q5_K"), "ffn_down": (_first_eighth, "Q5_K")}, eight_experts="Q5_K"),
    Recipe("Q4_K_M", 15, "Q4_K", _MORE_Q6_K, eight_experts="Q5_K"),
    Recipe("Q5_K_S", 16, "Q5_K"),
    Recipe("Q5_K_M", 17, "Q5_K", _MORE_Q6_K),
    Recipe("Q6_K", 18, "Q6_K"),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}
ALIASES = {"Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", **{str(recipe.file_type): recipe.name for recipe in _RECIPES}}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`, in any case, by alias or by number; raises GGPyError listing what there is."""
    wanted = name.upper().strip()
    recipe = RECIPES.get(ALIASES.get(wanted, wanted))
    if recipe is None:
        raise GGPyError(f"type {printable(repr(name), 40)} is not one ggpy writes, expected one of {', '.join(RECIPES)} (Q4_K: Q4_K_M)")
    return recipe


# A part of the name decides; the first that matches counts.
_CATEGORIES = (
    ("attn_qkv.weight", "attn_v"),
    ("attn_kv_b.weight", "attn_v"),
    ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"),
    ("attn_output.weight", "attn_output"),
    ("ffn_down", "ffn_down"),
)
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")

# Small or delicate tensors that keep the format they have, as llama-quantize leaves them. Norms end in `_norm.weight`.
_KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel|per_layer_model_proj|^position_embd\.weight$"
    r"|^token_types\.weight$|ssm_conv1d|shortconv\.conv\.weight|indexer\.[kq]_proj\.weight|time_mix_(first|[wv][012]|a[012]|g[12]"
    r"|decay_w[12]|lerp_fused)\.weight|attn_rel_b\.weight|\.position_embd|sam\.pos_embd|sam\.neck\.|sam\.net_|\.rel_pos|\.patch_embd"
    r"|\.patch_merger|a\.rvq\.codebook|mm\.a\.code_embd"
)

# Where a row is no multiple of the super-block: the block of 32 that comes nearest.
_FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def plan(tensors: Sequence[TensorInfo], recipe: Recipe, facts: ModelFacts) -> list[PlannedTensor]:
    """The format of every tensor, in the order given.

    Matrices get the recipe's formats, everything else keeps its own. llama-quantize counts tensors by layer, then name, so the result does
    not depend on their order.
    """
    names = [tensor.name for tensor in tensors]
    counts = {"attn_v": sum(_category(name) == "attn_v" for name in names), "ffn_down": facts.n_layers}
    tied = "output.weight" not in names
    seen: Counter[str] = Counter()
    formats: dict[str, PlannedTensor] = {}
    for tensor in sorted(tensors, key=lambda t: (_layer(t.name), t.name.encode())):
        if not _is_quantizable(tensor):
            formats[tensor.name] = PlannedTensor(tensor.name, tensor.shape, tensor.stored)
            continue
        wanted = recipe.default
        if recipe.quantized:
            category = _category(tensor.name)
            if tensor.name == "output.weight" or (tied and tensor.name in _EMBEDDINGS):
                wanted = "Q8_0" if recipe.default == "Q8_0" else "Q6_K"
            elif tensor.name not in _EMBEDDINGS:
                # with experts a layer may have several ffn_down: the layer's number counts, not the tensor's
                by_layer = facts.n_experts > 1 and category == "ffn_down"
                index = _layer(tensor.name) if by_layer else seen[category]
                wanted = _layer_format(recipe, category, index, counts.get(category, 0), facts)
                seen[category] += 1
        format = fit_rows(wanted, tensor.shape[-1])
        formats[tensor.name] = PlannedTensor(tensor.name, tensor.shape, format, wanted if format != wanted else None)
    return [formats[name] for name in names]


def fit_rows(format: str, columns: int) -> str:
    """`format`, or what stands in for it where rows of `columns` values are no whole number of its blocks; F16 at the last."""
    for candidate in (format, _FALLBACKS.get(format, format)):
        if columns % BLOCKS[candidate].block_values == 0:
            return candidate
    return "F16"


def _layer_format(recipe: Recipe, category: str, index: int, count: int, facts: ModelFacts) -> str:
    condition, format = recipe.exceptions.get(category, (None, ""))
    wanted = format if condition and condition(index, count) else recipe.default
    if category == "attn_v" and facts.attn_v_boost and wanted == "Q4_K":
        wanted = "Q5_K"
    if facts.n_experts == 8 and category in ("attn_v", "attn_k"):
        wanted = "Q8_0"
    if facts.n_experts == 8 and category == "attn_output" and recipe.eight_experts:
        wanted = recipe.eight_experts
    return wanted


def _category(name: str) -> str:
    if name == "output.weight" or name in _EMBEDDINGS:
        return "other"
    return next((category for part, category in _CATEGORIES if part in name), "other")


def _is_quantizable(tensor: TensorInfo) -> bool:
    is_matrix = any(size > 1 for size in tensor.shape[:-1])
    return is_matrix and tensor.name.endswith("weight") and not _KEPT.search(tensor.name)


def _layer(name: str) -> int:
    layer = re.match(r"blk\.(\d{1,9})\.", name)
    return int(layer[1]) if layer else -1
