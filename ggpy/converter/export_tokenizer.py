"""The tokenizer of a GGUF file as the files of a checkpoint: tokenizer.json, tokenizer.model for SentencePiece, tokenizer_config.json."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from ggpy.errors import TokenizerError
from ggpy.gguf import Metadata
from ggpy.gguf.strings import Strings
from ggpy.tokenizer import TokenType
from ggpy.tokenizer.pretokenizers import PRE_TOKENIZERS
from ggpy.tokenizer.program import read_program
from ggpy.tokenizer.tokenizer import Tokenizer, load_tokenizer

_ROLES = ("bos", "eos", "unk", "sep", "pad", "mask")
_SPACE = "▁"
_ADDED = {TokenType.CONTROL: True, TokenType.USER_DEFINED: False}
_BPE = 2  # sentencepiece_model.proto's number of it; those of token types are GGUF's, which took them from there


def tokenizer_files(metadata: Metadata) -> dict[str, bytes]:
    """Name -> content. Raises TokenizerError and GGUFError for a tokenizer that is damaged or of a kind that is not supported."""
    tokenizer, kind = load_tokenizer(metadata), metadata.string("tokenizer.ggml.model")
    tokens, types = list(tokenizer.vocabulary), [tokenizer.token_type(i) for i in range(tokenizer.n_vocab)]
    files: dict[str, bytes] = {}
    if kind == "t5":
        raise TokenizerError(f"{metadata.path}: tokenizer.ggml.model 't5' cannot be exported yet; supported are 'gpt2' and 'llama'")
    if kind == "gpt2":
        model, cut = _byte_level(tokens, types, metadata.packed_strings("tokenizer.ggml.merges"), metadata)
    else:
        scores = metadata.numbers("tokenizer.ggml.scores", None)
        if scores is None:
            raise TokenizerError(f"{metadata.path}: tokenizer.ggml.scores is missing, expected a score for each token")
        model, cut = _sentencepiece_json(tokens, types, scores.tolist(), tokenizer.add_space_prefix)
        files["tokenizer.model"] = _sentencepiece_model(tokens, types, scores.tolist(), tokenizer)
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(_added_tokens(tokens, types)),
        **cut,
        "post_processor": _post_processor(tokenizer, tokens, cut),
        "model": model,
    }
    files["tokenizer.json"] = json_bytes(whole)
    files["tokenizer_config.json"] = json_bytes(_settings(tokenizer, tokens, metadata, kind))
    return files


def json_bytes(value: Any) -> bytes:
    """A JSON file as transformers writes them; ValueError for numbers that are not finite."""
    return (json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()


def _added_tokens(tokens: list[str], types: list[TokenType]) -> Iterator[dict[str, Any]]:
    for i, (text, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind in _ADDED or kind is TokenType.UNKNOWN:
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            yield {"id": i, "content": text, **flags, "special": _ADDED.get(kind, True)}


def _byte_level(tokens: list[str], types: list[TokenType], merges: Strings, metadata: Metadata) -> tuple[dict[str, Any], dict[str, Any]]:
    pre = read_program(metadata, PRE_TOKENIZERS.get(metadata.string("tokenizer.ggml.pre", ""), PRE_TOKENIZERS["default"]))
    vocabulary = {text: i for i, text in enumerate(tokens) if types[i] is not TokenType.UNUSED}
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    known = [[a, b] for a, b in pairs if a in vocabulary and b in vocabulary and a + b in vocabulary]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    cuts = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False} for pattern in pre.patterns]
    model = _model(vocabulary, known, ignore_merges=pre.ignore_merges)
    cutter = json.loads(pre.program) if pre.program else {"type": "Sequence", "pretokenizers": [*cuts, byte_level]}
    normalizer = json.loads(pre.normalizer) if pre.normalizer else None
    parts = {"normalizer": normalizer, "pre_tokenizer": cutter, "decoder": byte_level}
    return model, parts


def _sentencepiece_json(
    tokens: list[str], types: list[TokenType], scores: list[float], prefix: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    vocabulary = {text: i for i, text in enumerate(tokens) if types[i] is not TokenType.UNUSED}
    pieces = [i for i, kind in enumerate(types) if kind is TokenType.NORMAL and len(tokens[i]) > 1]
    mergeable = {tokens[i] for i, kind in enumerate(types) if kind is TokenType.NORMAL}
    merges = [
        [text[:at], text[at:]]
        for text in (tokens[i] for i in sorted(pieces, key=lambda i: -scores[i]))
        for at in range(1, len(text))
        if text[:at] in mergeable and text[at:] in mergeable
    ]
    unknown = next((text for text, kind in zip(tokens, types, strict=True) if kind is TokenType.UNKNOWN), None)
    model = _model(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=TokenType.BYTE in types)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []),
    ]
    return model, {
        "normalizer": {"type": "Sequence", "normalizers": [*([{"type": "Prepend", "prepend": _SPACE}] if prefix else []), replace]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
    }


def _model(vocabulary: dict[str, int], merges: list[list[str]], **options: Any) -> dict[str, Any]:
    defaults = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                "byte_fallback": False, "ignore_merges": False}  # fmt: skip
    return {"type": "BPE", **defaults, **options, "vocab": vocabulary, "merges": merges}


def _post_processor(tokenizer: Tokenizer, tokens: list[str], parts: dict[str, Any]) -> dict[str, Any] | None:
    """What puts BOS in front and EOS behind, where the model wants them."""
    lead = [tokenizer.bos] if tokenizer.add_bos and tokenizer.bos is not None else []
    tail = [tokenizer.eos] if tokenizer.add_eos and tokenizer.eos is not None else []
    if not lead and not tail:
        return parts["decoder"] if parts["decoder"]["type"] == "ByteLevel" else None

    def around(sequence: str, type_id: int) -> list[dict[str, Any]]:
        def special(i: int) -> dict[str, Any]:
            return {"SpecialToken": {"id": tokens[i], "type_id": type_id}}

        return [*map(special, lead), {"Sequence": {"id": sequence, "type_id": type_id}}, *map(special, tail)]

    specials = {tokens[i]: {"id": tokens[i], "ids": [i], "tokens": [tokens[i]]} for i in {*lead, *tail}}
    return {"type": "TemplateProcessing", "single": around("A", 0), "pair": around("A", 0) + around("B", 1), "special_tokens": specials}


def _settings(tokenizer: Tokenizer, tokens: list[str], metadata: Metadata, kind: str) -> dict[str, Any]:
    ids = {role: tokenizer.special_id(role) for role in _ROLES}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": tokenizer.add_bos and tokenizer.bos is not None,
        "add_eos_token": tokenizer.add_eos and tokenizer.eos is not None,
        "clean_up_tokenization_spaces": kind == "gpt2"
        and PRE_TOKENIZERS[metadata.string("tokenizer.ggml.pre", "") or "default"].clean_spaces,
        **{f"{role}_token": tokens[i] for role, i in ids.items() if i is not None},
    }
    if kind == "llama":
        settings["add_prefix_space"] = tokenizer.add_space_prefix
    names = metadata.strings("tokenizer.chat_templates", [])
    named = [(name, metadata.string(f"tokenizer.chat_template.{name}", None)) for name in names]
    if any(template is not None for _, template in named):
        both = [("default", tokenizer.chat_template), *named]
        settings["chat_template"] = [{"name": name, "template": template} for name, template in both if template is not None]
    elif tokenizer.chat_template is not None:
        settings["chat_template"] = tokenizer.chat_template
    return settings


def _sentencepiece_model(tokens: list[str], types: list[TokenType], scores: list[float], tokenizer: Tokenizer) -> bytes:
    """A serialized sentencepiece ModelProto of BPE without normalization."""
    pieces = b"".join(_field(1, _piece(*piece)) for piece in zip(tokens, types, scores, strict=True))
    ids = {40: tokenizer.special_id("unk"), 41: tokenizer.bos, 42: tokenizer.eos, 43: tokenizer.special_id("pad")}
    trainer = _number(3, _BPE) + _number(4, len(tokens)) + _number(35, int(TokenType.BYTE in types))
    trainer += b"".join(_number(number, -1 if i is None else i) for number, i in ids.items())
    normalizer = _field(1, b"identity") + _number(3, int(tokenizer.add_space_prefix)) + _number(4, 0) + _number(5, 1)
    return pieces + _field(2, trainer) + _field(3, normalizer)


def _piece(text: str, kind: TokenType, score: float) -> bytes:
    text = text.replace(" ", _SPACE) if kind is TokenType.USER_DEFINED else text
    return _field(1, text.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", score) + _number(3, int(kind) or 1)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value & (2**64 - 1))


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])
