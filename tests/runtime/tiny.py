"""Small random Llama files for tests: any block format, any shape, a vocabulary of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ggpy.blocks import BLOCKS, BlockFormat
from ggpy.gguf import GGUFWriter, open_gguf
from ggpy.gguf.types import ValueType
from tests.random_fields import random_fields

SHAPE = {"layers": 2, "d_model": 256, "d_ff": 512, "heads": 4, "kv_heads": 2, "vocab": 320, "context": 256}

POST_NORMS = ("post_attention_norm", "post_ffw_norm")


def write_llama(path: Path, formats: dict[str, str] | str = "F32", seed: int = 0, *, biases: bool = False, tied: bool = True,
                factors: bool = False, head_dim: int | None = None, experts: int = 0, used: int = 2, architecture: str = "llama",
                extra: Mapping[str, object] | None = None, **changes: int) -> Path:  # fmt: skip
    """A llama file with random weights, or one of an architecture with almost its graph. formats: one for all matrices, or by the part
    before `.weight` ("attn_q"), default "". extra: more metadata, without the prefix.

    experts: in every layer, `used` of them for a token. changes: of SHAPE.
    """
    shape = SHAPE | changes
    rng = np.random.default_rng(seed)
    by_part = {"": formats} if isinstance(formats, str) else formats
    d, ff, heads, kv = shape["d_model"], shape["d_ff"], shape["heads"], shape["kv_heads"]
    dim = head_dim or d // heads
    matrices = {"attn_q": (heads * dim, d), "attn_k": (kv * dim, d), "attn_v": (kv * dim, d), "attn_output": (d, heads * dim),
                "ffn_gate": (ff, d), "ffn_up": (ff, d), "ffn_down": (d, ff)}  # fmt: skip
    if architecture == "phi3":
        matrices = {"attn_qkv": ((heads + 2 * kv) * dim, d), "attn_output": (d, heads * dim), "ffn_up": (2 * ff, d), "ffn_down": (d, ff)}
    if experts:
        del matrices["ffn_gate"], matrices["ffn_up"], matrices["ffn_down"]
        extra = {**(extra or {}), "expert_count": experts, "expert_used_count": used, "expert_feed_forward_length": ff}
        extra |= {"expert_shared_feed_forward_length": 2 * ff} if architecture == "qwen2moe" else {}
    tensors: dict[str, tuple[np.ndarray, BlockFormat]] = {}

    def add(name: str, values: np.ndarray, fmt: BlockFormat) -> None:
        tensors[name] = (encoded(values.astype(np.float32), fmt), fmt) if values.ndim == 2 else (values.astype("<f4"), BLOCKS["F32"])

    def stack(part: str, rows: int, cols: int) -> None:
        fmt = BLOCKS[by_part.get("ffn_exps", by_part.get("", "F32"))]
        values = rng.normal(0, cols**-0.5, (experts * rows, cols)).astype(np.float32)
        tensors[f"{part}.weight"] = encoded(values, fmt).reshape(experts, rows, -1), fmt

    def matrix(part: str, rows: int, cols: int) -> None:
        fmt = BLOCKS[by_part.get(part.split(".")[-1], by_part.get("", "F32"))]
        add(f"{part}.weight", rng.normal(0, cols**-0.5, (rows, cols)), fmt)

    matrix("token_embd", shape["vocab"], d)
    for i in range(shape["layers"]):
        for part, (rows, cols) in matrices.items():
            matrix(f"blk.{i}.{part}", rows, cols)
            if biases:
                add(f"blk.{i}.{part}.bias", rng.normal(0, 0.1, rows), BLOCKS["F32"])
        if experts:
            add(f"blk.{i}.ffn_gate_inp.weight", rng.normal(0, d**-0.5, (experts, d)), BLOCKS["F32"])
            for part, (rows, cols) in {"gate": (ff, d), "up": (ff, d), "down": (d, ff)}.items():
                stack(f"blk.{i}.ffn_{part}_exps", rows, cols)
        if architecture == "qwen2moe":
            add(f"blk.{i}.ffn_gate_inp_shexp.weight", rng.normal(0, d**-0.5, d), BLOCKS["F32"])
            for part, (rows, cols) in {"gate": (2 * ff, d), "up": (2 * ff, d), "down": (d, 2 * ff)}.items():
                matrix(f"blk.{i}.ffn_{part}_shexp", rows, cols)
        for part in ("attn_norm", "ffn_norm", *(POST_NORMS if architecture in ("gemma2", "gemma3") else ())):
            add(f"blk.{i}.{part}.weight", rng.normal(1, 0.1, d), BLOCKS["F32"])
        for part in ("attn_q_norm", "attn_k_norm") if architecture in ("qwen3", "qwen3moe", "gemma3") else ():
            add(f"blk.{i}.{part}.weight", rng.normal(1, 0.1, dim), BLOCKS["F32"])
    add("output_norm.weight", rng.normal(1, 0.1, d), BLOCKS["F32"])
    if not tied:
        matrix("output", shape["vocab"], d)
    if factors and architecture == "phi3":
        for kind, largest in (("long", 8), ("short", 2)):
            add(f"rope_factors_{kind}.weight", rng.uniform(1, largest, dim // 2), BLOCKS["F32"])
    elif factors:
        add("rope_freqs.weight", rng.uniform(1, 8, dim // 2), BLOCKS["F32"])
    with GGUFWriter(path, force=True) as writer:
        write_metadata(writer, shape, dim, architecture, extra or {})
        for name, (data, fmt) in tensors.items():
            cols = data.shape[-1] // fmt.block_bytes * fmt.block_values if data.dtype == np.uint8 else data.shape[-1]
            writer.add_tensor(name, (*data.shape[:-1], cols), fmt)
        for name, (data, _) in tensors.items():
            writer.write_tensor(name, data)
    return path


def write_llama_with_nan(path: Path, tensor: str) -> Path:
    """A llama file in F32 whose `tensor` begins with a NaN."""
    write_llama(path, "F32")
    with open_gguf(path) as file:
        offset = file.tensors[tensor].offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    return path


def encoded(values: np.ndarray, fmt: BlockFormat) -> np.ndarray:
    """Blocks uint8 (rows, row bytes); formats without an encoder get random bytes under small scales."""
    blocks = values.reshape(-1, fmt.block_values)
    if fmt.encode is not None:
        return np.ascontiguousarray(fmt.encode(blocks)).reshape(len(values), -1)
    return random_fields(fmt, len(blocks), np.random.default_rng(len(values)), 2e-3).reshape(len(values), -1)


def write_metadata(writer: GGUFWriter, shape: dict[str, int], dim: int, prefix: str, extra: Mapping[str, object]) -> None:
    writer.add("general.architecture", prefix)
    for key, value in {
        "block_count": shape["layers"], "context_length": shape["context"], "embedding_length": shape["d_model"],
        "feed_forward_length": shape["d_ff"], "attention.head_count": shape["heads"], "attention.head_count_kv": shape["kv_heads"],
        "attention.key_length": dim, "attention.value_length": dim, "rope.dimension_count": dim, "vocab_size": shape["vocab"],
    }.items():  # fmt: skip
        writer.add(f"{prefix}.{key}", value, ValueType.UINT32)
    writer.add(f"{prefix}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add(f"{prefix}.rope.freq_base", 10000.0)
    for key, value in extra.items():
        writer.add(f"{prefix}.{key}", value)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    tokens += [f"<unused{i}>" for i in range(shape["vocab"] - len(tokens))]
    types = [2, 3, 3, *[6] * 256] + [5] * (shape["vocab"] - 259)
    writer.add("tokenizer.ggml.model", "llama")
    writer.add("tokenizer.ggml.tokens", tokens)
    writer.add("tokenizer.ggml.scores", [0.0] * len(tokens), ValueType.FLOAT32)
    writer.add("tokenizer.ggml.token_type", types, ValueType.INT32)
    writer.add("tokenizer.ggml.bos_token_id", 1, ValueType.UINT32)
    writer.add("tokenizer.ggml.eos_token_id", 2, ValueType.UINT32)
    writer.add("tokenizer.ggml.unknown_token_id", 0, ValueType.UINT32)
