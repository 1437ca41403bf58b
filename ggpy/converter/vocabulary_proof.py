"""A check that the written tokenizer reads text as the checkpoint's own does."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ggpy.converter.vocabulary_files import TokenizerFiles, guarded, load_engine, read_tokenizer_files
from ggpy.converter.vocabulary_json import uses_metaspace
from ggpy.converter.vocabulary_pre import TELLING_TEXTS
from ggpy.errors import CheckpointError, printable
from ggpy.tokenizer import Tokenizer, TokenType, load_tokenizer
from ggpy.tokenizer.program import PROGRAM_KEYS

N_MIXED = 300
N_SPECIAL = 24
MAX_SECONDS = 20.0
_SHOWN = 5
_MARKS = (" ", "▁")

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Difference:
    """A text that the two tokenizers read differently: the ids of the checkpoint's own and of the written one."""

    text: str
    source: list[int]
    written: list[int]

    def __str__(self) -> str:
        return f"'{printable(self.text, 60)}' is {_shortened(self.source)} by the checkpoint, {_shortened(self.written)} by the GGUF file"


@dataclass(frozen=True)
class TokenizerProof:
    """How a written tokenizer compares. source: the file it was compared with. n_texts, n_different: texts compared and read differently.

    differences: the first of those. skipped: texts of which the checkpoint's own reading is not the model's. n_elsewhere, elsewhere: texts
    that readers which do not know ggpy's own keys read otherwise than ggpy does, and the shortest of those.
    """

    source: str
    n_texts: int
    n_different: int
    differences: tuple[Difference, ...]
    skipped: int
    n_elsewhere: int = 0
    elsewhere: tuple[Difference, ...] = ()

    def __str__(self) -> str:
        """One line for a summary."""
        skipped = f" ({self.skipped} left out that differ by the space put in front)" if self.skipped else ""
        if not self.n_different:
            return f"tokenizer: {self.n_texts} texts give the same ids as {self.source}{skipped}"
        return (
            f"tokenizer: {self.n_different} of {self.n_texts} texts give other ids than {self.source}{skipped}, first {self.differences[0]}"
        )

    def told_elsewhere(self) -> Iterator[str]:
        """A line for each of some texts that llama.cpp will read otherwise."""
        lead = f"llama.cpp reads {self.n_elsewhere} of {self.n_texts} texts otherwise: "
        for other in self.elsewhere:
            ids = f"{_shortened(other.source)} by this file in ggpy, {_shortened(other.written)} in llama.cpp"
            yield f"tokenizer: {lead}'{printable(other.text, 60)}' is {ids}"
            lead = "also "


def prove_tokenizer(metadata: Mapping[str, Any], folder: Path) -> TokenizerProof:
    """Compare the tokenizer in GGUF `metadata` with the one in the checkpoint `folder` on some hundred texts.

    The checkpoint's own is run by `sentencepiece` for tokenizer.model, by `tokenizers` for tokenizer.json.
    Raises CheckpointError and TokenizerError where one of the two cannot be loaded.
    """
    files = read_tokenizer_files(folder)
    tokenizer = load_tokenizer(metadata)
    name, source, written, skips = _readers(files, tokenizer, metadata)
    named = [key for key in PROGRAM_KEYS if key in metadata]
    elsewhere = load_tokenizer({key: value for key, value in metadata.items() if key not in named}) if named else tokenizer
    n_texts, n_different, skipped, differences, n_elsewhere, others = 0, 0, 0, [], 0, []
    start = time.monotonic()
    for text in (*proof_texts(), *special_texts(_specials(tokenizer))):
        if time.monotonic() - start > MAX_SECONDS:
            break
        if skips(text):
            skipped += 1
            continue
        n_texts += 1
        theirs, ours = source(text), written(text)
        if theirs != ours:
            n_different += 1
            differences.append(Difference(text, theirs, ours))
        if named and (without := elsewhere.encode(text, parse_special=True)) != ours:
            n_elsewhere += 1
            others.append(Difference(text, ours, without))
    return TokenizerProof(
        name,
        n_texts,
        n_different,
        tuple(differences[:_SHOWN]),
        skipped,
        n_elsewhere,
        tuple(sorted(others, key=lambda other: len(other.text))[:_SHOWN]),
    )


