"""Recipes: which block format a quantized file gives to which tensor, by the names and rules of llama-quantize.

A recipe is a default format and the exceptions to it, by category of tensor; `tensor_types.py` applies them. Source of the rules:
llama.cpp, src/llama-quant.cpp (`llama_tensor_get_type_impl`); of names, aliases and numbers: its tools/quantize/quantize.cpp and
include/llama.h.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ggpy.blocks import BLOCKS
from ggpy.errors import GGPyError, printable

QUANTIZATION_VERSION = 2
"""`general.quantization_version`: the generation of block formats that files of these recipes hold."""


@dataclass(frozen=True)
class ModelFacts:
    """What of a model the rules look at.

    sharing: query heads that share one key and value head. attn_v_boost: attn_v is so small beside the rest that more bits there cost
    little (the 70B shape).
    """

    n_layers: int
    n_experts: int = 0
    attn_v_boost: bool = False
    sharing: int = 1


@dataclass(frozen=True)
class Place:
    """Where a tensor stands: the index-th of the `count` of its category. weighted: whether an importance matrix is at hand."""

    index: int
    count: int
    facts: ModelFacts
    weighted: bool


Rule = Callable[[Place], str | None]
"""The format of the tensor at a place; None for the recipe's default."""


def _always(format: str) -> Rule:
    return lambda place: format


def _first(count: int, format: str, then: str | None = None) -> Rule:
    return lambda place: format if place.index < count else then


def _first_part(parts: int, format: str, then: str | None = None) -> Rule:
    """`format` in the first of `parts` equal parts of the layers."""
    return lambda place: format if place.index < place.count // parts else then


def _more_bits(format: str) -> Rule:
    """`format` in the first and last eighth of the layers and in every third between."""

    def rule(place: Place) -> str | None:
        index, eighth = place.index, place.count // 8
        return format if index < eighth or index >= 7 * place.count // 8 or (index - eighth) % 3 == 2 else None

    return rule


def _shared(format: str, otherwise: str | None = None) -> Rule:
    """`format` where four heads or more share the tensor."""
    return lambda place: format if place.facts.sharing >= 4 else otherwise


def _weighted(rule: Rule) -> Rule:
    return lambda place: rule(place) if place.weighted else None


def _unweighted(rule: Rule) -> Rule:
    return lambda place: None if place.weighted else rule(place)


@dataclass(frozen=True)
class Recipe:
    """name: as llama-quantize spells it. file_type: `general.file_type`. default: block format of every matrix without an exception.

    rules: category -> its exception. output: format of the output matrix, and of the embedding where that stands for both; embedding: of
    the embedding alone. eight_experts: of attn_output in models with eight experts, in place of its rule. experts: of stacked experts
    alone. needs_importance: whether tensors of the default format must not be encoded without an importance matrix.
    """

    name: str
    file_type: int
    default: str
    rules: dict[str, Rule] = field(default_factory=dict)
    output: str = "Q6_K"
    embedding: str | None = None
    eight_experts: str | None = None
    experts: str | None = None
    needs_importance: bool = False

    @property
    def quantized(self) -> bool:
        return BLOCKS[self.default].block_values > 1


_MORE_Q6_K = {"attn_v": _more_bits("Q6_K"), "ffn_down": _more_bits("Q6_K")}
_IQ4 = {"attn_v": _shared("Q5_K"), "ffn_down": _unweighted(_first_part(8, "Q5_K"))}

