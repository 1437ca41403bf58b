"""What is read through both models: a short text as it stands, and its beginning once more, spread over the whole context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ggpy.errors import GGPyError
from ggpy.tokenizer import load_tokenizer

TEXT_ID = "ggpy-1"
"""Names the text and the rules of this module. Figures compare only under the same name: who changes one changes the other."""

N_TOKENS, N_SPREAD, N_HEAD = 128, 32, 8

# Prose that leans on what came before, names that come back, arithmetic, code, a list, another language: what is hard in different places.
TEXT = """Marie Curie was born in Warsaw in 1867. In 1903 she shared the Nobel Prize in Physics with her husband Pierre and with Henri \
Becquerel; in 1911 she won a second one, in Chemistry. "Nothing in life is to be feared," Marie wrote, "it is only to be understood."

def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)

Question: A train leaves at 14:35 and needs 95 minutes. When does it arrive?
Answer: 95 minutes are 1 hour and 35 minutes, so it arrives at 16:10.

1. Bring the water to a boil.
2. Add salt and the pasta.
3. Drain after ten minutes.

Der Hund schläft unter dem Tisch, und die Katze sitzt auf dem Stuhl. Once upon a time, there was a little girl named Lily. She liked to \
play outside in the park with her dog. One day, Lily saw a big red ball. She wanted to play with the ball, but her dog was faster."""


@dataclass(frozen=True)
class Probe:
    """Tokens in segments that do not see each other. ids, positions: int64 (n,). segments: where each of them lies in these.

    The first segment is the text, token after token. The second is its beginning, with positions from 0 to the last of the context: there
    rotary frequencies differ that agree over a short text.
    """

    ids: np.ndarray
    positions: np.ndarray
    segments: tuple[slice, ...]

    @property
    def text(self) -> slice:
        return self.segments[0]

    @property
    def spread(self) -> slice:
        return self.segments[1]

    @property
    def scored(self) -> np.ndarray:
        """The tokens whose predictions are compared: the second half of the text, where there is context to go by."""
        return np.arange(self.text.stop // 2, self.text.stop)

    @property
    def kept(self) -> np.ndarray:
        """The tokens whose logits are computed: the scored ones and a few spread ones, for the head's own error."""
        return np.concatenate([self.scored, np.arange(self.spread.start, self.spread.stop)[:N_HEAD]])


def probe_for(metadata: Mapping[str, Any], n_vocab: int, context_length: int) -> Probe:
    """The probe of a model: the text in the tokens of the tokenizer in GGUF `metadata`, or ids that depend on nothing where it has none."""
    try:
        ids = load_tokenizer(metadata).encode(TEXT, add_special=True)
    except GGPyError:
        ids = []
    if not ids or max(ids) >= n_vocab:
        ids = (np.arange(N_TOKENS) * 7919 % n_vocab).tolist()
    text = np.array(ids[: min(N_TOKENS, context_length)], np.int64)
    beginning = text[:N_SPREAD]
    spread = np.unique(np.linspace(0, context_length - 1, len(beginning)).astype(np.int64))
    beginning = beginning[: len(spread)]
    return Probe(
        np.concatenate([text, beginning]),
        np.concatenate([np.arange(len(text)), spread]),
        (slice(0, len(text)), slice(len(text), len(text) + len(beginning))),
    )
