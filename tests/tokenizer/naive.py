"""Slow twins: merges by searching the whole word for the best pair, special tokens by splitting the text once for each."""

from __future__ import annotations

from itertools import pairwise


def merge_by_rank(word: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """BPE: again and again the pair of lowest rank, the leftmost where there are several."""
    while True:
        best = min(((ranks[pair], at) for at, pair in enumerate(pairwise(word)) if pair in ranks), default=None)
        if best is None:
            return word
        at = best[1]
        word = [*word[:at], word[at] + word[at + 1], *word[at + 2 :]]


def merge_by_score(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece BPE: again and again the pair that makes the piece of highest score, the leftmost where there are several."""
    word = list(text)
    while True:
        best = min(((-scores[a + b], at) for at, (a, b) in enumerate(pairwise(word)) if a + b in scores), default=None)
        if best is None:
            return word
        at = best[1]
        word = [*word[:at], word[at] + word[at + 1], *word[at + 2 :]]


def split_special(text: str, specials: dict[str, int]) -> list[str | int]:
    """Ids of special tokens and the text between them: one pass over all fragments for each token, longest first."""
    parts: list[str | int] = [text]
    for special, i in sorted(specials.items(), key=lambda item: -len(item[0].encode())):
        split: list[str | int] = []
        for part in parts:
            if isinstance(part, int):
                split.append(part)
                continue
            for at, fragment in enumerate(part.split(special)):
                split += [i, fragment] if at else [fragment]
        parts = split
    return [part for part in parts if part != ""]
