"""Walk a template's syntax tree. What has no entry in the two tables of this module does not exist: imports, blocks, `do`, f-strings, …"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import nodes

from ggpy.chat.jinja.budget import MAX_NESTING, Budget
from ggpy.chat.jinja.filters import FILTERS
from ggpy.chat.jinja.library import GLOBALS, TESTS
from ggpy.chat.jinja.methods import method
from ggpy.chat.jinja.operators import BINARY, compare, is_key, subscript
from ggpy.chat.jinja.values import Function, Loop, Macro, Namespace, Undefined, items_of, joined, length_of, take_in, to_text
from ggpy.errors import TemplateError


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


class Jump(Exception):
    """`{% break %}`, or `{% continue %}` when `again`."""

    def __init__(self, again: bool):
        self.again = again


class Engine:
    """Runs one template once. `out` collects what is printed; the budget is shared by everything that happens."""

    def __init__(self, budget: Budget):
        self.budget = budget
        self.out: list[str] = []
        self.line = 0
        self.nesting = 0

    # --- what filters call back -----------------------------------------------------------------------------------------------------

    def filter(self, name: Any, value: Any, *arguments: Any, **named: Any) -> Any:
        if not isinstance(name, str) or name not in FILTERS:
            raise TemplateError(f"chat template uses the filter {name!r}, which is not supported")
        self.budget.spend()
        return FILTERS[name](self, value, *arguments, **named)

    def test(self, name: Any, value: Any, *arguments: Any, **named: Any) -> bool:
        if not isinstance(name, str) or name not in TESTS:
            raise TemplateError(f"chat template uses the test {name!r}, which is not supported")
        self.budget.spend()
        return TESTS[name](self, value, *arguments, **named)

    def truth(self, value: Any) -> bool:
        return length_of(value) > 0 if isinstance(value, str | list | tuple | dict | range) else bool(value)

    def take_in(self, value: Any) -> Any:
        return take_in(value)

    # --- statements -----------------------------------------------------------------------------------------------------------------

    def run(self, body: list[nodes.Node], scope: Scope) -> None:
        for node in body:
            self.budget.spend()
            self.line = node.lineno
            statement = _STATEMENTS.get(type(node))
            if statement is None:
                raise TemplateError(f"chat template uses {{% {type(node).__name__.lower()} %}}, which is not supported")
            statement(self, node, scope)

    def capture(self, body: list[nodes.Node], scope: Scope) -> str:
        """Run `body` and return what it printed."""
        outer, self.out = self.out, []
        try:
            self.run(body, scope)
            return joined(self.out, self.budget)
        finally:
            self.out = outer

    def emit(self, text: str) -> None:
        self.budget.emit(len(text))
        self.out.append(text)

    def output(self, node: nodes.Output, scope: Scope) -> None:
        for part in node.nodes:
            self.emit(part.data if isinstance(part, nodes.TemplateData) else to_text(self.value(part, scope), self.budget))

    def branch(self, node: nodes.If, scope: Scope) -> None:
        for option in (node, *node.elif_):
            if self.truth(self.value(option.test, scope)):
                return self.run(option.body, scope)
        return self.run(node.else_, scope)

    def loop(self, node: nodes.For, scope: Scope) -> None:
        self._loop(node, scope, self.value(node.iter, scope), 0)

    def _loop(self, node: nodes.For, scope: Scope, iterable: Any, depth0: int) -> None:
        def visited() -> Iterator[Any]:
            for item in items_of(iterable, self.budget):
                if node.test is not None:
                    inner = Scope(scope)
                    self.assign(node.target, item, inner)
                    if not self.truth(self.value(node.test, inner)):
                        continue
                yield item

        def recurse(again: Any) -> str:
            with _Nested(self):
                outer, self.out = self.out, []
                try:
                    self._loop(node, scope, again, depth0 + 1)
                    return joined(self.out, self.budget)
                finally:
                    self.out = outer

        loop = Loop(visited(), depth0, recurse if node.recursive else None)
        while loop.advance():
            self.budget.spend()
            inner = Scope(scope, {"loop": loop})
            self.assign(node.target, loop.current, inner)
            try:
                self.run(node.body, inner)
            except Jump as jump:
                if not jump.again:
                    break
        if loop.index0 < 0:
            self.run(node.else_, Scope(scope))

    def assign(self, target: nodes.Node, value: Any, scope: Scope) -> None:
        if isinstance(target, nodes.Name):
            scope.values[target.name] = value
        elif isinstance(target, nodes.NSRef):
            namespace = scope.look_up(target.name)
            if not isinstance(namespace, Namespace):
                raise TemplateError(f"chat template assigns {target.name}.{target.attr}, but {target.name} is no namespace")
            namespace.values[target.attr] = value
        elif isinstance(target, nodes.Tuple):
            values = items_of(value, self.budget)
            if len(values) != len(target.items):
                raise TemplateError(f"chat template unpacks {len(values)} values into {len(target.items)} names")
            for name, item in zip(target.items, values, strict=True):
                self.assign(name, item, scope)
        else:
            raise TemplateError("chat template assigns to something that is no name")

    def assign_block(self, node: nodes.AssignBlock, scope: Scope) -> None:
        text = self.capture(node.body, Scope(scope))
        self.assign(node.target, text if node.filter is None else self.apply_filter(node.filter, scope, text), scope)

    def filter_block(self, node: nodes.FilterBlock, scope: Scope) -> None:
        text = self.capture(node.body, Scope(scope))
        self.emit(to_text(self.apply_filter(node.filter, scope, text), self.budget))

    def with_block(self, node: nodes.With, scope: Scope) -> None:
        inner = Scope(scope)
        for target, value in zip(node.targets, node.values, strict=True):
            self.assign(target, self.value(value, scope), inner)
        self.run(node.body, inner)

    def define(self, node: nodes.Macro | nodes.CallBlock, scope: Scope, name: str) -> Macro:
        uses = frozenset(used.name for used in node.find_all(nodes.Name)) & {"varargs", "kwargs", "caller"}
        return Macro(name, [argument.name for argument in node.args], node.defaults, node.body, scope, uses)

    def define_macro(self, node: nodes.Macro, scope: Scope) -> None:
        scope.values[node.name] = self.define(node, scope, node.name)

    def call_block(self, node: nodes.CallBlock, scope: Scope) -> None:
        caller = self.define(node, scope, "caller")
        self.emit(to_text(self.call(node.call, scope, caller=caller), self.budget))

    def jump(self, node: nodes.Node, scope: Scope) -> None:
        raise Jump(again=isinstance(node, nodes.Continue))

    # --- expressions ----------------------------------------------------------------------------------------------------------------

    def value(self, node: nodes.Node, scope: Scope) -> Any:
        self.budget.spend()
        expression = _EXPRESSIONS.get(type(node))
        if expression is None:
            raise TemplateError(f"chat template uses an expression of kind {type(node).__name__}, which is not supported")
        return expression(self, node, scope)

    def name(self, node: nodes.Name, scope: Scope) -> Any:
        return scope.look_up(node.name)

    def constant(self, node: nodes.Const, scope: Scope) -> Any:
        if isinstance(node.value, int):
            self.budget.bits(node.value.bit_length())
        return node.value

    def literal_list(self, node: nodes.List | nodes.Tuple, scope: Scope) -> Any:
        values = [self.value(item, scope) for item in node.items]
        return tuple(values) if isinstance(node, nodes.Tuple) else values

    def literal_dict(self, node: nodes.Dict, scope: Scope) -> dict[Any, Any]:
        result = {}
        for pair in node.items:
            key = self.value(pair.key, scope)
            if not is_key(key):
                raise TemplateError("chat template uses a list or mapping as a key")
            result[key] = self.value(pair.value, scope)
        return result

    def conditional(self, node: nodes.CondExpr, scope: Scope) -> Any:
        if self.truth(self.value(node.test, scope)):
            return self.value(node.expr1, scope)
        return Undefined("the else of an inline if") if node.expr2 is None else self.value(node.expr2, scope)

    def logic(self, node: nodes.And | nodes.Or, scope: Scope) -> Any:
        left = self.value(node.left, scope)
        return left if self.truth(left) is isinstance(node, nodes.Or) else self.value(node.right, scope)

    def negation(self, node: nodes.Not, scope: Scope) -> bool:
        return not self.truth(self.value(node.node, scope))

    def sign(self, node: nodes.Neg | nodes.Pos, scope: Scope) -> Any:
        value = self.value(node.node, scope)
        if not isinstance(value, int | float):
            raise TemplateError(f"chat template negates a {type(value).__name__}")
        return -value if isinstance(node, nodes.Neg) else +value

    def binary(self, node: nodes.BinExpr, scope: Scope) -> Any:
        return BINARY[type(node).__name__](self.value(node.left, scope), self.value(node.right, scope), self.budget)

    def concat(self, node: nodes.Concat, scope: Scope) -> str:
        parts = [to_text(self.value(part, scope), self.budget) for part in node.nodes]
        return joined(parts, self.budget)

    def comparison(self, node: nodes.Compare, scope: Scope) -> bool:
        left = self.value(node.expr, scope)
        for operand in node.ops:
            right = self.value(operand.expr, scope)
            if not compare(operand.op, left, right, self.budget):
                return False
            left = right
        return True

    def item(self, node: nodes.Getitem, scope: Scope) -> Any:
        value = self.value(node.node, scope)
        if isinstance(node.arg, nodes.Slice):
            limits = (node.arg.start, node.arg.stop, node.arg.step)
            index = slice(*(None if limit is None else self.value(limit, scope) for limit in limits))
        else:
            index = self.value(node.arg, scope)
        found = subscript(value, index, self.budget) if not isinstance(value, Undefined) else self.attribute_of(value, index)
        return self.attribute_of(value, index) if isinstance(found, Undefined) and isinstance(index, str) else found

    def attribute(self, node: nodes.Getattr, scope: Scope) -> Any:
        return self.attribute_of(self.value(node.node, scope), node.attr)

    def attribute_of(self, value: Any, name: Any) -> Any:
        """`value.name`: a method first, as Jinja has it, then a key."""
        if isinstance(value, Undefined):
            raise value.fail()
        if isinstance(value, Namespace):
            return value.values.get(name, Undefined(f"{name!r} of a namespace"))
        if isinstance(value, Loop):
            return value.attribute(name)
        return method(value, name) or subscript(value, name, self.budget)

    def apply_filter(self, node: nodes.Filter, scope: Scope, block: str = "") -> Any:
        """block: what a filter without an operand works on, the text of `{% filter %}` or `{% set %}`."""
        if node.node is None:
            value = block
        elif isinstance(node.node, nodes.Filter):
            value = self.apply_filter(node.node, scope, block)
        else:
            value = self.value(node.node, scope)
        arguments, named = self.arguments(node, scope)
        return self.filter(node.name, value, *arguments, **named)

    def apply_test(self, node: nodes.Test, scope: Scope) -> bool:
        arguments, named = self.arguments(node, scope)
        return self.test(node.name, self.value(node.node, scope), *arguments, **named)

    def arguments(self, node: nodes.Call | nodes.Filter | nodes.Test, scope: Scope) -> tuple[list[Any], dict[str, Any]]:
        arguments = [self.value(argument, scope) for argument in node.args]
        named: dict[str, Any] = {str(argument.key): self.value(argument.value, scope) for argument in node.kwargs}
        if node.dyn_args is not None:
            arguments += items_of(self.value(node.dyn_args, scope), self.budget)
        if node.dyn_kwargs is not None:
            more = self.value(node.dyn_kwargs, scope)
            if not isinstance(more, dict) or not all(isinstance(key, str) for key in more):
                raise TemplateError("chat template passes something else than a mapping of names with **")
            named |= more
        return arguments, named

    def call(self, node: nodes.Call, scope: Scope, **extra: Any) -> Any:
        function = self.value(node.node, scope)
        arguments, named = self.arguments(node, scope)
        named |= extra
        if isinstance(function, Macro):
            return self.call_macro(function, arguments, named)
        if isinstance(function, Loop) and function.recurse is not None:
            return function.recurse(*arguments)
        if isinstance(function, Undefined):
            raise function.fail()
        if not isinstance(function, Function):
            raise TemplateError(f"chat template calls a {type(function).__name__}")
        return function.call(self, *arguments, **named)

    def call_macro(self, macro: Macro, arguments: list[Any], named: dict[str, Any]) -> str:
        inner = Scope(macro.scope)
        caller = named.pop("caller", Undefined("caller"))
        if "caller" in macro.uses and "caller" not in macro.parameters:
            inner.values["caller"] = caller
        surplus = arguments[len(macro.parameters) :]
        if surplus and "varargs" not in macro.uses:
            raise TemplateError(f"chat template passes {len(arguments)} arguments to {macro.name}(), which takes {len(macro.parameters)}")
        with _Nested(self):
            first_default = len(macro.parameters) - len(macro.defaults)
            for position, name in enumerate(macro.parameters):
                if position < len(arguments):
                    inner.values[name] = arguments[position]
                elif name in named:
                    inner.values[name] = named.pop(name)
                elif position >= first_default:
                    inner.values[name] = self.value(macro.defaults[position - first_default], inner)
                else:
                    inner.values[name] = Undefined(f"argument {name!r} of {macro.name}()")
            if named and "kwargs" not in macro.uses:
                raise TemplateError(f"chat template passes {macro.name}() an argument {next(iter(named))!r} it does not take")
            inner.values |= {name: value for name, value in (("varargs", tuple(surplus)), ("kwargs", named)) if name in macro.uses}
            return self.capture(macro.body, inner)


class _Nested:
    """Counts macros and recursive loops within one another."""

    def __init__(self, engine: Engine):
        self.engine = engine

    def __enter__(self) -> None:
        self.engine.nesting += 1
        if self.engine.nesting > MAX_NESTING:
            raise TemplateError(f"chat template nests calls more than {MAX_NESTING} deep")

    def __exit__(self, *_: object) -> None:
        self.engine.nesting -= 1


_STATEMENTS: dict[type[nodes.Node], Callable[[Engine, Any, Scope], None]] = {
    nodes.Assign: lambda engine, node, scope: engine.assign(node.target, engine.value(node.node, scope), scope),
    nodes.AssignBlock: Engine.assign_block,
    nodes.Break: Engine.jump,
    nodes.CallBlock: Engine.call_block,
    nodes.Continue: Engine.jump,
    nodes.FilterBlock: Engine.filter_block,
    nodes.For: Engine.loop,
    nodes.If: Engine.branch,
    nodes.Macro: Engine.define_macro,
    nodes.Output: Engine.output,
    nodes.Scope: lambda engine, node, scope: engine.run(node.body, Scope(scope)),
    nodes.With: Engine.with_block,
}

_EXPRESSIONS: dict[type[nodes.Node], Callable[[Engine, Any, Scope], Any]] = {
    **{getattr(nodes, name): Engine.binary for name in BINARY},
    nodes.And: Engine.logic,
    nodes.Call: Engine.call,
    nodes.Compare: Engine.comparison,
    nodes.Concat: Engine.concat,
    nodes.CondExpr: Engine.conditional,
    nodes.Const: Engine.constant,
    nodes.Dict: Engine.literal_dict,
    nodes.Filter: Engine.apply_filter,
    nodes.Getattr: Engine.attribute,
    nodes.Getitem: Engine.item,
    nodes.List: Engine.literal_list,
    nodes.Name: Engine.name,
    nodes.Neg: Engine.sign,
    nodes.Not: Engine.negation,
    nodes.Or: Engine.logic,
    nodes.Pos: Engine.sign,
    nodes.Test: Engine.apply_test,
    nodes.Tuple: Engine.literal_list,
}
