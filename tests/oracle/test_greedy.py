"""llama.cpp reads what ggpy converts, and continues a text as ggpy does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggpy

from .tiny_checkpoints import write_checkpoint

GEMMA: dict[str, Any] = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 9}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("Gemma", {"head_dim": 32}),
    "gemma2": ("Gemma2", GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 20.0}),
    "gemma3": ("Gemma3Text", GEMMA | {"sliding_window_pattern": 2}),
    "gemma3, layers in another order": (
        "Gemma3Text",
        GEMMA
        | {
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
            },
        },
    ),
}
TEXT = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # the peers' own deprecations


def continued(gguf: Path, ids: list[int], n: int) -> list[dict[str, Any]]:
    """llama.cpp's likeliest continuation: for each of n tokens its id and log-probability."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed (pip install -e '.[oracle]')")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup, params.verbosity = str(gguf), 128, 1, False, -1
    asked = {"prompt": ids, "n_predict": n, "temperature": 0, "n_probs": 1, "cache_prompt": False, "ignore_eos": True}
    answer = xllamacpp.Server(params).handle_completions(asked)
    return answer["choices"][0]["logprobs"]["content"]


@pytest.mark.parametrize("type", ["f32", "q8_0"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_llama_cpp_continues_alike(name: str, type: str, tmp_path: Path):
    """Its choices are ours after the same tokens, or near ties; its log-probabilities too. It has gelu from a table in float16."""
    kind, changes = ARCHITECTURES[name]
    gguf = tmp_path / "model.gguf"
    ggpy.convert(write_checkpoint(tmp_path / "checkpoint", kind, **changes), gguf, type=type, verify="bytes")
    model = ggpy.load(gguf, context=128)
    ids = model.tokenize(TEXT, bos=True)
    steps = continued(gguf, ids, 40)
    theirs = [step["id"] for step in steps]
    logits = model.logits(ids + theirs[:-1])[len(ids) - 1 :].astype(np.float64)
    logarithms = logits - logits.max(-1, keepdims=True)
    logarithms -= np.log(np.exp(logarithms).sum(-1, keepdims=True))
    chosen = logarithms[np.arange(len(theirs)), theirs]
    near = 0.02 if type == "f32" else 0.3
    assert (logarithms.max(-1) - chosen).max() < near
    assert np.abs(chosen - [step["logprob"] for step in steps]).max() < near
