"""Write tests/chat/template_goldens.json: what transformers renders for a folder of chat templates and a table of conversations.

    python tools/make_template_goldens.py ../shared/models/templates        (needs transformers; developers only)

A golden is the SHA-256 of the text, so that the file stays small; null where transformers raises. The date is fixed.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import hashlib
import importlib.metadata
import json
from pathlib import Path

from transformers.utils import chat_template_utils

TARGET = Path(__file__).parents[1] / "tests" / "chat" / "template_goldens.json"

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'The weather at a place: it\'s <fresh> & "quoted"',
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "A town, e.g. Zürich"},
                "days": {"type": "integer", "enum": [1, 2, 3]},
                "units": {"type": ["string", "null"], "default": "celsius"},
            },
            "required": ["place"],
        },
    },
}
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": 2}}}
TIME = {"type": "function", "function": {"name": "get_time", "description": "Now", "parameters": {"type": "object", "properties": {}}}}
TIME_CALL = {"id": "abcdef124", "type": "function", "function": {"name": "get_time", "arguments": {}}}
CONVERSATIONS = {
    "question": {"messages": [{"role": "user", "content": "Who are you?"}]},
    "no prompt": {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}],
        "add_generation_prompt": False,
    },
    "turns": {
        "messages": [
            {"role": "system", "content": "Be brief; don't\nramble.  "},
            {"role": "user", "content": "  \n1 < 2 & \"3\" > '2'?\n\n"},
            {"role": "assistant", "content": "\tYes. 🙂\n"},
            {"role": "user", "content": "{{ 7 * 7 }} {% if %} ünïcödé </s> <|im_end|>"},
            {"role": "assistant", "content": "49"},
            {"role": "user", "content": ""},
        ]
    },
    "thinking": {
        "messages": [
            {"role": "user", "content": "2 + 2?"},
            {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\nFour."},
            {"role": "user", "content": "Sure?"},
        ],
        "enable_thinking": False,
    },
    "tools": {"messages": [{"role": "system", "content": "Use tools."}, {"role": "user", "content": "Weather?"}], "tools": [WEATHER]},
    "tool call": {
        "messages": [
            {"role": "user", "content": "Weather in Zürich?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "abcdef123", "name": "get_weather", "content": '{"sky": "grey", "°C": 7.5}'},
            {"role": "assistant", "content": "Grey, 7.5 °C."},
            {"role": "user", "content": "Thanks"},
        ],
        "tools": [WEATHER],
    },
    "parallel calls": {
        "messages": [
            {"role": "system", "content": "Use tools."},
            {"role": "user", "content": "Weather in Zürich, and the time?"},
            {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL, TIME_CALL]},
            {"role": "tool", "tool_call_id": "abcdef123", "name": "get_weather", "content": "grey"},
            {"role": "tool", "tool_call_id": "abcdef124", "name": "get_time", "content": "12:30"},
        ],
        "tools": [WEATHER, TIME],
    },
    "reasoning": {
        "messages": [
            {"role": "system", "content": "Think."},
            {"role": "user", "content": "2 + 2?"},
            {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two\nmake four."},
            {"role": "user", "content": "Sure?"},
        ],
        "enable_thinking": True,
    },
    "reasoning before a call": {
        "messages": [
            {"role": "user", "content": "What time is it?"},
            {"role": "assistant", "content": "", "reasoning_content": "I must look.", "tool_calls": [TIME_CALL]},
            {"role": "tool", "tool_call_id": "abcdef124", "name": "get_time", "content": "12:30"},
        ],
        "tools": [TIME],
        "enable_thinking": True,
    },
}


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # pyright: ignore[reportIncompatibleMethodOverride]
        return datetime.datetime(2026, 7, 4, 12, 30)


def golden(template: str, conversation: dict) -> str | None:
    options = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"} | copy.deepcopy(conversation)
    messages = options.pop("messages")
    try:
        text = chat_template_utils.render_jinja_template([messages], chat_template=template, **options)[0][0]
    except Exception as error:
        print(f"  {type(error).__name__}: {error}"[:150])
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("templates", type=Path)
    args = parser.parse_args()
    chat_template_utils.datetime = FixedDate
    renders = {}
    for path in sorted(args.templates.glob("*.jinja")):
        print(path.name)
        template = path.read_text(encoding="utf-8")
        renders[path.name] = {name: golden(template, conversation) for name, conversation in CONVERSATIONS.items()}
    goldens = {
        "made_by": f"tools/make_template_goldens.py with transformers {importlib.metadata.version('transformers')}",
        "now": "2026-07-04T12:30",
        "conversations": CONVERSATIONS,
        "sha256": renders,
    }
    TARGET.write_text(json.dumps(goldens, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
