"""SentencePiece BPE (`tokenizer.ggml.model` "llama"), run by `sentencepiece` on a model put together from tokens, scores and types."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from ggpy.errors import TokenizerError, printable
from ggpy.log import Log
from ggpy.tokenizer.token_table import TokenTable, TokenType

log = Log(__name__)

SPACE = "▁"  # U+2581 stands for a space in tokens

# Field numbers and types of sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_BPE = 2
_VARINT, _BYTES, _FIXED32 = 0, 2, 5


class SentencePieceBPE:
    """Encodes text without special tokens; see `Model` in ggpy.tokenizer.tokenizer."""

    def __init__(self, table: TokenTable):
        """Raises TokenizerError for a vocabulary without scores, and for one that sentencepiece refuses."""
        from sentencepiece import SentencePieceProcessor

        if table.scores is None:
            raise TokenizerError(f"{table.where}: tokenizer.ggml.scores is missing; tokenizer.ggml.model 'llama' needs them to merge by")
        self._n_vocab = len(table.tokens)
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model_proto(table))
        except RuntimeError as error:
            raise TokenizerError(f"{table.where}: sentencepiece refuses the vocabulary: {printable(error)}") from None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> list[int]:
        ids = self._processor.EncodeAsIds(text)
        return ids if self._n_vocab not in ids else [i for i in ids if i < self._n_vocab]  # n_vocab: the stand-in for unknown text

    @staticmethod
    def token_bytes(text: str) -> bytes:
        """The bytes a normal token stands for."""
        return text.replace(SPACE, " ").encode()


def model_proto(table: TokenTable) -> bytes:
    """A serialized sentencepiece ModelProto whose piece i is token i.

    It neither adds a space in front nor normalizes. Special tokens, found before it sees the text, are control pieces: it never makes them.
    Where the table has no token for the unknown, a piece n_vocab stands in.
    """
    kinds = _piece_types(table)
    pieces, scores = list(table.tokens), np.asarray(table.scores, "<f4")
    if TokenType.UNKNOWN not in kinds:
        pieces.append(_unused_name(table))
        kinds = np.append(kinds, np.int8(TokenType.UNKNOWN))
        scores = np.append(scores, np.float32(0)).astype("<f4")
    score_bytes = scores.tobytes()
    out = bytearray()
    for i, (text, kind) in enumerate(zip(pieces, kinds.tolist(), strict=True)):
        raw = text.encode()
        size = _varint(len(raw))
        body = b"\x0a" + size + raw + b"\x15" + score_bytes[4 * i : 4 * i + 4] + b"\x18" + bytes((kind,))  # piece = 1, score = 2, type = 3
        out += b"\x0a" + _varint(len(body)) + body
    has_bytes = TokenType.BYTE in kinds
    trainer = _field(3, _VARINT, _BPE) + _field(35, _VARINT, int(has_bytes))  # model_type, byte_fallback
    normalizer = _field(3, _VARINT, 0) + _field(4, _VARINT, 0) + _field(5, _VARINT, 1)  # dummy prefix, extra spaces removed, spaces escaped
    return bytes(out + _field(_TRAINER, _BYTES, trainer) + _field(_NORMALIZER, _BYTES, normalizer))


def _piece_types(table: TokenTable) -> np.ndarray:
    kinds = table.types.copy()
    # A user-defined token with a plain space is found in the text itself; one with U+2581 only after spaces have become that.
    user_defined = [i for i in table.of_type(TokenType.USER_DEFINED) if SPACE not in table.tokens[i]]
    kinds[user_defined] = TokenType.CONTROL
    kinds[kinds == TokenType.UNDEFINED] = TokenType.CONTROL
    n_bytes = int((kinds == TokenType.BYTE).sum())
    if n_bytes != 256:  # sentencepiece falls back to bytes only where it has all of them
        if n_bytes:
            log.warning("%s: %d of the 256 byte tokens; text outside the vocabulary becomes the unknown token", table.where, n_bytes)
        kinds[kinds == TokenType.BYTE] = TokenType.CONTROL
    unknown = table.special.get("unk")
    candidates = np.flatnonzero(kinds == TokenType.UNKNOWN)
    if unknown is None or kinds[unknown] not in (TokenType.UNKNOWN, TokenType.CONTROL):
        unknown = int(candidates[0]) if len(candidates) else None
    kinds[candidates] = TokenType.CONTROL
    if unknown is not None:
        kinds[unknown] = TokenType.UNKNOWN
    return kinds


def _unused_name(table: TokenTable) -> str:
    name = "<unknown>"
    while name in table.ids:
        name += ">"
    return name


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, wire_type: int, value: int | float | bytes) -> bytes:
    key = _varint(number << 3 | wire_type)
    if isinstance(value, bytes):
        return key + _varint(len(value)) + value
    return key + (struct.pack("<f", value) if wire_type == _FIXED32 else _varint(int(value)))
