"""The vocabulary as a GGUF file has it: `tokenizer.ggml.*`, checked once so that nothing after it needs to doubt a length or an id."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ggpy.errors import TokenizerError, printable
from ggpy.gguf import Metadata
from ggpy.gguf.strings import Strings
from ggpy.log import Log

log = Log(__name__)

BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")

SPECIAL_ID_KEYS: dict[str, tuple[str, ...]] = {
    "bos": ("bos_token_id",),
    "eos": ("eos_token_id",),
    "eot": ("eot_token_id",),
    "eom": ("eom_token_id",),
    "unk": ("unknown_token_id",),
    "sep": ("seperator_token_id",),
    "pad": ("padding_token_id",),
    "mask": ("mask_token_id",),
    "fim_pre": ("fim_pre_token_id", "prefix_token_id"),
    "fim_suf": ("fim_suf_token_id", "suffix_token_id"),
    "fim_mid": ("fim_mid_token_id", "middle_token_id"),
    "fim_pad": ("fim_pad_token_id",),
    "fim_rep": ("fim_rep_token_id",),
    "fim_sep": ("fim_sep_token_id",),
}
"""Role -> the keys that may give its id, the current spelling first. (`seperator` is what GGUF files say.)"""


class TokenType(IntEnum):
    """What a token is, as `tokenizer.ggml.token_type` numbers it."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class TokenTable:
    """Tokens with their types and, for SentencePiece, scores.

    where: the file, for messages. tokens: text by id. types: int8 (n,), values of TokenType. scores: float32 (n,) or None.
    special: role of SPECIAL_ID_KEYS -> id, for roles the file gives a valid id.
    """

    where: str
    tokens: Strings
    types: np.ndarray
    scores: np.ndarray | None
    special: dict[str, int]

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """Id by text, of all tokens; made when first asked for."""
        return dict(zip(self.tokens, range(len(self.tokens)), strict=True))

    def find(self, texts: Iterable[str]) -> dict[str, int]:
        """Id by text of those `texts` that are tokens."""
        return {self.tokens[i]: i for i in self.tokens.indices_of({text.encode() for text in texts})}

    def of_type(self, *types: TokenType) -> list[int]:
        """The ids of all tokens of these types, ascending."""
        return np.flatnonzero(np.isin(self.types, types)).tolist()


def read_token_table(metadata: Metadata) -> TokenTable:
    """The table in `metadata`. Special ids that are no token are left out with a warning.

    Raises GGUFError for missing keys and wrong types of values, TokenizerError for lengths that differ, a text that is two tokens, a byte
    token that is not spelled `<0xHH>`, scores that are no numbers.
    """
    where = printable(metadata.path)
    tokens = metadata.packed_strings("tokenizer.ggml.tokens")
    n = len(tokens)
    if not n:
        raise TokenizerError(f"{where}: tokenizer.ggml.tokens is empty; expected at least one token")
    if not tokens.lengths.all():
        tokens = Strings.of(token or f"[EMPTY_{i}]" for i, token in enumerate(tokens))
    repeated = tokens.first_repeated()
    if repeated is not None:
        second, first = repeated
        raise TokenizerError(
            f"{where}: tokenizer.ggml.tokens {first} and {second} are both '{printable(tokens[first], 80)}'; expected no text twice"
        )
    types = metadata.integers("tokenizer.ggml.token_type", None)
    _check_length(where, "tokenizer.ggml.token_type", types, n)
    types = np.ones(n, np.int8) if types is None else np.where((types < 0) | (types > max(TokenType)), 0, types).astype(np.int8)
    scores = metadata.numbers("tokenizer.ggml.scores", None)
    _check_length(where, "tokenizer.ggml.scores", scores, n)
    if scores is not None and np.isnan(scores).any():
        raise TokenizerError(f"{where}: tokenizer.ggml.scores {int(np.argmax(np.isnan(scores)))} is nan; expected a number")
    _check_byte_tokens(where, tokens, types)
    special = _special_ids(metadata, where, n)
    return TokenTable(where, tokens, types, None if scores is None else scores.astype(np.float32), special)


def _check_length(where: str, key: str, values: np.ndarray | None, n: int) -> None:
    if values is not None and len(values) != n:
        raise TokenizerError(f"{where}: {key} has {len(values)} elements; expected {n}, one for each token")


def _check_byte_tokens(where: str, tokens: Strings, types: np.ndarray) -> None:
    for i in np.flatnonzero(types == TokenType.BYTE).tolist():
        if not BYTE_TOKEN.fullmatch(tokens[i]):
            raise TokenizerError(
                f"{where}: tokenizer.ggml.tokens {i} is a byte token '{printable(tokens[i], 40)}'; expected '<0x00>' to '<0xFF>'"
            )


def _special_ids(metadata: Metadata, where: str, n: int) -> dict[str, int]:
    special = {}
    for role, keys in SPECIAL_ID_KEYS.items():
        for key in keys:
            i = metadata.integer(f"tokenizer.ggml.{key}", None)
            if i is None:
                continue
            if 0 <= i < n:
                special[role] = i
                break
            log.warning("%s: tokenizer.ggml.%s is %d; there are %d tokens, so it is ignored", where, key, i, n)
    return special
