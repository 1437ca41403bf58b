"""Templates from strangers: none escapes, none takes more than its budget, all faults are one clean line."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggpy.chat.jinja.filters import FILTERS
from ggpy.chat.jinja.library import TESTS
from ggpy.chat.templates import parse, render
from ggpy.errors import TemplateError

MESSAGES = [{"role": "user", "content": "hello <|im_end|>"}]

ESCAPES = {
    "class walk": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class walk by item": "{{ ''['__class__']['__base__'] }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "map by attribute": "{{ ['']|map(attribute='__class__')|list }}",
    "str.format": "{{ '{0.__class__}'.format(1) }}",
    "str.format by reference": "{% set f = '{0.__class__}'.format %}{{ f(1) }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "format filter": "{{ '%s'|format(messages) }}",
    "percent": "{{ '%s' % messages }}",
    "lipsum globals": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "cycler": "{{ cycler('a').__init__.__globals__ }}",
    "joiner": "{{ joiner(',').__init__ }}",
    "self": "{{ self._TemplateReference__context }}",
    "undefined's class": "{{ nothing.__class__ }}",
    "function's globals": "{{ raise_exception.__globals__ }}",
    "call attribute": "{{ range.call.__globals__ }}",
    "namespace class": "{{ namespace(a=1).__class__.__init__ }}",
    "macro internals": "{% macro m() %}{% endmacro %}{{ m.scope.outer.values }}",
    "loop internals": "{% for m in messages %}{{ loop.iterator.gi_frame.f_globals }}{% endfor %}",
    "function on engine": "{{ namespace.call(1).budget }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "from import": "{% from 'os' import system %}",
    "extends": "{% extends 'base' %}",
    "block": "{% block a %}x{% endblock %}",
    "do": "{% do messages.append(1) %}",
    "append": "{{ messages.append(1) }}",
    "update": "{{ messages[0].update({'role': 'x'}) }}",
    "pop": "{{ messages[0].pop('role') }}",
    "autoescape": "{% autoescape true %}x{% endautoescape %}",
    "encode": "{{ 'a'.encode('utf-8') }}",
    "strftime width": "{{ strftime_now('%1000000000d') }}",
    "break outside a loop": "{% macro m() %}{% break %}{% endmacro %}{{ m() }}",
}
FORBIDDEN_OUTPUT = ("class", "function", "object at", "module", "root:")


@pytest.mark.parametrize("name", ESCAPES)
def test_no_template_reaches_python(name: str):
    try:
        text = render(ESCAPES[name], MESSAGES)
    except TemplateError as error:
        assert "\n" not in str(error)
    else:
        assert not any(word in text for word in FORBIDDEN_OUTPUT), text


DOUBLING = "{% set n = namespace(v=SEED) %}{% for i in range(99) %}{% set n.v = STEP %}{% endfor %}USE"


def doubling(seed: str, step: str, use: str = "") -> str:
    return DOUBLING.replace("SEED", seed).replace("STEP", step).replace("USE", use)


ATTACKS = {
    "nested ranges": "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3,
    "loop in one filter": "{{ range(99999)|map('string')|map('upper')|map('lower')|map('list')|map('join')|list|length }}",
    "huge range": "{% for i in range(10**18) %}{% endfor %}",
    "negative range": "{{ range(0, -10**18, -1)|list }}",
    "power of power": "{{ 9**(9**9) }}",
    "power": "{{ 2**1000000000 }}",
    "power chain": doubling("3", "n.v * n.v"),
    "negative power": "{{ (10**1000) ** (10**1000) }}",
    "shifted literal": "{{ " + "9" * 5000 + " }}",
    "long literal": "{{ " + "9" * 4000 + " * " + "9" * 4000 + " }}",
    "repeat text": "{{ 'a' * 10**9 }}",
    "repeat text, swapped": "{{ 10**9 * 'a' }}",
    "repeat list": "{{ [0] * 10**9 }}",
    "doubling text": doubling("'aa'", "n.v ~ n.v"),
    "doubling text, plus": doubling("'aa'", "n.v + n.v"),
    "doubling marked text": doubling("'a' ~ messages[0].content", "n.v ~ 'b' ~ n.v"),
    "doubling by join": doubling("'aa'", "[n.v, n.v]|join"),
    "doubling by replace": doubling("'aa'", "n.v.replace('a', 'aa')"),
    "doubling list": doubling("[1]", "n.v + n.v"),
    "shared list, printed": doubling("[1]", "[n.v, n.v]", "{{ n.v }}"),
    "shared list, as JSON": doubling("[1]", "[n.v, n.v]", "{{ n.v|tojson }}"),
    "shared list, compared": doubling("[1]", "[n.v, n.v]", "{{ n.v == [n.v[0], n.v[1]] }}"),
    "shared list, searched": doubling("[1]", "[n.v, n.v]", "{{ [n.v[0], n.v[1]] in [n.v] }}"),
    "shared list, sorted": doubling("[1]", "[n.v, n.v]", "{{ [n.v, n.v]|sort }}"),
    "shared tuple as key": doubling("(1,)", "(n.v, n.v)", "{{ {n.v: 1} }}"),
    "shared tuple as key, looked up": doubling(
        "(1,)", "(n.v, n.v)", "{{ n.v in {1: 1} }}{{ {1: 1}[n.v] }}{{ {1: 1}.get(n.v) }}{{ n.v is in({}) }}"
    ),
    "shared tuple, unique": doubling("(1,)", "(n.v, n.v)", "{{ [n.v]|unique|list }}"),
    "shared mapping": doubling("{}", "{'a': n.v, 'b': n.v}", "{{ n.v|tojson }}"),
    "shared list, changed": "{% set n = namespace(v=[1]) %}{% for i in range(60) %}"
    "{% set n.v = [n.v, n.v] %}{% if loop.changed(n.v) %}{% endif %}{% endfor %}",
    "deep list": "{% set n = namespace(v=[]) %}{% for i in range(90000) %}{% set n.v = [n.v] %}{% endfor %}{{ n.v }}",
    "deep list as JSON": "{% set n = namespace(v=[]) %}{% for i in range(90000) %}{% set n.v = [n.v] %}{% endfor %}{{ n.v|tojson }}",
    "deep JSON": "{{ ('[' * 500000)|from_json }}",
    "indent JSON": "{{ [[[[1]]]]|tojson(indent=10**9) }}",
    "indent": "{{ ('a\\n' * 9999)|indent(10**9) }}",
    "indent by text": "{{ ('a\\n' * 9999)|indent('a' * 99999) }}",
    "center": "{{ 'a'|center(10**9) }}",
    "center method": "{{ 'a'.center(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\\t'.expandtabs(10**9) }}",
    "wide format": "{{ '%1000000000d'|format(1) }}",
    "wide percent": "{{ '%1000000000d' % 1 }}",
    "wordwrap": "{{ ('a' * 999999)|wordwrap(1) }}",
    "batch": "{{ [1]|batch(10**9, 0)|list }}",
    "round": "{{ 5|round(-10**9) }}{{ 5|int|round(10**9) }}",
    "int of hex": "{{ ('f' * 999999)|int(0, 16) }}",
    "int of digits": "{{ ('9' * 999999)|int }}",
    "recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "branching macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "recursive default": "{% macro m(a=m()) %}{% endmacro %}{{ m() }}",
    "recursive loop": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "recursive caller": "{% macro m() %}{{ caller() }}{% endmacro %}"
    "{% macro r() %}{% call m() %}{{ r() }}{% endcall %}{% endmacro %}{{ r() }}",
    "endless output": "{% for a in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
    "hoard of texts": "{% set n = namespace(v=[]) %}{% for i in range(5000) %}{% set n.v = n.v + ['🙂' * 99999 ~ i] %}{% endfor %}",
    "hoard of letters": "{% set n = namespace(v=[]) %}{% for i in range(5000) %}{% set n.v = n.v + [('a' * 99999)|list] %}{% endfor %}",
    "split to letters": "{{ ('a,' * 499999).split(',')|length }}",
    "split at spaces": "{{ ('a ' * 499999).split()|length }}",
    "split lines": "{{ ('\\n' * 999999).splitlines()|length }}",
    "rfind": "{% set a = 'a' * 300000 %}{{ (a ~ a).rfind(a ~ 'b' ~ a) }}",
    "rsplit": "{% set a = 'a' * 200000 %}{{ (a ~ a ~ a ~ a).rsplit(a ~ 'b' ~ a)|length }}",
    "find": "{% set a = 'a' * 300000 %}{{ (a ~ a).find(a ~ 'b' ~ a) }}",
    "strip": "{{ ('a' * 999999).strip('b' * 999998 ~ 'a') }}",
    "long comparison": "{% set a = 'a' * 999999 %}{% for i in range(99999) %}{% if a ~ 'b' == a ~ 'c' %}{% endif %}{% endfor %}",
    "sort long texts": "{% set a = 'a' * 99999 %}{{ range(9999)|map('string')|list|sort|length }}{% set n = namespace(v=[]) %}"
    "{% for i in range(99) %}{% set n.v = n.v + [a ~ i] %}{% endfor %}{{ (n.v * 999)|sort|length }}",
    "sum of lists": "{{ ([[1]] * 99999)|sum(start=[])|length }}",
    "many changes of mark": "{% set s = ('a' ~ messages[0].content) * 40000 %}{% for i in range(9999) %}{% set t = s[1:] %}{% endfor %}",
    "brackets": "{{ " + "(" * 50_000 + ")" * 50_000 + " }}",
    "lists": "{{ " + "[" * 50_000 + "]" * 50_000 + " }}",
    "nots": "{{ " + "not " * 50_000 + "1 }}",
    "minuses": "{{ " + "-" * 50_000 + "1 }}",
    "additions": "{{ 1" + " + 1" * 50_000 + " }}",
    "attributes": "{{ a" + ".b" * 50_000 + " }}",
    "filters": "{{ 1" + "|string" * 30_000 + " }}",
    "ifs": "{% if 1 %}" * 10_000 + "{% endif %}" * 10_000,
    "elifs": "{% if 0 %}" + "{% elif 0 %}" * 15_000 + "{% endif %}",
    "fors": "{% for i in [1, 2] %}" * 50 + "{% endfor %}" * 50,
    "fors, deep": "{% for i in [1] %}" * 5_000 + "{% endfor %}" * 5_000,
    "open comments": "{#" * 100_000,
    "open blocks": "{%" * 100_000,
    "open text": "{{ '" * 50_000,
    "spaces": " " * 250_000,
    "spaces before blocks": (" " * 2000 + "{% if 1 %}") * 100 + "{% endif %}" * 100,
    "newlines": "\n" * 250_000 + "{% if 1 %}{% endif %}",
    "raw": "{% raw %}" * 25_000,
    "too long": "a" * 300_000,
    "huge line statement": "{{ " + "a, " * 80_000 + " }}",
}


def attack(template: str) -> str:
    """How a rendering ended: "error: …" or "ok: …"."""
    try:
        return f"ok: {len(render(template, MESSAGES))} characters"
    except TemplateError as error:
        assert "\n" not in str(error)
        return f"error: {error}"


@pytest.fixture(scope="module")
def seconds() -> dict[str, float]:
    """How long each attack took in a process that may have 1 GB of address space."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ATTACKS)
