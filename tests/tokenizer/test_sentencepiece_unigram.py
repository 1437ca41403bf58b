from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from ggpy.errors import GGPyError
from tests.converter.tokenizers_on_disk import sentencepiece_model
from tests.tokenizer.vocabularies import BYTES, PIECES, unigram, unigram_metadata

PIECE_SCORES = {piece: -float(rank) for rank, piece in enumerate(PIECES)}
FIRST_BYTE = 3


def best(text: str) -> float:
    """The largest sum of scores of pieces that spell `text`, ten below the least of them for a character without a piece."""
    sums = [0.0] + [-np.inf] * len(text)
    for stop in range(1, len(text) + 1):
        for start in range(stop):
            score = PIECE_SCORES.get(text[start:stop])
            if score is None and stop - start == 1:
                score = min(PIECE_SCORES.values()) - 10
            if score is not None:
                sums[stop] = max(sums[stop], sums[start] + score)
    return sums[-1]


@settings(max_examples=100)
@given(text=st.text("helowrdab é", max_size=20))
def test_no_other_pieces_have_a_larger_sum(text: str) -> None:
    tokenizer = unigram()
    ids = tokenizer.encode(text)
    unknown = min(PIECE_SCORES.values()) - 10
    total = sum(PIECE_SCORES.get(tokenizer.vocabulary[i], 0.0) for i in ids) + unknown * text.count("é")
    assert total == best(("▁" if text.strip() else "") + text.replace(" ", "▁"))
    assert tokenizer.decode(ids) == text or not text.strip()


def test_unknown_text_is_spelled_in_bytes_or_is_the_unknown_token() -> None:
    assert unigram().encode("é")[1:] == [FIRST_BYTE + byte for byte in "é".encode()]
    without = unigram(pieces=[*PIECES, "é"])
    assert without.vocabulary[without.encode("é")[-1]] == "é"
    types = unigram_metadata()["tokenizer.ggml.token_type"].copy()
    types[3 : 3 + len(BYTES)] = 1
    assert unigram({"token_type": types}).encode("éüa")[-2:] == [0, 3 + 256 + PIECES.index("a")]  # neighbours are one unknown token


def test_spaces_are_merged_only_where_the_file_says_so() -> None:
    assert unigram().decode(unigram().encode("h  w ")) == "h  w "
    merging = unigram({"remove_extra_whitespaces": True})
    assert merging.decode(merging.encode("  h  w ")) == "h w"
    assert merging.encode("   ") == []


def test_control_tokens_are_never_found_by_score() -> None:
    assert 1 not in unigram().encode("<s>")
    assert unigram().encode("<s>", parse_special=True) == [1]


def test_padding_of_low_score_does_not_make_the_unknown_dearer() -> None:
    values = unigram_metadata()
    values["tokenizer.ggml.tokens"] = [*values["tokenizer.ggml.tokens"], "[PAD]"]
    values["tokenizer.ggml.token_type"] = np.append(values["tokenizer.ggml.token_type"], np.int32(5))
    values["tokenizer.ggml.scores"] = np.append(values["tokenizer.ggml.scores"], np.float32(-10000))
    changes = {key.removeprefix("tokenizer.ggml."): value for key, value in values.items()}
    assert unigram(changes).encode("hellé [PAD]") == unigram().encode("hellé [PAD]")


def charsmap(rule: str = "nmt_nfkc") -> np.ndarray:
    from ggpy.converter.vocabulary_sentencepiece import read_sentencepiece

    model = sentencepiece_model(90, model_type="unigram", byte_fallback=False, normalization_rule_name=rule)
    return read_sentencepiece(model, "", []).further["tokenizer.ggml.precompiled_charsmap"]


TRICKY = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("aeéﬁ①ｱﾞが\u0301\u0323\u3099ᄀ\u1161\u11a8가Ⅷ\t\n\u200b　…")),
    max_size=12,
)


@settings(max_examples=200)
@given(text=TRICKY)
def test_text_is_normalized_as_sentencepiece_does(text: str) -> None:
    from ggpy.tokenizer.charsmap import CharsMap

    processor = SentencePieceProcessor()
    processor.LoadFromSerializedProto(
        sentencepiece_model(90, model_type="unigram", byte_fallback=False, normalization_rule_name="nmt_nfkc")
    )
    ours = CharsMap(charsmap().tobytes(), "")(text).replace(" ", "▁")
    assert ours.strip("▁") == processor.Normalize(text).strip("▁")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": None}, "tokenizer.ggml.scores is missing; tokenizer.ggml.model 't5' needs them to choose by"),
        ({"precompiled_charsmap": np.zeros(3, np.uint8)}, "tokenizer.ggml.precompiled_charsmap has 3 bytes"),
        ({"precompiled_charsmap": np.full(64, 255, np.uint8)}, "of which a trie of 4294967295 is no part"),
        ({"precompiled_charsmap": np.zeros(64, np.int32)}, "expected an array of uint8"),
    ],
)
def test_damaged_metadata_is_refused_with_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GGPyError) as refusal:
        unigram(changes)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@settings(max_examples=60, deadline=None)
@given(damage=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 255)), min_size=1, max_size=400), text=TRICKY)
def test_a_damaged_map_gives_some_text_or_an_error(damage: list[tuple[int, int]], text: str) -> None:
    values = charsmap().copy()
    for at, byte in damage:
        values[4 + at % (len(values) - 4)] = byte
    values[4:16] = [damage[0][1]] * 12
    try:
        tokenizer = unigram({"precompiled_charsmap": values})
        tokenizer.decode(tokenizer.encode(text + "abc"))
    except GGPyError as error:
        assert "precompiled_charsmap" in str(error)


def test_letters_with_marks_take_linear_time() -> None:
    tokenizer = unigram({"precompiled_charsmap": charsmap()})
    text = "e\u0301" * 100_000
    assert tokenizer.encode(text) == tokenizer.encode("é" * 100_000)
