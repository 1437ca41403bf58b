from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggpy.tokenizer import Tokenizer, TokenType
from tests.tokenizer.vocabularies import byte_level, sentencepiece, unigram

BUILDERS = pytest.mark.parametrize("build", [sentencepiece, unigram, byte_level])
ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)


@BUILDERS
@settings(max_examples=100)
@given(text=ANY_TEXT, parse_special=st.booleans())
def test_any_text_comes_back(build: Callable[[], Tokenizer], text: str, parse_special: bool) -> None:
    tokenizer = build()
    expected = "".join(
        "\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )
    if build is unigram and not expected.strip(" "):
        expected = expected[1:]  # as in llama.cpp, no space is put before spaces alone, but one is taken away
    if build is not byte_level:
        expected = expected.replace("▁", " ")
    decoded = tokenizer.decode(tokenizer.encode(text, parse_special=parse_special))
    assert decoded == expected or "<keep>" in text


@BUILDERS
@settings(max_examples=100)
@given(data=st.data())
def test_any_ids_decode_and_stream_alike(build: Callable[[], Tokenizer], data: st.DataObject) -> None:
    tokenizer = build()
    ids = data.draw(st.lists(st.integers(0, tokenizer.n_vocab - 1), max_size=30))
    stream = tokenizer.stream(special=True)
    streamed = "".join(map(stream.feed, ids)) + stream.flush()
    whole = b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace")
    assert streamed == whole
    assert tokenizer.decode(ids) in (whole, whole.replace(" ", "", 1))


@BUILDERS
def test_ids_that_are_no_tokens_are_refused(build: Callable[[], Tokenizer]) -> None:
    tokenizer = build()
    for i in (-1, tokenizer.n_vocab, 2**70):
        for use in (tokenizer.token_bytes, tokenizer.token_type, tokenizer.stream().feed, lambda i: tokenizer.decode([i])):
            with pytest.raises(ValueError, match=f"token id {i} is out of range; there are {tokenizer.n_vocab} tokens"):
                use(i)
    assert tokenizer.decode([np.int32(5)]) == tokenizer.decode([5])


@BUILDERS
def test_surrogates(build: Callable[[], Tokenizer]) -> None:
    tokenizer = build()
    assert tokenizer.encode("a\ud83d\ude00") == tokenizer.encode("a😀")
    assert tokenizer.encode("\udc00b\ud800") == tokenizer.encode("\ufffdb\ufffd")


def test_bos_and_eos_are_added_where_the_model_wants_them() -> None:
    tokenizer = sentencepiece()
    hello = tokenizer.encode("hello")
    assert tokenizer.encode("hello", add_special=True) == [1, *hello]
    assert sentencepiece({"add_eos_token": True}).encode("hello", add_special=True) == [1, *hello, 2]
    assert sentencepiece({"add_bos_token": False}).encode("hello", add_special=True) == hello
    assert tokenizer.encode("", add_special=True) == [1]
    assert byte_level().add_bos is False
    assert byte_level(pre="llama-bpe").add_bos is True
    assert byte_level({"add_bos_token": False}, pre="llama-bpe").add_bos is False


@BUILDERS
def test_special_tokens_in_content_are_text(build: Callable[[], Tokenizer]) -> None:
    tokenizer = build()
    for i, text in enumerate(tokenizer.vocabulary):
        if tokenizer.token_type(i) is TokenType.CONTROL:
            assert i not in tokenizer.encode(f"a{text}b")
            assert i in tokenizer.encode(f"a{text}b", parse_special=True)


def test_decoding_takes_back_the_space_in_front() -> None:
    tokenizer = sentencepiece()
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"
    assert tokenizer.decode(tokenizer.encode(" hello")) == " hello"
    ids = tokenizer.encode("hello", add_special=True)
    assert tokenizer.decode(ids) == "<s>hello"
    assert tokenizer.decode(ids, special=False) == "hello"
    assert tokenizer.decode(tokenizer.encode("<keep>hello")) == "<keep> hello"
    assert sentencepiece({"add_space_prefix": False}).decode(ids, special=False) == " hello"
    assert byte_level().decode(byte_level().encode(" hello")) == " hello"


def test_token_bytes_by_type() -> None:
    tokenizer = sentencepiece({"token_type": None})
    assert tokenizer.token_bytes(3) == b"<0x00>"  # a normal token that is spelled like a byte
    tokenizer = sentencepiece()
    assert tokenizer.token_bytes(3 + 0xE9) == b"\xe9"
    assert tokenizer.token_bytes(tokenizer.vocabulary.index("▁hell")) == b" hell"
    assert tokenizer.token_bytes(1) == b"<s>"
    types = np.where(np.arange(tokenizer.n_vocab) == 260, TokenType.UNUSED, 1).astype(np.int32)
    assert sentencepiece({"token_type": types}).token_bytes(260) == b""


def test_streams_hold_half_characters_back() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("a🙂b")
    stream = tokenizer.stream()
    assert [stream.feed(i) for i in ids] == ["a", "", "", "🙂", "b"]
    assert stream.flush() == ""
    assert stream.feed(ids[1]) == ""
    assert stream.flush() == "\ufffd"
    assert stream.feed(ids[0]) == "a"


def test_streams_hide_control_tokens() -> None:
    tokenizer = sentencepiece()
    assert [tokenizer.stream().feed(i) for i in (1, 2)] == ["", ""]
    assert tokenizer.stream(special=True).feed(2) == "</s>"
    assert tokenizer.stream().feed(tokenizer.vocabulary.index("▁hell")) == " hell"


@BUILDERS
@pytest.mark.parametrize("text", ["a", " ", "\n", "🙂", "e\u0301", "<", "<s>"])
def test_a_megabyte_of_one_thing_takes_seconds(build: Callable[[], Tokenizer], text: str) -> None:
    tokenizer = build()
    start = time.process_time()
    ids = tokenizer.encode(text * (10**6 // len(text.encode())))
    assert time.process_time() - start < 5
    back = text * (10**6 // len(text.encode()))
    assert tokenizer.decode(ids) == (back[1:] if build is unigram and text == " " else back)


def test_chat_template() -> None:
    assert sentencepiece().chat_template is None
    assert sentencepiece({"tokenizer.chat_template": "{{ x }}"}).chat_template == "{{ x }}"
