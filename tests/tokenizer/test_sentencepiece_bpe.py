from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggpy.errors import TokenizerError
from ggpy.gguf.strings import Strings
from ggpy.tokenizer import Tokenizer, TokenType, load_tokenizer
from ggpy.tokenizer.sentencepiece_bpe import _pieces
from tests.tokenizer.naive import merge_by_score
from tests.tokenizer.vocabularies import BYTES, PIECES, sentencepiece, sentencepiece_metadata, with_tokens

_SCORES = {piece: -float(rank) for rank, piece in enumerate(PIECES)}


def spelled(tokenizer: Tokenizer, text: str, **options: bool) -> list[str]:
    return [tokenizer.vocabulary[i] for i in tokenizer.encode(text, **options)]


def naive(text: str) -> list[str]:
    pieces = merge_by_score(("▁" + text.replace(" ", "▁")) if text else "", _SCORES)
    return [token for piece in pieces for token in ([piece] if piece in _SCORES else [BYTES[byte] for byte in piece.encode()])]


@settings(max_examples=100)
@given(st.text(alphabet="helo wrdab\n🙂é▁", max_size=40).filter(lambda text: "<keep>" not in text))
def test_ids_are_those_of_naive_merging(text: str) -> None:
    assert spelled(sentencepiece(), text) == naive(text)


def test_a_space_goes_in_front_of_text_and_after_special_tokens() -> None:
    tokenizer = sentencepiece()
    assert spelled(tokenizer, "hello") == ["▁hello"]
    assert spelled(tokenizer, "<s>hello</s>hello", parse_special=True) == ["<s>", "▁hello", "</s>", "▁hello"]
    assert spelled(tokenizer, "hello<keep>hello") == ["▁hello", "<keep>", "▁hello"]
    assert spelled(tokenizer, "") == []
    assert spelled(sentencepiece({"add_space_prefix": False}), "hello") == ["hell", "o"]


def test_control_tokens_are_never_merged_together() -> None:
    # "<s" and ">" are pieces here, so merging alone would make "<s>" of them.
    tokenizer = sentencepiece(pieces=[*PIECES, "<", "s", ">", "<s"])
    assert spelled(tokenizer, "<s>") == ["▁", "<s", ">"]


def test_user_defined_tokens_with_the_space_mark_are_found_after_escaping() -> None:
    tokenizer = load_tokenizer(with_tokens(sentencepiece_metadata(), {"▁▁▁": TokenType.USER_DEFINED}))
    assert spelled(tokenizer, "a   b") == ["▁", "a", "▁▁▁", "b"]


def test_without_all_bytes_unknown_text_is_the_unknown_token(caplog: pytest.LogCaptureFixture) -> None:
    metadata = sentencepiece_metadata()
    metadata["tokenizer.ggml.tokens"][3] = "no byte"
    metadata["tokenizer.ggml.token_type"][3] = 1
    tokenizer = load_tokenizer(metadata)
    assert "255 of the 256 byte tokens" in caplog.text
    assert spelled(tokenizer, "h🙂") == ["▁h", "<unk>"]


def test_a_vocabulary_without_an_unknown_token_leaves_unknown_text_out() -> None:
    changes = {"tokens": ["<s>", "</s>", "▁", "a", "<unknown>"], "scores": [0.0] * 5, "token_type": [3, 3, 1, 1, 1]}
    tokenizer = sentencepiece(changes | {"bos_token_id": 0, "eos_token_id": 1, "unknown_token_id": None})
    assert tokenizer.special_id("unk") is None
    assert spelled(tokenizer, "a🙂a") == ["▁", "a", "a"]


def test_several_unknown_tokens_are_accepted() -> None:
    metadata = with_tokens(sentencepiece_metadata(), {"[PAD1]": TokenType.UNKNOWN, "[PAD2]": TokenType.UNKNOWN})
    assert spelled(load_tokenizer(metadata), "hello") == ["▁hello"]


def test_scores_are_needed() -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.ggml\.scores is missing"):
        sentencepiece({"scores": None})


def test_long_pieces_have_long_lengths() -> None:
    pieces = ["a", "b", *["ab" * n for n in (1, 2, 4, 8, 16, 32, 64, 96)]]
    tokenizer = sentencepiece({"add_space_prefix": False}, pieces=pieces)
    assert spelled(tokenizer, "ab" * 96) == ["ab" * 96]


def test_pieces_are_written_as_protocol_buffers_have_them() -> None:
    def varint(value: int) -> bytes:
        return bytes((value,)) if value < 0x80 else bytes((value & 0x7F | 0x80,)) + varint(value >> 7)

    texts = [
        "",
        "a",
        "▁漢字",
        *("x" * n for n in (118, 119, 120, 121, 127, 128, 16_374, 16_375, 16_383, 16_384, 2**21)),
        *map(str, range(9000)),
    ]
    scores = -np.arange(len(texts), dtype="<f4") / 3
    kinds = np.arange(len(texts)).astype(np.int8) % 7
    expected = b""
    for text, score, kind in zip(texts, scores, kinds, strict=True):
        body = b"\x0a" + varint(len(text.encode())) + text.encode() + b"\x15" + score.tobytes() + b"\x18" + bytes((kind,))
        expected += b"\x0a" + varint(len(body)) + body
    assert _pieces(Strings.of(texts), scores, kinds) == expected
