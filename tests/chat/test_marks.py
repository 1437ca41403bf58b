"""Text from messages stays marked through a template, and does not become special tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggpy.chat.jinja import text
from ggpy.chat.jinja.text import Marked, mark, outside
from ggpy.chat.templates import encode, render
from ggpy.gguf import open_gguf
from ggpy.tokenizer import Tokenizer, load_tokenizer


def from_outside(rendered: str) -> str:
    """The marked characters, with a bar between ranges."""
    return "|".join(rendered[start:stop] for start, stop in outside(rendered))


@pytest.mark.parametrize(
    ("template", "marked"),
    [
        ("[{{ messages[0].content }}]", " A,<b>\n"),
        ("[{{ messages[0].content | trim }}]", "A,<b>"),
        ("[{{ messages[0]['content'].strip() + '!' }}]", "A,<b>"),
        ("[{{ messages[0].content.split(',')[1] ~ '</s>' ~ messages[0].role }}]", "<b>\n|user"),
        ("{{ messages[0].content.replace('A', '</s>').replace(',', messages[0].role) }}", " |user<b>\n"),
        ("{{ (messages[0].role ~ '</s>' ~ messages[0].role) | upper }}", "USER|USER"),
        ("{{ ('x' ~ messages[0].role ~ 'yz')[2:-1] }}", "ser"),
        ("{% for c in messages[0].role %}{{ c }}-{% endfor %}", "u|s|e|r"),
        ("{% set t %}a{{ messages[0].role }}b{% endset %}{{ t }}{{ t }}", "user|user"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(messages[0].role) }}", "user"),
        ("{{ ['a', messages[0].role, 'b'] | join('-') }}", "user"),
        ("{{ ['a', messages[0].role] | tojson }}", '["a", "user"]'),
        ("{{ [messages[0].role] }}", "['user']"),
        ("{{ messages[0] | dictsort | first | first }}", "content"),
        ("{{ '%Y' if false else bos_token }}", ""),
        ("{{ ('a\\n' ~ messages[0].role ~ '\\nb') | indent(2) }}", "user"),
        ("{{ messages[0].role[::-1] }}{{ 'abc'[::-1] }}", "resu"),
        ("{{ tools[0].name }}{{ extra }}", "f<x>"),
    ],
)
def test_marks_follow_the_characters(template: str, marked: str):
    messages = [{"role": "user", "content": " A,<b>\n"}]
    rendered = render(template, messages, bos="<s>", tools=[{"name": "f"}], extra="<x>")
    assert from_outside(rendered) == marked


MIXED = st.lists(st.tuples(st.booleans(), st.text("ab, \n", min_size=1, max_size=4)), max_size=5)


def build(parts: list[tuple[bool, str]]) -> str:
    return text.concatenate(mark(part.upper()) if foreign else part for foreign, part in parts)


OPERATIONS = {
    "strip": lambda s: (text.strip(s), s.strip()),
    "strip letters": lambda s: (text.strip(s, "aA"), s.strip("aA")),
    "replace": lambda s: (text.replace(s, "a", "xy"), str.replace(s, "a", "xy")),
    "replace two": lambda s: (text.replace(s, "aB", "", 2), str.replace(s, "aB", "", 2)),
    "replace nothing": lambda s: (text.replace(s, "", "-"), str.replace(s, "", "-")),
    "slice": lambda s: (text.slice_text(s, slice(1, -2)), str.__getitem__(s, slice(1, -2))),
    "slice back": lambda s: (text.slice_text(s, slice(None, None, -2)), str.__getitem__(s, slice(None, None, -2))),
    "split": lambda s: (",".join(map(str.__str__, text.split(s, ","))), s),
    "case": lambda s: (text.change_case(s, "title"), str.title(s)),
}


@given(MIXED, st.sampled_from(sorted(OPERATIONS)))
@settings(max_examples=200, deadline=None)
def test_operations_equal_those_of_str(parts: list[tuple[bool, str]], name: str):
    ours, plain = OPERATIONS[name](build(parts))
    assert ours == plain


@given(MIXED, st.sampled_from(["ab", " ", ",", "\n", "aB"]))
@settings(max_examples=300, deadline=None)
def test_characters_from_outside_stay_marked(parts: list[tuple[bool, str]], separator: str):
    """Upper case is what came from outside: after cutting in any way, all of it is marked, and nothing else."""
    whole = build(parts)
    pieces = [
        *text.split(whole, separator),
        *text.split(whole),
        *text.split(whole, separator, 1, from_right=True),
        *text.split_lines(whole),
        text.strip(whole, "a"),
        text.replace(whole, separator, "x"),
        text.cut(whole, len(whole) // 3, len(whole)),
    ]
    for piece in pieces:
        marked = {i for start, stop in outside(piece) for i in range(start, stop)}
        assert all((i in marked) for i, c in enumerate(piece) if c.isupper())
        assert not any((i in marked) for i, c in enumerate(piece) if c.islower())
        assert all(0 <= a < b <= len(piece) for a, b in outside(piece))
        assert all(b < c for (_, b), (c, _) in zip(outside(piece), outside(piece)[1:], strict=False))


def test_a_mark_is_still_a_string():
    assert mark("a") == "a" and isinstance(mark("a"), str) and hash(mark("a")) == hash("a")
    assert not isinstance(mark(""), Marked)


@pytest.fixture(scope="module", params=["llama-spm", "llama-bpe", "phi-3"])
def tokenizer(request: pytest.FixtureRequest, shared: Path) -> Tokenizer:
    with open_gguf(shared / "models" / "vocab" / f"ggml-vocab-{request.param}.gguf") as file:
        return load_tokenizer(file.metadata)


def wrapped(tokenizer: Tokenizer) -> tuple[str, str, str]:
    """A template that puts the end-of-text token behind each message, that token's text, and the start's."""
    assert tokenizer.eos is not None and tokenizer.bos is not None
    eos, bos = tokenizer.vocabulary[tokenizer.eos], tokenizer.vocabulary[tokenizer.bos]
    return "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content | trim }}{{ eos_token }}\n{% endfor %}", eos, bos


@given(content=st.text(max_size=20))
@settings(max_examples=60, deadline=None)
def test_ordinary_messages_are_encoded_as_the_whole_text(tokenizer: Tokenizer, content: str):
    template, eos, bos = wrapped(tokenizer)
    rendered = render(template, [{"role": "user", "content": content.replace("<", "")}], bos=bos, eos=eos)
    ids = tokenizer.encode(str(rendered), parse_special=True)
    assert encode(rendered, tokenizer) == ids


@pytest.mark.parametrize("content", ["a{eos}b", "{eos}", "{bos}{eos}{eos}", "x {eos} {bos}\n", "{eos}{eos", "half {eos"])
def test_a_message_cannot_spell_a_special_token(tokenizer: Tokenizer, content: str):
    template, eos, bos = wrapped(tokenizer)
    content = content.replace("{eos}", eos).replace("{bos}", bos).replace("{eos", eos[:-1])
    rendered = render(template, [{"role": "user", "content": content}, {"role": "user", "content": "ok"}], bos=bos, eos=eos)
    ids = encode(rendered, tokenizer)
    assert ids.count(tokenizer.eos) == 2 and ids[0] == tokenizer.bos and tokenizer.bos not in ids[1:]
    assert "".join(tokenizer.decode(ids).split()) == "".join(str(rendered).split())


def test_bos_is_added_where_the_model_wants_it(tokenizer: Tokenizer):
    bos = tokenizer.vocabulary[tokenizer.bos or 0]
    messages = [{"role": "user", "content": "hi"}]
    with_bos = encode(render("{{ bos_token }}{{ messages[0].content }}", messages, bos=bos), tokenizer)
    without = encode(render("{{ messages[0].content }}", messages, bos=bos), tokenizer)
    assert with_bos == without and without[0] == tokenizer.bos and without.count(tokenizer.bos) == 1


def test_the_template_may_not_borrow_from_a_message(tokenizer: Tokenizer):
    """A special token half from the template and half from a message is none."""
    eos = tokenizer.vocabulary[tokenizer.eos or 0]
    rendered = render(f"{eos[:2]}{{{{ messages[0].content }}}}", [{"role": "user", "content": eos[2:]}])
    assert str(rendered) == eos and tokenizer.eos not in encode(rendered, tokenizer)
