"""Chat templates: messages to prompt text to token ids, whoever wrote the template and whatever the messages say.

The dialect is the one transformers speaks: Jinja with trim_blocks, lstrip_blocks, loop controls, `{% generation %}`, `raise_exception`,
`strftime_now` and a plain `tojson`. The template runs in `ggpy.chat.jinja`, which bounds its steps, time and memory.
"""

from __future__ import annotations

import re
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import jinja2
import jinja2.ext
from jinja2 import nodes

from ggpy.chat.jinja.budget import MAX_SOURCE, MAX_TOKENS, Budget
from ggpy.chat.jinja.expressions import Scope
from ggpy.chat.jinja.statements import Engine, Jump
from ggpy.chat.jinja.text import Ranges, concatenate, outside
from ggpy.chat.jinja.values import take_in
from ggpy.errors import TemplateError
from ggpy.tokenizer import Tokenizer, TokenType

Messages = Sequence[Mapping[str, Any]]

_REASONING = ("reasoning_content", "thinking", "reasoning")


class _Dialect(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, which marks assistant text for training and is only a scope here; and a limit on tokens."""

    tags: ClassVar = {"generation"}

    def filter_stream(self, stream: Any) -> Iterator[Any]:
        for count, token in enumerate(stream):
            if count >= MAX_TOKENS:
                raise TemplateError(f"chat template has more than {MAX_TOKENS} tokens")
            yield token

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@lru_cache(maxsize=16)
def parse(template: str) -> nodes.Template:
    """The syntax tree of a template. TemplateError when it is too long, nested too deeply, or not Jinja."""
    size = len(template.encode("utf-8", "surrogatepass"))
    if size > MAX_SOURCE:
        raise TemplateError(f"chat template has {size} bytes; at most {MAX_SOURCE} are allowed")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Dialect, jinja2.ext.loopcontrols])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, about escapes such as \d in the template's literals
            return environment.parse(template)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"chat template, line {error.lineno}: {error.message}") from error
    except RecursionError as error:
        raise TemplateError("chat template is nested too deeply") from error
    except (ValueError, OverflowError) as error:  # a number literal with thousands of digits
        raise TemplateError(f"chat template cannot be read: {error}") from error


def render(
    template: str,
    messages: Messages,
    *,
    bos: str = "",
    eos: str = "",
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **variables: Any,
) -> str:
    """The prompt text for `messages` ({"role": …, "content": …}, …). They are copied, never changed.

    What an assistant thought may be called `reasoning_content`, `thinking` or `reasoning`: templates see it as the first two, as in
    transformers. bos, eos: spelling of the special tokens, the template's `bos_token` and `eos_token`. variables: what else the template
    reads. The result knows which of its characters came from the messages (see `encode`).
    Raises TemplateError, also when the template itself refuses the messages.
    """
    tree = parse(template)
    engine = Engine(Budget())
    try:
        given = {"messages": [_with_reasoning(message) for message in messages], "tools": tools, **variables}
        names = {name: take_in(value) for name, value in given.items()}
        names |= {"bos_token": bos, "eos_token": eos, "add_generation_prompt": add_generation_prompt}
        engine.run(tree.body, Scope(values=names))
        return concatenate(engine.out)
    except TemplateError:
        raise
    except RecursionError as error:
        raise TemplateError("chat template is nested too deeply") from error
    except (TypeError, ValueError, LookupError, ArithmeticError, MemoryError) as error:
        raise TemplateError(f"chat template fails near line {engine.line}: {error}") from error
    except Jump as error:
        raise TemplateError("chat template breaks out of a loop where there is none") from error


def _with_reasoning(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with its reasoning under the names that templates read."""
    if not isinstance(message, Mapping):
        return message
    said = [message[name] for name in _REASONING if message.get(name) is not None]
    return {"thinking": said[0], **message, "reasoning_content": said[0]} if said else message


def encode(prompt: str, tokenizer: Tokenizer) -> list[int]:
    """Token ids of a rendered prompt: special tokens where the template wrote them, plain text where a message spells one.

    A beginning-of-text id is put in front where the model wants one and the template did not write it, as llama.cpp does.
    """
    pattern = _special_pattern(tokenizer)
    found = [(match.start(), match.end(1)) for match in pattern.finditer(prompt)] if pattern else []
    genuine = [(start, stop) for start, stop in found if not _overlaps(outside(prompt), start, stop)]
    if len(genuine) == len(found):
        ids = tokenizer.encode(prompt, parse_special=True)
    else:
        ids, position = [], 0
        for start, stop in genuine:
            if start >= position:
                ids += tokenizer.encode(prompt[position:start])
                ids += tokenizer.encode(prompt[start:stop], parse_special=True)
                position = stop
        ids += tokenizer.encode(prompt[position:])
    if tokenizer.add_bos and tokenizer.bos is not None and ids[:1] != [tokenizer.bos]:
        ids.insert(0, tokenizer.bos)
    return ids


_PATTERNS: WeakKeyDictionary[Tokenizer, re.Pattern[str] | None] = WeakKeyDictionary()


def _special_pattern(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Finds the longest special token at every position, overlapping ones too."""
    if tokenizer not in _PATTERNS:
        texts = [tokenizer.vocabulary[i] for i in tokenizer.of_type(TokenType.CONTROL, TokenType.UNKNOWN)]
        alternatives = "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True) if text)
        _PATTERNS[tokenizer] = re.compile(f"(?=({alternatives}))") if alternatives else None
    return _PATTERNS[tokenizer]


def _overlaps(ranges: Ranges, start: int, stop: int) -> bool:
    after = bisect_right(ranges, start, key=lambda span: span[1])  # the first range that ends behind `start`
    return after < len(ranges) and ranges[after][0] < stop
