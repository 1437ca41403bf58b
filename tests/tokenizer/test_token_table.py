from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ggpy.errors import GGPyError, GGUFError, TokenizerError
from ggpy.gguf import Metadata
from ggpy.tokenizer import TokenType, load_tokenizer
from ggpy.tokenizer.token_table import read_token_table
from tests.tokenizer.vocabularies import byte_level_metadata, sentencepiece_metadata

N = len(sentencepiece_metadata()["tokenizer.ggml.tokens"])


def with_token(i: int, text: str) -> list[str]:
    tokens = sentencepiece_metadata()["tokenizer.ggml.tokens"]
    return [*tokens[:i], text, *tokens[i + 1 :]]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "rwkv"}, TokenizerError, r"tokenizer\.ggml\.model 'rwkv' is not supported; supported are 'llama', 't5', 'gpt2'"),
        ({"model": None}, GGUFError, r"'tokenizer\.ggml\.model' is missing"),
        ({"model": 3}, GGUFError, r"'tokenizer\.ggml\.model' is 3 \(uint32\); expected a string"),
        ({"tokens": None}, GGUFError, r"'tokenizer\.ggml\.tokens' is missing; expected an array of strings"),
        ({"tokens": [1, 2]}, GGUFError, r"'tokenizer\.ggml\.tokens' is an array of 2 int32 elements; expected an array of strings"),
        ({"tokens": with_token(5, "hell")}, TokenizerError, r"tokens 5 and 275 are both 'hell'; expected no text twice"),
        ({"tokens": with_token(3, "<0x0G>")}, TokenizerError, r"tokens 3 is a byte token '<0x0G>'; expected '<0x00>' to '<0xFF>'"),
        ({"tokens": with_token(3, "<0x-1>")}, TokenizerError, "byte token '<0x-1>'"),
        ({"tokens": with_token(3, "<0xff>")}, TokenizerError, "byte token '<0xff>'"),
        ({"token_type": np.ones(N - 1, np.int32)}, TokenizerError, rf"token_type has {N - 1} elements; expected {N}, one for each token"),
        ({"token_type": np.ones(N + 1, np.int32)}, TokenizerError, rf"token_type has {N + 1} elements"),
        ({"token_type": np.ones(N, np.float32)}, GGUFError, "expected an array of integers"),
        ({"scores": np.ones(N - 1, np.float32)}, TokenizerError, rf"scores has {N - 1} elements; expected {N}"),
        ({"scores": np.full(N, np.nan, np.float32)}, TokenizerError, r"scores 0 is nan; expected a number"),
        ({"scores": ["a"] * N}, GGUFError, "expected an array of numbers"),
        ({"bos_token_id": "1"}, GGUFError, r"'tokenizer\.ggml\.bos_token_id' is '1' \(string\); expected an integer"),
        ({"add_bos_token": 1}, GGUFError, "expected a bool"),
        ({"tokenizer.chat_template": ["a"]}, GGUFError, "expected a string"),
    ],
)
def test_damaged_metadata_is_refused_with_one_line(changes: dict[str, Any], error: type[GGPyError], message: str) -> None:
    metadata = Metadata.of(sentencepiece_metadata(changes), path="bad.gguf")
    with pytest.raises(error, match=message) as caught:
        load_tokenizer(metadata)
    assert str(caught.value).startswith("bad.gguf: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"merges": None}, GGUFError, r"'tokenizer\.ggml\.merges' is missing"),
        ({"merges": [1]}, GGUFError, "expected an array of strings"),
        ({"pre": "tomorrow"}, TokenizerError, r"tokenizer\.ggml\.pre 'tomorrow' is not known; known are gpt-2, smollm, "),
        ({"pre": 1}, GGUFError, "expected a string"),
    ],
)
def test_damaged_byte_level_metadata_is_refused(changes: dict[str, Any], error: type[GGPyError], message: str) -> None:
    with pytest.raises(error, match=message):
        load_tokenizer(byte_level_metadata(changes))


def test_no_tokens_are_refused() -> None:
    metadata = sentencepiece_metadata()
    del metadata["tokenizer.ggml.tokens"]
    empty = Metadata.of(metadata | {"tokenizer.ggml.tokens": ["x"]})
    empty.entries["tokenizer.ggml.tokens"].value.clear()
    with pytest.raises(TokenizerError, match="tokens is empty"):
        load_tokenizer(empty)


@pytest.mark.parametrize("i", [N, 2**32 - 1, -1])
def test_special_ids_out_of_range_are_ignored_with_a_warning(i: int, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = load_tokenizer(sentencepiece_metadata({"padding_token_id": i, "eos_token_id": i}))
    assert f"tokenizer.ggml.padding_token_id is {i}; there are {N} tokens, so it is ignored" in caplog.text
    assert tokenizer.special_id("pad") is None
    assert tokenizer.eos == 2  # what a SentencePiece file means when it says nothing


def test_a_missing_pre_tokenizer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    load_tokenizer(byte_level_metadata({"pre": None}))
    assert "tokenizer.ggml.pre is missing; 'default' is taken" in caplog.text


def test_wanted_but_missing_bos_is_told(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = load_tokenizer(byte_level_metadata({"bos_token_id": None, "add_bos_token": True}))
    assert "should get a BOS token, but tokenizer.ggml.bos_token_id gives none" in caplog.text
    assert tokenizer.encode("hello", add_special=True) == tokenizer.encode("hello")


def test_empty_tokens_get_names_and_unknown_types_mean_undefined() -> None:
    types = sentencepiece_metadata()["tokenizer.ggml.token_type"]
    types[[5, 6]] = 17, -3
    table = read_token_table(Metadata.of(sentencepiece_metadata({"tokens": with_token(300 - 20, ""), "token_type": types})))
    assert table.tokens[280] == "[EMPTY_280]"
    assert table.types[[5, 6]].tolist() == [TokenType.UNDEFINED, TokenType.UNDEFINED]


def test_missing_types_mean_normal_tokens() -> None:
    assert (read_token_table(Metadata.of(sentencepiece_metadata({"token_type": None}))).types == TokenType.NORMAL).all()
