"""Byte-level BPE (`tokenizer.ggml.model` "gpt2"), run by `tokenizers`: bytes are printable characters, words are merged pair by pair."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ggpy.errors import TokenizerError, printable
from ggpy.gguf.strings import Strings
from ggpy.log import Log
from ggpy.tokenizer.partial_bpe import SPELLINGS_PER_MERGE, PartialBPE, spellable
from ggpy.tokenizer.pretokenizers import PreTokenizer
from ggpy.tokenizer.program import PRE_TOKENIZER_KEY, guarded, load_sections
from ggpy.tokenizer.token_table import TokenTable

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine
    from tokenizers.pre_tokenizers import PreTokenizer as Cutter

log = Log(__name__)

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
_FEW_MERGES = 4096  # their tables take a few milliseconds, so they are built at once


class ByteLevelBPE:
    """Encodes text without special tokens; see `Model` in ggpy.tokenizer.tokenizer.

    Tables of a large vocabulary are built when a text needs more than a part of it.
    """

    def __init__(self, table: TokenTable, merges: Strings, pre: PreTokenizer):
        """Raises TokenizerError for a merge that is not two tokens separated by a space, and for a program that fails."""
        fault = merges.first_without(ord(" "))
        if fault is not None:
            text = printable(merges[fault], 80)
            raise TokenizerError(f"{table.where}: tokenizer.ggml.merges {fault} is '{text}'; expected two tokens separated by a space")
        missing = len(BYTE_OF) - len(table.find(BYTE_OF))
        if missing:
            log.info("%s: %d of the 256 bytes have no token; text that needs them loses them", table.where, missing)
        cutter, self._normalizer = load_sections(pre, table.where)
        self._cutter = build_cutter(pre) if cutter is None else cutter
        self._guard = f"{table.where}: {PRE_TOKENIZER_KEY}" if pre.program or pre.normalizer else None
        self._check_alphabet()
        self._partial = PartialBPE(table, merges, self._cutter, pre.ignore_merges, int(SPELLINGS_PER_MERGE * len(merges)))
        self._build = lambda: build_engine(table, merges, self._cutter, pre.ignore_merges)
        self._engine: Engine | None = self._build() if len(merges) < _FEW_MERGES else None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        if self._guard is None:
            return self._encode(texts)
        return guarded(lambda: self._encode(self._normalized(texts)), self._guard)

    def _normalized(self, texts: Sequence[str]) -> Sequence[str]:
        return texts if self._normalizer is None else [self._normalizer.normalize_str(text) for text in texts]

    def _check_alphabet(self) -> None:
        """Refuse a program that does not spell text in the byte alphabet: no token would fit."""
        if self._guard is not None:
            (text,) = guarded(lambda: self._normalized(["a ж"]), self._guard)
            words = guarded(lambda: self._cutter.pre_tokenize_str(text), self._guard)
            if any(character not in BYTE_OF for word, _ in words for character in word):
                raise TokenizerError(f"{self._guard}: does not spell text in bytes; expected a ByteLevel part")

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        ids = self._partial.encode(texts) if self._engine is None else None
        return [[i for part in parts_of(text) for i in self._encode_part(part)] for text in texts] if ids is None else ids

    def _encode_part(self, text: str) -> list[int]:
        if self._engine is None:
            self._engine = self._build()
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


def build_cutter(pre: PreTokenizer) -> Cutter:
    """What cuts a text into words and spells them in the byte alphabet."""
    from tokenizers import Regex, pre_tokenizers

    cuts: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def build_engine(table: TokenTable, merges: Strings, cutter: Cutter, ignore_merges: bool) -> Engine:
    """A `tokenizers` tokenizer that cuts by `cutter` and merges by rank, with no special tokens of its own.

    Merges of what is no token are left out, with a warning.
    """
    from tokenizers import Tokenizer, models

    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    vocabulary = spellable(table, table.ids, pairs) if ignore_merges else table.ids
    try:
        model = models.BPE(vocabulary, pairs, ignore_merges=ignore_merges)
    except Exception:  # it says which token is unknown, not which merges are to blame
        model = models.BPE(vocabulary, _known(table, vocabulary, pairs), ignore_merges=ignore_merges)
    engine = Tokenizer(model)
    engine.pre_tokenizer = cutter
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


def _known(table: TokenTable, vocabulary: dict[str, int], pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    def made_of_tokens(pair: tuple[str, str]) -> bool:
        return pair[0] in vocabulary and pair[1] in vocabulary and pair[0] + pair[1] in vocabulary

    known = [pair for pair in pairs if made_of_tokens(pair)]
    lost = next(pair for pair in pairs if not made_of_tokens(pair))
    log.warning(
        "%s: %d of %d merges name something that is no token (first '%s'); they are ignored",
        table.where,
        len(pairs) - len(known),
        len(pairs),
        printable(" ".join(lost), 80),
    )
    return known
