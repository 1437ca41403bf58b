"""A model that says what it is told to, so that chat is tested without weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ggpy.errors import ContextError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass
class FakeStep:
    token: int
    text: str
    finish: str | None = None


class FakeTokenizer:
    """One character is one token, but for three special ones."""

    special = ("<|im_start|>", "<|im_end|>", "<s>")
    bos, eos, add_bos, add_eos = 2, 1, False, False

    def __init__(self, chat_template: str | None = CHATML):
        self.chat_template = chat_template
        self.vocabulary = list(self.special)

    def of_type(self, *types: int) -> list[int]:
        return [0, 1, 2] if 3 in types else []  # control tokens

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        ids = [self.bos] if add_special else []
        while text:
            found = next((i for i, special in enumerate(self.special) if parse_special and text.startswith(special)), None)
            ids.append(ord(text[0]) + 100 if found is None else found)
            text = text[1 if found is None else len(self.special[found]) :]
        return ids

    def spell(self, ids: Sequence[int]) -> str:
        return "".join(self.special[i] if i < 3 else chr(i - 100) for i in ids)


@dataclass
class FakeModel:
    """answers: texts to give in turn; each word is a step. `prompts` keeps what was asked; `before_step` is called before each."""

    answers: list[str]
    context: int = 1000
    tokenizer: Any = field(default_factory=FakeTokenizer)
    prompts: list[str] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    before_step: Callable[[], None] = lambda: None
    closed: int = 0

    def stream(self, prompt: Sequence[int], **settings: Any) -> Iterator[FakeStep]:
        if len(prompt) >= self.context:
            raise ContextError(f"the prompt has {len(prompt)} tokens and leaves no room in the context of {self.context}")
        self.prompts.append(self.tokenizer.spell(prompt))
        self.settings.append(settings)
        return self._steps(self.answers.pop(0).split(" "))

    def _steps(self, words: list[str]) -> Iterator[FakeStep]:
        try:
            for i, word in enumerate(words):
                self.before_step()
                yield FakeStep(i, word + " " * (i < len(words) - 1))
            yield FakeStep(1, "", "stop")
        finally:
            self.closed += 1
