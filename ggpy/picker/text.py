"""What sensitivity is measured on: pieces of a text, spread over all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ggpy.errors import GGPyError
from ggpy.tokenizer import Tokenizer

TEXT = Path(__file__).parent / "text.txt"
"""Read where no other is given: prose, dialogue, code, figures and other languages, in a few hundred tokens."""

PIECE = 128  # tokens that see each other
SKIPPED = 32  # of a piece, whose predictions do not count: too little is known there
PIECES, FEWER_PIECES = 4, 2
LARGE = 5 * 10**8  # weights, from which on fewer pieces are read: a probe of a tensor takes two operations per weight and token


@dataclass(frozen=True)
class Pieces:
    """ids: of every piece. skip: tokens at the beginning of each whose predictions are not compared."""

    ids: tuple[tuple[int, ...], ...]
    skip: int

    @property
    def scored(self) -> int:
        """Predictions that are compared."""
        return sum(len(piece) - self.skip for piece in self.ids)


def cut(text: str, tokenizer: Tokenizer, pieces: int = PIECES, length: int = PIECE) -> Pieces:
    """`pieces` times `length` tokens at equal distances; fewer where the text is short. GGPyError for one of less than 16 tokens."""
    ids = tokenizer.encode(text, add_special=False)
    if len(ids) < 16:
        raise GGPyError(f"the text to measure on has {len(ids)} tokens, expected 16 at least")
    length = min(length, len(ids))
    pieces = max(1, min(pieces, len(ids) // length))
    step = (len(ids) - length) // max(1, pieces - 1)
    starts = [step * i for i in range(pieces)]
    return Pieces(tuple(_with_bos(ids[start : start + length], tokenizer) for start in starts), min(SKIPPED, length // 4))


def _with_bos(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[int, ...]:
    """The piece as the model expects the beginning of a text."""
    return (tokenizer.bos, *ids[1:]) if tokenizer.add_bos and tokenizer.bos is not None else tuple(ids)
