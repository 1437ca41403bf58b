"""What a recipe is, in five lines: its block format, which tensors get another, and what a weight takes in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ggpy.blocks import BLOCKS, BlockFormat
from ggpy.converter.recipes import RECIPES, ModelFacts, Recipe
from ggpy.converter.report import TensorReport, size_in_words
from ggpy.converter.tensor_types import Choices, TensorInfo, fit_rows, plan

LLAMA_8B = "the Llama 3 8B shape"

# What the fields of a block mean for its weights.
_MEANING = {
    "Q8_0": "32 signed bytes share an f16 scale",
    "Q4_0": "32 4-bit numbers share an f16 scale; zero is in the middle",
    "Q4_1": "32 4-bit numbers share an f16 scale and an f16 minimum",
    "Q5_0": "32 5-bit numbers share an f16 scale; zero is in the middle",
    "Q5_1": "32 5-bit numbers share an f16 scale and an f16 minimum",
    "Q2_K": "16 sub-blocks of 16 2-bit numbers, each with a 4-bit scale and a 4-bit minimum, themselves scaled by two f16",
    "Q3_K": "16 sub-blocks of 16 3-bit numbers, each with a 6-bit scale, itself scaled by an f16",
    "Q4_K": "8 sub-blocks of 32 4-bit numbers, each with a 6-bit scale and a 6-bit minimum, themselves scaled by two f16",
    "Q5_K": "8 sub-blocks of 32 5-bit numbers, each with a 6-bit scale and a 6-bit minimum, themselves scaled by two f16",
    "Q6_K": "16 sub-blocks of 16 6-bit numbers, each with an 8-bit scale, itself scaled by an f16",
    "IQ4_NL": "32 4-bit places in a table of 16 unevenly spaced values share an f16 scale",
    "IQ4_XS": "8 sub-blocks of 32 4-bit places in a table of 16 unevenly spaced values, each with a 6-bit scale, itself scaled by an f16",
    "MXFP4": "32 4-bit floats (1 sign, 2 exponent, 1 mantissa bit) share a power of two",
    "TQ1_0": "256 numbers out of -1, 0 and 1, five to a byte, share an f16 scale: for models trained that way",
    "TQ2_0": "256 numbers out of -1, 0 and 1, four to a byte, share an f16 scale: for models trained that way",
    "F32": "every weight by itself, 8 bits of exponent and 23 of mantissa",
    "F16": "every weight by itself, 5 bits of exponent and 10 of mantissa",
    "BF16": "every weight by itself, 8 bits of exponent and 7 of mantissa",
}


def llama_8b() -> tuple[list[TensorInfo], ModelFacts]:
    """The tensors of Llama 3 8B: 32 layers of 4096, 8 key-value heads, 128256 tokens."""
    layers, d_model, d_kv, d_ff, n_vocab = 32, 4096, 1024, 14336, 128256
    square = {"attn_q": d_model, "attn_k": d_kv, "attn_v": d_kv, "attn_output": d_model, "ffn_gate": d_ff, "ffn_up": d_ff}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (n_vocab, d_model) for name in ("token_embd", "output")}
    shapes["output_norm.weight"] = (d_model,)
    for i in range(layers):
        shapes |= {f"blk.{i}.{name}.weight": (rows, d_model) for name, rows in square.items()}
        shapes |= {f"blk.{i}.{name}_norm.weight": (d_model,) for name in ("attn", "ffn")}
        shapes[f"blk.{i}.ffn_down.weight"] = (d_model, d_ff)
    return [TensorInfo(name, shape, "F32") for name, shape in shapes.items()], ModelFacts(layers, sharing=4)


def explain(
    recipe: Recipe, tensors: Sequence[TensorInfo] | None = None, facts: ModelFacts | None = None, model: str = LLAMA_8B
) -> list[str]:
    """Five lines on a recipe, computed for the tensors of `model`; without any for Llama 3 8B."""
    if tensors is None or facts is None:
        tensors, facts = llama_8b()
    plain, weighted = (reports(tensors, recipe, facts, weighted=w) for w in (False, True))
    format = BLOCKS[recipe.experts or recipe.default]
    return [
        f"{recipe.name}: most weights are {_most(plain)}; general.file_type {recipe.file_type}",
        _block(format),
        _exceptions(plain, recipe),
        _importance(recipe, plain, weighted),
        f"on {model}: {bits_per_weight(plain):.3f} bits per weight, {size_in_words(sum(t.n_bytes for t in plain))}",
    ]


def reports(tensors: Iterable[TensorInfo], recipe: Recipe, facts: ModelFacts, *, weighted: bool = False) -> list[TensorReport]:
    """What each tensor becomes."""
    planned = plan(list(tensors), recipe, facts, Choices(weighted=weighted))
    found = []
    for p in planned:
        blank = TensorReport(p.name, "", "", p.format, p.shape, 0, p.wanted)
        n_bytes = BLOCKS[p.format].row_bytes(p.shape[-1]) * (blank.n_values // max(1, p.shape[-1]))
        found.append(TensorReport(p.name, "", "", p.format, p.shape, n_bytes, p.wanted))
    return found


def bits_per_weight(tensors: Iterable[TensorReport]) -> float:
    """Bits of all tensors, norms included, by their number of weights."""
    tensors = list(tensors)
    return 8 * sum(t.n_bytes for t in tensors) / max(1, sum(t.n_values for t in tensors))


def recipe_table() -> list[tuple[str, str, float, float, bool]]:
    """Every recipe: name, default format, bits per weight on Llama 3 8B without and with an importance matrix, whether it needs one."""
    tensors, facts = llama_8b()
    rows = []
    for recipe in RECIPES.values():
        plain, weighted = (bits_per_weight(reports(tensors, recipe, facts, weighted=w)) for w in (False, True))
        rows.append((recipe.name, recipe.experts or recipe.default, plain, weighted, recipe.needs_importance))
    return rows


def _most(tensors: list[TensorReport]) -> str:
    weights: Counter[str] = Counter()
    for tensor in tensors:
        weights[tensor.format] += tensor.n_values
    format, count = weights.most_common(1)[0]
    return f"{format} ({count / weights.total():.0%})"


def _block(format: BlockFormat) -> str:
    meaning = _MEANING[format.name]
    if format.block_values == 1:
        return f"{format.name}: {format.bits_per_weight:g} bits per weight: {meaning}"
    kind = "super-blocks" if format.block_values == 256 else "blocks"
    layout = f"{kind} of {format.block_values} weights in {format.block_bytes} bytes, {format.bits_per_weight:g} bits per weight"
    return f"{format.name}: {layout}: {meaning}"


def _exceptions(tensors: list[TensorReport], recipe: Recipe) -> str:
    """Which matrices get another format than the default."""
    kinds: dict[str, list[TensorReport]] = {}
    for tensor in tensors:
        if len(tensor.shape) > 1:
            kinds.setdefault(tensor.kind, []).append(tensor)
    parts = []
    for kind, group in kinds.items():
        counts = Counter(t.format for t in group)
        del counts[fit_rows(recipe.default, group[0].shape[-1])]
        parts += [f"{kind} {format}" + (f" in {n} of {len(group)} layers" if n < len(group) else "") for format, n in counts.items()]
    said = f"other than {recipe.default}: {', '.join(parts)}" if parts else f"every matrix is {recipe.default}; vectors keep their floats"
    if recipe.experts and not any(t.format == recipe.experts for t in tensors):
        said += f"; {recipe.experts} is for experts, of which there are none here"
    fallbacks = {t.format for t in tensors if t.wanted == recipe.default}
    if fallbacks:
        said += f"; {', '.join(sorted(fallbacks))} where rows are no multiple of {BLOCKS[recipe.default].block_values}"
    return said


def _importance(recipe: Recipe, plain: list[TensorReport], weighted: list[TensorReport]) -> str:
    if recipe.needs_importance:
        return "an importance matrix (--imatrix) is needed: too much is lost without one"
    formats = {t.format for t in weighted}
    if not any(BLOCKS[name].encode_weighted for name in formats):
        return "an importance matrix (--imatrix) changes nothing: these formats round every weight by itself"
    changed = Counter((a.kind, a.format, b.format) for a, b in zip(plain, weighted, strict=True) if a.format != b.format)
    if not changed:
        return "an importance matrix (--imatrix) is not needed; with one the same types are stored with smaller errors where it matters"
    said = ", ".join(f"{kind} {after}, not {before}, in {n} layers" for (kind, before, after), n in changed.items())
    return f"an importance matrix (--imatrix) is not needed; with one errors are smaller where it matters, and {said}"
