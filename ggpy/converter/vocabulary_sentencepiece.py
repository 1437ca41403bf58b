"""tokenizer.model: a serialized sentencepiece ModelProto, read field by field (the wheel's own reader needs protobuf)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from ggpy.converter.vocabulary_pieces import Pieces, spaced
from ggpy.errors import CheckpointError, printable
from ggpy.tokenizer import TokenType
from ggpy.tokenizer.program import CHARSMAP_KEY, MERGE_SPACES_KEY

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MODELS: dict[int | bytes, str] = {1: "t5", 2: "llama"}  # unigram, BPE
_MODEL_TYPES: dict[int | bytes, str] = {3: "word", 4: "char"}
_TYPES = {
    1: TokenType.NORMAL,
    2: TokenType.UNKNOWN,
    3: TokenType.CONTROL,
    4: TokenType.USER_DEFINED,
    5: TokenType.UNUSED,
    6: TokenType.BYTE,
}


def read_sentencepiece(data: bytes, where: str, warnings: list[str]) -> Pieces:
    """The pieces of a tokenizer.model. Raises CheckpointError for damaged data and for models that are neither BPE nor unigram."""
    pieces = Pieces("llama", "default", [], [], scores=[], where=where)
    trainer, normalizer = {}, {}
    try:
        for number, value in _fields(data):
            if number == 1:
                _add_piece(pieces, _message(value))
            elif number == 2:
                trainer = _message(value)
            elif number == 3:
                normalizer = _message(value)
    except (ValueError, IndexError, struct.error) as error:
        raise CheckpointError(f"{where}: no sentencepiece model: {printable(error)}") from None
    if not pieces.texts:
        raise CheckpointError(f"{where}: no sentencepiece model: it has no pieces")
    kind = trainer.get(3, 1)
    if kind not in _MODELS:
        name = _MODEL_TYPES.get(kind, printable(kind, 20))
        raise CheckpointError(f"{where}: a sentencepiece model of type {name}; supported are BPE and unigram")
    pieces.model = _MODELS[kind]
    pieces.add_space_prefix = bool(normalizer.get(3, 1))
    if pieces.model == "t5":
        pieces.further = _unigram_keys(pieces, trainer, normalizer, warnings)
    else:
        pieces.further = _bpe_keys(normalizer, where, warnings)
    if normalizer.get(4, 1) and not normalizer.get(5, 1):
        warnings.append(f"{where}: it does not escape white space, which GGUF cannot say")
    return pieces


def _unigram_keys(
    pieces: Pieces, trainer: dict[int, int | bytes], normalizer: dict[int, int | bytes], warnings: list[str]
) -> dict[str, Any]:
    """What GGUF says of unigram models alone: the token for the unknown, and how text is normalized."""
    if TokenType.UNKNOWN not in pieces.types:
        raise CheckpointError(f"{pieces.where}: no sentencepiece model: no piece stands for the unknown")
    if trainer.get(24):
        warnings.append(f"{pieces.where}: it puts the mark of a space behind words, which GGUF cannot say")
    if trainer.get(35):
        warnings.append(f"{pieces.where}: it spells unknown text in bytes, which ggpy does; llama.cpp reads the unknown token instead")
    keys: dict[str, Any] = {
        "tokenizer.ggml.unknown_token_id": pieces.types.index(TokenType.UNKNOWN),
        "tokenizer.ggml.remove_extra_whitespaces": bool(normalizer.get(4, 1)),
    }
    return keys | _charsmap(normalizer, "tokenizer.ggml.precompiled_charsmap")


def _bpe_keys(normalizer: dict[int, int | bytes], where: str, warnings: list[str]) -> dict[str, Any]:
    """How text is normalized, which GGUF says of unigram models alone: keys of our own."""
    keys = _charsmap(normalizer, CHARSMAP_KEY)
    if keys:
        name = printable(bytes(normalizer.get(1, b"")).decode("utf-8", "replace"), 40)  # type: ignore[arg-type]
        warnings.append(f"{where}: it normalizes text ('{name}'), which ggpy reads from the file; llama.cpp reads text as it is")
    if normalizer.get(4, 1):
        warnings.append(f"{where}: it takes several spaces for one, which ggpy reads from the file; llama.cpp reads text as it is")
        keys[MERGE_SPACES_KEY] = True
    return keys


def _charsmap(normalizer: dict[int, int | bytes], key: str) -> dict[str, Any]:
    charsmap = normalizer.get(2, b"")
    return {key: np.frombuffer(charsmap, np.uint8)} if isinstance(charsmap, bytes) and charsmap else {}


def _add_piece(pieces: Pieces, message: dict[int, int | bytes]) -> None:
    raw, score, kind = message.get(1, b""), message.get(2, b"\0\0\0\0"), message.get(3, 1)
    if not isinstance(raw, bytes) or not isinstance(score, bytes) or kind not in _TYPES:
        raise ValueError(f"piece {len(pieces.texts)} is not a text, a score and a type from 1 to 6")
    (value,) = struct.unpack("<f", score)
    if math.isnan(value):
        raise ValueError(f"the score of piece {len(pieces.texts)} is nan")
    assert pieces.scores is not None
    text, type = raw.decode("utf-8"), _TYPES[int(kind)]
    pieces.texts.append(spaced(text) if type is TokenType.USER_DEFINED else text)
    pieces.scores.append(value)
    pieces.types.append(type)


def _message(data: int | bytes) -> dict[int, int | bytes]:
    """Field number -> last value."""
    if not isinstance(data, bytes):
        raise ValueError("a number where a message should be")
    return dict(_fields(data))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of one message: int for varints, bytes for the rest."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, at = _varint(data, at)
        elif wire_type in _FIXED_BYTES:
            size = _FIXED_BYTES[wire_type]
        else:
            raise ValueError(f"wire type {wire_type} before byte {at}")
        if size > len(data) - at:
            raise ValueError(f"a field of {size} bytes at byte {at}, with {len(data) - at} left")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits before byte {at}")
