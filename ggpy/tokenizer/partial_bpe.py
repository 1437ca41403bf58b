"""Byte-level BPE of a few words, by the part of the vocabulary that they can be made of.

`tokenizers` takes 0.05 s to build its tables of a vocabulary of 49k tokens and 0.3 s for 128k, as long as all else that a model needs to
begin. Which tokens a word becomes is decided by the tokens that occur in its spelling and the merges that make those: of a prompt, a few
hundred. With just these in its tables, `tokenizers` does what it does with all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ggpy.gguf.strings import Strings
from ggpy.tokenizer.token_table import TokenTable, TokenType

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer as Cutter

MAX_TEXT = 2**14
SPELLINGS_PER_MERGE = 0.25  # where more than these would have to be looked up, all tables together are the smaller effort


class PartialBPE:
    """Encodes texts as long as all their words together have at most `limit` parts; remembers the words."""

    def __init__(self, table: TokenTable, merges: Strings, cutter: Cutter, ignore_merges: bool, limit: int):
        self._table, self._merges, self._cutter, self._ignore_merges = table, merges, cutter, ignore_merges
        self._left = limit
        self._known: dict[str, list[int]] = {}

    def encode(self, texts: Sequence[str]) -> list[list[int]] | None:
        """The ids of each text; None where that is work for tables of the whole vocabulary."""
        if sum(map(len, texts)) > MAX_TEXT:
            return None
        cut = [[word for word, _ in self._cutter.pre_tokenize_str(text)] for text in texts]
        unknown = {word for words in cut for word in words if word not in self._known}
        effort = sum(len(word) * (len(word) + 1) // 2 for word in unknown)
        if effort > self._left:
            return None
        if unknown:
            self._left -= effort
            self._learn(unknown)
        return [[i for word in words for i in self._known[word]] for words in cut]

    def _learn(self, words: Iterable[str]) -> None:
        from tokenizers import models

        spellings = {word[i:j] for word in words for i in range(len(word)) for j in range(i + 1, len(word) + 1)}
        ids = self._table.find(spellings)
        joints = ((text[:i], text[i:]) for text in ids for i in range(1, len(text)))
        wanted = {f"{left} {right}".encode() for left, right in joints if left in ids and right in ids}
        pairs = [(left, right) for left, _, right in (self._merges[i].partition(" ") for i in self._merges.indices_of(wanted))]
        if self._ignore_merges:
            ids = spellable(self._table, ids, pairs)
            pairs = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
        model = models.BPE(ids, pairs, ignore_merges=self._ignore_merges)
        self._known.update((word, [token.id for token in model.tokenize(word)]) for word in words)


def spellable(table: TokenTable, ids: dict[str, int], pairs: Iterable[tuple[str, str]]) -> dict[str, int]:
    """`ids` without the control tokens that no merge makes, so that a word that happens to be spelled like one stays a word."""
    hidden = {table.tokens[i] for i in table.of_type(TokenType.CONTROL, TokenType.UNKNOWN)}
    hidden.difference_update(left + right for left, right in pairs)
    return {text: i for text, i in ids.items() if text not in hidden}
