"""Task files: JSONL, an example a line, in the fields that data sets have; docs/evaluate.md describes them.

A file is anybody's: its size, its lines and its values are checked, and what is wrong is said with file and line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ggpy.errors import GGPyError, printable

CHOICE, CLASSIFICATION, ANSWERS = "choice", "classification", "answers"
KINDS = (CHOICE, CLASSIFICATION, ANSWERS)
MATCHES = ("exact", "contains", "regex")

MAX_FILE = 1 << 30
MAX_LINE = 1 << 20
MAX_EXAMPLES = 1_000_000
MAX_CHOICES = 1000
MAX_PATTERN = 1000


class Fields:
    """The fields of one example, read with their types; errors name file, line and field."""

    def __init__(self, values: Mapping[str, Any], place: str):
        self.values, self.place = values, place

    def error(self, what: str) -> GGPyError:
        return GGPyError(f"{self.place}: {what}")

    def text(self, name: str, default: str | None = None) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise self.error(f"{name} is {_shown(value)}, expected a text" if name in self.values else f"has no field {name}")
        return value

    def texts(self, name: str, least: int, most: int = MAX_CHOICES) -> tuple[str, ...]:
        value = self.values.get(name)
        if not isinstance(value, list) or not least <= len(value) <= most or not all(isinstance(item, str) and item for item in value):
            raise self.error(f"{name} is {_shown(value)}, expected {least} to {most} texts, none empty")
        return tuple(value)

    def number_of(self, name: str, labels: tuple[str, ...]) -> int:
        """Which of the choices a field names: by its number from 0, or by its label."""
        value = self.values.get(name)
        if isinstance(value, str) and value in labels:
            return labels.index(value)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 5:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(labels):
            expected = f"a number from 0 to {len(labels) - 1} or one of {', '.join(map(repr, labels[:8]))}"
            raise self.error(f"{name} is {_shown(value)}, expected {expected}")
        return value


@dataclass(frozen=True)
class Choice:
    """A prompt, what may follow it, and which of them is right. texts: the choices' own words, whose length likelihoods are divided by."""

    line: int
    prompt: str
    continuations: tuple[str, ...]
    texts: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Question:
    """A prompt and the answers that are right, any of them. match: how an answer is compared, one of MATCHES."""

    line: int
    prompt: str
    answers: tuple[str, ...]
    match: str
    stop: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """A file's examples. labels: of a classification, in the order of their names."""

    path: str
    kind: str
    examples: tuple[Choice | Question, ...]
    labels: tuple[str, ...] = ()


def read_task(path: str | os.PathLike[str], kind: str | None = None, labels: tuple[str, ...] = (), limit: int | None = None) -> Task:
    """The examples of a file, at most `limit`. kind: one of KINDS, or None for what the first line looks like.

    labels: of a classification; by default those that occur. GGPyError names the file and line of what is wrong.
    """
    name = printable(os.fspath(path))
    lines = list(_lines(path, name, limit))
    if not lines:
        raise GGPyError(f"{name}: holds no examples, expected one JSON object a line")
    kind = kind or _kind(lines[0][1])
    if kind == CLASSIFICATION:
        found = [(line, fields.text("prompt" if "prompt" in fields.values else "text"), fields.text("label")) for line, fields in lines]
        labels = labels or tuple(sorted({label for _, _, label in found}))
        if not 2 <= len(labels) <= MAX_CHOICES:
            raise GGPyError(f"{name}: has {len(labels)} labels, expected 2 to {MAX_CHOICES}")
        unknown = next(((line, label) for line, _, label in found if label not in labels), None)
        if unknown:
            raise GGPyError(f"{name}:{unknown[0]}: label is {_shown(unknown[1])}, expected one of {', '.join(map(repr, labels[:8]))}")
        choices = [Choice(line, prompt, spaced(prompt, labels), labels, labels.index(label)) for line, prompt, label in found]
        return Task(os.fspath(path), kind, tuple(choices), labels)
    read = {CHOICE: _choice, ANSWERS: _question}.get(kind)
    if read is None:
        raise GGPyError(f"kind {kind!r} is not known; there are {', '.join(KINDS)}")
    return Task(os.fspath(path), kind, tuple(read(line, fields) for line, fields in lines))


