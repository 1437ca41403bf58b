"""Byte-level BPE (`tokenizer.ggml.model` "gpt2"), run by `tokenizers`: bytes are printable characters, words are merged pair by pair."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ggpy.errors import TokenizerError, printable
from ggpy.tokenizer.pretokenizers import PreTokenizer
from ggpy.tokenizer.token_table import TokenTable, TokenType

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

logger = logging.getLogger(__name__)

# GPT-2's alphabet: bytes that are printable in Latin-1 stand for themselves, the others for the code points from 256 on.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = tuple(byte for byte in range(256) if byte not in frozenset(_PRINTABLE))
BYTE_OF: dict[str, int] = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(_OTHERS)}

# Oniguruma gives up (and `tokenizers` panics) after 10^7 steps back in one match, so longer texts are encoded in parts.
MAX_PART = 2**20
_CUT_WINDOW = 2**16
_CUT = re.compile(r"\S(?= )")
# From here on the encoding without offsets is worth its thread pool: half the time, a third of the memory.
_LONG = 2**16


class ByteLevelBPE:
    """Encodes text without special tokens; see `Model` in ggpy.tokenizer.tokenizer."""

    def __init__(self, table: TokenTable, merges: Sequence[str], pre: PreTokenizer):
        """Raises TokenizerError for a merge that is not two tokens separated by a space."""
        self._engine = build_engine(table, merges, pre)

    def encode(self, text: str) -> list[int]:
        return [i for part in parts_of(text) for i in self._encode_part(part)]

    def _encode_part(self, text: str) -> list[int]:
        if len(text) < _LONG:
            return self._engine.encode(text, add_special_tokens=False).ids
        return self._engine.encode_batch_fast([text], add_special_tokens=False)[0].ids

    @staticmethod
    def token_bytes(text: str) -> bytes:
        """The bytes a normal token stands for; a text that is not in the byte alphabet stands for itself."""
        try:
            return bytes(map(BYTE_OF.__getitem__, text))
        except KeyError:
            return text.encode()


def build_engine(table: TokenTable, merges: Sequence[str], pre: PreTokenizer) -> Engine:
    """A `tokenizers` tokenizer that cuts by `pre` and merges by rank, with no special tokens of its own."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    pairs = _pairs(table, merges)
    vocabulary = _spellable(table, pairs) if pre.ignore_merges else table.ids
    missing = sum(character not in vocabulary for character in BYTE_OF)
    if missing:
        logger.info("%s: %d of the 256 bytes have no token; text that needs them loses them", table.where, missing)
    try:
        model = models.BPE(vocabulary, pairs, ignore_merges=pre.ignore_merges)
    except Exception:  # it says which token is unknown, not which merges are to blame
        model = models.BPE(vocabulary, _known(table, pairs), ignore_merges=pre.ignore_merges)
    engine = Tokenizer(model)
    cuts: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    engine.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return engine


def parts_of(text: str) -> Iterator[str]:
    """`text` in parts of at most MAX_PART characters, cut before a space that follows a word, where all pre-tokenizers cut anyway."""
    start = 0
    while len(text) - start > MAX_PART:
        stop = start + MAX_PART
        for cut in _CUT.finditer(text, stop - _CUT_WINDOW, stop):
            stop = cut.end()
        yield text[start:stop]
        start = stop
    yield text[start:]


def _pairs(table: TokenTable, merges: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    if any(len(pair) != 2 for pair in pairs):
        i = next(i for i, pair in enumerate(pairs) if len(pair) != 2)
        raise TokenizerError(
            f"{table.where}: tokenizer.ggml.merges {i} is '{printable(merges[i], 80)}'; expected two tokens separated by a space"
        )
    return pairs  # type: ignore[return-value]


def _spellable(table: TokenTable, pairs: list[tuple[str, str]]) -> dict[str, int]:
    """The vocabulary without the control tokens that no merge makes, so that a word that happens to be spelled like one stays a word."""
    merged = {left + right for left, right in pairs}
    ids = dict(table.ids)
    for i in table.of_type(TokenType.CONTROL, TokenType.UNKNOWN):
        if table.tokens[i] not in merged:
            del ids[table.tokens[i]]
    return ids


def _known(table: TokenTable, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    def made_of_tokens(pair: tuple[str, str]) -> bool:
        return pair[0] in table.ids and pair[1] in table.ids and pair[0] + pair[1] in table.ids

    known = [pair for pair in pairs if made_of_tokens(pair)]
    lost = next(pair for pair in pairs if not made_of_tokens(pair))
    logger.warning(
        "%s: %d of %d merges name something that is no token (first '%s'); they are ignored",
        table.where,
        len(pairs) - len(known),
        len(pairs),
        printable(" ".join(lost), 80),
    )
    return known
