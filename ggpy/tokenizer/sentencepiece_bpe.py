"""SentencePiece BPE (`tokenizer.ggml.model` "llama"), run by `sentencepiece` on a model put together from tokens, scores and types."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ggpy.errors import TokenizerError, printable
from ggpy.gguf import Metadata
from ggpy.gguf.strings import Strings
from ggpy.log import Log
from ggpy.tokenizer.charsmap import read_charsmap
from ggpy.tokenizer.program import CHARSMAP_KEY, MERGE_SPACES_KEY
from ggpy.tokenizer.token_table import TokenTable, TokenType

log = Log(__name__)

SPACE = "▁"  # U+2581 stands for a space in tokens

# Field numbers and types of sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_BPE = 2
_VARINT, _BYTES = 0, 2
_AT_ONCE = 4096  # pieces written together


class SentencePieceBPE:
    """Encodes text without special tokens; see `Model` in ggpy.tokenizer.tokenizer."""

    def __init__(self, table: TokenTable, metadata: Metadata, add_space_prefix: bool):
        """add_space_prefix: the texts to encode begin with a space that was put there.

        Raises TokenizerError for a vocabulary without scores, for one that sentencepiece refuses, and for a damaged character map.
        """
        from sentencepiece import SentencePieceProcessor

        if table.scores is None:
            raise TokenizerError(f"{table.where}: tokenizer.ggml.scores is missing; tokenizer.ggml.model 'llama' needs them to merge by")
        self._n_vocab, self._prefixed = len(table.tokens), add_space_prefix
        self._charsmap = read_charsmap(metadata, CHARSMAP_KEY, table.where)
        self._merge_spaces = metadata.boolean(MERGE_SPACES_KEY, False)
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model_proto(table))
        except RuntimeError as error:
            raise TokenizerError(f"{table.where}: sentencepiece refuses the vocabulary: {printable(error)}") from None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> list[int]:
        ids = self._processor.EncodeAsIds(self._normalized(text))
        return ids if self._n_vocab not in ids else [i for i in ids if i < self._n_vocab]  # n_vocab: the stand-in for unknown text

    def _normalized(self, text: str) -> str:
        lead, text = (text[:1], text[1:]) if self._prefixed else ("", text)
        text = text if self._charsmap is None else self._charsmap(text)
        if self._merge_spaces:
            text = " ".join(word for word in text.split(" ") if word)
            return lead + text if text else ""
        return lead + text

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
    parts = [_pieces(table.tokens, np.asarray(table.scores, "<f4"), kinds)]
    if TokenType.UNKNOWN not in kinds:
        parts.append(_pieces(Strings.of([_unused_name(table)]), np.zeros(1, "<f4"), np.array([TokenType.UNKNOWN], np.int8)))
    has_bytes = TokenType.BYTE in kinds
    trainer = _field(3, _VARINT, _BPE) + _field(35, _VARINT, int(has_bytes))  # model_type, byte_fallback
    normalizer = _field(3, _VARINT, 0) + _field(4, _VARINT, 0) + _field(5, _VARINT, 1)  # dummy prefix, extra spaces removed, spaces escaped
    return b"".join([*parts, _field(_TRAINER, _BYTES, trainer), _field(_NORMALIZER, _BYTES, normalizer)])


def _pieces(texts: Strings, scores: np.ndarray, kinds: np.ndarray) -> bytes:
    """One ModelProto.pieces entry for each text: piece = 1, score = 2, type = 3. scores: float32 (n,). kinds: int8 (n,)."""
    source, begins, _ = texts.laid_out
    parts = []
    for first in range(0, len(texts), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        lengths = texts.lengths[some]
        bodies = 1 + _varint_bytes(lengths) + lengths + 5 + 2
        sizes = 1 + _varint_bytes(bodies) + bodies
        ends = np.cumsum(sizes)
        out = np.zeros(int(ends[-1]), np.uint8)
        at = ends - sizes
        out[at] = 0x0A
        at = _put_varints(out, at + 1, bodies)
        out[at] = 0x0A
        at = _put_varints(out, at + 1, lengths)
        behind = np.cumsum(lengths)
        within = np.arange(int(behind[-1])) - np.repeat(behind - lengths, lengths)
        out[np.repeat(at, lengths) + within] = source[np.repeat(begins[some], lengths) + within]
        at = at + lengths
        out[at] = 0x15
        out[at[:, None] + np.arange(1, 5)] = scores[some].view(np.uint8).reshape(-1, 4)
        out[at + 5] = 0x18
        out[at + 6] = kinds[some]
        parts.append(out.tobytes())
    return b"".join(parts)


def _varint_bytes(values: np.ndarray) -> np.ndarray:
    """How many bytes each takes as a varint, int64; for values below 2^28, more than metadata can hold."""
    return 1 + (values >= 2**7).astype(np.int64) + (values >= 2**14) + (values >= 2**21)


def _put_varints(out: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Write each of `values` at its place in `out`; returns the places behind them."""
    sizes = _varint_bytes(values)
    for i in range(int(sizes.max())):
        more = sizes > i
        out[at[more] + i] = (values[more] >> 7 * i & 0x7F) | np.where(sizes[more] > i + 1, 0x80, 0)
    return at + sizes


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


def _field(number: int, wire_type: int, value: int | bytes) -> bytes:
    """A field of a message; numbers, values and lengths below 128."""
    key = bytes((number << 3 | wire_type,)) if number < 16 else bytes((number << 3 & 0x7F | wire_type | 0x80, number >> 4))
    return key + bytes((len(value),)) + value if isinstance(value, bytes) else key + bytes((value,))
