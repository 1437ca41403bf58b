"""Tokenizer files that are damaged or hostile: one line of CheckpointError each."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from ggpy.converter.vocabulary import read_vocabulary
from ggpy.converter.vocabulary_files import MAX_TOKENIZER_BYTES
from ggpy.converter.vocabulary_sentencepiece import read_sentencepiece
from ggpy.errors import CheckpointError
from tests.converter.tokenizers_on_disk import byte_level_json, sentencepiece_model, write_tokenizer


def changed(path: str, value: Any) -> dict[str, Any]:
    """A tokenizer.json with the value at `path` replaced, or left out for None."""
    content = byte_level_json()
    *parents, last = path.split("/")
    at = content
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return content


def refused(folder: Path, message: str, config: dict[str, Any] | None = None) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_vocabulary(folder, config or {})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model", None, "tokenizers refuses it"),
        ("model/type", "Unigram", "tokenizers refuses it|the model is Unigram"),
        ("model/type", "WordLevel", "tokenizers refuses it|the model is WordLevel"),
        ("model/vocab", {}, "tokenizers refuses it|at least one token"),
        ("model/vocab/zz", 1, "token 1 is|tokenizers"),
        ("model/vocab/zz", -1, "tokenizers refuses it"),
        ("model/vocab/zz", 2**31 - 1, r"the largest id is 2147483647, with \d+ tokens"),
        ("model/vocab/zz", "1", "tokenizers refuses it"),
        ("model/merges", ["ab"], "tokenizers refuses it"),
        ("model/merges", "ab", "tokenizers refuses it"),
        ("model/end_of_word_suffix", "</w>", "end_of_word_suffix is '</w>', expected none"),
        ("added_tokens/0/id", "x", "tokenizers refuses it"),
        ("added_tokens", {"a": 1}, "tokenizers refuses it"),
        ("pre_tokenizer/type", "Future", "tokenizers refuses it"),
        ("pre_tokenizer", {"type": "Whitespace"}, "decoder|neither byte-level|is none of those"),
    ],
)
def test_damaged_tokenizer_json(tmp_path: Path, path: str, value: Any, message: str) -> None:
    content = changed(path, value)
    if path == "pre_tokenizer":
        content["decoder"] = None
        message = "neither byte-level nor falls back to bytes"
    refused(write_tokenizer(tmp_path, tokenizer_json=content), message)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_json": "{"}, r"tokenizer\.json: not legal JSON"),
        ({"tokenizer_json": "[" * 100_000}, r"tokenizer\.json: nested too deeply"),
        ({"tokenizer_json": b"\xff{}"}, "not UTF-8 at byte 0"),
        ({"tokenizer_json": "[]"}, "holds list, expected a JSON object"),
        ({"tokenizer_json": "{}"}, "tokenizers refuses it"),
        ({"tokenizer_model": b""}, "no sentencepiece model: it has no pieces"),
        ({"tokenizer_model": b"\x0a\xff\xff\xff\xff\x0f"}, "no sentencepiece model: a field of 4294967295 bytes at byte 6, with 0 left"),
        ({"tokenizer_model": b"\x80" * 12}, "no sentencepiece model: a number of more than 64 bits"),
        ({"tokenizer_model": b"\x0b"}, "no sentencepiece model: wire type 3"),
        ({"tokenizer_model": b"\x08\x01"}, "no sentencepiece model: a number where a message should be"),
        ({"tokenizer_model": b"\x0a\x03\x0a\x01\xff"}, "no sentencepiece model: 'utf-8'"),
        ({"tokenizer_model": b"\x0a\x08\x0a\x01a\x15" + struct.pack("<f", float("nan"))}, "the score of piece 0 is nan"),
        ({"tokenizer_model": b"\x0a\x05\x0a\x01a\x18\x09"}, "piece 0 is not a text, a score and a type from 1 to 6"),
        ({"tokenizer_model": b"\x0a\x03\x0a\x01a"}, "no piece stands for the unknown"),
        ({"tokenizer_model": b"\x0a\x03\x0a\x01a\x12\x02\x18\x03"}, "a sentencepiece model of type word; supported are BPE and unigram"),
        ({}, "no tokenizer.model and no tokenizer.json"),
        ({"tekken_json": "{}"}, r"no tokenizer\.json; tekken\.json \(Mistral's own format\) cannot be read"),
        ({"vocab_json": "{}"}, r"vocab\.json \(a slow tokenizer\) cannot be read"),
    ],
)
def test_files_that_are_no_tokenizers(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    refused(write_tokenizer(tmp_path, **files), message)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config_json": {"added_tokens_decoder": {"x": {"content": "a"}}}}, "key 'x' is no token id"),
        ({"tokenizer_config_json": {"added_tokens_decoder": {"5": {}}}}, "content is missing, expected a string"),
        ({"tokenizer_config_json": {"added_tokens_decoder": {"5": "a"}}}, "expected an object"),
        ({"tokenizer_config_json": {"added_tokens_decoder": []}}, "added_tokens_decoder is \\[\\], expected an object"),
        ({"tokenizer_config_json": {"add_bos_token": "yes"}}, "add_bos_token is 'yes', expected true or false"),
        ({"tokenizer_config_json": {"chat_template": 5}}, "chat_template is 5, expected a string, or a list"),
        ({"tokenizer_config_json": {"chat_template": [{"name": "x"}]}}, "template is missing, expected a string"),
        ({"tokenizer_config_json": {"chat_template": "x" * (2**20 + 1)}}, "chat_template has 1048577 characters"),
        ({"chat_template_jinja": b"\xff"}, "not UTF-8 at byte 0"),
        ({"added_tokens_json": {"a": "b"}}, "a is 'b', expected a whole number from 0"),
        ({"added_tokens_json": {"Ġthe": 5}}, "tokens 5 and [0-9]+ are both 'Ġthe'"),
        ({"generation_config_json": "null"}, "holds NoneType, expected a JSON object"),
    ],
)
def test_damaged_files_beside_the_tokenizer(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    refused(write_tokenizer(tmp_path, tokenizer_json=byte_level_json(), **files), message)


@pytest.mark.parametrize("size", [0, -5, "many", 2**31])
def test_impossible_vocabulary_sizes(tmp_path: Path, size: object) -> None:
    refused(
        write_tokenizer(tmp_path, tokenizer_json=byte_level_json()),
        "vocab_size is .*, expected a whole number from 1",
        {"vocab_size": size},
    )


def test_oversized_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(MAX_TOKENIZER_BYTES + 1)
    refused(tmp_path, r"67108865 bytes, more than the 67108864 that are allowed")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer.json")
    refused(tmp_path, r"tokenizer\.json: not a regular file")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "tokenizer.model").mkdir()
    refused(tmp_path / "dir", r"tokenizer\.model: (not a regular file|Is a directory)")


def test_a_pattern_that_backtracks_for_ever_is_refused(tmp_path: Path) -> None:
    cuts = [pre_tokenizers.Split(Regex(r"(\w|\w|\w)*[^\w\W]"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    refused(
        write_tokenizer(tmp_path, tokenizer_json=byte_level_json(pre_tokenizers.Sequence(cuts))), "tokenizers fails on it|takes more than"
    )


@settings(max_examples=100)
@given(st.data())
def test_any_bytes_are_a_model_or_refused(data: st.DataObject) -> None:
    model = bytearray(sentencepiece_model())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(model) - 1))
        model[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        pieces = read_sentencepiece(bytes(model), "<model>", [])
    except CheckpointError:
        return
    assert pieces.scores is not None
    assert len(pieces.texts) == len(pieces.types) == len(pieces.scores)


@settings(max_examples=100)
@given(st.binary(max_size=40))
def test_short_bytes_are_a_model_or_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"^<model>: "):
        read_sentencepiece(data, "<model>", [])
