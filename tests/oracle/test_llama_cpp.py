"""Small random files continue a prompt as llama.cpp continues it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import ggpy
from tests.runtime.tiny import write_llama

pytestmark = pytest.mark.oracle
IDS = [1, 70, 200, 33, 5, 90, 41, 259, 300, 12, 64, 65, 66]
BANNED = [2, *range(131, 259)]  # the end, and bytes that are no character, which llama.cpp's server does not list
LONG = {"rope.scaling.original_context_length": 256, "rope.scaling.attn_factor": 1.1}


def greedy_by_llama_cpp(path: Path, context: int, n: int) -> list[int]:
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed (pip install -e '.[oracle]')")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup, params.verbosity = str(path), context, 1, False, -1
    params.cpuparams.n_threads = 2
    asked = {"prompt": IDS, "n_predict": n, "temperature": 0, "n_probs": 1, "cache_prompt": False}
    asked["logit_bias"] = [[token, False] for token in BANNED]
    answer = xllamacpp.Server(params).handle_completions(asked)
    return [step["id"] for step in answer["choices"][0]["logprobs"]["content"]]


def greedy(path: Path, context: int, n: int) -> list[int]:
    model, ids = ggpy.load(path, context=context), list(IDS)
    for _ in range(n):
        logits = model.logits(ids)[-1]
        logits[BANNED] = -np.inf
        ids.append(int(logits.argmax()))
    return ids[len(IDS) :]


MODELS: dict[str, tuple[int, str, Mapping]] = {
    "llama": (256, "F32", {}),
    "mixtral": (256, "F32", {"experts": 8}),
    "qwen2moe": (256, "F32", {"architecture": "qwen2moe", "experts": 8, "used": 3, "d_ff": 96, "tied": False}),
    "qwen3moe": (256, "F32", {"architecture": "qwen3moe", "experts": 8, "used": 3, "d_ff": 96}),
    "phi3": (256, "F32", {"architecture": "phi3"}),
    "phi3, Q8_0": (256, "Q8_0", {"architecture": "phi3"}),
    "phi3, short": (256, "F32", {"architecture": "phi3", "factors": True, "context": 1024, "extra": LONG}),
    "phi3, long": (512, "F32", {"architecture": "phi3", "factors": True, "context": 1024, "extra": LONG}),
}


@pytest.mark.parametrize("name", MODELS)
def test_greedy_continuations_are_those_of_llama_cpp(name: str, tmp_path: Path):
    context, formats, changes = MODELS[name]
    path = write_llama(tmp_path / "m.gguf", formats, **changes)
    assert greedy(path, context, 24) == greedy_by_llama_cpp(path, context, 24)


FORMATS = [
    "Q2_K",
    "Q3_K",
    "IQ4_NL",
    "IQ4_XS",
    "MXFP4",
    "TQ1_0",
    "TQ2_0",
    "IQ1_S",
    "IQ1_M",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ2_S",
    "IQ3_XXS",
    "IQ3_S",
]


@pytest.mark.parametrize("name", FORMATS)
def test_matrices_of_every_format_are_read_as_llama_cpp_reads_them(name: str, tmp_path: Path):
    """Both round activations to int8, each in its way, so near-ties may fall otherwise: what llama.cpp chooses is nearly ggpy's best."""
    path = write_llama(tmp_path / "m.gguf", {"": name, "token_embd": "F16"})
    theirs = greedy_by_llama_cpp(path, 256, 16)
    logits = ggpy.load(path, context=256).logits(IDS + theirs)[len(IDS) - 1 : -1]
    logits[:, BANNED] = -np.inf
    best, chosen = logits.max(-1), logits[np.arange(len(theirs)), theirs]
    spread = logits[np.isfinite(logits)].std()
    assert (best == chosen).sum() >= 12
    assert (best - chosen).max() < 0.5 * spread
