"""Adapters: merged, they have the logits that peft gives them; as GGUF files, llama.cpp continues a text with them as with the merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggpy
from ggpy.converter.lora_file import convert_adapter
from tests.converter.checkpoints import safetensors_bytes, stored

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # the peers' own deprecations
IDS = [1, 403, 407, 261, 378]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def train(base: Path, folder: Path, **config: Any) -> np.ndarray:
    """An adapter with random weights in `folder`, and its logits."""
    reason = "is not installed (pip install -e '.[oracle]')"
    torch = pytest.importorskip("torch", reason=f"torch {reason}")
    transformers = pytest.importorskip("transformers", reason=f"transformers {reason}")
    peft = pytest.importorskip("peft", reason=f"peft {reason}")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    adapted = peft.get_peft_model(model, peft.LoraConfig(**config))
    with torch.no_grad():
        for values in adapted.parameters():
            if values.requires_grad:
                values += 0.03 * torch.randn_like(values)
        logits = adapted(torch.tensor([IDS])).logits[0].numpy()
    adapted.save_pretrained(folder)
    return logits


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ALL, "lora_alpha": 16},
        {"target_modules": ALL, "use_rslora": True, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["lm_head", "norm"]},
    ],
)
def test_merged_logits(shared: Path, tmp_path: Path, config: dict[str, Any]):
    base = shared / "models" / "stories260K"
    theirs = train(base, tmp_path / "adapter", **config)
    merged = ggpy.convert(base, tmp_path / "merged.gguf", "f32", lora=[tmp_path / "adapter"])
    ours = ggpy.load(merged.path, context=64).logits(IDS)
    plain = ggpy.load(ggpy.convert(base, tmp_path / "base.gguf", "f32").path, context=64).logits(IDS)
    error = np.abs(ours - theirs).max()
    assert error < 0.002 * theirs.std() and error < 0.02 * np.abs(plain - theirs).max()


def write_random_adapter(folder: Path) -> Path:
    """An adapter of stories260K: every matrix of all five layers."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    shapes = dict(zip(ALL, ((64, 64), (32, 64), (32, 64), (64, 64), (172, 64), (172, 64), (64, 172)), strict=True))
    values = {}
    for layer in range(5):
        for name, (rows, columns) in shapes.items():
            module = f"base_model.model.model.layers.{layer}.{'self_attn' if name in ALL[:4] else 'mlp'}.{name}"
            values[f"{module}.lora_A.weight"] = stored(0.1 * rng.standard_normal((4, columns)))
            values[f"{module}.lora_B.weight"] = stored(0.1 * rng.standard_normal((rows, 4)))
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(values))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}), encoding="utf-8")
    return folder


def test_llama_cpp_applies_the_file(shared: Path, tmp_path: Path):
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed (pip install -e '.[oracle]')")
    base = shared / "models" / "stories260K"
    adapter = write_random_adapter(tmp_path / "adapter")
    plain = ggpy.convert(base, tmp_path / "base.gguf", "f32").path
    merged = ggpy.convert(base, tmp_path / "merged.gguf", "f32", lora=[adapter]).path
    file = convert_adapter(adapter, base, tmp_path / "adapter.gguf").path

    def continued(model: Path, lora: Path | None) -> list[int]:
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.warmup, params.verbosity = str(model), 128, 1, False, -1
        if lora is not None:
            info = xllamacpp.CommonAdapterLoraInfo()
            info.path, info.scale = str(lora), 1.0
            params.lora_adapters = [info]
        asked = {"prompt": IDS, "n_predict": 40, "temperature": 0, "n_probs": 1, "cache_prompt": False}
        answer = xllamacpp.Server(params).handle_completions(asked)
        return [step["id"] for step in answer["choices"][0]["logprobs"]["content"]]

    expected = continued(merged, None)
    assert continued(plain, file) == expected != continued(plain, None)