_RECIPES = (
    Recipe("F32", 0, "F32"),
    Recipe("F16", 1, "F16"),
    Recipe("BF16", 32, "BF16"),
    Recipe("Q8_0", 7, "Q8_0", output="Q8_0"),
    Recipe("Q6_K", 18, "Q6_K"),
    Recipe("Q5_K_M", 17, "Q5_K", _MORE_Q6_K),
    Recipe("Q5_K_S", 16, "Q5_K"),
    Recipe("Q5_1", 9, "Q5_1"),
    # with an importance matrix the first layers' ffn_down may come out badly in formats without a minimum
    Recipe("Q5_0", 8, "Q5_0", {"ffn_down": _weighted(_first_part(8, "Q5_1"))}),
    Recipe("Q4_K_M", 15, "Q4_K", _MORE_Q6_K, eight_experts="Q5_K"),
    Recipe("Q4_K_S", 14, "Q4_K", {"attn_v": _first(4, "Q5_K"), "ffn_down": _first_part(8, "Q5_K")}, eight_experts="Q5_K"),
    Recipe("Q4_1", 3, "Q4_1"),
    Recipe("Q4_0", 2, "Q4_0", {"ffn_down": _weighted(_first_part(8, "Q4_1"))}),
    Recipe("IQ4_NL", 25, "IQ4_NL", _IQ4, eight_experts="Q5_K"),
    Recipe("IQ4_XS", 30, "IQ4_XS", _IQ4, eight_experts="Q5_K"),
    Recipe("MXFP4_MOE", 38, "Q8_0", output="Q8_0", experts="MXFP4"),
    Recipe("Q3_K_L", 13, "Q3_K", {"attn_v": _always("Q5_K"), "ffn_down": _always("Q5_K"), "attn_output": _always("Q5_K")}),
    Recipe(
        "Q3_K_M",
        12,
        "Q3_K",
        {"attn_v": _first(2, "Q5_K", "Q4_K"), "ffn_down": _first_part(16, "Q5_K", "Q4_K"), "attn_output": _always("Q4_K")},
        eight_experts="Q5_K",
    ),
    Recipe("Q3_K_S", 11, "Q3_K", eight_experts="Q5_K"),
    Recipe(
        "Q2_K",
        10,
        "Q2_K",
        {"attn_v": _shared("Q4_K", "Q3_K"), "ffn_down": _always("Q3_K"), "attn_output": _always("Q3_K")},
        eight_experts="Q5_K",
    ),
    Recipe("Q2_K_S", 21, "Q2_K", {"attn_v": _shared("Q4_K"), "ffn_down": _first_part(8, "Q4_K")}, needs_importance=True),
    Recipe("TQ2_0", 37, "TQ2_0", embedding="Q4_K"),
    Recipe("TQ1_0", 36, "TQ1_0", embedding="Q4_K"),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}
ALIASES = {
    "Q5_K": "Q5_K_M",
    "Q4_K": "Q4_K_M",
    "Q3_K": "Q3_K_M",
    "MXFP4": "MXFP4_MOE",
    **{str(recipe.file_type): recipe.name for recipe in _RECIPES},
}

# What llama-quantize has besides: the block format that ggpy cannot encode, and the recipes nearest to it in size.
_NOT_WRITTEN = {
    "IQ3_M": ("IQ3_S", "Q3_K_M or IQ4_XS"),
    "IQ3_S": ("IQ3_S", "Q3_K_S"),
    "IQ3_XS": ("IQ3_S", "Q3_K_S"),
    "IQ3_XXS": ("IQ3_XXS", "Q3_K_S or Q2_K"),
    "IQ2_M": ("IQ2_S", "Q2_K or Q2_K_S"),
    "IQ2_S": ("IQ2_XS", "Q2_K_S"),
    "IQ2_XS": ("IQ2_XS", "Q2_K_S"),
    "IQ2_XXS": ("IQ2_XXS", "Q2_K_S"),
    "IQ1_M": ("IQ1_M", "Q2_K_S"),
    "IQ1_S": ("IQ1_S", "Q2_K_S"),
    "Q2_0": ("Q2_0", "Q2_K"),
    "Q1_0": ("Q1_0", "Q2_K_S"),
    "NVFP4": ("NVFP4", "IQ4_XS or Q4_K_S"),
}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`, in any case, by alias or by number; raises GGPyError saying what there is instead."""
    wanted = name.upper().strip()
    recipe = RECIPES.get(ALIASES.get(wanted, wanted))
    if recipe is None and wanted in _NOT_WRITTEN:
        format, near = _NOT_WRITTEN[wanted]
        raise GGPyError(f"type {wanted} cannot be written: ggpy reads {format} blocks but has no encoder of them; nearest is {near}")
    if recipe is None:
        raise GGPyError(f"type {printable(repr(name), 40)} is not one ggpy writes, expected one of {', '.join(RECIPES)} (Q4_K: Q4_K_M)")
    return recipe
