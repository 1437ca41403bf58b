from __future__ import annotations

import time
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from ggpy.tokenizer.pretokenizers import PRE_TOKENIZERS

DISTINCT = {pre.patterns: name for name, pre in PRE_TOKENIZERS.items()}


@cache
def cutter(name: str) -> pre_tokenizers.Sequence:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS[name].patterns])


def words(name: str, text: str) -> list[str]:
    return [word for word, _ in cutter(name).pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gpt-2", "I've 1234  two\n\n x", ["I", "'ve", " 1234", " ", " two", "\n\n", " x"]),
        ("gpt-2", "I'VE", ["I", "'", "VE"]),
        ("smollm", "a 12b", ["a", " ", "1", "2", "b"]),
        ("llama-bpe", "I'VE 12345\n\n x?!\n", ["I", "'VE", " ", "123", "45", "\n\n", " x", "?!\n"]),
        ("qwen2", "12\t\tx", ["1", "2", "\t", "\tx"]),
        ("default", "a+b 12345", ["a", "+", "b", " ", "123", "45"]),
        ("falcon", "a`b 12345", ["a", "`", "b", " ", "123", "45"]),
        ("deepseek-llm", "ab 中文\n  ", ["ab", " ", "中文", "\n", "  "]),
        ("deepseek-v3", "x=12345 (abc", ["x", "=", "123", "45", " (", "abc"]),
        ("tekken", "helloWorld ÉCOLEété 12", ["hello", "World", " ÉCOLEété", " ", "1", "2"]),
        ("gpt-4o", "Don't 1234 a//\n", ["Don't", " ", "123", "4", " a", "//\n"]),
        ("tiny_aya", "1234567 x", ["1", "234", "567", " x"]),
        ("superbpe", "a b 1234567", ["a b ", "1", "234", "567"]),
        ("bailingmoe", "a?!\n b", ["a", "?!\n", " b"]),
        ("kimi-k2", "漢字abc don't", ["漢字", "abc", " don't"]),
        ("viking", "ab 12.", ["ab", " ", "1", "2", "."]),
    ],
)
def test_words(name: str, text: str, expected: list[str]) -> None:
    assert words(name, text) == expected


@settings(max_examples=100)
@given(st.text(st.sampled_from("aé'sdmtlverLLRE 1٣½²\t\n\r\u00a0\u3000.,-漢🙂\u0301ſ"), max_size=40))
def test_gpt_2_and_digits_are_those_of_tokenizers(text: str) -> None:
    def offsets(cut: pre_tokenizers.PreTokenizer) -> list[tuple[int, int]]:
        return [span for _, span in cut.pre_tokenize_str(text)]

    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    for name, cut in (("gpt-2", gpt2), ("smollm", digits)):
        assert offsets(cutter(name)) == offsets(cut)


@settings(max_examples=20)
@given(st.text(max_size=40))
def test_words_are_the_text(text: str) -> None:
    for name in DISTINCT.values():
        assert "".join(words(name, text)) == text


@pytest.mark.parametrize("name", DISTINCT.values())
def test_no_pattern_is_quadratic(name: str) -> None:
    n = 30_000
    for text in (
        "a" * n,
        "A" * n,
        " " * n + "1",
        " " * n + "中",
        "\n" * n,
        " \n" * (n // 2),
        "<" * n,
        "1" * n,
        "1" * n + "a",
        "'" * n,
        "\u0301" * n,
    ):
        start = time.process_time()
        words(name, text)
        assert time.process_time() - start < 2, f"{text[:3]!r}…{text[-1]!r}"
