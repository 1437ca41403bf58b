from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Regex, normalizers, pre_tokenizers

from ggpy.errors import GGPyError
from tests.tokenizer.vocabularies import byte_level

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def split(pattern: str) -> str:
    return json.dumps({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                                                              "invert": False}, GPT2]})  # fmt: skip


def with_program(pre_tokenizer: Any = None, **keys: Any) -> Any:
    changes = {f"ggpy.tokenizer.{key}": value for key, value in keys.items()}
    if pre_tokenizer is not None:
        changes["ggpy.tokenizer.pre_tokenizer"] = pre_tokenizer
    return byte_level(changes)


def test_the_program_cuts_instead_of_the_name() -> None:
    assert byte_level().encode("hello") == with_program(json.dumps(GPT2)).encode("hello")
    whole, cut = byte_level().encode("hello"), with_program(split("e")).encode("hello")
    assert len(whole) < len(cut)
    assert with_program(split("e")).decode(cut) == "hello"


def test_the_program_stands_in_for_a_name_that_is_not_known() -> None:
    program = {"ggpy.tokenizer.pre_tokenizer": split("e")}
    assert byte_level({"pre": "no-such", **program}).encode("hello") == with_program(split("e")).encode("hello")


def test_the_normalizer_runs_between_special_tokens() -> None:
    tokenizer = with_program(normalizer=json.dumps(json.loads(normalizers.Lowercase().__getstate__())))
    assert tokenizer.decode(tokenizer.encode("A<keep>B", parse_special=True)) == "a<keep>b"


def test_a_long_text_is_cut_by_the_program_too() -> None:
    tokenizer = with_program(split("e"))
    assert tokenizer.encode("hello " * 30_000) == tokenizer.encode("hello ") * 30_000


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pre_tokenizer": "{"}, "ggpy.tokenizer.pre_tokenizer: no JSON"),
        ({"pre_tokenizer": "[" * 60_000}, "ggpy.tokenizer.pre_tokenizer: no JSON"),
        ({"pre_tokenizer": '{"type": "Magic"}'}, "ggpy.tokenizer.pre_tokenizer: tokenizers refuses it"),
        ({"pre_tokenizer": split("(")}, "ggpy.tokenizer.pre_tokenizer: tokenizers refuses it"),
        ({"pre_tokenizer": '{"type": "Whitespace"}'}, "does not spell text in bytes; expected a ByteLevel part"),
        ({"normalizer": '{"type": "Magic"}'}, "ggpy.tokenizer.normalizer: tokenizers refuses it"),
        ({"pre_tokenizer": " " * 70_000}, "expected at most 65536 characters"),
        ({"pre_tokenizer": 7}, "expected a string"),
        ({"ignore_merges": "yes"}, "ggpy.tokenizer.ignore_merges"),
    ],
)
def test_programs_that_fail_are_refused_with_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(GGPyError) as refusal:
        with_program(**keys)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_pattern_that_backtracks_for_ever_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = with_program(split("(?:a|a)+$b"))
    with pytest.raises(GGPyError, match="tokenizers fails on it"):
        tokenizer.encode("a" * 60)
    capfd.readouterr()  # the panic is reported to standard error


def test_sections_are_what_tokenizers_writes() -> None:
    section = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("e"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    assert with_program(section.__getstate__().decode()).encode("hello") == with_program(split("e")).encode("hello")
