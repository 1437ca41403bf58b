"""What checkpoints with a shared expert become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggpy.blocks import BLOCKS
from ggpy.converter import convert
from ggpy.errors import CheckpointError
from ggpy.gguf import GGUFWriter, open_gguf
from ggpy.runtime.weights import load_weights

from .checkpoints import CONFIG, random_weights, write_checkpoint

MOE = CONFIG | {
    "architectures": ["Qwen2MoeForCausalLM"], "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 48,
}  # fmt: skip


def weights_of_experts() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    found = {name: values for name, values in random_weights(CONFIG).items() if ".mlp." not in name}
    for i in range(2):
        shapes = {f"self_attn.{part}_proj.bias": (n,) for part, n in (("q", 64), ("k", 32), ("v", 32))}
        shapes |= {"mlp.gate.weight": (3, 64), "mlp.shared_expert_gate.weight": (1, 64)}
        for name, width in (("shared_expert", 48), *((f"experts.{e}", 32) for e in range(3))):
            shapes |= {f"mlp.{name}.{part}_proj.weight": (width, 64) for part in ("gate", "up")}
            shapes[f"mlp.{name}.down_proj.weight"] = (64, width)
        found |= {f"model.layers.{i}.{name}": 0.2 * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return found


def test_the_shared_expert_stands_beside_the_others(tmp_path: Path):
    weights = weights_of_experts()
    report = convert(write_checkpoint(tmp_path / "model", MOE, weights), tmp_path / "out.gguf", "q8_0")
    assert report.warnings == () and report.certificate and report.certificate.passed
    with open_gguf(report.path) as file:
        assert file.metadata["qwen2moe.expert_feed_forward_length"] == 32
        assert file.metadata["qwen2moe.expert_shared_feed_forward_length"] == 48
        assert file.tensors["blk.1.ffn_gate_exps.weight"].shape == (3, 32, 64)
        assert file.tensors["blk.1.ffn_down_shexp.weight"].shape == (64, 48)
        gate, router = file.tensors["blk.1.ffn_gate_inp_shexp.weight"], file.tensors["blk.1.ffn_gate_inp.weight"]
        assert gate.shape == (64,) and gate.format.name == router.format.name == "F32"
        np.testing.assert_array_equal(gate.dequantize(), weights["model.layers.1.mlp.shared_expert_gate.weight"][0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_topk_prob": True}, "norm_topk_prob is True, expected false"),
        ({"decoder_sparse_step": 2}, "decoder_sparse_step is 2, expected 1"),
        ({"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\], expected an empty list"),
        ({"shared_expert_intermediate_size": None}, "shared_expert_intermediate_size is missing"),
        ({"num_experts_per_tok": 4}, "num_experts_per_tok is 4"),
    ],
)
def test_what_a_file_cannot_say_is_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    folder = write_checkpoint(tmp_path / "model", MOE | changes, weights_of_experts())
    with pytest.raises(CheckpointError, match=message):
        convert(folder, tmp_path / "out.gguf")


def test_a_tied_head_is_remarked_upon(tmp_path: Path):
    weights = {name: values for name, values in weights_of_experts().items() if name != "lm_head.weight"}
    report = convert(write_checkpoint(tmp_path / "model", MOE | {"tie_word_embeddings": True}, weights), tmp_path / "out.gguf", "f16")
    assert len(report.warnings) == 1 and "head of their own" in report.warnings[0]


@pytest.mark.parametrize("shape", [(64,), (1, 64)])
def test_vectors_may_be_matrices_of_one_row(tmp_path: Path, shape: tuple[int, ...]):
    values = np.arange(64, dtype=np.float32)
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.add("general.architecture", "qwen2moe")
        writer.add_tensor("blk.0.ffn_gate_inp_shexp.weight", shape, BLOCKS["F32"])
        writer.write_tensor("blk.0.ffn_gate_inp_shexp.weight", values.reshape(shape))
    with open_gguf(tmp_path / "m.gguf") as file:
        weight = load_weights(file, {"blk.0.ffn_gate_inp_shexp.weight": (64,)}).layers[0].ffn_gate_inp_shexp
        assert (weight.rows, weight.cols) == (1, 64)
        np.testing.assert_array_equal(weight.data.view(np.float32).reshape(-1), values)