def test_no_template_takes_for_ever_or_all_memory(name: str, seconds: dict[str, float]):
    assert seconds[name] < 6  # the budget is 2 s; the rest is for parsing, and for a busy machine


@given(st.text(alphabet="{}%#-|.()[]'\"~*+<> \nabmi019_=,:", max_size=60), st.sampled_from(["{{ %s }}", "{%% %s %%}", "%s"]))
@settings(max_examples=300, deadline=None)
def test_any_text_renders_or_is_refused_cleanly(source: str, form: str):
    assert attack(form % source)


SIGNS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in")
VALUES = (
    "''",
    "'ab c'",
    "messages",
    "messages[0]",
    "messages[0].content",
    "nothing",
    "none",
    "1",
    "2.5",
    "[3, 'x']",
    "(1,)",
    "{'a': 1}",
    "range(3)",
    "namespace(a=1)",
)


@given(st.sampled_from(VALUES), st.sampled_from(sorted(FILTERS)), st.lists(st.sampled_from(VALUES), max_size=3))
@settings(max_examples=400, deadline=None)
def test_filters_take_any_value_or_refuse_it(value: str, name: str, arguments: list[str]):
    assert attack(f"{{{{ {value}|{name}({', '.join(arguments)}) }}}}")


@given(st.sampled_from(VALUES), st.sampled_from(sorted(TESTS)), st.lists(st.sampled_from(VALUES), max_size=2))
@settings(max_examples=300, deadline=None)
def test_tests_take_any_value_or_refuse_it(value: str, name: str, arguments: list[str]):
    assert attack(f"{{{{ {value} is {name}({', '.join(arguments)}) }}}}")


@given(st.sampled_from(VALUES), st.sampled_from(SIGNS), st.sampled_from(VALUES))
@settings(max_examples=400, deadline=None)
def test_operators_take_any_value_or_refuse_it(left: str, sign: str, right: str):
    assert attack(f"{{{{ {left} {sign} {right} }}}}")


def test_errors_name_the_line_and_carry_no_control_characters():
    with pytest.raises(TemplateError, match="line 2"):
        parse("a\n{% if %}")
    with pytest.raises(TemplateError, match=r"roles must be \\x1b\[31m"):
        render("{{ raise_exception('roles must be \\x1b[31m') }}", MESSAGES)


def _time_all() -> dict[str, float]:
    taken = {}
    for name, template in ATTACKS.items():
        start = time.monotonic()
        attack(template)
        taken[name] = time.monotonic() - start
    return taken


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    print(json.dumps(_time_all()))