def _lines(path: str | os.PathLike[str], name: str, limit: int | None) -> Iterator[tuple[int, Fields]]:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_FILE:
            raise GGPyError(f"{name}: has {os.fstat(file.fileno()).st_size} bytes, expected at most {MAX_FILE}")
        count = number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise GGPyError(f"{name}:{number}: is longer than {MAX_LINE} bytes")
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise GGPyError(f"{name}:{number}: is no JSON: {printable(error)}") from None
            if not isinstance(values, dict):
                raise GGPyError(f"{name}:{number}: is {_shown(values)}, expected a JSON object")
            count += 1
            if count > MAX_EXAMPLES:
                raise GGPyError(f"{name}:{number}: has more than {MAX_EXAMPLES} examples")
            yield number, Fields(values, f"{name}:{number}")
            if count == limit:
                return


def _kind(fields: Fields) -> str:
    if "choices" in fields.values or "endings" in fields.values:
        return CHOICE
    if "label" in fields.values:
        return CLASSIFICATION
    if "answer" in fields.values or "answers" in fields.values:
        return ANSWERS
    raise fields.error("has neither choices nor endings, label, answer or answers; what kind of task is it?")


def spaced(prompt: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Texts as they follow a prompt: behind a space, where neither has one."""
    return tuple(text if text[0].isspace() or prompt[-1:].isspace() else f" {text}" for text in texts)


def _choice(line: int, fields: Fields) -> Choice:
    style = next(read for field, read in _STYLES.items() if field in fields.values or field == "")
    return style(line, fields)


def _plain(line: int, fields: Fields) -> Choice:
    prompt, choices = fields.text("prompt"), fields.texts("choices", 2)
    return Choice(line, prompt, spaced(prompt, choices), choices, fields.number_of("answer", choices))


def _arc(line: int, fields: Fields) -> Choice:
    """ARC: choices {"text": […], "label": ["A", …]}, answerKey; each answer is continued in full."""
    listed = fields.values.get("choices")
    inner = Fields(listed if isinstance(listed, dict) else {}, f"{fields.place}: choices")
    texts, labels = inner.texts("text", 2), inner.texts("label", 1)
    if len(texts) != len(labels):
        raise fields.error(f"choices has {len(texts)} texts and {len(labels)} labels, expected as many")
    prompt = f"Question: {fields.text('question')}\nAnswer:"
    return Choice(line, prompt, spaced(prompt, texts), texts, fields.number_of("answerKey", labels))


def _mmlu(line: int, fields: Fields) -> Choice:
    """MMLU: choices are listed under letters, and the letter is continued."""
    choices = fields.texts("choices", 2, 26)
    letters = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(choices)])
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True))
    prompt = f"{fields.text('question').strip()}{listed}\nAnswer:"
    return Choice(line, prompt, spaced(prompt, letters), letters, fields.number_of("answer", letters))


def _hellaswag(line: int, fields: Fields) -> Choice:
    """HellaSwag: ctx, or ctx_a and ctx_b; marks of the source it was made from are taken out, as lm-eval does."""
    endings = tuple(_cleaned(ending) for ending in fields.texts("endings", 2))
    if "ctx_b" in fields.values:
        text = f"{fields.text('ctx_a')} {fields.text('ctx_b').capitalize()}"
    else:
        text = fields.text("ctx")
    activity = fields.text("activity_label", "")
    prompt = _cleaned(f"{activity}: {text}" if activity else text)
    if not all(endings):
        raise fields.error("endings holds one without words")
    return Choice(line, prompt, spaced(prompt, endings), endings, fields.number_of("label", tuple(map(str, range(len(endings))))))


def _cleaned(text: str) -> str:
    return re.sub(r"\[[^\[\]]{0,200}\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


_STYLES: dict[str, Callable[[int, Fields], Choice]] = {"endings": _hellaswag, "answerKey": _arc, "question": _mmlu, "": _plain}
"""By the field that tells a style from those after it."""


def _question(line: int, fields: Fields) -> Question:
    answers = fields.texts("answers", 1) if "answers" in fields.values else (fields.text("answer"),)
    match = fields.text("match", "exact")
    if match not in MATCHES:
        raise fields.error(f"match is {_shown(match)}, expected one of {', '.join(MATCHES)}")
    if match == "regex":
        for pattern in answers:
            _check_pattern(pattern, fields)
    stop = fields.values.get("stop", [])
    stop = (stop,) if isinstance(stop, str) and stop else fields.texts("stop", 1, 16) if stop else ()
    return Question(line, fields.text("prompt"), answers, match, tuple(stop))


def _check_pattern(pattern: str, fields: Fields) -> None:
    if len(pattern) > MAX_PATTERN:
        raise fields.error(f"the pattern has {len(pattern)} characters, expected at most {MAX_PATTERN}")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise fields.error(f"{_shown(pattern)} is no regular expression: {printable(error)}") from None


def _shown(value: object) -> str:
    return printable(repr(value), 60)
