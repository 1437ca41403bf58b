"""Every op of every layer: the tape against the reference ops, on the same inputs, within the bound of each op."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ggpy.kernels.kinds import BF16_FROM

from .lockstep import compare, loaded
from .tiny import write_llama

FORMATS = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
           "TQ1_0", "TQ2_0", "MXFP4"]  # fmt: skip
FROM_GRIDS = [
    {"": "IQ2_XXS", "attn_v": "IQ2_XS", "ffn_down": "IQ2_S"},
    {"": "IQ3_XXS", "ffn_down": "IQ3_S"},
    {"": "IQ1_S", "ffn_down": "IQ1_M"},
]
TOKENS = [1, 70, 200, 33, 5, 90, 41, 259, 300, 12, 64, 65, 66]
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 64,
    "rope.scaling.attn_factor": 1.5,
}
GEMMA2 = {
    "architecture": "gemma2",
    "layers": 3,
    "extra": {"attention.sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
}
GEMMA3 = {
    "architecture": "gemma3",
    "layers": 3,
    "extra": {
        "attention.sliding_window": 7,
        "attention.sliding_window_pattern": 2,
        "rope.freq_base_swa": 500.0,
        "rope.scaling.type": "linear",
        "rope.scaling.factor": 8.0,
    },
}
OPS = {"embed", "rms_norm", "linear", "rope", "append", "attention", "add", "outputs"}
OF_ONE_KIND = {"gemma": {"gelu_mul", "scale"}, "gemma2": {"gelu_mul", "scale", "soft_cap"}, "gemma3": {"gelu_mul", "scale"},
               "qwen2moe": {"route", "experts", "silu_mul", "sigmoid_scale"}}  # fmt: skip


def check(path: Path, tokens: list[int], **settings) -> None:
    with loaded(path) as model:
        seen: Counter[str] = Counter()
        for op, share in compare(model, tokens, **settings):
            seen[op.name] += 1
            assert share <= 1, f"{op.name} {op.params.get('layer', '')}: {share:.2f} of its bound"
        of_one_kind = OF_ONE_KIND.get(model.architecture, {"route", "experts"} if model.config.n_experts else {"silu_mul"})
        assert set(seen) == OPS | of_one_kind
        assert seen["attention"] == model.shape.n_layers and seen["append"] == 2 * model.shape.n_layers


@pytest.mark.parametrize("name", FORMATS)
def test_every_op_agrees(tmp_path: Path, name: str):
    path = write_llama(tmp_path / "m.gguf", name)
    check(path, TOKENS)
    check(path, TOKENS, split=len(TOKENS) - 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"biases": True},
        {"factors": True, "tied": False},
        {"d_model": 64, "d_ff": 172, "heads": 8, "kv_heads": 4},
        {"heads": 6, "kv_heads": 1, "head_dim": 40},
        {"heads": 2, "kv_heads": 2, "head_dim": 128, "layers": 1},
        {"architecture": "qwen2", "biases": True},
        {"architecture": "qwen3", "heads": 6, "kv_heads": 2, "head_dim": 40},
        {"architecture": "phi3", "heads": 6, "kv_heads": 2, "head_dim": 40},
        {"architecture": "phi3", "extra": {"attention.sliding_window": 5}},
        {"architecture": "qwen3moe", "experts": 8, "used": 3, "d_ff": 96},
        {"architecture": "qwen2moe", "experts": 8, "used": 3, "d_ff": 40, "d_model": 232, "biases": True},
        {"extra": YARN},
        {"architecture": "gemma"},
        GEMMA2,
        GEMMA3 | {"heads": 3, "kv_heads": 1, "head_dim": 40},
    ],
    ids=lambda changes: " ".join(str(changes.get("architecture", key)) for key in changes),
)
def test_every_op_agrees_in_other_shapes(tmp_path: Path, changes: dict):
    check(write_llama(tmp_path / "m.gguf", "F16", **changes), TOKENS, threads=2)


@pytest.mark.parametrize("name", FORMATS)
def test_every_op_agrees_for_many_tokens(tmp_path: Path, name: str):
    """As many as are multiplied in bfloat16 where the CPU has AMX; the last tile is not full."""
    path = write_llama(tmp_path / "m.gguf", name, layers=1)
    check(path, (TOKENS * 3)[: BF16_FROM + 5], threads=2)


def test_every_op_agrees_in_a_mix_of_formats(tmp_path: Path):
    mix = {"": "Q4_K", "attn_v": "Q6_K", "ffn_down": "Q6_K", "attn_k": "Q8_0", "token_embd": "Q5_0"}
    check(write_llama(tmp_path / "m.gguf", mix), TOKENS, threads=2, split=3)


@pytest.mark.parametrize("formats", FROM_GRIDS, ids=["IQ2", "IQ3", "IQ1"])
def test_every_op_agrees_where_values_come_from_grids(tmp_path: Path, formats: dict[str, str]):
    check(write_llama(tmp_path / "m.gguf", formats), TOKENS, split=len(TOKENS) - 1)


@pytest.mark.parametrize("name", ["F32", "BF16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS"])
def test_every_op_agrees_in_mixtures_of_experts(tmp_path: Path, name: str):
    """Few tokens, one by one, and so many that those of an expert are tiled."""
    path = write_llama(tmp_path / "m.gguf", name, layers=1, experts=4)
    check(path, TOKENS, split=len(TOKENS) - 1)
    check(path, TOKENS * 4, threads=2)


def test_what_experts_give_is_added_as_it_is_mixed(tmp_path: Path):
    with loaded(write_llama(tmp_path / "m.gguf", "F32", layers=1, experts=4)) as model:
        assert ("pointwise", "add") not in model.program().kernels
        assert ("pointwise", "add") in model.program(fuse=False).kernels


@pytest.mark.parametrize("experts", [2, 17])
def test_mixtures_of_experts_do_not_depend_on_threads(tmp_path: Path, experts: int):
    with loaded(write_llama(tmp_path / "m.gguf", "Q4_K", experts=experts)) as model:
        for tokens in (TOKENS[:1], TOKENS, TOKENS * 4):
            want = model.program(fuse=False).run(tokens, 0, len(tokens)).copy()
            for threads in (1, 2, 3, 8):
                program = model.program(threads=threads)
                for _ in range(4):
                    assert np.array_equal(program.run(tokens, 0, len(tokens)), want)


@pytest.mark.real_model
def test_every_op_of_the_real_model_agrees(smollm2_gguf: Path):
    ids = [504, 3575, 282, 4649, 314, 260, 1449, 282, 260, 905, 30, 198]
    check(smollm2_gguf, ids, threads=2)
    check(smollm2_gguf, ids, split=11)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("F32", {}),
        ("Q4_K", {}),
        ("Q8_0", {}),
        ("Q8_0", {"architecture": "qwen3"}),
        ("F16", {"architecture": "qwen2"}),
        ("Q8_0", {"architecture": "qwen2moe", "experts": 4, "d_ff": 96}),
        ("Q8_0", GEMMA2),
        ("Q4_K", GEMMA3),
    ],
)
def test_fused_equals_unfused_and_threads_change_nothing(tmp_path: Path, name: str, settings: dict):
    with loaded(write_llama(tmp_path / "m.gguf", name, **settings)) as model:
        for tokens in (TOKENS, (TOKENS * 3)[: BF16_FROM + 3]):
            plain = model.program(fuse=False).run(tokens, 0, len(tokens)).copy()
            for threads in (1, 2, 3):
                assert np.array_equal(model.program(threads=threads).run(tokens, 0, len(tokens)), plain)


@pytest.mark.parametrize("name", ["F32", "Q8_0"])
def test_logits_are_close_to_the_reference(tmp_path: Path, name: str):
    """Whole passes differ by the rounding of activations, summed over layers; in F32 by keys and values in float16, 2^-11 each, only."""
    with loaded(write_llama(tmp_path / "m.gguf", name)) as model:
        got, want = model.program().run(TOKENS, 0, len(TOKENS)), model.reference(TOKENS, len(TOKENS))
        limit = 1e-3 if name == "F32" else 0.04  # an activation's step is 1/127 of its block's largest: under 1 % a product, 15 in a row
        assert (got - want).std() <= limit * want.std()


@pytest.mark.parametrize("name", ["F32", "Q4_K", "Q8_0"])
def test_threads_change_nothing_one_by_one(tmp_path: Path, name: str):
    """Single tokens, which every thread norms and quantizes for itself."""
    with loaded(write_llama(tmp_path / "m.gguf", name)) as model:
        unfused = model.program(fuse=False)
        want = [unfused.run([token], i, 1)[0].copy() for i, token in enumerate(TOKENS)]
        for threads in (1, 2, 3, 8):
            program = model.program(threads=threads)
            for i, token in enumerate(TOKENS):
                assert np.array_equal(program.run([token], i, 1)[0], want[i])


def test_one_by_one_equals_at_once_within_rounding(tmp_path: Path):
    with loaded(write_llama(tmp_path / "m.gguf", "F32")) as model:
        at_once = model.program().run(TOKENS, 0, len(TOKENS)).copy()
        program = model.program()
        singles = np.stack([program.run([t], i, 1)[0].copy() for i, t in enumerate(TOKENS)])
        assert np.abs(at_once - singles).max() <= 1e-3 * at_once.std()  # a key's rounding to float16 may go the other way


@pytest.mark.parametrize("window", [20, 64, 150])
def test_windows_cross_blocks_and_batches(tmp_path: Path, window: int):
    """Batches whose tokens see different parts of the cache, and single tokens behind them."""
    tokens = list(np.random.default_rng(0).integers(0, 320, 180))
    extra = GEMMA3["extra"] | {"attention.sliding_window": window}
    with loaded(write_llama(tmp_path / "m.gguf", "F32", **(GEMMA3 | {"extra": extra}))) as model:
        want = model.reference(tokens, 180)
        program = model.program(batch=50, context=256)
        got = [program.run(tokens[i : i + 50], i, 50).copy() for i in range(0, 150, 50)]
        got += [program.run([tokens[i]], i, 1).copy() for i in range(150, 180)]
        assert np.abs(np.concatenate(got) - want).max() <= 5e-3 * want.std()


def test_long_contexts_cross_blocks_and_batches(tmp_path: Path):
    """Positions past a block of 64, batches that do not divide the prompt, tiles that are not full."""
    tokens = list(np.random.default_rng(0).integers(0, 320, 203))
    with loaded(write_llama(tmp_path / "m.gguf", "F32")) as model:
        want = model.reference(tokens, 203)
        program = model.program(batch=50, context=256)
        got = np.concatenate([program.run(tokens[i : i + 50], i, len(tokens[i : i + 50])).copy() for i in range(0, 203, 50)])
        assert np.abs(got - want).max() <= 5e-3 * want.std()
