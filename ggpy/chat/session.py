"""A conversation: its messages, the prompt they make, the model's answers. It knows text and ids, and nothing of where they are shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ggpy.chat.templates import encode, parse, render
from ggpy.errors import TemplateError
from ggpy.tokenizer import Tokenizer


class Step(Protocol):
    """One generated token, as `Model.stream` yields it."""

    @property
    def text(self) -> str: ...
    @property
    def finish(self) -> str | None: ...


class Runner(Protocol):
    """What a conversation needs of a model."""

    context: int
    tokenizer: Tokenizer

    @property
    def stream(self) -> Callable[..., Iterator[Any]]: ...


@dataclass
class Usage:
    """What the last answer took. first_seconds: from the question to the first token; seconds: to the last."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    first_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of decoding, without the prompt; None for an answer of one token."""
        decoding = self.seconds - self.first_seconds
        return (self.generated_tokens - 1) / decoding if self.generated_tokens > 1 and decoding > 0 else None


class Chat:
    """A conversation with a model in the format of the model's own chat template.

    messages: {"role": "user" or "assistant", "content": text}, oldest first; the system message is kept apart, in `system`.
    usage: of the last answer. settings: as of `Model.stream`. variables: what else the template reads, such as `enable_thinking`.
    Each prompt begins as the one before, so the model's KV cache is used again up to the first difference.
    TemplateError: the model has no chat template, or one that cannot be read.
    """

    def __init__(self, model: Runner, system: str | None = None, *, variables: Mapping[str, Any] | None = None, **settings: Any):
        template = model.tokenizer.chat_template
        if template is None:
            raise TemplateError("the model has no chat template: it can continue a text, but not chat")
        parse(template)
        self.model, self.template, self.system = model, template, system
        self.variables, self.settings = dict(variables or {}), settings
        self.messages: list[dict[str, str]] = []
        self.usage = Usage()
        self._finish: str | None = None

    @property
    def used(self) -> int:
        """Tokens of the context that the conversation fills, as of the last answer."""
        return self.usage.prompt_tokens + self.usage.generated_tokens if self.messages else 0

    @property
    def finish(self) -> str | None:
        """Why the last answer ended: "stop", "length", "context", or None if it was cut off from outside."""
        return self._finish

    def prompt(self) -> list[int]:
        """The ids of the conversation so far, up to where the model is to answer. TemplateError: the template refuses it."""
        tokenizer = self.model.tokenizer
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        bos, eos = ("" if i is None else tokenizer.vocabulary[i] for i in (tokenizer.bos, tokenizer.eos))
        return encode(render(self.template, [*system, *self.messages], bos=bos, eos=eos, **self.variables), tokenizer)

    def stream(self, text: str) -> Generator[Step, None, None]:
        """Say `text` and yield the answer step by step.

        An answer that is abandoned, by closing the iterator or by Ctrl-C, stays in the conversation as far as it came. A question that gets
        no answer at all leaves it as it was: TemplateError, or ContextError when the conversation has become too long.
        """
        began = time.perf_counter()
        question = {"role": "user", "content": text}
        self.messages.append(question)
        self._finish = None
        usage, parts = Usage(), []
        try:
            ids = self.prompt()
            for step in self.model.stream(ids, **self.settings):
                if not usage.generated_tokens:
                    usage = Usage(len(ids), first_seconds=time.perf_counter() - began)
                usage.generated_tokens += 1
                usage.seconds = time.perf_counter() - began
                parts.append(step.text)
                self._finish = step.finish
                yield step
        finally:
            if usage.generated_tokens:
                self.usage = usage
                self.messages.append({"role": "assistant", "content": "".join(parts)})
            else:
                self.messages = [message for message in self.messages if message is not question]

    def send(self, text: str) -> str:
        """Say `text`; returns the whole answer."""
        return "".join(step.text for step in self.stream(text))

    def reset(self) -> None:
        """Forget all messages; the system message stays."""
        self.messages.clear()
        self.usage, self._finish = Usage(), None


class Continuation:
    """Stands in for Chat where a model has no chat template: every text is continued on its own, nothing is remembered."""

    def __init__(self, model: Runner, **settings: Any):
        self.model, self.settings = model, settings
        self.system: str | None = None
        self.usage = Usage()
        self.finish: str | None = None

    @property
    def used(self) -> int:
        """Tokens of the context that the last text and its continuation filled."""
        return self.usage.prompt_tokens + self.usage.generated_tokens

    def stream(self, text: str) -> Generator[Step, None, None]:
        """Continue `text`, step by step."""
        began = time.perf_counter()
        tokenizer = self.model.tokenizer
        ids = tokenizer.encode(text, add_special=True)
        if tokenizer.add_eos and ids and ids[-1] == tokenizer.eos:
            ids.pop()  # the text is to go on
        self.usage, self.finish = Usage(len(ids)), None
        for step in self.model.stream(ids, **self.settings):
            self.usage.generated_tokens += 1
            self.usage.seconds = time.perf_counter() - began
            self.usage.first_seconds = self.usage.first_seconds or self.usage.seconds
            self.finish = step.finish
            yield step

    def reset(self) -> None:
        """Nothing to forget."""
