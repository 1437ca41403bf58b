"""Tiny random checkpoints of the Llama architecture, whole or damaged on purpose."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}

Entries = dict[str, tuple[str, tuple[int, ...], bytes]]
"""name -> (dtype, shape, bytes), in the order of the data."""


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint without biases."""
    d_model, d_ff = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or d_model // config["num_attention_heads"]
    d_q, d_kv = head_dim * config["num_attention_heads"], head_dim * config["num_key_value_heads"]
    found = {"model.embed_tokens.weight": (config["vocab_size"], d_model), "model.norm.weight": (d_model,)}
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], d_model)
    layer = {
        "input_layernorm": (d_model,),
        "post_attention_layernorm": (d_model,),
        "self_attn.q_proj": (d_q, d_model),
        "self_attn.k_proj": (d_kv, d_model),
        "self_attn.v_proj": (d_kv, d_model),
        "self_attn.o_proj": (d_model, d_q),
        "mlp.gate_proj": (d_ff, d_model),
        "mlp.up_proj": (d_ff, d_model),
        "mlp.down_proj": (d_model, d_ff),
    }
    for i in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return found


def random_weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """float32 weights by name."""
    rng = np.random.default_rng(seed)
    return {name: 0.05 * rng.standard_normal(shape, np.float32) for name, shape in shapes(config).items()}


def stored(values: np.ndarray, dtype: str = "F32") -> tuple[str, tuple[int, ...], bytes]:
    """One entry of a safetensors file; BF16 is cut, not rounded."""
    if dtype == "BF16":
        raw = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        raw = values.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8", "I32": "<i4"}[dtype]).tobytes()
    return dtype, values.shape, raw


def safetensors_bytes(entries: Entries, metadata: Mapping[str, str] | None = None) -> bytes:
    """A legal safetensors file."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, (dtype, shape, raw) in entries.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    return with_header(json.dumps(header).encode(), b"".join(raw for _, _, raw in entries.values()))


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def write_tokenizer(folder: Path, n_vocab: int) -> None:
    """A byte-level tokenizer: 256 bytes, pairs of letters to fill the vocabulary, an end token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list(itertools.islice(itertools.product("abcdefgh", repeat=2), n_vocab - len(alphabet) - 1))
    words = [*alphabet, *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    dtype: str = "F32",
    shards: int = 1,
) -> Path:
    """A checkpoint directory, whole; random where `weights` are not given."""
    config = CONFIG if config is None else config
    weights = random_weights(config) if weights is None else weights
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_tokenizer(folder, config["vocab_size"])
    entries = {name: stored(values, dtype) for name, values in weights.items()}
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors_bytes(entries, {"format": "pt"}))
        return folder
    places = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(entries)}
    for shard in set(places.values()):
        (folder / shard).write_bytes(safetensors_bytes({name: entries[name] for name in entries if places[name] == shard}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return folder
