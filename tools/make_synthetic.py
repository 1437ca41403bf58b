"""Write a GGUF file of a real model's shape with random weights: to measure speed on sizes that are not to be had.

    python tools/make_synthetic.py 1b q4_k_m OUT.gguf [--threads 2] [--architecture gemma3]

Tensors get the block formats that ggpy-convert gives them. Weights are gaussian with the spread that training starts from; of each shape
about a million are encoded, and repeated from another row on in each tensor. The vocabulary is made up. The text such a model writes means
nothing, its speed is that of the shape. No tensor is ever held in memory whole.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from random_blocks import random_slab

from ggpy.arch import ARCHS
from ggpy.arch.config import Config
from ggpy.arch.qwen2moe import Qwen2MoeConfig
from ggpy.blocks import BLOCKS
from ggpy.converter.recipes import QUANTIZATION_VERSION, RECIPES, ModelFacts, Recipe, find_recipe
from ggpy.converter.tensor_types import TensorInfo, plan
from ggpy.errors import GGPyError
from ggpy.gguf import GGUFWriter, ValueType
from ggpy.runtime.rotary import HALVES, Rope

EPS = 1e-5


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama, or of another architecture with the same matrices; with experts, d_ff is the width of each, d_shared of one
    that all tokens share."""

    n_layers: int
    d_model: int
    d_ff: int
    n_heads: int
    n_kv_heads: int
    n_vocab: int
    rope_theta: float
    context: int
    tied: bool  # no head of its own: the embedding's rows make the logits
    architecture: str = "llama"
    n_experts: int = 0
    n_experts_used: int = 0
    d_shared: int = 0

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads


SHAPES = {
    "300m": Shape(16, 1024, 4096, 16, 8, 32000, 500000.0, 8192, tied=True),  # of no model; its d_ff can be cut into experts
    "135m": Shape(30, 576, 1536, 9, 3, 49152, 100000.0, 8192, tied=True),  # SmolLM2 135M
    "1b": Shape(16, 2048, 8192, 32, 8, 128256, 500000.0, 131072, tied=True),  # Llama 3.2 1B
    "1b-layers": Shape(16, 2048, 8192, 32, 8, 2048, 500000.0, 131072, tied=False),  # its layers: nearly every tensor in one format
    "3b": Shape(28, 3072, 8192, 24, 8, 128256, 500000.0, 131072, tied=True),  # Llama 3.2 3B
    "7b": Shape(32, 4096, 11008, 32, 32, 32000, 10000.0, 4096, tied=False),  # Llama 2 7B
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"architecture": "qwen2"},
    "qwen3": {"architecture": "qwen3"},
    "phi3": {"architecture": "phi3"},
    "gemma": {"architecture": "gemma"},
    "gemma2": {"architecture": "gemma2"},
    "gemma3": {"architecture": "gemma3"},
    "mixtral": {"n_experts": 8, "n_experts_used": 2},
    "qwen2moe": {"architecture": "qwen2moe", "n_experts": 32, "n_experts_used": 4, "shares": True},
    "qwen3moe": {"architecture": "qwen3moe", "n_experts": 32, "n_experts_used": 8},
}
BIASES = dict.fromkeys(("qwen2", "qwen2moe"), ("attn_q", "attn_k", "attn_v"))
NUMBERS = {"gemma2": {"attention.sliding_window": 4096}, "gemma3": {"attention.sliding_window": 512},
           "phi3": {"rope.scaling.original_context_length": 4096}}  # fmt: skip


