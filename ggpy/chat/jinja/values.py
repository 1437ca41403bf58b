"""The kinds of value a template can hold, and the questions asked of them. Nothing of Python's own objects is reachable from these."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ggpy.chat.jinja.budget import MAX_NESTING, Budget
from ggpy.chat.jinja.text import Marked, concatenate, mark, mark_like, outside
from ggpy.errors import TemplateError


class Undefined:
    """The value of a name or key that does not exist: empty when printed or looped over, an error when used otherwise."""

    def __init__(self, what: str):
        self.what = what

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Undefined)

    def __hash__(self) -> int:
        return hash(Undefined)

    def __repr__(self) -> str:
        return "Undefined"

    def fail(self) -> TemplateError:
        return TemplateError(f"chat template: {self.what} is undefined")


@dataclass(eq=False, repr=False)
class Namespace:
    """`namespace(...)`: the one thing a template can assign into."""

    values: dict[str, Any]


@dataclass(eq=False, repr=False)
class Function:
    """A callable of the library, or a method bound to a value. Called as call(engine, *args, **kwargs)."""

    name: str
    call: Callable[..., Any]


@dataclass(eq=False, repr=False)
class Macro:
    """`{% macro %}`, or the body of a `{% call %}`; `scope` is where it was defined."""

    name: str
    parameters: list[str]
    defaults: list[Any]
    body: list[Any]
    scope: Any
    uses: frozenset[str]  # which of varargs, kwargs, caller the body reads


_NOTHING = object()


@dataclass(eq=False, repr=False)
class Loop:
    """The `loop` of a for statement. It looks ahead only as far as it is asked, since a loop's filter may depend on its body."""

    iterator: Iterator[Any]
    depth0: int
    recurse: Callable[[Any], str] | None = None
    index0: int = -1
    previous: Any = _NOTHING
    current: Any = _NOTHING
    ahead: deque[Any] = field(default_factory=deque)
    seen: Any = _NOTHING

    def advance(self) -> bool:
        if not self.peek():
            return False
        self.previous, self.current = self.current, self.ahead.popleft()
        self.index0 += 1
        return True

    def peek(self) -> bool:
        if not self.ahead:
            self.ahead.extend(item for item in [next(self.iterator, _NOTHING)] if item is not _NOTHING)
        return bool(self.ahead)

    def length(self) -> int:
        self.ahead.extend(self.iterator)
        return self.index0 + 1 + len(self.ahead)

    def attribute(self, name: str) -> Any:
        match name:
            case "index":
                return self.index0 + 1
            case "index0" | "depth0":
                return getattr(self, name)
            case "depth":
                return self.depth0 + 1
            case "first":
                return self.index0 == 0
            case "last":
                return not self.peek()
            case "length":
                return self.length()
            case "revindex":
                return self.length() - self.index0
            case "revindex0":
                return self.length() - self.index0 - 1
            case "previtem":
                return Undefined("the first loop.previtem") if self.previous is _NOTHING else self.previous
            case "nextitem":
                return self.ahead[0] if self.peek() else Undefined("the last loop.nextitem")
            case "cycle":
                return Function("cycle", lambda engine, *values: values[self.index0 % len(values)])
            case "changed":
                return Function("changed", self._changed)
        return Undefined(f"loop.{name}")

    def _changed(self, engine: Any, *values: Any) -> bool:
        measure(values, engine.budget)
        changed = self.seen is _NOTHING or self.seen != values
        self.seen = values
        return changed


def take_in(value: Any, depth: int = 0) -> Any:
    """A private copy of the caller's `value` in JSON's types, with every string marked as from outside."""
    if depth > MAX_NESTING:
        raise TemplateError(f"a message is nested more than {MAX_NESTING} deep")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return mark(value)
    if isinstance(value, Mapping):
        return {take_in(key, depth + 1): take_in(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [take_in(item, depth + 1) for item in value]
    raise TemplateError(f"a message holds a {type(value).__name__}; only text, numbers, lists and mappings are allowed")


def measure(value: Any, budget: Budget) -> bool:
    """Pay for walking all of `value`, shared parts as often as they occur. Returns whether any text in it is marked."""
    marked, size, stack = False, 0, [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, str):
            size += len(item)
            budget.text(size)  # the sum: what a print of the whole would need
            marked = marked or isinstance(item, Marked)
        elif isinstance(item, list | tuple | dict):
            if depth >= MAX_NESTING:
                raise TemplateError(f"chat template nests lists more than {MAX_NESTING} deep")
            children = [*item.keys(), *item.values()] if isinstance(item, dict) else item
            budget.items(len(children))
            stack.extend((child, depth + 1) for child in children)
        else:
            budget.spend()
    return marked


def pay(text: str, budget: Budget) -> str:
    """Pay for making something as large as `text`; returns it."""
    budget.text(len(text), len(outside(text)))
    return text


def joined(parts: Sequence[str], budget: Budget) -> str:
    """The parts in order, paid for."""
    budget.text(sum(map(len, parts)), sum(len(outside(part)) for part in parts))
    return concatenate(parts)


def to_text(value: Any, budget: Budget) -> str:
    """What `{{ value }}` prints."""
    if isinstance(value, str):
        return value
    if isinstance(value, Undefined):
        return ""
    if value is None or isinstance(value, bool | int | float | range):
        return str(value)
    if isinstance(value, list | tuple | dict):
        marked = measure(value, budget)
        text = _quote(value)
        return mark(text) if marked else text
    return f"<{type(value).__name__.lower()}>"


def _quote(value: Any) -> str:
    """repr(), but of values that hide nothing of Python."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote(key)}: {_quote(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = ", ".join(map(_quote, value)) + ("," if isinstance(value, tuple) and len(value) == 1 else "")
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if value is None or isinstance(value, str | bool | int | float | range | Undefined):
        return repr(value)
    return f"<{type(value).__name__.lower()}>"


def items_of(value: Any, budget: Budget) -> list[Any] | tuple[Any, ...] | range:
    """What a loop over `value` visits."""
    if isinstance(value, list | tuple | range):
        budget.items(len(value))
        return value
    if isinstance(value, Undefined):
        return []
    if isinstance(value, dict):
        budget.items(len(value))
        return list(value)
    if isinstance(value, str):
        budget.items(len(value))
        return [mark_like(character, value) for character in str.__str__(value)]
    raise TemplateError(f"chat template loops over {_article(value)}")


def _article(value: Any) -> str:
    return "none" if value is None else f"a value of type {type(value).__name__.lower()}"


def length_of(value: Any) -> int:
    if isinstance(value, Undefined):
        return 0
    if isinstance(value, str | list | tuple | dict | range):
        return len(value)
    raise TemplateError(f"chat template asks for the length of {_article(value)}")


def is_equal(left: Any, right: Any, budget: Budget) -> bool:
    for side in (left, right):
        if isinstance(side, list | tuple | dict | str):
            measure(side, budget)
    return left == right
