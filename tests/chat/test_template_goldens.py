"""Real templates render as transformers renders them. The goldens are hashes; `tools/make_template_goldens.py` makes them."""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
from pathlib import Path

import pytest

from ggpy.chat.templates import parse, render
from ggpy.errors import TemplateError

GOLDENS = json.loads(Path(__file__).with_name("template_goldens.json").read_text(encoding="utf-8"))

# transformers HTML-escapes what this template adds to `"…"|safe`; here, as in llama.cpp, a model reads what the tool's author wrote.
UNESCAPED = {
    ("meetkai-functionary-medium-v3.1.jinja", label) for label in ("tools", "tool call", "parallel calls", "reasoning before a call")
}


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # pyright: ignore[reportIncompatibleMethodOverride]
        return datetime.datetime.fromisoformat(GOLDENS["now"])


@pytest.fixture
def fixed_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datetime, "datetime", FixedDate)


@pytest.mark.parametrize("name", GOLDENS["sha256"])
def test_renders_as_transformers_does(name: str, shared: Path, fixed_date: None):
    template = (shared / "models" / "templates" / name).read_text(encoding="utf-8")
    parse(template)
    for label, expected in GOLDENS["sha256"][name].items():
        options = {"bos": "<s>", "eos": "</s>"} | copy.deepcopy(GOLDENS["conversations"][label])
        messages = options.pop("messages")
        before = copy.deepcopy(messages)
        if expected is None:  # transformers raises: on roles the template refuses, and where it needs tools
            try:
                render(template, messages, **options)
            except TemplateError as error:
                assert "\n" not in str(error)
            continue
        text = render(template, messages, **options)
        assert (hashlib.sha256(text.encode()).hexdigest() == expected) is ((name, label) not in UNESCAPED), f"{label}: {text}"
        assert messages == before


def test_every_template_at_hand_has_goldens(shared: Path):
    assert {path.name for path in (shared / "models" / "templates").glob("*.jinja")} == set(GOLDENS["sha256"])


def test_the_goldens_are_not_mostly_refusals():
    renders = [golden for goldens in GOLDENS["sha256"].values() for golden in goldens.values()]
    assert sum(golden is None for golden in renders) < len(renders) / 6


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_has_the_names_that_templates_read(name: str):
    template = "{{ messages[0].reasoning_content }} {{ messages[0].thinking }} {{ messages[0].reasoning }}"
    message = {"role": "assistant", "content": "", name: "why"}
    assert render(template, [message]).split() == ["why"] * (3 if name == "reasoning" else 2)
    assert render(template, [{"role": "assistant", "content": "", name: None}]).split() in ([], ["None"])
    assert set(message) == {"role", "content", name}
