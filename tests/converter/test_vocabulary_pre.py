from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

from ggpy.converter.vocabulary_pre import TELLING_TEXTS, Choice, choose_pre, cuts_of, pattern_cutter
from ggpy.tokenizer.pretokenizers import PRE_TOKENIZERS
from tests.converter.tokenizers_on_disk import byte_level_json

DISTINCT = {pre.patterns: name for name, pre in PRE_TOKENIZERS.items()}


def engine_with(cutter: pre_tokenizers.PreTokenizer | None) -> Tokenizer:
    return Tokenizer.from_str(
        json.dumps(byte_level_json() | {"pre_tokenizer": None if cutter is None else json.loads(cutter.__getstate__())})
    )


def chosen(cutter: pre_tokenizers.PreTokenizer | None, *, ignore_merges: bool = False, clean_spaces: bool = True) -> tuple[str, list[str]]:
    warnings: list[str] = []
    return choose_pre(engine_with(cutter), ignore_merges, clean_spaces, "tokenizer.json", warnings).name, warnings


def byte_level(*cuts: pre_tokenizers.PreTokenizer, use_regex: bool = False) -> pre_tokenizers.Sequence:
    return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)])


def test_the_telling_texts_tell_all_patterns_apart() -> None:
    cuts = {name: cuts_of(pattern_cutter(patterns), name) for patterns, name in DISTINCT.items()}
    alike = {frozenset(pair) for pair in combinations(cuts, 2) if cuts[pair[0]] == cuts[pair[1]]}
    # Bailing's pattern is written otherwise but cuts every text as Qwen 2's does.
    assert {frozenset(PRE_TOKENIZERS[name].patterns for name in pair) for pair in alike} == {
        frozenset(PRE_TOKENIZERS[name].patterns for name in ("bailingmoe", "qwen2"))
    }


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_known_pattern_is_recognised(name: str) -> None:
    pre = PRE_TOKENIZERS[name]
    cutter = byte_level(*(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns))
    found, warnings = chosen(cutter, ignore_merges=pre.ignore_merges, clean_spaces=pre.clean_spaces)
    assert warnings == []
    same = PRE_TOKENIZERS[found]
    assert (same.ignore_merges, same.clean_spaces) == (pre.ignore_merges, pre.clean_spaces)
    assert cuts_of(pattern_cutter(same.patterns), "") == cuts_of(pattern_cutter(pre.patterns), "")


@pytest.mark.parametrize(
    ("cutter", "options", "name"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), {}, "gpt-2"),
        (byte_level(pre_tokenizers.Digits(individual_digits=True), use_regex=True), {"clean_spaces": False}, "smollm"),
        (byte_level(pre_tokenizers.Digits(individual_digits=True), use_regex=True), {}, "starcoder"),
        (
            pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Punctuation("contiguous"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False),
                    pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
                ]
            ),
            {},
            "falcon",
        ),
    ],
)
def test_other_ways_to_write_a_pattern_are_recognised(cutter: pre_tokenizers.PreTokenizer, options: dict[str, bool], name: str) -> None:
    assert chosen(cutter, **options) == (name, [])


def test_merges_that_no_known_name_treats_alike_are_told() -> None:
    name, warnings = chosen(pre_tokenizers.ByteLevel(add_prefix_space=False), ignore_merges=True)
    assert name == "gpt-2"
    assert warnings == [
        "tokenizer.json: words that are tokens are taken whole, and no known pre-tokenizer that cuts alike does that; 'gpt-2' is written"
    ]


def test_the_nearest_is_named_with_an_example() -> None:
    cutter = byte_level(pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), pre_tokenizers.Split(Regex("@"), "isolated"), use_regex=True)
    name, (warning,) = chosen(cutter, clean_spaces=False)
    assert name == "smollm"
    assert f"cuts 1 of {len(TELLING_TEXTS)} test texts otherwise, such as '  | @ | abc' into ' @ | abc'" in warning


def test_no_pre_tokenizer_at_all() -> None:
    name, warnings = chosen(None)
    assert name in PRE_TOKENIZERS
    assert "is none of those that readers of GGUF know" in warnings[0]


@pytest.mark.real_model
def test_smollm2(shared: Path) -> None:
    text = (shared / "models" / "SmolLM2-135M-Instruct" / "tokenizer.json").read_text(encoding="utf-8")
    warnings: list[str] = []
    assert choose_pre(Tokenizer.from_str(text), False, False, "", warnings) == Choice("smollm", cuts=True, merges=True)
    assert warnings == []
