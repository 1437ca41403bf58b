"""Words become the same tokens by a part of the vocabulary as by all of it."""

from __future__ import annotations

import functools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggpy.gguf import Metadata
from ggpy.tokenizer import TokenType, load_tokenizer
from ggpy.tokenizer.byte_level import ByteLevelBPE, build_cutter, build_engine
from ggpy.tokenizer.partial_bpe import MAX_TEXT, PartialBPE
from ggpy.tokenizer.pretokenizers import PRE_TOKENIZERS
from ggpy.tokenizer.token_table import TokenTable, read_token_table
from tests.tokenizer.vocabularies import byte_level_metadata, with_tokens

LETTERS = "abcde"


@functools.cache
def merges_of(seed: int, count: int) -> list[str]:
    """Merges of random tokens that earlier ones made, no result twice."""
    rng = random.Random(seed)
    tokens = [*LETTERS, "Ġ"]
    merges: dict[str, str] = {}
    while len(merges) < count:
        left, right = rng.choice(tokens), rng.choice(tokens)
        if left + right not in merges and len(left + right) < 9:
            tokens.append(left + right)
            merges[left + right] = f"{left} {right}"
    return list(merges.values())


def both(metadata: Metadata, pre: str, limit: int = 10**6) -> tuple[PartialBPE, object]:
    table, merges, cutter = read_token_table(metadata), metadata.packed_strings("tokenizer.ggml.merges"), build_cutter(PRE_TOKENIZERS[pre])
    ignore_merges = PRE_TOKENIZERS[pre].ignore_merges
    return PartialBPE(table, merges, cutter, ignore_merges, limit), build_engine(table, merges, cutter, ignore_merges)


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe"])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 5), texts=st.lists(st.text(alphabet=LETTERS + " éZ", max_size=30), max_size=5))
def test_same_ids_as_with_all_tokens(pre: str, seed: int, texts: list[str]) -> None:
    metadata = byte_level_metadata(merges=merges_of(seed, 300), pre=pre)
    control = {"abc": TokenType.CONTROL, "dea": TokenType.CONTROL}  # spelled like words; a merge may make them
    metadata = with_tokens(metadata, {text: kind for text, kind in control.items() if text not in metadata["tokenizer.ggml.tokens"]})
    partial, engine = both(Metadata.of(metadata), pre)
    for given_texts in (texts, texts[::-1], [text + " ab" for text in texts]):
        assert partial.encode(given_texts) == [engine.encode(text, add_special_tokens=False).ids for text in given_texts]  # type: ignore[attr-defined]


def test_missing_bytes_and_unknown_merges_change_nothing() -> None:
    metadata = byte_level_metadata({"merges": [*merges_of(1, 50), "a Z", "Zq a", "abq c"]})
    metadata["tokenizer.ggml.tokens"][metadata["tokenizer.ggml.tokens"].index("Z")] = "gone"
    partial, engine = both(Metadata.of(metadata), "gpt-2")
    for text in ("aZbc", "Z", "ZqaZ", "abqc"):
        assert partial.encode([text]) == [engine.encode(text, add_special_tokens=False).ids]  # type: ignore[attr-defined]


def test_what_is_too_much_is_left_to_the_whole_vocabulary() -> None:
    partial, _ = both(Metadata.of(byte_level_metadata(merges=merges_of(2, 100))), "gpt-2", limit=20)
    assert partial.encode(["abc"]) is not None  # 6 parts
    assert partial.encode(["abc abc"]) is not None  # " abc" has 10
    assert partial.encode(["abcd"]) is None  # 10 more
    assert partial.encode(["abc abc abc"]) is not None
    assert partial.encode(["a" * (MAX_TEXT + 1)]) is None


def test_tables_of_all_tokens_are_built_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[TokenTable] = []

    def build(table: TokenTable, *rest: object) -> object:
        built.append(table)
        return build_engine(table, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("ggpy.tokenizer.byte_level.build_engine", build)
    metadata = byte_level_metadata(merges=merges_of(3, 5000))
    tokenizer = load_tokenizer(metadata)
    short = tokenizer.encode("abc de")
    assert not built
    words = " ".join(merge.replace(" ", "") for merge in metadata["tokenizer.ggml.merges"])
    ids = tokenizer.encode(words)
    assert len(built) == 1
    assert tokenizer.decode(ids) == words
    assert tokenizer.encode("abc de") == short
    load_tokenizer(byte_level_metadata())
    assert len(built) == 2  # a small vocabulary's at once
    assert ByteLevelBPE.token_bytes("Ġa") == b" a"
