"""What a conversion will write, settled before any weight is read: each tensor's block format and importance, and what is to be said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ggpy.blocks import BLOCKS, BlockFormat
from ggpy.converter.imatrix import ImportanceMatrix, read_imatrix
from ggpy.converter.keep import is_kept, plan_source
from ggpy.converter.options import Options
from ggpy.converter.recipes import Recipe
from ggpy.converter.source import RowReader, Source, SourceTensor
from ggpy.converter.stream import Job
from ggpy.converter.tensor_types import EMBEDDINGS, OUTPUT, Choices, PlannedTensor, TensorInfo, is_quantizable
from ggpy.errors import CheckpointError, GGPyError, printable


@dataclass
class ModelPlan:
    """recipe: by whose name the file goes. tensors: by name, in the source's order. importance: by name, as `Job` has it. metadata: keys
    beside the source's own. warnings: one line each. lossy: whether weights that are quantized already lose more. coverage: how much of the
    model the importance matrix knows, or what calibrating did, in one line; None without. blocks: by name, of tensors that calibrating has
    encoded, as `Job` has them."""

    recipe: Recipe
    tensors: dict[str, PlannedTensor]
    importance: dict[str, np.ndarray] = field(default_factory=dict)
    metadata: Mapping[str, str | int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    lossy: bool = False
    coverage: str | None = None
    blocks: dict[str, Callable[[], RowReader]] = field(default_factory=dict)

    def jobs(self, source: Source) -> list[Job]:
        """The tensors to write, in the source's order. GGPyError for one that is to change its format and cannot be decoded, or needs an
        importance matrix and has none."""
        jobs = [Job(t, BLOCKS[self.tensors[t.name].format], self.importance.get(t.name), self.blocks.get(t.name)) for t in source.tensors]
        for job in jobs:
            name = printable(job.tensor.name)
            if job.copied:
                continue
            if job.tensor.raw is not None and BLOCKS[job.tensor.dtype].decode is None:
                raise GGPyError(f"tensor {name} is {job.tensor.dtype}, which ggpy cannot decode yet")
            if self.tensors[job.tensor.name].needs_importance and job.importance is None:
                raise GGPyError(f"tensor {name} would be {job.format.name} without an importance matrix, which loses too much: give one")
        return jobs


def plan_model(source: Source, options: Options) -> ModelPlan:
    """Apply the type, the user's choices and the importance matrix to the source's tensors."""
    recipe, tensors = plan_source(options.type, source, options.choices)
    planned, kept = ModelPlan(recipe, {tensor.name: tensor for tensor in tensors}), is_kept(options.type, source.tensors)
    if kept and replace(options.choices, weighted=False) != Choices():
        raise GGPyError("type keep leaves tensors as they are: name a recipe (type), such as q4_k_m, to choose types of single tensors")
    requantized = _requantized(source, planned.tensors)
    planned.lossy = bool(requantized) or any(_loses(tensor, planned.tensors[tensor.name]) for tensor in source.tensors)
    if not kept:
        planned.warnings += [*requantized, *_without_effect(source, recipe, options.choices)]
    if recipe.experts and not any(tensor.format == recipe.experts for tensor in tensors):
        planned.warnings.append(
            f"{recipe.name} is for models with experts, this has none: every matrix is {recipe.default} (pure gives {recipe.experts})"
        )
    if options.imatrix is not None:
        _weigh(planned, source, read_imatrix(options.imatrix))
    elif names := [tensor.name for tensor in tensors if tensor.needs_importance]:
        raise GGPyError(
            f"type {recipe.name} needs an importance matrix (imatrix): without one {len(names)} tensors, {printable(names[0])} first, lose "
            f"too much; Q2_K does not need one"
        )
    return planned


def _weigh(planned: ModelPlan, source: Source, matrix: ImportanceMatrix) -> None:
    """Give tensors their importance, and say which have none."""
    candidates = [t for t in source.tensors if is_quantizable(TensorInfo(t.name, t.shape, t.kept))]
    missing = []
    for tensor in candidates:
        entry = matrix.entries.get(tensor.name)
        if entry is None or (tensor.name in EMBEDDINGS and entry.sums.size != tensor.columns):  # as of a lookup, which has other inputs
            missing.append(tensor.name)
        else:
            planned.importance[tensor.name] = matrix.of(tensor.name, tensor.shape)
    if not planned.importance:
        some = ", ".join(map(printable, list(matrix.entries)[:3]))
        raise CheckpointError(
            f"{printable(matrix.path)}: knows none of the model's tensors; its own are {some}, …: made for another model?"
        )
    planned.metadata = matrix.metadata()
    where = printable(matrix.path)
    if not any(BLOCKS[planned.tensors[name].format].encode_weighted for name in planned.importance):
        planned.warnings.append(f"{where}: has no effect, the chosen formats do not depend on importance")
    if unexpected := [name for name in matrix.entries if name not in planned.tensors]:
        planned.warnings.append(f"{where}: {len(unexpected)} of its tensors are not in the model: {_first_five(unexpected)}")
    if surprising := [name for name in missing if name != OUTPUT and name not in EMBEDDINGS]:
        planned.warnings.append(f"{where}: nothing is known of {len(surprising)} tensors, encoded without: {_first_five(surprising)}")
    planned.coverage = f"importance matrix {where}: of {len(planned.importance)} of {len(candidates)} matrices" + (
        f", not of {_first_five(missing)}" if missing else ""
    )


def _without_effect(source: Source, recipe: Recipe, choices: Choices) -> list[str]:
    """Choices that change no tensor of this model, as lines to warn with."""
    said, names = [], [t.name for t in source.tensors if is_quantizable(TensorInfo(t.name, t.shape, t.kept))]
    for override in choices.overrides:
        if not any(override.pattern.search(name) for name in names):
            said.append(f"tensor type {printable(override.pattern.pattern, 100)}={override.format} fits no matrix of the model")
    if OUTPUT in names or not (choices.output or choices.keep_output):
        return said
    if choices.keep_output:
        said.append(f"{OUTPUT} is to be left as it is, but the model has none: its embedding stands for it")
    elif choices.pure or not recipe.quantized:
        said.append(f"output type {choices.output} has no effect: the model's embedding stands for {OUTPUT}, choose an embedding type")
    return said


def _requantized(source: Source, planned: Mapping[str, PlannedTensor]) -> list[str]:
    lossy = {t.quantized.method if t.quantized else t.dtype for t in source.tensors if _is_requantized(t, BLOCKS[planned[t.name].format])}
    if not lossy:
        return []
    better = "type keep loses nothing or next to nothing" if any(t.repacked for t in source.tensors) else "a float source would be better"
    return [f"quantizing again what is {', '.join(sorted(lossy))} already: its own error stays in, {better}"]


def _is_requantized(tensor: SourceTensor, format: BlockFormat) -> bool:
    quantized = tensor.quantized is not None or (tensor.dtype in BLOCKS and BLOCKS[tensor.dtype].block_values > 1)
    return quantized and format.block_values > 1 and not Job(tensor, format).copied


def _loses(tensor: SourceTensor, planned: PlannedTensor) -> bool:
    """Whether a quantized checkpoint's tensor does not get into the file bit for bit."""
    return tensor.quantized is not None and planned.format not in (*tensor.quantized.exact, "F32")


def wider(source: Source, planned: ModelPlan, name: str) -> str:
    """The format for a tensor whose values the planned one cannot hold."""
    dtype = next(tensor.dtype for tensor in source.tensors if tensor.name == name)
    return "BF16" if dtype == "BF16" and planned.tensors[name].format != "BF16" else "F32"


def widen(planned: ModelPlan, name: str, format: str, why: str) -> str:
    """Give a tensor that format; returns what is to be said of it."""
    before = planned.tensors[name]
    planned.blocks.pop(name, None)
    planned.tensors[name] = PlannedTensor(name, before.shape, format, before.wanted or before.format)
    return f"tensor {printable(name)} is stored as {format}: {why}"


def _first_five(names: list[str]) -> str:
    return ", ".join(map(printable, names[:5])) + (", …" if len(names) > 5 else "")
