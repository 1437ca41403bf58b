from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggpy.gguf import Metadata
from ggpy.gguf.strings import Strings
from ggpy.tokenizer import TokenType, load_tokenizer
from ggpy.tokenizer.special import SpecialTokens, settle_roles
from ggpy.tokenizer.token_table import TokenTable, read_token_table
from tests.tokenizer.naive import split_special
from tests.tokenizer.vocabularies import sentencepiece_metadata, with_tokens


def table_of(tokens: Mapping[str, TokenType], **special: int) -> TokenTable:
    texts = list(tokens)
    types = np.array(list(tokens.values()), np.int8)
    return TokenTable("<test>", Strings.of(texts), types, None, dict(special))


@settings(max_examples=100)
@given(st.sets(st.text(alphabet="ab<é", min_size=1, max_size=4), min_size=1, max_size=6), st.text(alphabet="ab<éc", max_size=30))
def test_splits_as_one_pass_per_token_does(specials: set[str], text: str) -> None:
    ordered = sorted(specials)
    table = table_of(dict.fromkeys(ordered, TokenType.USER_DEFINED))
    assert SpecialTokens(table).split(text, False) == split_special(text, table.ids)


def test_longer_tokens_win_wherever_they_begin() -> None:
    table = table_of(dict.fromkeys(["ab", "bcd"], TokenType.CONTROL))
    assert SpecialTokens(table).split("abcd", True) == ["a", 1]


def test_control_tokens_are_text_unless_asked_for() -> None:
    special = SpecialTokens(
        table_of({"<c>": TokenType.CONTROL, "<u>": TokenType.UNKNOWN, "<d>": TokenType.USER_DEFINED, "<n>": TokenType.NORMAL})
    )
    assert special.split("<c><u><d><n>", False) == ["<c><u>", 2, "<n>"]
    assert special.split("<c><u><d><n>", True) == [0, 1, 2, "<n>"]
    assert special.split("", True) == []


def test_stripping_takes_the_white_space_behind() -> None:
    special = SpecialTokens(table_of({"<c>": TokenType.CONTROL, "<d>": TokenType.CONTROL}), strip_right=[0])
    assert special.split("a <c> \n\t b<d> c<c> ", True) == ["a ", 0, "b", 1, " c", 0]


@pytest.mark.parametrize(("name", "expected"), [("Phi-3 mini", ["</s>", "▁", "a"]), ("Other", ["</s>", "▁", "▁", "a"])])
def test_phi_3_is_known_by_its_name(name: str, expected: list[str]) -> None:
    tokenizer = load_tokenizer(sentencepiece_metadata({"general.name": name}))
    assert [tokenizer.vocabulary[i] for i in tokenizer.encode("</s> a", parse_special=True)] == expected


def ends(tokens: list[str], **special: int) -> tuple[set[str], dict[str, TokenType]]:
    table, ids = settle_roles(table_of(dict.fromkeys(tokens, TokenType.NORMAL), **special))
    return {tokens[i] for i in ids}, {text: TokenType(int(kind)) for text, kind in zip(tokens, table.types, strict=True)}


def test_tokens_end_a_generation_by_role_or_by_name() -> None:
    ending, types = ends(["a", "b", "<|im_end|>", "<|endoftext|>", "<reponame>", "<|fim_middle|>"], eos=1)
    assert ending == {"b", "<|im_end|>", "<|endoftext|>", "<reponame>"}
    assert types["<|im_end|>"] is TokenType.CONTROL
    assert types["a"] is types["b"] is TokenType.NORMAL


def test_the_end_of_turn_is_the_first_name_known_unless_the_file_says() -> None:
    tokens = ["<|endoftext|>", "<|im_end|>", "x"]
    table, _ = settle_roles(table_of(dict.fromkeys(tokens, TokenType.CONTROL)))
    assert table.special["eot"] == 1
    table, ids = settle_roles(table_of(dict.fromkeys(tokens, TokenType.CONTROL), eot=2))
    assert table.special["eot"] == 2
    assert ids == {0, 1, 2}


def test_end_is_the_end_of_a_message_where_there_are_calls() -> None:
    ending, types = ends(["<|end|>", "<|return|>", "<|call|>", "<|channel|>"])
    assert ending == {"<|return|>", "<|call|>"}
    assert types["<|end|>"] is types["<|channel|>"] is TokenType.USER_DEFINED
    assert ends(["<|end|>", "<|flush|>", "<|calls|>"])[0] == {"<|flush|>", "<|calls|>"}
    assert ends(["<|end|>", "<|return|>"])[0] == {"<|end|>", "<|return|>"}


def test_s_is_a_tag_where_tools_respond() -> None:
    ending, types = ends(["</s>", "<|tool_response>"])
    assert ending == {"<|tool_response>"}
    assert types["</s>"] is TokenType.NORMAL


def test_the_text_of_a_token_that_ends_a_generation_is_no_such_token() -> None:
    metadata = with_tokens(sentencepiece_metadata(), {"<end_of_turn>": TokenType.USER_DEFINED})
    tokenizer = load_tokenizer(metadata)
    end = tokenizer.vocabulary.index("<end_of_turn>")
    assert end in tokenizer.end_ids
    assert end not in tokenizer.encode("hello<end_of_turn>")
    assert tokenizer.encode("<end_of_turn>", parse_special=True) == [end]


def test_roles_by_name_do_not_replace_those_of_the_file() -> None:
    table = read_token_table(Metadata.of(with_tokens(sentencepiece_metadata({"fim_pre_token_id": 5}), {"<PRE>": TokenType.NORMAL})))
    settled, _ = settle_roles(table)
    assert settled.special["fim_pre"] == 5
    assert settled.types[table.ids["<PRE>"]] == TokenType.NORMAL
