"""The filters a template may use: Jinja's harmless ones and those transformers adds.

Left out on purpose: `attr` (reaches Python objects), `format`, `center`, `wordwrap` (widths), `random`, `urlize`,
`xmlattr`. `safe` keeps its text as it is: nothing is HTML-escaped here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from ggpy.chat.jinja import text
from ggpy.chat.jinja.methods import attribute, join, method, replace, strip
from ggpy.chat.jinja.operators import add, is_key
from ggpy.chat.jinja.values import Function, Loop, Macro, Namespace, Undefined, items_of, length_of, measure, to_text
from ggpy.errors import TemplateError


def _case(name: str) -> Callable[..., str]:
    return lambda engine, value: method_of(engine, value, name)


def method_of(engine: Any, value: Any, name: str, *arguments: Any) -> Any:
    """Call a method of text on anything printable."""
    found = method(to_text(value, engine.budget), name)
    assert found is not None
    return found.call(engine, *arguments)


def _default(engine: Any, value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    return default_value if isinstance(value, Undefined) or (boolean and not engine.truth(value)) else value


def _first(engine: Any, value: Any) -> Any:
    return next(iter(items_of(value, engine.budget)), Undefined("the first item of an empty list"))


def _last(engine: Any, value: Any) -> Any:
    items = items_of(value, engine.budget)
    return items[-1] if items else Undefined("the last item of an empty list")


def _items(engine: Any, value: Any) -> list[Any]:
    if isinstance(value, Undefined):
        return []
    if not isinstance(value, dict):
        raise TemplateError(f"chat template applies |items to a {type(value).__name__}")
    engine.budget.items(len(value))
    return list(value.items())


def _join(engine: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
    return join(engine, to_text(d, engine.budget), value if attribute is None else _map(engine, value, attribute=attribute))


def _all(engine: Any, value: Any) -> Any:
    """The items of a list that may be none: what map, select and reject accept."""
    return [] if value is None else items_of(value, engine.budget)


def _map(engine: Any, value: Any, *arguments: Any, attribute: Any = None, default: Any = None, **named: Any) -> list[Any]:
    items = _all(engine, value)
    if attribute is None and arguments:
        return [engine.filter(arguments[0], item, *arguments[1:], **named) for item in items]
    found = [attribute_of(item, attribute) for item in items]
    return found if default is None else [default if isinstance(item, Undefined) else item for item in found]


attribute_of = attribute  # filters have a parameter of that name


def _select(keep: bool, by_attribute: bool) -> Callable[..., list[Any]]:
    def select(engine: Any, value: Any, *arguments: Any) -> list[Any]:
        path, *test = arguments if by_attribute else (None, *arguments)

        def holds(item: Any) -> bool:
            engine.budget.spend()
            item = attribute_of(item, path) if by_attribute else item
            return engine.test(test[0], item, *test[1:]) if test else engine.truth(item)

        return [item for item in _all(engine, value) if holds(item) == keep]

    return select


def _sorted(engine: Any, items: Iterable[Any], key: Callable[[Any], Any], case_sensitive: bool, reverse: bool) -> list[Any]:
    items = list(items)
    keys = [key(item) for item in items]
    for _ in range(max(1, len(items)).bit_length()):  # as often as each is compared
        measure(keys, engine.budget)
    keys = [k.lower() if isinstance(k, str) and not case_sensitive else k for k in keys]
    return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__, reverse=bool(reverse))]


def _sort(engine: Any, value: Any, reverse: bool = False, case_sensitive: bool = False, attribute: Any = None) -> list[Any]:
    key = (lambda item: item) if attribute is None else (lambda item: attribute_of(item, attribute))
    return _sorted(engine, items_of(value, engine.budget), key, case_sensitive, reverse)


def _dictsort(engine: Any, value: Any, case_sensitive: bool = False, by: str = "key", reverse: bool = False) -> list[Any]:
    position = {"key": 0, "value": 1}[by]
    return _sorted(engine, _items(engine, value), lambda pair: pair[position], case_sensitive, reverse)


def _unique(engine: Any, value: Any, case_sensitive: bool = False, attribute: Any = None) -> list[Any]:
    seen, kept = set(), []
    for item in items_of(value, engine.budget):
        key = item if attribute is None else attribute_of(item, attribute)
        if not is_key(key):
            raise TemplateError("chat template applies |unique to a list of lists or mappings")
        key = key.lower() if isinstance(key, str) and not case_sensitive else key
        if key not in seen:
            seen.add(key)
            kept.append(item)
    return kept


def _extreme(choose: Callable[..., Any]) -> Callable[..., Any]:
    def extreme(engine: Any, value: Any, case_sensitive: bool = False, attribute: Any = None) -> Any:
        ranked = _sort(engine, value, False, case_sensitive, attribute)
        return choose(ranked) if ranked else Undefined("an item of an empty list")

    return extreme


def _sum(engine: Any, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    for item in items_of(value, engine.budget):
        start = add(start, item if attribute is None else attribute_of(item, attribute), engine.budget)
    return start


def _indent(engine: Any, value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    value = to_text(value, engine.budget)
    if not isinstance(width, str) and width > 1000:
        raise TemplateError(f"chat template indents by {width}; at most 1000 is allowed")
    margin = width if isinstance(width, str) else " " * width
    lines = method_of(engine, text.concatenate([value, "\n"]), "splitlines")
    engine.budget.text(len(value) + len(lines) * (len(margin) + 1))
    parts = [line if i == 0 or not (line or blank) else text.concatenate([margin, line]) for i, line in enumerate(lines)]
    return text.concatenate([margin if first else "", join(engine, "\n", parts)])


def _number(convert: Callable[[Any], Any]) -> Callable[..., Any]:
    def to_number(engine: Any, value: Any, default: Any = 0, base: int = 10) -> Any:
        measure(value, engine.budget)
        try:
            result = int(value, base) if convert is int and isinstance(value, str) else convert(value)
        except (TypeError, ValueError, OverflowError):
            return default
        engine.budget.bits(result.bit_length() if isinstance(result, int) else 0)
        return result

    return to_number


def _round(engine: Any, value: Any, precision: int = 0, method: str = "common") -> float:
    if abs(precision) > 100 or method != "common":
        raise TemplateError(f"chat template rounds to precision {precision} by method {method!r}; supported: up to 100, 'common'")
    return round(float(value), precision)


def _to_json(
    engine: Any, value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """As transformers has it: no HTML escapes, and the options of json.dumps."""
    marked = measure(value, engine.budget)
    size = indent if isinstance(indent, int) else len(indent or "")
    if size > 100 or sum(map(len, separators or ())) > 100:
        raise TemplateError("chat template writes JSON with an indent or separators longer than 100")
    if isinstance(value, Undefined | Namespace | Function | Macro | Loop):
        raise TemplateError(f"chat template writes {type(value).__name__.lower()} as JSON")
    result = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=tuple(separators) if separators else None, sort_keys=sort_keys
    )
    engine.budget.text(len(result))
    return text.mark(result) if marked else result


def _from_json(engine: Any, value: str) -> Any:
    engine.budget.text(len(value))
    return engine.take_in(json.loads(value))


def _escape(engine: Any, value: Any) -> str:
    value = to_text(value, engine.budget)
    for old, new in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ('"', "&#34;")):
        value = replace(engine, value, old, new)
    return value


def _batch(engine: Any, value: Any, linecount: int, fill_with: Any = None) -> list[Any]:
    items = list(items_of(value, engine.budget))
    rows = [items[i : i + linecount] for i in range(0, len(items), linecount)]
    if rows and fill_with is not None:
        engine.budget.items(linecount)
        rows[-1] += [fill_with] * (linecount - len(rows[-1]))
    return rows


def _reverse(engine: Any, value: Any) -> Any:
    if isinstance(value, str):
        return text.slice_text(value, slice(None, None, -1))
    return list(items_of(value, engine.budget))[::-1]


def _replace(engine: Any, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    value, old, new = (to_text(item, engine.budget) for item in (value, old, new))
    return replace(engine, value, old, new, -1 if count is None else count)


FILTERS: dict[str, Callable[..., Any]] = {
    "abs": lambda engine, value: abs(value),
    "batch": _batch,
    "capitalize": _case("capitalize"),
    "count": lambda engine, value: length_of(value),
    "d": _default,
    "default": _default,
    "dictsort": _dictsort,
    "e": _escape,
    "escape": _escape,
    "first": _first,
    "float": _number(float),
    "from_json": _from_json,
    "indent": _indent,
    "int": _number(int),
    "items": _items,
    "join": _join,
    "last": _last,
    "length": lambda engine, value: length_of(value),
    "list": lambda engine, value: list(items_of(value, engine.budget)),
    "lower": _case("lower"),
    "map": _map,
    "max": _extreme(lambda ranked: ranked[-1]),
    "min": _extreme(lambda ranked: ranked[0]),
    "reject": _select(False, False),
    "rejectattr": _select(False, True),
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "safe": lambda engine, value: to_text(value, engine.budget),
    "select": _select(True, False),
    "selectattr": _select(True, True),
    "sort": _sort,
    "string": lambda engine, value: to_text(value, engine.budget),
    "sum": _sum,
    "title": _case("title"),
    "tojson": _to_json,
    "trim": lambda engine, value, chars=None: strip(engine, to_text(value, engine.budget), chars),
    "unique": _unique,
    "upper": _case("upper"),
    "wordcount": lambda engine, value: len(method_of(engine, value, "split")),
}