def proof_texts() -> list[str]:
    """The texts to compare: those that tell pre-tokenizers apart, and mixtures of their parts; always the same ones."""
    rng = random.Random(0)
    words = [word for text in TELLING_TEXTS for word in text.split()]
    gaps = [" ", " ", " ", " ", "  ", "\n", "\n\n", "\t", "", ", ", " - ", "   "]
    mixed = ["".join(rng.choice(words) + rng.choice(gaps) for _ in range(rng.randint(1, 12))) for _ in range(N_MIXED)]
    return ["", " ", "a", " a", "\n", *TELLING_TEXTS, *mixed]


def special_texts(specials: Sequence[str]) -> list[str]:
    """Texts that spell special and added tokens: alone, between words, between spaces, one after the other."""
    texts = [text for special in specials for text in (special, f"Hello{special}world", f"x {special} {special}\ny")]
    return [*texts, *("".join(pair) for pair in pairwise(specials)), "".join(specials)] if specials else []


def _specials(tokenizer: Tokenizer) -> list[str]:
    """The texts of at most N_SPECIAL control and added tokens: the first, and some of the others."""
    ids = tokenizer.of_type(TokenType.CONTROL, TokenType.USER_DEFINED)
    texts = [text for text in (tokenizer.vocabulary[i] for i in ids) if text.strip()]
    first, others = texts[: N_SPECIAL // 2], texts[N_SPECIAL // 2 :]
    return first + random.Random(0).sample(others, min(len(others), N_SPECIAL - len(first)))


def _readers(files: TokenizerFiles, tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> tuple[str, Encode, Encode, Callable[[str], bool]]:
    """The source's name, both encoders, and which texts to leave out."""
    is_unigram = metadata["tokenizer.ggml.model"] == "t5"  # before spaces alone, sentencepiece puts one more, llama.cpp none
    is_sentencepiece = metadata["tokenizer.ggml.model"] in ("llama", "t5")
    if files.model is not None and is_sentencepiece:
        source = _sentencepiece(files.model, str(files.folder / "tokenizer.model"))
        if source is not None:
            # What sentencepiece does not know, or puts no space behind.
            own = tuple(tokenizer.vocabulary[i] for i in tokenizer.of_type(TokenType.USER_DEFINED) if tokenizer.vocabulary[i].strip())

            def skips(text: str) -> bool:
                return (is_unigram and bool(text) and not text.strip()) or any(special in text for special in own)

            return "tokenizer.model", source, tokenizer.encode, skips
    if files.json is None:
        raise CheckpointError(f"{files.folder}: no tokenizer.model and no tokenizer.json to compare with")
    engine, where = load_engine(files.json_text, files.json.where), files.json.where
    # Metaspace puts no mark before a text that starts with one, and none after a special token.
    unmarked = tuple(token.text for token in files.added_tokens().values()) if is_sentencepiece and uses_metaspace(files.json) else None
    return (
        "tokenizer.json",
        lambda text: guarded(lambda: engine.encode(text, add_special_tokens=False).ids, where),
        lambda text: tokenizer.encode(text, parse_special=True),
        lambda text: unmarked is not None and (text.startswith(_MARKS) or any(special in text for special in unmarked)),
    )


def _sentencepiece(data: bytes, where: str) -> Encode | None:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(data)
    except RuntimeError:
        return None
    return processor.EncodeAsIds


def _shortened(ids: list[int]) -> str:
    return str(ids) if len(ids) <= 12 else f"[{', '.join(map(str, ids[:12]))}, … {len(ids)} ids]"
