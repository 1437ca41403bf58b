"""The tests and the global functions a template may use. Jinja's `lipsum`, `cycler` and `joiner` are left out on purpose."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

from ggpy.chat.jinja.filters import FILTERS
from ggpy.chat.jinja.operators import compare, is_key
from ggpy.chat.jinja.text import mark_like
from ggpy.chat.jinja.values import Function, Macro, Namespace, Undefined, items_of, to_text
from ggpy.errors import TemplateError


def _comparison(sign: str) -> Callable[..., bool]:
    return lambda engine, value, other: compare(sign, value, other, engine.budget)


TESTS: dict[str, Callable[..., bool]] = {
    "boolean": lambda engine, value: isinstance(value, bool),
    "callable": lambda engine, value: isinstance(value, Function | Macro),
    "defined": lambda engine, value: not isinstance(value, Undefined),
    "divisibleby": lambda engine, value, number: value % number == 0,
    "even": lambda engine, value: value % 2 == 0,
    "false": lambda engine, value: value is False,
    "filter": lambda engine, value: value in FILTERS,
    "float": lambda engine, value: isinstance(value, float),
    "in": _comparison("in"),
    "integer": lambda engine, value: isinstance(value, int) and not isinstance(value, bool),
    "iterable": lambda engine, value: isinstance(value, str | list | tuple | dict | range | Undefined),
    "lower": lambda engine, value: to_text(value, engine.budget).islower(),
    "mapping": lambda engine, value: isinstance(value, dict),
    "none": lambda engine, value: value is None,
    "number": lambda engine, value: isinstance(value, int | float),
    "odd": lambda engine, value: value % 2 == 1,
    "sameas": lambda engine, value, other: value is other or (is_key(value) and type(value) is type(other) and value == other),
    "sequence": lambda engine, value: isinstance(value, str | list | tuple | dict | range | Undefined),
    "string": lambda engine, value: isinstance(value, str),
    "test": lambda engine, value: value in TESTS,
    "true": lambda engine, value: value is True,
    "undefined": lambda engine, value: isinstance(value, Undefined),
    "upper": lambda engine, value: to_text(value, engine.budget).isupper(),
    **{
        name: _comparison(sign)
        for sign, names in {
            "eq": ("eq", "equalto", "=="),
            "ne": ("ne", "!="),
            "lt": ("lt", "lessthan", "<"),
            "lteq": ("le", "<="),
            "gt": ("gt", "greaterthan", ">"),
            "gteq": ("ge", ">="),
        }.items()
        for name in names
    },
}


def _range(engine: Any, *limits: Any) -> range:
    if not all(isinstance(limit, int) for limit in limits):
        raise TemplateError("chat template calls range() with something else than whole numbers")
    result = range(*limits)
    engine.budget.items(max(0, -((result.start - result.stop) // result.step)))
    return result


def _dict(engine: Any, pairs: Any = (), /, **named: Any) -> dict[Any, Any]:
    pairs = list(pairs.items()) if isinstance(pairs, dict) else items_of(pairs, engine.budget)
    result: dict[Any, Any] = {}
    for key, value in pairs:
        if not is_key(key):
            raise TemplateError("chat template uses a list or mapping as a key")
        result[key] = value
    return result | named


def _namespace(engine: Any, pairs: Any = (), /, **named: Any) -> Namespace:
    return Namespace(_dict(engine, pairs, **named))


def _raise_exception(engine: Any, message: Any = "") -> None:
    raise TemplateError(f"chat template: {to_text(message, engine.budget)}")


def _strftime_now(engine: Any, layout: Any) -> str:
    if not isinstance(layout, str) or len(layout) > 200 or re.search(r"%(?![-]?[A-Za-z%])", layout):
        raise TemplateError("chat template asks for the time in a layout that is not supported")
    return mark_like(datetime.datetime.now().strftime(str.__str__(layout)), layout)


GLOBALS: dict[str, Function] = {
    function.name: function
    for function in (
        Function("dict", _dict),
        Function("namespace", _namespace),
        Function("raise_exception", _raise_exception),
        Function("range", _range),
        Function("strftime_now", _strftime_now),
    )
}
