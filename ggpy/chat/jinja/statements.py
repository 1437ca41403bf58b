"""Statements of a template, and the engine that runs them. What has no entry in the table at the end, such as imports, does not exist."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import nodes

from ggpy.chat.jinja.budget import MAX_NESTING, Budget
from ggpy.chat.jinja.expressions import Scope, apply_filter, call, evaluate
from ggpy.chat.jinja.filters import FILTERS
from ggpy.chat.jinja.library import TESTS
from ggpy.chat.jinja.values import Loop, Macro, Namespace, items_of, joined, length_of, take_in, to_text
from ggpy.errors import TemplateError


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

    @contextlib.contextmanager
    def nested(self) -> Iterator[None]:
        """Counts macros and recursive loops within one another."""
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise TemplateError(f"chat template nests calls more than {MAX_NESTING} deep")
        try:
            yield
        finally:
            self.nesting -= 1

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
            self.emit(part.data if isinstance(part, nodes.TemplateData) else to_text(evaluate(self, part, scope), self.budget))

    def branch(self, node: nodes.If, scope: Scope) -> None:
        for option in (node, *node.elif_):
            if self.truth(evaluate(self, option.test, scope)):
                return self.run(option.body, scope)
        return self.run(node.else_, scope)

    def loop(self, node: nodes.For, scope: Scope) -> None:
        self._loop(node, scope, evaluate(self, node.iter, scope), 0)

    def _loop(self, node: nodes.For, scope: Scope, iterable: Any, depth0: int) -> None:
        def visited() -> Iterator[Any]:
            for item in items_of(iterable, self.budget):
                if node.test is not None:
                    inner = Scope(scope)
                    self.assign(node.target, item, inner)
                    if not self.truth(evaluate(self, node.test, inner)):
                        continue
                yield item

        def recurse(again: Any) -> str:
            with self.nested():
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
        self.assign(node.target, text if node.filter is None else apply_filter(self, node.filter, scope, text), scope)

    def filter_block(self, node: nodes.FilterBlock, scope: Scope) -> None:
        text = self.capture(node.body, Scope(scope))
        self.emit(to_text(apply_filter(self, node.filter, scope, text), self.budget))

    def with_block(self, node: nodes.With, scope: Scope) -> None:
        inner = Scope(scope)
        for target, value in zip(node.targets, node.values, strict=True):
            self.assign(target, evaluate(self, value, scope), inner)
        self.run(node.body, inner)

    def define(self, node: nodes.Macro | nodes.CallBlock, scope: Scope, name: str) -> Macro:
        uses = frozenset(used.name for used in node.find_all(nodes.Name)) & {"varargs", "kwargs", "caller"}
        return Macro(name, [argument.name for argument in node.args], node.defaults, node.body, scope, uses)

    def define_macro(self, node: nodes.Macro, scope: Scope) -> None:
        scope.values[node.name] = self.define(node, scope, node.name)

    def call_block(self, node: nodes.CallBlock, scope: Scope) -> None:
        caller = self.define(node, scope, "caller")
        self.emit(to_text(call(self, node.call, scope, caller=caller), self.budget))

    def jump(self, node: nodes.Node, scope: Scope) -> None:
        raise Jump(again=isinstance(node, nodes.Continue))


_STATEMENTS: dict[type[nodes.Node], Callable[[Engine, Any, Scope], None]] = {
    nodes.Assign: lambda engine, node, scope: engine.assign(node.target, evaluate(engine, node.node, scope), scope),
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
