"""Tensor types are those llama-quantize chose, as tools/record_quantize_types.py recorded them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ggpy.blocks import BLOCKS
from ggpy.converter.recipes import RECIPES, ModelFacts, TensorInfo, find_recipe, fit_rows, plan
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


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("label", RECORDED)
def test_llama_quantize_chooses_the_same(label: str, recipe: str):
    model = RECORDED[label]["model"]
    boost = model["layers"] == 80 and model["heads"] != model["kv_heads"]
    tensors = tensors_of(**model)
    random.Random(0).shuffle(tensors)  # the order of tensors in a file decides nothing
    planned = plan(tensors, RECIPES[recipe], ModelFacts(model["layers"], model["experts"], boost))
    assert [(p.name, p.shape) for p in planned] == [(t.name, t.shape) for t in tensors]
    formats = {p.name: p.format for p in planned}
    expected = {}
    for kind, runs in RECORDED[label]["types"][recipe].items():
        types = [name for name, count in runs for _ in range(count)]
        expected |= {kind.replace("blk.", f"blk.{i}.", 1): name for i, name in enumerate(types)}
    assert formats == expected


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


@pytest.mark.parametrize("name", ["q4", "", "Q2_K", "IQ4_XS", "q4_k_m\x1b[31m"])
def test_unknown_types_are_refused_with_a_list(name: str):
    with pytest.raises(GGPyError, match=r"Q4_K_M") as caught:
        find_recipe(name)
    assert str(caught.value).isprintable()


def test_every_recipe_can_be_written():
    for recipe in RECIPES.values():
        formats = {recipe.default, "Q8_0", "F16", "Q6_K", "Q5_0", "Q5_1", *(name for _, name in recipe.exceptions.values())}
        assert all(BLOCKS[name].encode for name in formats)
