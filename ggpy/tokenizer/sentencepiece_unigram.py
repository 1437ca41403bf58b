"""SentencePiece unigram (`tokenizer.ggml.model` "t5"), run by `tokenizers`, which like llama.cpp adds scores in double precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ggpy.errors import TokenizerError
from ggpy.gguf import Metadata
from ggpy.tokenizer.charsmap import read_charsmap
from ggpy.tokenizer.program import guarded
from ggpy.tokenizer.sentencepiece_bpe import SPACE
from ggpy.tokenizer.token_table import TokenTable, TokenType

_MATCHED = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)


class SentencePieceUnigram:
    """Encodes text without special tokens into the pieces of the largest sum of scores; see `Model` in ggpy.tokenizer.tokenizer."""

    def __init__(self, table: TokenTable, metadata: Metadata, add_space_prefix: bool):
        """Raises TokenizerError for a vocabulary without scores or without a token for the unknown, and for a damaged character map."""
        from tokenizers import models

        if table.scores is None:
            raise TokenizerError(f"{table.where}: tokenizer.ggml.scores is missing; tokenizer.ggml.model 't5' needs them to choose by")
        unknown = table.special.get("unk")
        if unknown is None:
            raise TokenizerError(f"{table.where}: tokenizer.ggml.unknown_token_id is missing; tokenizer.ggml.model 't5' needs it")
        self._unknown, self._prefix = unknown, add_space_prefix
        self._merge_spaces = metadata.boolean("tokenizer.ggml.remove_extra_whitespaces", False)
        self._bytes = _byte_ids(table)
        self._charsmap = read_charsmap(metadata, "tokenizer.ggml.precompiled_charsmap", table.where)
        self._where = table.where
        pieces = _pieces(table, unknown)
        self._model = guarded(lambda: models.Unigram(pieces, unknown, False), table.where)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return guarded(lambda: [self._encode(text) for text in texts], self._where)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for token in self._model.tokenize(self._normalized(text)):
            if token.id == self._unknown and self._bytes is not None:
                ids += map(self._bytes.__getitem__, token.value.encode())
            else:
                ids.append(token.id)
        return ids

    def _normalized(self, text: str) -> str:
        text = text if self._charsmap is None else self._charsmap(text)
        if self._merge_spaces:
            return "".join(SPACE + word for word in text.split(" ") if word)
        lead = SPACE if self._prefix and text.strip(" ") else ""
        return lead + text.replace(" ", SPACE)

    @staticmethod
    def token_bytes(text: str) -> bytes:
        """The bytes a normal token stands for."""
        return text.replace(SPACE, " ").encode()


def _pieces(table: TokenTable, unknown: int) -> list[tuple[str, float]]:
    """(text, score) by id. What no text may become is named so that none does: normalized text has no plain space."""
    assert table.scores is not None
    normal = table.scores[table.types == TokenType.NORMAL]
    least = float(normal.min()) if normal.size else 0.0  # the score of the unknown is counted down from the least of all
    matched = np.isin(table.types, _MATCHED) & ((table.scores >= least) | (table.types == TokenType.USER_DEFINED))
    matched[unknown] = False
    scores = np.where(table.types == TokenType.USER_DEFINED, 0.0, table.scores.astype(np.float64))
    scores[~matched] = least
    return [
        (text if shown else f" {i}", score)
        for i, (text, shown, score) in enumerate(zip(table.tokens, matched.tolist(), scores.tolist(), strict=True))
    ]


def _byte_ids(table: TokenTable) -> list[int] | None:
    """The id of each byte; None where some have no token."""
    ids = {int(table.tokens[i][3:5], 16): i for i in table.of_type(TokenType.BYTE)}
    return [ids[byte] for byte in range(256)] if len(ids) == 256 else None
