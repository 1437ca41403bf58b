"""Methods of text, lists and mappings that a template may call. None changes its value; none formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ggpy.chat.jinja import text
from ggpy.chat.jinja.operators import is_key
from ggpy.chat.jinja.values import Function, Undefined, is_equal, items_of, joined, pay, to_text
from ggpy.errors import TemplateError

Method = Callable[..., Any]


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TemplateError(f"chat template passes a {type(value).__name__} where text is expected")
    return value


def _characters(value: Any) -> str | None:
    return None if value is None else _string(value)


def replace(engine: Any, value: str, old: Any, new: Any, count: int = -1) -> str:
    old, new = _string(old), _string(new)
    pay(value, engine.budget)
    found = str.count(value, old) if count < 0 else min(count, str.count(value, old))
    engine.budget.items(found)
    engine.budget.text(len(value) + found * (len(new) - len(old)), len(text.outside(value)) + found * len(text.outside(new)))
    return text.replace(value, old, new, found)


def _pay_for_product(engine: Any, value: str, other: str | None) -> None:
    """Searching from the right, and stripping characters of a set, take len(value) * len(other) comparisons at worst."""
    pay(value, engine.budget)
    engine.budget.spend(len(value) * len(other or "") // 1000)


def _split(engine: Any, value: str, separator: Any, maximum: int, *, from_right: bool) -> list[str]:
    separator = _characters(separator)
    _pay_for_product(engine, value, separator if from_right else None)
    engine.budget.items(len(str.split(value)) if separator is None else str.count(value, separator) + 1)
    return text.split(value, separator, maximum, from_right=from_right)


def _split_lines(engine: Any, value: str, keepends: bool = False) -> list[str]:
    pay(value, engine.budget)
    engine.budget.items(len(str.splitlines(value)))
    return text.split_lines(value, keepends)


def _partition(engine: Any, value: str, separator: Any, *, from_right: bool = False) -> tuple[str, ...]:
    _pay_for_product(engine, value, _string(separator) if from_right else None)
    pieces = (str.rpartition if from_right else str.partition)(value, _string(separator))
    return tuple(text.locate(value, pieces, 0))


def join(engine: Any, separator: str, values: Any) -> str:
    """The texts of `values` with `separator` between them."""
    parts = [to_text(value, engine.budget) for value in items_of(values, engine.budget)]
    return joined([piece for i, part in enumerate(parts) for piece in ((separator, part) if i else (part,))], engine.budget)


def strip(engine: Any, value: str, characters: Any = None, *, left: bool = True, right: bool = True) -> str:
    _pay_for_product(engine, value, _characters(characters))
    return text.strip(value, characters, left=left, right=right)


def _remove_prefix(engine: Any, value: str, prefix: Any) -> str:
    return text.cut(value, len(_string(prefix)), len(value)) if str.startswith(value, _string(prefix)) else value


def _remove_suffix(engine: Any, value: str, suffix: Any) -> str:
    return text.cut(value, 0, len(value) - len(_string(suffix))) if str.endswith(value, _string(suffix)) else value


def _case(name: str) -> Method:
    def apply(engine: Any, value: str) -> str:
        pay(value, engine.budget)
        return text.change_case(value, name)

    return apply


def _question(name: str) -> Method:
    """A method of str that answers with a truth value or a number."""

    def ask(engine: Any, value: str, *arguments: Any) -> Any:
        _pay_for_product(engine, value, arguments[0] if name in ("rfind", "rindex") and arguments else None)
        return getattr(str, name)(value, *arguments)

    return ask


def _get(engine: Any, value: dict[Any, Any], key: Any, default: Any = None) -> Any:
    return value.get(key, default) if is_key(key) else default


def _listed(view: Callable[[dict[Any, Any]], Any]) -> Method:
    def apply(engine: Any, value: dict[Any, Any]) -> list[Any]:
        engine.budget.items(len(value))
        return list(view(value))

    return apply


def _index(engine: Any, value: Any, item: Any) -> int:
    for position, other in enumerate(items_of(value, engine.budget)):
        if is_equal(other, item, engine.budget):
            return position
    raise TemplateError("chat template asks for the index of an item that is not in the list")


_TEXT: dict[str, Method] = {
    **{name: _case(name) for name in ("capitalize", "casefold", "lower", "swapcase", "title", "upper")},
    **{name: _question(name) for name in ("count", "endswith", "find", "index", "rfind", "rindex", "startswith")},
    **{name: _question(name) for name in ("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower")},
    **{name: _question(name) for name in ("isnumeric", "isprintable", "isspace", "istitle", "isupper")},
    "join": join,
    "lstrip": lambda engine, value, characters=None: strip(engine, value, characters, right=False),
    "partition": _partition,
    "removeprefix": _remove_prefix,
    "removesuffix": _remove_suffix,
    "replace": replace,
    "rpartition": lambda engine, value, separator: _partition(engine, value, separator, from_right=True),
    "rsplit": lambda engine, value, sep=None, maxsplit=-1: _split(engine, value, sep, maxsplit, from_right=True),
    "rstrip": lambda engine, value, characters=None: strip(engine, value, characters, left=False),
    "split": lambda engine, value, sep=None, maxsplit=-1: _split(engine, value, sep, maxsplit, from_right=False),
    "splitlines": _split_lines,
    "strip": strip,
}

_MAPPING: dict[str, Method] = {
    "copy": lambda engine, value: dict(_listed(dict.items)(engine, value)),
    "get": _get,
    "items": _listed(dict.items),
    "keys": _listed(dict.keys),
    "values": _listed(dict.values),
}

_LIST: dict[str, Method] = {
    "copy": lambda engine, value: list(items_of(value, engine.budget)),
    "count": lambda engine, value, item: sum(is_equal(other, item, engine.budget) for other in items_of(value, engine.budget)),
    "index": _index,
}


def method(value: Any, name: str) -> Function | None:
    """The bound method `name` of `value`, or None."""
    table = _TEXT if isinstance(value, str) else _MAPPING if isinstance(value, dict) else _LIST if isinstance(value, list | tuple) else {}
    if name not in table:
        return None
    call = table[name]
    return Function(name, lambda engine, /, *arguments, **named: call(engine, value, *arguments, **named))


def attribute(value: Any, path: Any) -> Any:
    """`a.b.0` as filters spell it in `attribute=`: keys and positions, never methods."""
    for name in [path] if isinstance(path, int) else _string(path).split("."):
        index = int(name) if isinstance(name, str) and name.isdecimal() and name.isascii() else name
        if isinstance(value, dict):
            value = value[name] if name in value else value.get(index, Undefined(f"{name!r} of a mapping"))
        elif isinstance(value, list | tuple) and isinstance(index, int) and index < len(value):
            value = value[index]
        else:
            return Undefined(f"{name!r} of a {type(value).__name__}")
    return value
