"""Tensor types are those llama-quantize chose, as tools/record_quantize_types.py recorded them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ggpy.blocks import BLOCKS
from ggpy.converter.options import Options
from ggpy.converter.recipes import RECIPES, ModelFacts, find_recipe
from ggpy.converter.tensor_types import Choices, TensorInfo, find_format, fit_rows, parse_overrides, plan
from ggpy.errors import GGPyError

RECORDED = json.loads((Path(__file__).parent / "llama_quantize_types.json").read_text(encoding="utf-8"))


def tensors_of(layers: int, d_model: int, d_ff: int, heads: int, kv_heads: int, tied: bool, experts: int) -> list[TensorInfo]:
    d_kv = d_model // heads * kv_heads
    rows = {"attn_q": d_model, "attn_k": d_kv, "attn_v": d_kv, "attn_output": d_model}
    layer: dict[str, tuple[int, ...]] = {name: (count, d_model) for name, count in rows.items()}
    if experts:
        layer |= {"ffn_gate_exps": (experts, d_ff, d_model), "ffn_up_exps": (experts, d_ff, d_model)}
        layer |= {"ffn_down_exps": (experts, d_model, d_ff), "ffn_gate_inp": (experts, d_model)}
    else:
        layer |= {"ffn_gate": (d_ff, d_model), "ffn_up": (d_ff, d_model), "ffn_down": (d_model, d_ff)}
    layer |= {"attn_norm": (d_model,), "ffn_norm": (d_model,)}
    found = {"token_embd.weight": (512, d_model), "output_norm.weight": (d_model,)} | ({} if tied else {"output.weight": (512, d_model)})
    found |= {f"blk.{i}.{name}.weight": shape for i in range(layers) for name, shape in layer.items()}
    return [TensorInfo(name, shape, "F32") for name, shape in found.items()]


def assert_chosen(model: dict[str, int], recipe: str, choices: Choices, kinds: dict[str, list[list]]) -> None:
    """The plan of a model of that shape is what llama-quantize chose."""
    boost = model["layers"] == 80 and model["heads"] != model["kv_heads"]
    tensors = tensors_of(**model)
    random.Random(0).shuffle(tensors)  # the order of tensors in a file decides nothing
    facts = ModelFacts(model["layers"], model["experts"], boost, model["heads"] // model["kv_heads"])
    planned = plan(tensors, RECIPES[recipe], facts, choices)
    assert [(p.name, p.shape) for p in planned] == [(t.name, t.shape) for t in tensors]
    expected = {}
    for kind, runs in kinds.items():
        types = [name for name, count in runs for _ in range(count)]
        expected |= {kind.replace("blk.", f"blk.{i}.", 1): name for i, name in enumerate(types)}
    assert {p.name: p.format for p in planned} == expected


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("label", RECORDED)
def test_llama_quantize_chooses_the_same(label: str, recipe: str):
    found = RECORDED[label]
    if not RECIPES[recipe].needs_importance:
        assert_chosen(found["model"], recipe, Choices(), found["types"][recipe])
    weighted = found["weighted"].get(recipe) or found["types"][recipe]  # recorded where it differs
    assert_chosen(found["model"], recipe, Choices(weighted=True), weighted)


@pytest.mark.parametrize(
    ("label", "chosen"), [pytest.param(label, chosen) for label, found in RECORDED.items() for chosen in found["chosen"]]
)
def test_llama_quantize_chooses_the_same_when_told_more(label: str, chosen: dict):
    options = Options(imatrix=Path("imatrix.gguf") if chosen["weighted"] else None, **_as_pairs(chosen["choices"]))
    assert_chosen(RECORDED[label]["model"], chosen["recipe"], options.choices, chosen["types"])


def _as_pairs(choices: dict) -> dict:
    return {name: tuple(value.items()) if name == "overrides" else value for name, value in choices.items()}


def test_importance_and_choices_change_what_is_recorded():
    assert all(found["weighted"].keys() >= {"Q4_0", "IQ4_XS"} for found in RECORDED.values() if found["model"]["layers"] >= 8)
    assert sum(len(found["chosen"]) for found in RECORDED.values()) >= 30


def test_a_matrix_that_is_a_vector_keeps_its_format():
    planned = plan([TensorInfo("blk.0.attn_q.weight", (1, 256), "F16")], RECIPES["Q4_K_M"], ModelFacts(1))
    assert planned[0].format == "F16"


def test_a_fused_qkv_counts_as_attn_v():
    tensors = [TensorInfo(f"blk.{i}.attn_qkv.weight", (768, 256), "F32") for i in range(8)]
    assert [p.format for p in plan(tensors, RECIPES["Q4_K_M"], ModelFacts(8))] == [
        "Q6_K",
        "Q4_K",
        "Q4_K",
        "Q6_K",
        "Q4_K",
        "Q4_K",
        "Q6_K",
        "Q6_K",
    ]


@pytest.mark.parametrize(
    ("format", "columns", "expected"),
    [
        ("Q4_K", 512, "Q4_K"),
        ("Q4_K", 288, "Q5_0"),
        ("Q5_K", 288, "Q5_1"),
        ("Q6_K", 288, "Q8_0"),
        ("Q4_K", 40, "F16"),
        ("Q8_0", 40, "F16"),
        ("Q4_1", 32, "Q4_1"),
        ("F32", 7, "F32"),
    ],
)
def test_rows_that_do_not_fit_fall_back(format: str, columns: int, expected: str):
    assert fit_rows(format, columns) == expected


def test_what_was_wanted_is_told():
    (planned,) = plan([TensorInfo("blk.0.attn_q.weight", (64, 288), "F32")], RECIPES["Q4_K_M"], ModelFacts(1))
    assert (planned.format, planned.wanted) == ("Q5_0", "Q4_K")


@pytest.mark.parametrize(
    ("name", "expected"), [("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("q5_k", "Q5_K_M"), ("15", "Q4_K_M"), (" F16", "F16")]
)
def test_names_and_aliases(name: str, expected: str):
    assert find_recipe(name).name == expected


@pytest.mark.parametrize("name", ["q4", "", "Q3", "q4_k_m\x1b[31m"])
def test_unknown_types_are_refused_with_a_list(name: str):
    with pytest.raises(GGPyError, match=r"Q4_K_M") as caught:
        find_recipe(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("label", RECORDED)
def test_every_recipe_can_be_written(label: str, weighted: bool):
    model = RECORDED[label]["model"]
    facts = ModelFacts(model["layers"], model["experts"], sharing=model["heads"] // model["kv_heads"])
    for recipe in RECIPES.values():
        planned = plan(tensors_of(**model), recipe, facts, Choices(weighted=weighted))
        assert all(BLOCKS[tensor.format].encode for tensor in planned)


def types_of(tensors: list[TensorInfo], recipe: str, **choices) -> dict[str, str]:
    return {p.name: p.format for p in plan(tensors, RECIPES[recipe], ModelFacts(1), Options(**choices).choices)}


def test_the_first_pattern_counts_whatever_its_case():
    tensors = [TensorInfo(f"blk.0.{name}.weight", (256, 256), "F32") for name in ("attn_q", "ffn_up", "ffn_down")]
    found = types_of(tensors, "Q4_K_M", overrides=(("FFN_UP", "q5_1"), ("ffn", "f16"), ("ffn_down", "q2_k")))
    assert list(found.values()) == ["Q4_K", "Q5_1", "F16"]


def test_a_pattern_counts_in_a_file_of_floats_too():
    tensors = [TensorInfo(f"blk.0.{name}.weight", (256, 256), "F32") for name in ("attn_q", "ffn_up")]
    assert list(types_of(tensors, "F16", overrides=(("ffn", "q8_0"),)).values()) == ["F16", "Q8_0"]


def test_a_chosen_format_that_rows_do_not_fit_falls_back():
    tensors = [TensorInfo("token_embd.weight", (512, 96), "F32"), TensorInfo("output.weight", (512, 96), "F32")]
    assert list(types_of(tensors, "Q8_0", embedding_type="q4_k", output_type="iq4_xs").values()) == ["Q5_0", "IQ4_NL"]


@pytest.mark.parametrize("name", ["q8_k", "i32", "iq2_xxs", "q9", ""])
def test_formats_that_cannot_be_encoded_are_refused(name: str):
    with pytest.raises(GGPyError, match=r"is no type that ggpy encodes, expected one of F32, F16, "):
        find_format(name, "output type")


@pytest.mark.parametrize("pattern", ["", "(", "[z-a]", "a{2,1}", "*"])
def test_patterns_that_are_none_are_refused(pattern: str):
    with pytest.raises(GGPyError, match="tensor type ") as caught:
        parse_overrides([(pattern, "q8_0")])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "near"), [("IQ3_M", "Q3_K_M or IQ4_XS"), ("iq2_xxs", "Q2_K_S"), ("IQ1_S", "Q2_K_S"), ("nvfp4", "IQ4_XS or Q4_K_S")]
)
def test_types_without_an_encoder_are_refused_with_the_nearest(name: str, near: str):
    with pytest.raises(GGPyError, match=f"has no encoder of them; nearest is {near}$"):
        find_recipe(name)
