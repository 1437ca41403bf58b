"""Token ids against llama.cpp itself, on models of a few kB that have our small vocabularies."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggpy.blocks import BLOCKS
from ggpy.converter.vocabulary import read_vocabulary
from ggpy.converter.vocabulary_proof import proof_texts
from ggpy.gguf import GGUFWriter
from ggpy.tokenizer import load_tokenizer
from ggpy.tokenizer.pretokenizers import PRE_TOKENIZERS
from tests.converter.tokenizers_on_disk import byte_level_json, sentencepiece_model, write_tokenizer

pytestmark = pytest.mark.oracle

# llama.cpp rewrites these patterns for its own regex engine: it does not tell upper from lower case, or counts digits in other places.
REWRITTEN = {"afmoe", "tiny_aya", "youtu", "kimi-k2"}
DISTINCT = {(pre.patterns, pre.ignore_merges): name for name, pre in reversed(PRE_TOKENIZERS.items())}
D_MODEL = 32

Tokenize = Callable[[str, bool], list[int]]


def write_model(path: Path, tokenizer: Mapping[str, Any]) -> Path:
    """A Llama of one layer, all zeros, with the given tokenizer."""
    sizes = {
        "context_length": 64,
        "embedding_length": D_MODEL,
        "block_count": 1,
        "feed_forward_length": D_MODEL,
        "rope.dimension_count": 16,
    }
    sizes |= {"attention.head_count": 2, "attention.head_count_kv": 2, "vocab_size": len(tokenizer["tokenizer.ggml.tokens"])}
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes = {"token_embd.weight": (sizes["vocab_size"], D_MODEL), "output_norm.weight": (D_MODEL,)}
    shapes |= {f"blk.0.{name}.weight": (D_MODEL,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {f"blk.0.{name}.weight": (D_MODEL, D_MODEL) for name in matrices}
    with GGUFWriter(path) as writer:
        writer.add("general.architecture", "llama")
        for key, size in sizes.items():
            writer.add(f"llama.{key}", size)
        writer.add("llama.attention.layer_norm_rms_epsilon", 1e-5)
        for key, value in tokenizer.items():
            writer.add(key, value)
        for name, shape in shapes.items():
            writer.add_tensor(name, shape, BLOCKS["F32"])
        for name, shape in shapes.items():
            writer.write_tensor(name, np.zeros(shape, np.float32).tobytes())
    return path


def llama_cpp(path: Path) -> Tokenize:
    """llama.cpp's tokenizer of a file, as a function of text and parse_special."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed (pip install -e '.[oracle]')")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.cpuparams.n_threads, params.warmup = str(path), 64, 1, False
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        params.port = free.getsockname()[1]
    server = xllamacpp.Server(params)

    def tokenize(text: str, parse_special: bool) -> list[int]:
        body = json.dumps({"content": text, "add_special": False, "parse_special": parse_special}).encode()
        request = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["tokens"]

    return tokenize


def compare(path: Path, metadata: Mapping[str, Any], special: str) -> None:
    theirs, ours = llama_cpp(write_model(path, metadata)), load_tokenizer(metadata)
    for text in [*proof_texts(), f"a{special}b {special}", special * 3]:
        for parse_special in (False, True):
            assert ours.encode(text, parse_special=parse_special) == theirs(text, parse_special), text


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(DISTINCT.values()) - REWRITTEN))
def test_byte_level_ids(tmp_path: Path, name: str) -> None:
    config = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    folder = write_tokenizer(tmp_path / "hf", tokenizer_json=byte_level_json(), tokenizer_config_json=config)
    metadata = read_vocabulary(folder, {}).metadata | {"tokenizer.ggml.pre": name}
    compare(tmp_path / "model.gguf", metadata, "<|im_end|>")


def test_sentencepiece_ids(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "hf", tokenizer_model=sentencepiece_model(user_defined_symbols="<tool>,▁▁"))
    metadata = read_vocabulary(folder, {"bos_token_id": 1, "eos_token_id": 2, "unk_token_id": 0}).metadata
    compare(tmp_path / "model.gguf", metadata, "</s>")
    compare(tmp_path / "tool.gguf", metadata, "<tool>")


@pytest.mark.parametrize("rule", ["identity", "nmt_nfkc_cf"])
def test_unigram_ids(tmp_path: Path, rule: str) -> None:
    options = {"vocab_size": 90, "byte_fallback": False, "user_defined_symbols": "<tool>", "normalization_rule_name": rule}
    model = sentencepiece_model(model_type="unigram", remove_extra_whitespaces=rule != "identity", **options)
    folder = write_tokenizer(tmp_path / "hf", tokenizer_model=model)
    metadata = read_vocabulary(folder, {"bos_token_id": 1, "eos_token_id": 2}).metadata
    assert metadata["tokenizer.ggml.model"] == "t5"
    compare(tmp_path / "model.gguf", metadata, "</s>")
    compare(tmp_path / "tool.gguf", metadata, "<tool>")
