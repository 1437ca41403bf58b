from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from ggpy.errors import TokenizerError
from ggpy.tokenizer import TokenType, load_tokenizer
from ggpy.tokenizer.byte_level import BYTE_OF, MAX_PART, ByteLevelBPE, parts_of
from tests.tokenizer.naive import merge_by_rank
from tests.tokenizer.vocabularies import MERGES, byte_level, byte_level_metadata, with_tokens

_RANKS = {tuple(merge.split(" ")): rank for rank, merge in enumerate(MERGES)}


def test_alphabet_is_the_one_tokenizers_has() -> None:
    assert set(BYTE_OF) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTE_OF.values()) == list(range(256))
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("\x00\t\n ~\x7f", "\x80\xa0\xad\xff", "é漢🙂"):
        ((spelled, _),) = cut.pre_tokenize_str(text)
        assert ByteLevelBPE.token_bytes(spelled) == text.encode()


def test_text_outside_the_alphabet_stands_for_itself() -> None:
    assert ByteLevelBPE.token_bytes("漢 字") == "漢 字".encode()


@settings(max_examples=100)
@given(st.text(alphabet="helo wrd123a'\n🙂", max_size=40))
def test_ids_are_those_of_naive_merging(text: str) -> None:
    tokenizer = byte_level()
    words = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    naive = [piece for word, _ in words for piece in merge_by_rank(list(word), _RANKS)]
    assert [tokenizer.vocabulary[i] for i in tokenizer.encode(text)] == naive


def test_words_that_are_tokens_stay_whole_only_where_merges_are_ignored() -> None:
    ignoring, merging = (byte_level(merges=["a b", "b c", "a bc"], pre=pre) for pre in ("llama-bpe", "dbrx"))
    assert [ignoring.vocabulary[i] for i in ignoring.encode("abc")] == ["abc"]
    assert [merging.vocabulary[i] for i in merging.encode("abc")] == ["ab", "c"]


def test_a_word_spelled_like_a_control_token_is_no_control_token() -> None:
    metadata = with_tokens(byte_level_metadata(pre="llama-bpe"), {"assistant": TokenType.CONTROL})
    tokenizer = load_tokenizer(metadata)
    control = tokenizer.vocabulary.index("assistant")
    assert control not in tokenizer.encode("assistant")
    assert tokenizer.encode("assistant", parse_special=True) == [control]


@pytest.mark.parametrize("merge", ["hello", "", "é"])
def test_a_merge_that_is_not_two_tokens_is_refused(merge: str) -> None:
    metadata = byte_level_metadata({"merges": [*MERGES[:3], merge]})
    with pytest.raises(TokenizerError, match=rf"tokenizer\.ggml\.merges 3 is '{merge}'; expected two tokens"):
        load_tokenizer(metadata)


def test_merges_of_unknown_tokens_are_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_level({"merges": [*MERGES, "q x", "zz h"]})
    assert "2 of 17 merges" in caplog.text
    assert "'q x'" in caplog.text
    assert tokenizer.encode("hello") == byte_level().encode("hello")


def test_missing_bytes_are_told(caplog: pytest.LogCaptureFixture) -> None:
    metadata = byte_level_metadata()
    metadata["tokenizer.ggml.tokens"][0] = "gone"
    with caplog.at_level(logging.INFO):
        tokenizer = load_tokenizer(metadata)
    assert "1 of the 256 bytes have no token" in caplog.text
    assert tokenizer.encode("!a") == tokenizer.encode("a")


def test_long_texts_are_cut_where_a_word_ends() -> None:
    words = "some words, " * (MAX_PART // 12 + 2)
    parts = list(parts_of(words))
    assert "".join(parts) == words
    assert all(part.startswith(" ") and not part.endswith(" ") for part in parts[1:-1])
    assert max(map(len, parts)) <= MAX_PART
    tokenizer = byte_level()
    assert tokenizer.encode(words) == tokenizer.encode("some words,") + tokenizer.encode(" some words,") * (
        len(words) // 12 - 1
    ) + tokenizer.encode(" ")


def test_long_texts_without_spaces_are_cut_anyway() -> None:
    assert [len(part) for part in parts_of("a" * (2 * MAX_PART + 5))] == [MAX_PART, MAX_PART, 5]
    assert list(parts_of("")) == [""]