def of_architecture(shape: Shape, name: str) -> Shape:
    """A model of another architecture that reads the same matrices for a token; its experts divide d_ff among those that are chosen, or
    half of it, where one that all share has the other half."""
    sizes = dict(ARCHITECTURES[name])
    d_shared = shape.d_ff // 2 if sizes.pop("shares", False) else 0
    changed = replace(shape, **sizes, d_shared=d_shared)
    return replace(changed, d_ff=(shape.d_ff - d_shared) // max(1, changed.n_experts_used))


def tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name -> shape, rows first: what the architecture asks for, and of optional tensors the head and biases it usually has."""
    rope = Rope(shape.head_dim, shape.head_dim, shape.rope_theta, HALVES)
    config = Config(
        shape.n_layers, shape.n_vocab, shape.d_model, shape.d_ff, shape.n_heads, shape.n_kv_heads, shape.head_dim, shape.context, EPS, rope,
        n_experts=shape.n_experts, n_experts_used=shape.n_experts_used,
    )  # fmt: skip
    if shape.d_shared:
        config = Qwen2MoeConfig(**vars(config), d_shared=shape.d_shared)
    biases = BIASES.get(shape.architecture, ())
    found: dict[str, tuple[int, ...]] = {}
    for name, size in ARCHS[shape.architecture].shapes(config).items():
        if not name.endswith("?"):
            found[name] = size
        elif (name == "output.weight?" and not shape.tied) or name.removesuffix(".bias?").split(".")[-1] in biases:
            found[name.removesuffix("?")] = size
    return found


class RandomTensors:
    """Blocks for tensors of any shape, from one slab per format and row length."""

    def __init__(self, threads: int):
        self._rng, self._threads = np.random.default_rng(0), threads
        self._slabs: dict[tuple[str, int], np.ndarray] = {}

    def blocks(self, size: tuple[int, ...], block_format: str) -> Iterator[np.ndarray]:
        """A norm's ones in float32, or the rows of a matrix or of experts, uint8, piece by piece."""
        if len(size) == 1:
            yield np.ones(size, np.float32)
            return
        rows, cols = math.prod(size[:-1]), size[-1]
        slab = self._slabs.get((block_format, cols))
        if slab is None:
            slab = self._slabs[block_format, cols] = random_slab(BLOCKS[block_format], 1 << 30, cols, self._rng, self._threads)
        slab = np.roll(slab, int(self._rng.integers(len(slab))), axis=0)
        for first in range(0, rows, len(slab)):
            yield slab[: rows - first]


def describe(writer: GGUFWriter, shape: Shape, recipe: Recipe) -> None:
    """All metadata, a vocabulary of bytes and numbered words included."""
    prefix = shape.architecture
    writer.add("general.architecture", prefix)
    writer.add("general.file_type", recipe.file_type, ValueType.UINT32)
    writer.add("general.quantization_version", QUANTIZATION_VERSION, ValueType.UINT32)
    numbers = {
        "block_count": shape.n_layers,
        "context_length": shape.context,
        "embedding_length": shape.d_model,
        "feed_forward_length": shape.d_ff,
        "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "rope.dimension_count": shape.head_dim,
        "vocab_size": shape.n_vocab,
        **NUMBERS.get(prefix, {}),
    }
    if shape.n_experts:
        experts = {"count": shape.n_experts, "used_count": shape.n_experts_used, "feed_forward_length": shape.d_ff}
        if shape.d_shared:
            experts["shared_feed_forward_length"] = shape.d_shared
        numbers |= {f"expert_{key}": number for key, number in experts.items()}
    for key, number in numbers.items():
        writer.add(f"{prefix}.{key}", number, ValueType.UINT32)
    writer.add(f"{prefix}.rope.freq_base", shape.rope_theta, ValueType.FLOAT32)
    writer.add(f"{prefix}.attention.layer_norm_rms_epsilon", EPS, ValueType.FLOAT32)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    words = shape.n_vocab - len(special)
    writer.add("tokenizer.ggml.model", "llama")
    writer.add("tokenizer.ggml.tokens", special + [f"\u2581word{i}" for i in range(words)])
    writer.add("tokenizer.ggml.scores", -np.arange(shape.n_vocab, dtype=np.float32))
    writer.add("tokenizer.ggml.token_type", np.array([2, 3, 3] + [6] * 256 + [1] * words, np.int32))
    writer.add("tokenizer.ggml.bos_token_id", 1, ValueType.UINT32)
    writer.add("tokenizer.ggml.eos_token_id", 2, ValueType.UINT32)


def write(shape: Shape, recipe: Recipe, out: Path, threads: int = 1) -> None:
    """Write the file; an existing one is replaced."""
    infos = [TensorInfo(name, size, "F32") for name, size in tensors(shape).items()]
    planned = plan(infos, recipe, ModelFacts(shape.n_layers, shape.n_experts, sharing=shape.n_heads // shape.n_kv_heads))
    source = RandomTensors(threads)
    with GGUFWriter(out, force=True) as writer:
        describe(writer, shape, recipe)
        for tensor in planned:
            writer.add_tensor(tensor.name, tensor.shape, BLOCKS[tensor.format])
        for tensor in planned:
            writer.write_tensor(tensor.name, source.blocks(tensor.shape, tensor.format))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", help=f"one of {', '.join(RECIPES)}, in any case")
    parser.add_argument("out", type=Path, metavar="OUT.gguf")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="llama", help="with the same matrices (default llama)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    try:
        write(of_architecture(SHAPES[args.shape], args.architecture), find_recipe(args.type), args.out, args.threads)
    except (GGPyError, OSError) as error:
        raise SystemExit(f"make_synthetic: error: {error}") from None
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
