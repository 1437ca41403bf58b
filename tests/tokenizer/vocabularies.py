"""Small vocabularies, as the metadata of a GGUF file has them, and how to change one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ggpy.gguf import Metadata
from ggpy.tokenizer import Tokenizer, TokenType, load_tokenizer
from ggpy.tokenizer.byte_level import BYTE_OF

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = [
    "▁",
    "h",
    "e",
    "l",
    "o",
    "w",
    "r",
    "d",
    "a",
    "b",
    "▁h",
    "he",
    "ll",
    "el",
    "lo",
    "▁he",
    "hell",
    "▁hell",
    "▁hello",
    "or",
    "▁w",
    "▁wor",
]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "Ġ hell", "1 2", "12 3", "Ġ Ġ", "ĠĠ ĠĠ", "a a", "aa aa", "ð Ł"]


def sentencepiece_metadata(changes: Mapping[str, Any] | None = None, *, pieces: list[str] = PIECES) -> dict[str, Any]:
    """SentencePiece: <unk> <s> </s>, 256 bytes, `pieces` in the order they merge, then control token <|im_end|>, user-defined <keep>."""
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *pieces, "<|im_end|>", "<keep>"]
    types = [2, 3, 3] + [6] * 256 + [1] * len(pieces) + [3, 4]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(pieces))] + [-1000.0, -1000.0]
    values: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return _changed(values, changes)


def unigram_metadata(changes: Mapping[str, Any] | None = None, *, pieces: list[str] = PIECES) -> dict[str, Any]:
    """Unigram with the tokens of `sentencepiece_metadata`: later pieces score less."""
    values = sentencepiece_metadata(pieces=pieces) | {"tokenizer.ggml.model": "t5", "tokenizer.ggml.add_space_prefix": True}
    return _changed(values | {"tokenizer.ggml.add_eos_token": False}, changes)


def byte_level_metadata(changes: Mapping[str, Any] | None = None, *, merges: list[str] = MERGES, pre: str = "gpt-2") -> dict[str, Any]:
    """Byte-level BPE: 256 bytes, what `merges` make, then <|endoftext|> as a control token and <keep> as user-defined."""
    tokens = [*BYTE_OF, *dict.fromkeys(merge.replace(" ", "") for merge in merges), "<|endoftext|>", "<keep>"]
    types = [1] * (len(tokens) - 2) + [3, 4]
    values: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": len(tokens) - 2,
        "tokenizer.ggml.eos_token_id": len(tokens) - 2,
    }
    return _changed(values, changes)


def _changed(values: dict[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    values = values | {f"tokenizer.ggml.{key}" if "." not in key else key: value for key, value in (changes or {}).items()}
    return {key: value for key, value in values.items() if value is not None}


def sentencepiece(changes: Mapping[str, Any] | None = None, **options: Any) -> Tokenizer:
    return load_tokenizer(Metadata.of(sentencepiece_metadata(changes, **options)))


def unigram(changes: Mapping[str, Any] | None = None, **options: Any) -> Tokenizer:
    return load_tokenizer(Metadata.of(unigram_metadata(changes, **options)))


def byte_level(changes: Mapping[str, Any] | None = None, **options: Any) -> Tokenizer:
    return load_tokenizer(Metadata.of(byte_level_metadata(changes, **options)))


def with_tokens(metadata: dict[str, Any], extra: Mapping[str, TokenType]) -> dict[str, Any]:
    """The metadata with tokens of the given types behind its own."""
    metadata = dict(metadata)
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], *extra]
    types = [*metadata["tokenizer.ggml.token_type"].tolist(), *extra.values()]
    metadata["tokenizer.ggml.token_type"] = np.array(types, np.int32)
    if "tokenizer.ggml.scores" in metadata:
        scores = [*metadata["tokenizer.ggml.scores"].tolist(), *[-1000.0] * len(extra)]
        metadata["tokenizer.ggml.scores"] = np.array(scores, np.float32)
    return metadata
