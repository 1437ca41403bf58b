"""Real checkpoints: known types and bytes, and files of the same model that others made."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ggpy.converter import convert
from ggpy.gguf import open_gguf


@pytest.mark.parametrize("variant", ["stories260K", "stories260K-bf16", "stories260K-f16-sharded"])
def test_every_variant_of_stories260k_converts(shared: Path, tmp_path: Path, variant: str):
    """Its rows, of 64 and of 172, fit no super-block and the latter not even a block of 32."""
    report = convert(shared / "models" / variant, tmp_path / "out.gguf", "q4_k_m", measure_error=True)
    assert report.warnings == () and "give the same ids as tokenizer.model" in (report.tokenizer or "")
    types = Counter((t.format, t.wanted) for t in report.tensors)
    assert types == {
        ("Q8_0", "Q6_K"): 3,  # the tied embedding, attn_v of layers 2 and 4
        ("Q5_0", "Q4_K"): 28,
        ("F16", "Q6_K"): 2,  # ffn_down of layers 2 and 4
        ("F16", "Q4_K"): 3,
        ("F32", None): 11,
    }
    assert all(t.relative_rmse is not None and t.relative_rmse < 0.06 for t in report.tensors)
    with open_gguf(tmp_path / "out.gguf") as file:
        assert file.metadata["llama.attention.head_count_kv"] == 4 and len(file.metadata["tokenizer.ggml.tokens"]) == 512


@pytest.mark.parametrize("variant", ["stories260K-bf16", "stories260K-f16-sharded"])
def test_half_precision_checkpoints_lose_nothing(shared: Path, tmp_path: Path, variant: str):
    narrow = "bf16" if "bf16" in variant else "f16"
    exact = convert(shared / "models" / variant, tmp_path / "f32.gguf", "f32", measure_error=True)
    same = convert(shared / "models" / variant, tmp_path / "same.gguf", narrow, measure_error=True)
    assert all(t.relative_rmse == 0 for t in (*exact.tensors, *same.tensors))


@pytest.mark.real_model
def test_smollm2_becomes_the_file_that_others_made_of_it(smollm2_checkpoint: Path, smollm2_gguf: Path, tmp_path: Path):
    """The checkpoint was rebuilt from a Q4_1 file of llama.cpp's: quantized the same way it gives that file's bytes again."""
    report = convert(smollm2_checkpoint, tmp_path / "out.gguf")
    assert report.recipe == "Q4_1" and "210 tensors lie on the Q4_1 grid and stay on it (210 Q4_1): error" in str(report)
    with open_gguf(tmp_path / "out.gguf") as ours, open_gguf(smollm2_gguf) as theirs:
        assert ours.tensors.keys() == theirs.tensors.keys()
        for name, tensor in theirs.tensors.items():
            assert ours.tensors[name].format is tensor.format and np.array_equal(ours.tensors[name].data, tensor.data), name
        described = {"general.name", "general.organization", "general.finetune", "general.basename", "general.license", "general.languages"}
        for key in theirs.metadata.keys() - described:
            assert ours.metadata.raw(key) == theirs.metadata.raw(key) and ours.metadata.value_type(key) == theirs.metadata.value_type(
                key
            ), key
        added = {key for key in ours.metadata.keys() - theirs.metadata.keys() if not key.startswith("ggpy.")}
        assert added <= {"general.name", "tokenizer.ggml.add_eos_token"}
