"""The types "keep" and "exact": a file as near to its source as block formats allow, for sources that are quantized already.

keep: every tensor in the smallest block format that holds its grid as it is, at most with scales or minimums rounded to half precision;
where none does, in one that comes close. exact: in the smallest format that holds its values bit for bit. Floats keep their type in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ggpy.converter.recipes import RECIPES, ModelFacts, Recipe, find_recipe
from ggpy.converter.source import Source, SourceTensor
from ggpy.converter.tensor_types import Choices, PlannedTensor, TensorInfo, fit_rows, plan

_KEPT_TYPES = _KEEP, _EXACT = "KEEP", "EXACT"
_DEFAULT = "Q4_K_M"
_GUESSED = 1024  # llama.cpp's general.file_type of files that say nothing better


def type_name(type: str | None) -> str:
    """The one spelling of a type; raises GGPyError for what is none."""
    if type is None:
        return "default"
    return type.upper().strip() if is_kept(type, ()) else find_recipe(type).name


def is_kept(type: str | None, tensors: Sequence[SourceTensor]) -> bool:
    """Whether these tensors are to stay what they are: by the type, or without one because a checkpoint is quantized already."""
    if type is None:
        return any(tensor.quantized for tensor in tensors)
    return type.upper().strip() in _KEPT_TYPES


def plan_source(type: str | None, source: Source, choices: Choices) -> tuple[Recipe, list[PlannedTensor]]:
    """The recipe by whose name a file of this type goes, and every tensor's format. `choices` matter where the type is a recipe."""
    if not is_kept(type, source.tensors):
        recipe = find_recipe(type or _DEFAULT)
        return recipe, plan([TensorInfo(t.name, t.shape, t.kept) for t in source.tensors], recipe, source.facts, choices)
    exact = type is not None and type.upper().strip() == _EXACT
    planned = [_kept(tensor, exact, source.facts) for tensor in source.tensors]
    return _name_for(source.tensors, planned), planned


def _kept(tensor: SourceTensor, exact: bool, facts: ModelFacts) -> PlannedTensor:
    how = tensor.quantized
    if how is None:
        (planned,) = plan([TensorInfo(tensor.name, tensor.shape, tensor.kept)], RECIPES["F16"], facts)
        keeps = tensor.raw is not None or planned.format != "F16"
        return PlannedTensor(tensor.name, tensor.shape, tensor.kept if keeps else tensor.dtype)
    if exact:
        return PlannedTensor(tensor.name, tensor.shape, how.exact[0] if how.exact else "F32")
    format = how.fits[0] if how.fits else fit_rows(how.nearest, tensor.columns)
    return PlannedTensor(tensor.name, tensor.shape, format, how.nearest if not how.fits and format != how.nearest else None)


def _name_for(tensors: Sequence[SourceTensor], planned: list[PlannedTensor]) -> Recipe:
    """The recipe by whose name and number the file goes: that of the format which most of its quantized weights have."""
    counts: Counter[str] = Counter()
    some_quantized = any(tensor.quantized for tensor in tensors)
    for tensor, found in zip(tensors, planned, strict=True):
        if tensor.quantized or not some_quantized:
            counts[found.format] += tensor.n_values
    format = counts.most_common(1)[0][0] if counts else "F32"
    return next((recipe for recipe in RECIPES.values() if recipe.default == format), Recipe(format, _GUESSED, format))
