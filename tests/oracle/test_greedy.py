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


class Engine:
    """llama.cpp with a file, contexts of 128 tokens."""

    def __init__(self, gguf: Path):
        xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed (pip install -e '.[oracle]')")
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.warmup, params.verbosity = str(gguf), 128, 1, False, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        self._server = xllamacpp.Server(params)

    def continued(self, ids: list[int], n: int, **more: Any) -> list[dict[str, Any]]:
        """The likeliest continuation: for each of n tokens its id and log-probability, and those of the `n_probs` likeliest."""
        asked = {"prompt": ids, "n_predict": n, "temperature": 0, "n_probs": 1, "cache_prompt": False, "ignore_eos": True}
        return self._server.handle_completions(asked | more)["choices"][0]["logprobs"]["content"]

    def distribution(self, ids: list[int], n_vocab: int) -> np.ndarray:
        """Log-probabilities (n_vocab,) of what follows."""
        found = np.full(n_vocab, -np.inf)
        nothing_to_list = [[token, False] for token in range(259)]  # special ones, and bytes that are no character, must not be chosen
        for token in self.continued(ids, 1, n_probs=n_vocab, logit_bias=nothing_to_list)[0]["top_logprobs"]:
            found[token["id"]] = token["logprob"]
        return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_llama_cpp_continues_alike(name: str, tmp_path: Path):
    """Its choices are ours after the same tokens, or near ties; its log-probabilities too. It has gelu from a table in float16."""
    kind, changes = ARCHITECTURES[name]
    gguf = tmp_path / "model.gguf"
    ggpy.convert(write_checkpoint(tmp_path / "checkpoint", kind, **changes), gguf, type="f32", verify="bytes")
    model = ggpy.load(gguf, threads=1, context=128)
    ids = model.tokenize(TEXT, bos=True)
    steps = Engine(gguf).continued(ids, 40)
    theirs = [step["id"] for step in steps]
    logits = model.logits(ids + theirs[:-1])[len(ids) - 1 :].astype(np.float64)
    logarithms = logits - logits.max(-1, keepdims=True)
    logarithms -= np.log(np.exp(logarithms).sum(-1, keepdims=True))
    chosen = logarithms[np.arange(len(theirs)), theirs]
    assert (logarithms.max(-1) - chosen).max() < 0.02
    assert np.abs(chosen - [step["logprob"] for step in steps]).max() < 0.02
