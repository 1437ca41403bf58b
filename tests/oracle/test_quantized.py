"""Quantized files of every architecture: llama.cpp loads them, and its greedy text is ours.

A random model hardly prefers one token to the next, and then its text hangs on how an engine rounds activations. So the checkpoints have
been taught a text, every token of which leads by more than rounding moves; and elsewhere, ggpy may be about as far from llama.cpp as it is
from the file's weights multiplied in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggpy
from tests.runtime.lockstep import loaded

from .test_greedy import GEMMA, Engine
from .tiny_checkpoints import DEMO, write_checkpoint

SIZES: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}  # rows that K formats take
HEADS: dict[str, Any] = {"head_dim": 64}
GEMMAS = GEMMA | HEADS | {"query_pre_attn_scalar": 64}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {}),
    "qwen2moe": (
        "Qwen2Moe",
        {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 256},
    ),
    "qwen3": ("Qwen3", HEADS),
    "qwen3moe": (
        "Qwen3Moe",
        HEADS | {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 256, "norm_topk_prob": True},
    ),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "sliding_window": None, "intermediate_size": 256}),
    "phi3": ("Phi3", {"pad_token_id": 0}),
    "gemma": ("Gemma", HEADS),
    "gemma2": ("Gemma2", GEMMAS | {"attn_logit_softcapping": 5.0}),
    "gemma3": ("Gemma3Text", GEMMAS | {"sliding_window_pattern": 2}),
}
TEXT = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big dog. The dog was "
    'sad. Lily said to the dog, "Do you want to play?" The dog was happy. Lily and the dog played outside all day.'
)
PROMPT = "Once upon a time"
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # the peers' own deprecations


@pytest.fixture(scope="module", params=ARCHITECTURES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has learned the text."""
    sentencepiece = pytest.importorskip("sentencepiece")
    ids = [1, *sentencepiece.SentencePieceProcessor(model_file=str(DEMO / "tokenizer.model")).encode(TEXT)]
    kind, changes = ARCHITECTURES[request.param]
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), kind, ids, **SIZES | changes)


@pytest.mark.parametrize("type", ["q8_0", "q4_k_m"])
def test_greedy_text_is_that_of_llama_cpp(checkpoint: Path, type: str, tmp_path: Path):
    gguf = tmp_path / "model.gguf"
    ggpy.convert(checkpoint, gguf, type=type, verify="bytes")
    engine, model = Engine(gguf), ggpy.load(gguf, threads=1, context=128)
    prompt, text = (model.tokenize(text, bos=True) for text in (PROMPT, TEXT))
    ours = [step.token for step in model.stream(PROMPT, max_tokens=len(text) - len(prompt), temperature=0.0)]
    assert ours == [step["id"] for step in engine.continued(prompt, len(ours))] == text[len(prompt) :]

    rng, distances = np.random.default_rng(0), []
    with loaded(gguf) as file:
        for _ in range(6):  # medians of these: a router may send a token to one expert or to another, for next to nothing
            ids = rng.permutation(text)[:24].tolist()
            exact, ours = (logarithms(logits) for logits in (file.reference(ids, 1)[-1], model.logits(ids)[-1]))
            theirs = engine.distribution(ids, len(ours))
            distances.append([spread(ours - theirs), spread(theirs - exact)])
    apart, rounding = np.median(distances, axis=0)
    assert apart < 1.5 * rounding  # 0.6 to 1


def logarithms(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities, float64, of logits."""
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def spread(differences: np.ndarray) -> float:
    return float(np.sqrt(np.mean(differences**2)))
