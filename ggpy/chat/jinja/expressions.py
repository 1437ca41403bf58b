"""Expressions of a template. What has no entry in the table at the end does not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jinja2 import nodes

from ggpy.chat.jinja.library import GLOBALS
from ggpy.chat.jinja.methods import method
from ggpy.chat.jinja.operators import BINARY, compare, is_key, subscript
from ggpy.chat.jinja.values import Function, Loop, Macro, Namespace, Undefined, items_of, joined, to_text
from ggpy.errors import TemplateError

if TYPE_CHECKING:
    from ggpy.chat.jinja.statements import Engine


class Scope:
    """Names visible at a place: its own and those of the places around it. Assignment goes to the innermost."""

    __slots__ = ("outer", "values")

    def __init__(self, outer: Scope | None = None, values: dict[str, Any] | None = None):
        self.outer = outer
        self.values = {} if values is None else values

    def look_up(self, name: str) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        return GLOBALS.get(name) or Undefined(repr(name))


def evaluate(engine: Engine, node: nodes.Node, scope: Scope) -> Any:
    engine.budget.spend()
    expression = _EXPRESSIONS.get(type(node))
    if expression is None:
        raise TemplateError(f"chat template uses an expression of kind {type(node).__name__}, which is not supported")
    return expression(engine, node, scope)


def _name(engine: Engine, node: nodes.Name, scope: Scope) -> Any:
    return scope.look_up(node.name)


def _constant(engine: Engine, node: nodes.Const, scope: Scope) -> Any:
    if isinstance(node.value, int):
        engine.budget.bits(node.value.bit_length())
    return node.value


def _literal_list(engine: Engine, node: nodes.List | nodes.Tuple, scope: Scope) -> Any:
    values = [evaluate(engine, item, scope) for item in node.items]
    return tuple(values) if isinstance(node, nodes.Tuple) else values


def _literal_dict(engine: Engine, node: nodes.Dict, scope: Scope) -> dict[Any, Any]:
    result = {}
    for pair in node.items:
        key = evaluate(engine, pair.key, scope)
        if not is_key(key):
            raise TemplateError("chat template uses a list or mapping as a key")
        result[key] = evaluate(engine, pair.value, scope)
    return result


def _conditional(engine: Engine, node: nodes.CondExpr, scope: Scope) -> Any:
    if engine.truth(evaluate(engine, node.test, scope)):
        return evaluate(engine, node.expr1, scope)
    return Undefined("the else of an inline if") if node.expr2 is None else evaluate(engine, node.expr2, scope)


def _logic(engine: Engine, node: nodes.And | nodes.Or, scope: Scope) -> Any:
    left = evaluate(engine, node.left, scope)
    return left if engine.truth(left) is isinstance(node, nodes.Or) else evaluate(engine, node.right, scope)


def _negation(engine: Engine, node: nodes.Not, scope: Scope) -> bool:
    return not engine.truth(evaluate(engine, node.node, scope))


def _sign(engine: Engine, node: nodes.Neg | nodes.Pos, scope: Scope) -> Any:
    value = evaluate(engine, node.node, scope)
    if not isinstance(value, int | float):
        raise TemplateError(f"chat template negates a {type(value).__name__}")
    return -value if isinstance(node, nodes.Neg) else +value


def _binary(engine: Engine, node: nodes.BinExpr, scope: Scope) -> Any:
    return BINARY[type(node).__name__](evaluate(engine, node.left, scope), evaluate(engine, node.right, scope), engine.budget)


def _concat(engine: Engine, node: nodes.Concat, scope: Scope) -> str:
    parts = [to_text(evaluate(engine, part, scope), engine.budget) for part in node.nodes]
    return joined(parts, engine.budget)


def _comparison(engine: Engine, node: nodes.Compare, scope: Scope) -> bool:
    left = evaluate(engine, node.expr, scope)
    for operand in node.ops:
        right = evaluate(engine, operand.expr, scope)
        if not compare(operand.op, left, right, engine.budget):
            return False
        left = right
    return True


def _item(engine: Engine, node: nodes.Getitem, scope: Scope) -> Any:
    value = evaluate(engine, node.node, scope)
    if isinstance(node.arg, nodes.Slice):
        limits = (node.arg.start, node.arg.stop, node.arg.step)
        index = slice(*(None if limit is None else evaluate(engine, limit, scope) for limit in limits))
    else:
        index = evaluate(engine, node.arg, scope)
    found = subscript(value, index, engine.budget) if not isinstance(value, Undefined) else _attribute_of(engine, value, index)
    return _attribute_of(engine, value, index) if isinstance(found, Undefined) and isinstance(index, str) else found


def _attribute(engine: Engine, node: nodes.Getattr, scope: Scope) -> Any:
    return _attribute_of(engine, evaluate(engine, node.node, scope), node.attr)


def _attribute_of(engine: Engine, value: Any, name: Any) -> Any:
    """`value.name`: a method first, as Jinja has it, then a key."""
    if isinstance(value, Undefined):
        raise value.fail()
    if isinstance(value, Namespace):
        return value.values.get(name, Undefined(f"{name!r} of a namespace"))
    if isinstance(value, Loop):
        return value.attribute(name)
    return method(value, name) or subscript(value, name, engine.budget)


def apply_filter(engine: Engine, node: nodes.Filter, scope: Scope, block: str = "") -> Any:
    """block: what a filter without an operand works on, the text of `{% filter %}` or `{% set %}`."""
    if node.node is None:
        value = block
    elif isinstance(node.node, nodes.Filter):
        value = apply_filter(engine, node.node, scope, block)
    else:
        value = evaluate(engine, node.node, scope)
    arguments, named = _arguments(engine, node, scope)
    return engine.filter(node.name, value, *arguments, **named)


def _apply_test(engine: Engine, node: nodes.Test, scope: Scope) -> bool:
    arguments, named = _arguments(engine, node, scope)
    return engine.test(node.name, evaluate(engine, node.node, scope), *arguments, **named)


def _arguments(engine: Engine, node: nodes.Call | nodes.Filter | nodes.Test, scope: Scope) -> tuple[list[Any], dict[str, Any]]:
    arguments = [evaluate(engine, argument, scope) for argument in node.args]
    named: dict[str, Any] = {str(argument.key): evaluate(engine, argument.value, scope) for argument in node.kwargs}
    if node.dyn_args is not None:
        arguments += items_of(evaluate(engine, node.dyn_args, scope), engine.budget)
    if node.dyn_kwargs is not None:
        more = evaluate(engine, node.dyn_kwargs, scope)
        if not isinstance(more, dict) or not all(isinstance(key, str) for key in more):
            raise TemplateError("chat template passes something else than a mapping of names with **")
        named |= more
    return arguments, named


def call(engine: Engine, node: nodes.Call, scope: Scope, **extra: Any) -> Any:
    function = evaluate(engine, node.node, scope)
    arguments, named = _arguments(engine, node, scope)
    named |= extra
    if isinstance(function, Macro):
        return _call_macro(engine, function, arguments, named)
    if isinstance(function, Loop) and function.recurse is not None:
        return function.recurse(*arguments)
    if isinstance(function, Undefined):
        raise function.fail()
    if not isinstance(function, Function):
        raise TemplateError(f"chat template calls a {type(function).__name__}")
    return function.call(engine, *arguments, **named)


def _call_macro(engine: Engine, macro: Macro, arguments: list[Any], named: dict[str, Any]) -> str:
    inner = Scope(macro.scope)
    caller = named.pop("caller", Undefined("caller"))
    if "caller" in macro.uses and "caller" not in macro.parameters:
        inner.values["caller"] = caller
    surplus = arguments[len(macro.parameters) :]
    if surplus and "varargs" not in macro.uses:
        raise TemplateError(f"chat template passes {len(arguments)} arguments to {macro.name}(), which takes {len(macro.parameters)}")
    with engine.nested():
        first_default = len(macro.parameters) - len(macro.defaults)
        for position, name in enumerate(macro.parameters):
            if position < len(arguments):
                inner.values[name] = arguments[position]
            elif name in named:
                inner.values[name] = named.pop(name)
            elif position >= first_default:
                inner.values[name] = evaluate(engine, macro.defaults[position - first_default], inner)
            else:
                inner.values[name] = Undefined(f"argument {name!r} of {macro.name}()")
        if named and "kwargs" not in macro.uses:
            raise TemplateError(f"chat template passes {macro.name}() an argument {next(iter(named))!r} it does not take")
        inner.values |= {name: value for name, value in (("varargs", tuple(surplus)), ("kwargs", named)) if name in macro.uses}
        return engine.capture(macro.body, inner)


_EXPRESSIONS: dict[type[nodes.Node], Callable[[Engine, Any, Scope], Any]] = {
    **{getattr(nodes, name): _binary for name in BINARY},
    nodes.And: _logic,
    nodes.Call: call,
    nodes.Compare: _comparison,
    nodes.Concat: _concat,
    nodes.CondExpr: _conditional,
    nodes.Const: _constant,
    nodes.Dict: _literal_dict,
    nodes.Filter: apply_filter,
    nodes.Getattr: _attribute,
    nodes.Getitem: _item,
    nodes.List: _literal_list,
    nodes.Name: _name,
    nodes.Neg: _sign,
    nodes.Not: _negation,
    nodes.Or: _logic,
    nodes.Pos: _sign,
    nodes.Test: _apply_test,
    nodes.Tuple: _literal_list,
}
