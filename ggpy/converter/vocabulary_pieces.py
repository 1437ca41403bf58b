"""The tokens of a vocabulary while it is put together: those of the model, then those the checkpoint adds, then padding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ggpy.converter.vocabulary_files import AddedToken
from ggpy.errors import CheckpointError, printable
from ggpy.tokenizer import TokenType

_ADDED_SCORE, _PADDING_SCORE = -1000.0, -10000.0
_SPACE = "▁"
_FIXED_TYPES = (TokenType.UNKNOWN, TokenType.BYTE)


@dataclass
class Pieces:
    """Tokens by id, "" for an id that has none.

    model, pre: the values of tokenizer.ggml.model and .pre. where: the file they come from. further: keys of this kind of model alone.
    """

    model: str
    pre: str
    texts: list[str]
    types: list[TokenType]
    where: str
    scores: list[float] | None = None
    merges: list[str] | None = None
    add_space_prefix: bool = False
    further: dict[str, Any] = field(default_factory=dict)

    def add(self, added: Iterable[AddedToken], n_rows: int, warnings: list[str]) -> None:
        """Put added tokens in place and bring the vocabulary to `n_rows` tokens, one for each row of the embedding."""
        beyond = [f"{i} '{printable(text, 40)}'" for i, text in enumerate(self.texts) if i >= n_rows]
        del self.texts[n_rows:], self.types[n_rows:]
        if self.scores is not None:
            del self.scores[n_rows:]
        for i in range(n_rows):
            if i == len(self.texts) or not self.texts[i]:
                self._put(i, f"[PAD{i}]", TokenType.UNUSED, _PADDING_SCORE)
        for token in sorted(added, key=lambda token: token.id):
            if token.id >= n_rows:
                beyond.append(f"{token.id} '{printable(token.text, 40)}'")
            else:
                self._put_added(token)
        if beyond:
            warnings.append(f"{self.where}: {len(beyond)} tokens have no row in the embedding and are left out: {', '.join(beyond[:5])}")
        self._refuse_duplicates()

    def _put_added(self, token: AddedToken) -> None:
        if not (token.special or looks_special(token.text)):
            self._put(token.id, spaced(token.text), TokenType.USER_DEFINED, _ADDED_SCORE)
        elif self.texts[token.id] != token.text or self.types[token.id] not in _FIXED_TYPES:
            self._put(token.id, token.text, TokenType.CONTROL, _ADDED_SCORE)

    def _put(self, i: int, text: str, kind: TokenType, score: float) -> None:
        self.texts[i : i + 1] = [text]
        self.types[i : i + 1] = [kind]
        if self.scores is not None:
            self.scores[i : i + 1] = [score]

    def _refuse_duplicates(self) -> None:
        ids: dict[str, int] = {}
        for i, text in enumerate(self.texts):
            first = ids.setdefault(text, i)
            if first != i:
                raise CheckpointError(f"{self.where}: tokens {first} and {i} are both '{printable(text, 80)}'; expected no text twice")


def spaced(text: str) -> str:
    """A user-defined token as GGUF has it: readers look for it in the text as it is written, where U+2581 is still a space."""
    return text.replace(_SPACE, " ")


def looks_special(text: str) -> bool:
    """Whether an added token is a control token though the checkpoint does not say so, as with Command-R, DeepSeek-Coder and Gemma."""
    brackets = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(
        text.startswith(left) and text.endswith(right) for left, right in brackets
    )
