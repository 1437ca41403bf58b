"""Write a Hugging Face checkpoint of a real model's shape with random bfloat16 weights, to measure conversion on sizes not to be had.

    python tools/make_checkpoint.py 1b DIRECTORY            2.5 GB
    python tools/make_checkpoint.py 7b DIRECTORY --holes    13.5 GB of which the disk holds almost nothing: zeros, to measure memory

The shapes are those of `make_synthetic.py`. Weights are gaussian; about a million are drawn, and repeated from another row on in each
tensor. The vocabulary is a SentencePiece model of letters and their combinations, which transformers, llama.cpp and ggpy read alike. Shards
are cut at 5 GB, as usual. No tensor is ever held in memory whole.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from make_synthetic import SHAPES, Shape, tensors

SHARD_BYTES = 5 * 10**9
DEVIATION = 0.02
_SLAB_VALUES = 1 << 20
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_UNKNOWN, _CONTROL, _BYTE, _NORMAL = 2, 3, 6, 1  # kinds of pieces


def hf_name(name: str) -> str:
    """A GGUF tensor's name -> transformers'."""
    parts = name.removesuffix(".weight").split(".")
    return ".".join([*(("model", "layers", parts[1]) if parts[0] == "blk" else ()), _NAMES[parts[-1]], "weight"])


def config(shape: Shape) -> dict[str, object]:
    """config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.n_vocab,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ff,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": shape.rope_theta,
        "hidden_act": "silu",
        "tie_word_embeddings": shape.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def sentencepiece_model(n_vocab: int) -> bytes:
    """tokenizer.model: control pieces, bytes, letters, and combinations of up to four letters until there are `n_vocab`."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = itertools.chain("▁0123456789", *(map("".join, itertools.product(letters, repeat=n)) for n in (1, 2, 3, 4)))
    pieces = [("<unk>", _UNKNOWN), ("<s>", _CONTROL), ("</s>", _CONTROL), *((f"<0x{i:02X}>", _BYTE) for i in range(256))]
    pieces += [(word, _NORMAL) for word in itertools.islice(words, n_vocab - len(pieces))]
    fields = []
    for i, (text, kind) in enumerate(pieces):
        score = -float(i) if kind == _NORMAL else 0.0
        fields.append(_field(1, _field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind)))
    trainer = _number(3, 2) + _number(4, n_vocab) + _number(35, 1)  # BPE, byte fallback
    normalizer = _field(1, b"identity") + _number(3, 1) + _number(4, 0) + _number(5, 1)  # add a space, keep others, escape them
    return b"".join(fields) + _field(2, trainer) + _field(3, normalizer)


class Weights:
    """Rows of bfloat16 bits for tensors of any shape, from one slab per row length."""

    def __init__(self) -> None:
        self._rng, self._slabs = np.random.default_rng(0), {}

    def rows(self, size: tuple[int, ...]) -> Iterator[np.ndarray]:
        """A norm's ones, or a matrix's rows, uint16, piece by piece."""
        if len(size) == 1:
            yield np.full(size, 0x3F80, np.uint16)
            return
        rows, columns = size
        slab = self._slabs.get(columns)
        if slab is None:
            values = DEVIATION * self._rng.standard_normal((max(1, _SLAB_VALUES // columns), columns), np.float32)
            slab = self._slabs[columns] = (values.view(np.uint32) >> 16).astype("<u2")
        slab = np.roll(slab, int(self._rng.integers(len(slab))), axis=0)
        for first in range(0, rows, len(slab)):
            yield slab[: rows - first]


def write(shape: Shape, folder: Path, *, holes: bool = False, shard_bytes: int = SHARD_BYTES) -> int:
    """Write the checkpoint into `folder`, which is made; returns the bytes of its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {hf_name(name): size for name, size in tensors(shape).items()}
    shards, left = [{}], shard_bytes
    for name, size in sizes.items():
        n_bytes = 2 * math.prod(size)
        if n_bytes > left and shards[-1]:
            shards.append({})
            left = shard_bytes
        shards[-1][name] = size
        left -= n_bytes
    weights = None if holes else Weights()
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for file, shard in zip(names, shards, strict=True):
        _write_shard(folder / file, shard, weights)
    total = sum(2 * math.prod(size) for size in sizes.values())
    if len(shards) > 1:
        places = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})
    _write_json(folder / "config.json", config(shape))
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    _write_json(folder / "tokenizer_config.json", settings)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(shape.n_vocab))
    return total


def _write_shard(path: Path, sizes: dict[str, tuple[int, ...]], weights: Weights | None) -> None:
    header, at = {}, 0
    for name, size in sizes.items():
        end = at + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [at, end]}
        at = end
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if weights is None:
            file.truncate(8 + len(text) + at)
            return
        for size in sizes.values():
            for rows in weights.rows(size):
                file.write(np.ascontiguousarray(rows).data)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes, as protocol buffers have it."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=Path, metavar="DIRECTORY")
    parser.add_argument("--holes", action="store_true", help="write no weights: zeros that take no room on the disk")
    args = parser.parse_args()
    try:
        n_bytes = write(SHAPES[args.shape], args.out, holes=args.holes)
    except OSError as error:
        raise SystemExit(f"make_checkpoint: error: {error}") from None
    print(f"{args.out}: {n_bytes / 1e6:.0f} MB of weights")


if __name__ == "__main__":
    main()
