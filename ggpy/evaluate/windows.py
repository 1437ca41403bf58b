"""What of a text is evaluated together, and which of its tokens are scored: the conventions of llama-perplexity and of Hugging Face.

llama.cpp: the text is cut into chunks of `context` tokens, each evaluated on its own, its first token replaced by BOS where the model wants
one; the predictions of the second half are scored. What is left over at the end is not.

huggingface: a window of `context` tokens moves by `stride` tokens (documentation of transformers, "Perplexity of fixed-length models");
every token but the first is scored once, with what precedes it in the first window that holds it. A stride as long as the context gives
windows side by side, of each of which the first token is not scored. The mean is taken over tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ggpy.errors import GGPyError
from ggpy.tokenizer import Tokenizer

LLAMA, HUGGING_FACE = "llama.cpp", "huggingface"


@dataclass(frozen=True)
class Window:
    """Tokens evaluated together. ids: as the model sees them; first: index of the first prediction scored, that of the token behind it.

    targets: the tokens that came, one for each prediction from `first` on; position: of the first target in the text's tokens.
    """

    ids: tuple[int, ...]
    first: int
    targets: tuple[int, ...]
    position: int


def tokens_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text as both conventions take them, less one closing newline, with what the model wants around a text."""
    return tokenizer.encode(text.removesuffix("\n"), add_special=True)


def chunks(ids: Sequence[int], context: int, stride: int, bos: int | None) -> Iterator[Window]:
    """llama-perplexity's chunks; `stride` is not used. bos: what takes the place of a chunk's first token, or None."""
    for start in range(0, len(ids) - context + 1, context):
        part = tuple(ids[start : start + context])
        yield chunk_window(part, start, bos)


def chunk_window(part: tuple[int, ...], start: int, bos: int | None) -> Window:
    """One of llama-perplexity's chunks, whose tokens begin at `start` of the text."""
    first = len(part) // 2
    return Window((part[0] if bos is None else bos, *part[1:-1]), first, part[first + 1 :], start + first + 1)


def sliding(ids: Sequence[int], context: int, stride: int, bos: int | None) -> Iterator[Window]:
    """Hugging Face's windows; `bos` is not used, for the text's own tokens begin with it where the model wants one."""
    scored = 1  # the first token has nothing before it
    for start in range(0, len(ids), stride):
        end = min(start + context, len(ids))
        scored = max(scored, start + 1)
        if end > scored:
            yield Window(tuple(ids[start : end - 1]), scored - start - 1, tuple(ids[scored:end]), scored)
            scored = end
        if end == len(ids):
            return


CONVENTIONS: dict[str, Callable[[Sequence[int], int, int, int | None], Iterator[Window]]] = {LLAMA: chunks, HUGGING_FACE: sliding}


def cut(ids: Sequence[int], convention: str, context: int, stride: int | None, bos: int | None, most: int | None = None) -> list[Window]:
    """The windows of a text's tokens, at most `most`. GGPyError for settings that leave nothing to score, or a text that is too short."""
    if convention not in CONVENTIONS:
        raise GGPyError(f"convention {convention!r} is not known; there are {', '.join(CONVENTIONS)}")
    if stride is not None and convention == LLAMA:
        raise GGPyError(f"stride {stride}: the convention {LLAMA} has none, its chunks lie side by side; {HUGGING_FACE} has")
    if context < 3:
        raise GGPyError(f"context {context}: a chunk needs at least 3 tokens to score one in its second half")
    stride = stride or context // 2
    if not 1 <= stride <= context:
        raise GGPyError(f"stride {stride} is not from 1 to the context of {context}")
    if len(ids) < context:
        raise GGPyError(f"the text has {len(ids)} tokens, fewer than one chunk of {context}; use a longer text or a smaller context")
    return [window for window, _ in zip(CONVENTIONS[convention](ids, context, stride, bos), range(most or len(ids)), strict=False)]
