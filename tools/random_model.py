"""Write an F16 GGUF file of a real model's shape with random weights: to measure speed on sizes that are not to be had.

    python tools/random_model.py 1b model-f16.gguf && ggpy-convert model-f16.gguf -o model.gguf -t q4_k_m

Weights are gaussian with the spread that training starts from; the vocabulary is made up. The text such a model writes means nothing,
its speed is that of the shape.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggpy.blocks import BLOCKS
from ggpy.gguf import GGUFWriter, ValueType

ROWS = 4096  # written at a time


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama."""

    n_layers: int
    d_model: int
    d_ff: int
    n_heads: int
    n_kv_heads: int
    n_vocab: int
    rope_theta: float


SHAPES = {
    "1b": Shape(16, 2048, 8192, 32, 8, 128256, 500000.0),  # Llama 3.2 1B
    "7b": Shape(32, 4096, 11008, 32, 32, 32000, 10000.0),  # Llama 2 7B
}


def tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name -> shape, rows first; the head is tied to the embedding."""
    d_kv = shape.d_model // shape.n_heads * shape.n_kv_heads
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.n_vocab, shape.d_model), "output_norm.weight": (shape.d_model,)}
    layer = {
        "attn_norm": (shape.d_model,),
        "attn_q": (shape.d_model, shape.d_model),
        "attn_k": (d_kv, shape.d_model),
        "attn_v": (d_kv, shape.d_model),
        "attn_output": (shape.d_model, shape.d_model),
        "ffn_norm": (shape.d_model,),
        "ffn_gate": (shape.d_ff, shape.d_model),
        "ffn_up": (shape.d_ff, shape.d_model),
        "ffn_down": (shape.d_model, shape.d_ff),
    }
    return found | {f"blk.{i}.{name}.weight": size for i in range(shape.n_layers) for name, size in layer.items()}


def values(size: tuple[int, ...], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A norm's ones in float32, or a matrix's random rows in float16, piece by piece."""
    if len(size) == 1:
        yield np.ones(size, np.float32)
        return
    for first in range(0, size[0], ROWS):
        rows = min(ROWS, size[0] - first)
        yield (rng.standard_normal((rows, size[1]), dtype=np.float32) * np.float32(0.02)).astype(np.float16)


def write(shape: Shape, out: Path) -> None:
    """Write the file; an existing one is replaced."""
    numbers = {
        "block_count": shape.n_layers,
        "context_length": 8192,
        "embedding_length": shape.d_model,
        "feed_forward_length": shape.d_ff,
        "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_kv_heads,
        "rope.dimension_count": shape.d_model // shape.n_heads,
        "vocab_size": shape.n_vocab,
    }
    bytes_and_special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    tokens = bytes_and_special + [f"\u2581word{i}" for i in range(shape.n_vocab - len(bytes_and_special))]
    kinds = np.array([2, 3, 3] + [6] * 256 + [1] * (shape.n_vocab - len(bytes_and_special)), np.int32)
    rng = np.random.default_rng(0)
    with GGUFWriter(out, force=True) as writer:
        writer.add("general.architecture", "llama")
        writer.add("general.file_type", 1, ValueType.UINT32)
        for key, number in numbers.items():
            writer.add(f"llama.{key}", number, ValueType.UINT32)
        writer.add("llama.rope.freq_base", shape.rope_theta, ValueType.FLOAT32)
        writer.add("llama.attention.layer_norm_rms_epsilon", 1e-5, ValueType.FLOAT32)
        writer.add("tokenizer.ggml.model", "llama")
        writer.add("tokenizer.ggml.tokens", tokens)
        writer.add("tokenizer.ggml.scores", -np.arange(shape.n_vocab, dtype=np.float32))
        writer.add("tokenizer.ggml.token_type", kinds)
        writer.add("tokenizer.ggml.bos_token_id", 1, ValueType.UINT32)
        writer.add("tokenizer.ggml.eos_token_id", 2, ValueType.UINT32)
        sizes = tensors(shape)
        for name, size in sizes.items():
            writer.add_tensor(name, size, BLOCKS["F32" if len(size) == 1 else "F16"])
        for name, size in sizes.items():
            writer.write_tensor(name, values(size, rng))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    write(SHAPES[args.shape], args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
