"""Task files in the fields that data sets have; whatever is wrong with one is said with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggpy.errors import GGPyError
from ggpy.evaluate.tasks import KINDS, examples, read_task


def write(path: Path, *lines: object) -> Path:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "task.jsonl"


PLAIN = {"prompt": "Snow is", "choices": ["white", "black"], "answer": 0}


def test_choices_in_all_styles(path: Path):
    arc = {"question": "Which?", "choices": {"text": ["iron", "water"], "label": ["1", "2"]}, "answerKey": "2"}
    mmlu = {"question": " Which? ", "choices": ["iron", "water"], "answer": 1}
    hellaswag = {
        "activity_label": "Roofing", "ctx_a": "A man sits.", "ctx_b": "he", "endings": ["is [title] up.", "[header] falls."], "label": "1",
    }  # fmt: skip
    task = read_task(write(path, PLAIN, "", arc, mmlu, hellaswag))
    plain, arc, mmlu, hellaswag = task.examples
    assert task.kind == "choice" and [one.line for one in task.examples] == [1, 3, 4, 5]
    assert (plain.prompt, plain.continuations, plain.texts, plain.answer) == ("Snow is", (" white", " black"), ("white", "black"), 0)
    assert (arc.prompt, arc.continuations, arc.answer) == ("Question: Which?\nAnswer:", (" iron", " water"), 1)
    assert (mmlu.prompt, mmlu.continuations, mmlu.answer) == ("Which?\nA. iron\nB. water\nAnswer:", (" A", " B"), 1)
    assert (hellaswag.prompt, hellaswag.texts, hellaswag.answer) == ("Roofing: A man sits. He", ("is. up.", " falls."), 1)
    assert hellaswag.continuations == (" is. up.", " falls.")


def test_answers_are_named_by_number_or_by_themselves(path: Path):
    lines = [PLAIN | {"answer": answer} for answer in (1, "1", "black")]
    assert [one.answer for one in read_task(write(path, *lines)).examples] == [1, 1, 1]


def test_labels_are_those_that_occur_or_are_given(path: Path):
    write(path, {"text": "good", "label": "yes"}, {"prompt": "bad ", "label": "no"})
    task = read_task(path)
    assert (task.kind, task.labels) == ("classification", ("no", "yes"))
    assert [(one.continuations, one.answer) for one in task.examples] == [((" no", " yes"), 1), (("no", "yes"), 0)]
    assert read_task(path, labels=("yes", "no", "perhaps")).labels == ("yes", "no", "perhaps")
    with pytest.raises(GGPyError, match=r"task\.jsonl:1: label is 'yes'"):
        read_task(path, labels=("no", "perhaps"))


def test_questions(path: Path):
    write(path, {"prompt": "1+1=", "answer": "2"}, {"prompt": "Hue?", "answers": ["red", "blue"], "match": "contains", "stop": ["\n", "."]})
    first, second = read_task(path).examples
    assert (first.answers, first.match, first.stop) == (("2",), "exact", ())
    assert (second.answers, second.match, second.stop) == (("red", "blue"), "contains", ("\n", "."))
    assert len(read_task(path, limit=1).examples) == 1


BAD = {
    "is no JSON": "{",
    "expected a JSON object": "[1]",
    "is no JSON: maximum recursion": "[" * 100_000,
    "neither choices": {"prompt": "x"},
    "has no field prompt": {"choices": ["a", "b"], "answer": 0},
    "prompt is 3, expected a text": PLAIN | {"prompt": 3},
    "choices is ['a'], expected 2 to": PLAIN | {"choices": ["a"]},
    "none empty": PLAIN | {"choices": ["a", ""]},
    "answer is 2, expected a number from 0 to 1": PLAIN | {"answer": 2},
    "answer is True": PLAIN | {"answer": True},
    "answer is -1": PLAIN | {"answer": -1},
    "answer is '99999999": PLAIN | {"answer": "9" * 5000},
    "2 texts and 1 labels": {"question": "", "choices": {"text": ["a", "b"], "label": ["a"]}, "answerKey": "a"},
    "choices: text is None": {"question": "", "choices": 1, "answerKey": "a"},
    "endings holds one without words": {"ctx": "", "endings": ["[x]", "b"], "label": 0},
    "match is 'fuzzy'": {"prompt": "", "answer": "", "match": "fuzzy"},
    "is no regular expression": {"prompt": "", "answer": "(", "match": "regex"},
    "the pattern has 1001": {"prompt": "", "answer": "a" * 1001, "match": "regex"},
    "stop is [1]": {"prompt": "", "answer": "", "stop": [1]},
    "has 1 labels": {"prompt": "", "label": "a"},
    "is longer than 1048576 bytes": {"prompt": "a" * examples.MAX_LINE},
}


@pytest.mark.parametrize("said", BAD)
def test_mistakes_name_file_and_line(path: Path, said: str):
    content = BAD[said]
    with pytest.raises(GGPyError) as error:
        read_task(write(path, content))
    assert said in str(error.value) and "task.jsonl" in str(error.value) and "\n" not in str(error.value)
    if "label" not in said:
        assert "task.jsonl:1: " in str(error.value)


def test_files_without_end_are_not_read(path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(GGPyError, match="holds no examples"):
        read_task(write(path, ""))
    monkeypatch.setattr(examples, "MAX_EXAMPLES", 2)
    with pytest.raises(GGPyError, match=":3: has more than 2 examples"):
        read_task(write(path, *[PLAIN] * 3))
    monkeypatch.setattr(examples, "MAX_FILE", 100)
    with pytest.raises(GGPyError, match="bytes, expected at most 100"):
        read_task(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
FIELDS = ["prompt", "text", "choices", "endings", "question", "answer", "answers", "answerKey", "label", "ctx", "match", "stop"]


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6), st.sampled_from([None, *KINDS]))
def test_any_object_is_an_example_or_a_mistake(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, object], kind: str | None):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    write(path, fields)
    try:
        task = read_task(path, kind)
    except GGPyError as error:
        assert "any.jsonl" in str(error)
    else:
        assert len(task.examples) == 1
