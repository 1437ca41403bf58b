"""Arithmetic, comparison and subscription on template values: only what Jinja defines, each result paid for before it is made."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from ggpy.chat.jinja.budget import Budget
from ggpy.chat.jinja.text import slice_text
from ggpy.chat.jinja.values import Undefined, is_equal, items_of, joined, measure, pay
from ggpy.errors import TemplateError


def add(left: Any, right: Any, budget: Budget) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return joined([left, right], budget)
    if (isinstance(left, list) and isinstance(right, list)) or (isinstance(left, tuple) and isinstance(right, tuple)):
        budget.items(len(left) + len(right))
        return left + right  # pyright: ignore[reportOperatorIssue]
    return _number(operator.add, "+", left, right, budget)


def multiply(left: Any, right: Any, budget: Budget) -> Any:
    if isinstance(left, int) and isinstance(right, str | list | tuple):
        left, right = right, left
    if isinstance(left, str) and isinstance(right, int):
        budget.items(max(right, 0))
        return joined([left] * right, budget)
    if isinstance(left, list | tuple) and isinstance(right, int):
        budget.items(len(left) * max(right, 0))
        return left * right
    return _number(operator.mul, "*", left, right, budget)


def power(left: Any, right: Any, budget: Budget) -> Any:
    if isinstance(left, int) and isinstance(right, int) and right > 0:
        budget.bits(max(left.bit_length() - 1, 0) * right)
    return _number(operator.pow, "**", left, right, budget)


def modulo(left: Any, right: Any, budget: Budget) -> Any:
    if isinstance(left, str):
        raise TemplateError("chat template formats text with %, which is not supported")
    return _number(operator.mod, "%", left, right, budget)


def _number(compute: Callable[[Any, Any], Any], sign: str, left: Any, right: Any, budget: Budget) -> Any:
    for side in (left, right):
        if isinstance(side, Undefined):
            raise side.fail()
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        raise TemplateError(f"chat template computes {type(left).__name__} {sign} {type(right).__name__}")
    result = compute(left, right)
    if isinstance(result, complex):
        raise TemplateError(f"chat template computes a complex number with {sign}")
    if isinstance(result, int):
        budget.bits(result.bit_length())
    return result


def _plain(compute: Callable[[Any, Any], Any], sign: str) -> Callable[[Any, Any, Budget], Any]:
    return lambda left, right, budget: _number(compute, sign, left, right, budget)


BINARY: dict[str, Callable[[Any, Any, Budget], Any]] = {
    "Add": add,
    "Sub": _plain(operator.sub, "-"),
    "Mul": multiply,
    "Div": _plain(operator.truediv, "/"),
    "FloorDiv": _plain(operator.floordiv, "//"),
    "Mod": modulo,
    "Pow": power,
}


def compare(sign: str, left: Any, right: Any, budget: Budget) -> bool:
    """sign: Jinja's name of the operator, such as `lteq`."""
    match sign:
        case "eq":
            return is_equal(left, right, budget)
        case "ne":
            return not is_equal(left, right, budget)
        case "in":
            return contains(right, left, budget)
        case "notin":
            return not contains(right, left, budget)
    for side in (left, right):
        if isinstance(side, Undefined):
            raise side.fail()
    measure(left, budget)
    measure(right, budget)
    return {"lt": operator.lt, "lteq": operator.le, "gt": operator.gt, "gteq": operator.ge}[sign](left, right)


def contains(container: Any, item: Any, budget: Budget) -> bool:
    if isinstance(container, str):
        if not isinstance(item, str):
            raise TemplateError(f"chat template looks for a {type(item).__name__} in a text")
        budget.text(len(container) + len(item))
        return str.__contains__(container, item)
    if isinstance(container, dict):
        return is_key(item) and item in container
    if isinstance(container, range):
        return isinstance(item, int | float) and item in container
    return any(is_equal(item, other, budget) for other in items_of(container, budget))


def is_key(value: Any) -> bool:
    """Only scalars are keys: hashing a nest of shared tuples takes exponential time."""
    return value is None or isinstance(value, str | int | float)


def subscript(value: Any, index: Any, budget: Budget) -> Any:
    """value[index], or Undefined when there is no such key or item."""
    if isinstance(index, slice):
        if isinstance(value, str):
            return slice_text(pay(value, budget), index)
        if isinstance(value, list | tuple | range):
            budget.items(len(value))
            return value[index]
    elif isinstance(value, dict):
        if is_key(index) and index in value:
            return value[index]
    elif isinstance(value, str | list | tuple | range) and isinstance(index, int) and -len(value) <= index < len(value):
        return slice_text(pay(value, budget), slice(index, index + 1 or None)) if isinstance(value, str) else value[index]
    return Undefined(f"{index!r} of a {type(value).__name__}" if isinstance(index, str | int) else "an item")
