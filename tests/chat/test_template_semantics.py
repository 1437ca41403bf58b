"""The interpreter agrees with Jinja itself, snippet by snippet."""
# ruff: noqa: E501 - one snippet a line

from __future__ import annotations

import json

import jinja2.sandbox
import pytest

from ggpy.chat.templates import render
from ggpy.errors import TemplateError

MESSAGES = [
    {"role": "system", "content": "  Be brief.\n", "tags": ["b", "A", "c"]},
    {"role": "user", "content": "a,b;c <x>", "n": 3, "function": {"name": "f", "args": {"z": 1, "a": [None, True, 2.5]}}},
    {"role": "assistant", "content": None},
]

SNIPPETS = [
    # white space and comments
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "  {%- if true -%}  b  {%- endif -%}  ",
    "  {% if true %}\n  b\n  {% endif %}\n",
    "{# c #}\n{#- d -#} x {{- 1 -}} y\n\n",
    "{% raw %}{{ x }}{% endraw %}",
    "line\\n{{ 'a\\nb\\t\\u00e9' }}",
    # scope
    "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% for i in [1, 2] %}{{ y is defined }}{% set y = 1 %}{% endfor %}",
    "{% if true %}{% set x = 5 %}{% endif %}{{ x }}",
    "{% set ns = namespace(x=1, y=[1]) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y[0] }}{{ ns.z is defined }}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}",
    "{% set a, b = (1, 'x') %}{{ b }}{{ a }}",
    "{% set t %}x{{ 1 }}{% endset %}[{{ t }}]",
    "{% set t | upper | trim %} x {% endset %}[{{ t }}]",
    "{% filter upper %}x{{ 'y' }}{% endfilter %}",
    # loops
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for x in [1, 2, 3] %}{{ loop.previtem is defined }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.nextitem is defined }},{% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in [1, 2, 3, 4] if x is even %}{{ x }}{{ loop.last }}{% else %}none{% endfor %}",
    "{% for x in [] %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in nothing %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% set n = namespace(stop=false) %}{% for x in [1, 2, 3] if not n.stop %}{{ x }}{% if x == 2 %}{% set n.stop = true %}{% endif %}{% endfor %}",
    "{% for k, v in messages[1].function.args.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in messages[1] %}{{ k }},{% endfor %}{% for c in 'abc' %}{{ c }}.{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{% if x is number %}{{ x }}{% else %}<{{ loop(x) }}>{% endif %}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
    "{% for a in [1, 2] %}{% for b in [3, 4] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    # macros
    "{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 5) }}{{ m(b=3, a=4) }}{{ m() }}",
    "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{% endcall %}",
    "{% macro m(l) %}{% for x in l %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(x) m([1, 2]) %}<{{ x }}>{% endcall %}",
    "{% set g = 1 %}{% macro m() %}{{ g }}{% endmacro %}{% set g = 2 %}{{ m() }}",
    "{% macro fact(n) %}{% if n > 1 %}{{ n * fact(n - 1) | int }}{% else %}1{% endif %}{% endmacro %}{{ fact(5) }}",
    "{% generation %}x{% set y = 1 %}{% endgeneration %}",
    # expressions
    "{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 3 ** 2 }} {{ -3 }} {{ +3 }} {{ 1.5 + 1 }} {{ 'a' * 3 }} {{ [1] * 2 }}",
    "{{ 'a' ~ 1 ~ none ~ nothing ~ [1, 'x'] ~ true }}",
    "{{ 1 if false }}|{{ 1 if true else 2 }}|{{ (1 if false) is defined }}",
    "{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 'a' in 'abc' }}{{ 'x' not in ['y'] }}{{ 'role' in messages[0] }}{{ 1 == 1.0 }}{{ nothing == nowhere }}",
    "{{ not 1 }}{{ none or 'x' }}{{ '' and 'y' }}{{ 0 or [] or 'z' }}",
    "{{ [1, 'a', none, true, 2.5, (1,), (1, 2), {'k': 'v'}] }}{{ () }}{{ {} }}",
    "{{ messages[0] }}{{ messages[-1]['role'] }}{{ messages[0]['nope'] }}{{ messages[9] }}|{{ messages[0].nope is defined }}",
    "{{ messages[1:][0].role }}{{ messages[::-1][0].role }}{{ 'abcdef'[1:4] }}{{ 'abcdef'[::-2] }}{{ 'abc'[0] }}{{ 'abc'[-1] }}{{ (1, 2)[1] }}",
    "{{ messages[0].content.strip() }}|{{ messages[0]['content']['strip']() }}|{{ messages[0].get('x', 'd') }}|{{ messages[0].get('x') }}",
    "{{ range(3) | list }}{{ range(1, 9, 3) | list }}{{ range(5)[2] }}{{ range(3) }}",
    "{{ dict(a=1, **{'b': 2}) }}{{ dict([('x', 1)]) }}",
    "{{ true }}{{ True }}{{ none }}{{ None }}{{ 1e3 }}{{ 1_000 }}{{ 0x10 }}",
    "{{ nothing }}{{ nothing | length }}{{ nothing | default('d') }}{{ none | default('d') }}{{ '' | default('d', true) }}{{ nothing | upper }}|",
    # methods
    "{{ 'a,b,,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a b c'.split(' ', 1) }}{{ 'a,b,c'.rsplit(',', 1) }}{{ 'a\\nb'.splitlines() }}",
    "{{ 'xxaxx'.strip('x') }}{{ 'xxaxx'.lstrip('x') }}{{ 'xxaxx'.rstrip('x') }}{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}",
    "{{ 'aXbX'.replace('X', '--') }}{{ 'aXbX'.replace('X', '', 1) }}{{ 'abc'.find('c') }}{{ 'abcabc'.count('b') }}{{ 'abc'.index('b') }}",
    "{{ 'hello world'.title() }}{{ 'hELLO'.capitalize() }}{{ 'aB'.swapcase() }}{{ 'straße'.upper() }}{{ '12'.isdigit() }}{{ ' '.isspace() }}",
    "{{ 'a-b-c'.partition('-') }}{{ 'a-b-c'.rpartition('-') }}{{ ','.join(['a', 'b']) }}{{ 'prefix'.removeprefix('pre') }}{{ 'x.py'.removesuffix('.py') }}",
    "{{ {'a': 1}.items() | list }}{{ {'a': 1}.keys() | list }}{{ {'a': 1}.values() | list }}{{ [1, 2, 1].count(1) }}{{ [1, 2].index(2) }}",
    # filters
    "{{ [3, 1, 2] | sort }}{{ ['b', 'A', 'c'] | sort }}{{ ['b', 'A'] | sort(case_sensitive=true) }}{{ [1, 2] | sort(reverse=true) }}",
    "{{ messages | map(attribute='role') | join(', ') }}{{ messages | map(attribute='n', default=0) | list }}{{ ['a'] | map('upper') | list }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | rejectattr('content') | map(attribute='role') | list }}",
    "{{ [1, 2, 3] | select('odd') | list }}{{ [0, 1] | reject | list }}{{ [0, 1, none] | select | list }}{{ [3, 4] | select('gt', 3) | list }}",
    "{{ [1, 2, 3] | first }}{{ [1, 2, 3] | last }}{{ 'abc' | first }}{{ [] | first is defined }}{{ [1, 2] | sum }}{{ [1, 5, 2] | max }}{{ [4, 2] | min }}",
    "{{ {'b': 1, 'A': 2} | dictsort }}{{ {'b': 1, 'a': 2} | dictsort(by='value') }}{{ {'a': 1} | items | list }}",
    "{{ ' x ' | trim }}|{{ 'xax' | trim('x') }}|{{ 'a' | upper }}{{ 'A' | lower }}{{ 'ab cd' | title }}{{ 'ab' | capitalize }}{{ 'ab' | reverse }}",
    "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(2, blank=true) }}|{{ 'a\\nb' | indent('--') }}",
    "{{ '3' | int }}{{ 'x' | int }}{{ 'x' | int(7) }}{{ '2.5' | float }}{{ 3.7 | int }}{{ 2.567 | round(2) }}{{ 3 | abs }}{{ -3 | abs }}{{ 5 | string }}",
    "{{ [1, 1, 2] | unique | list }}{{ ['a', 'A', 'b'] | unique | list }}{{ [1, 2, 3] | batch(2) | list }}{{ [1, 2, 3] | batch(2, 0) | list }}",
    "{{ [1, [2]] | length }}{{ 'abc' | count }}{{ 'a b  c' | wordcount }}{{ 'a-b' | replace('-', '+') }}{{ [1, 2] | join }}{{ [1, 'x'] | join('-') }}",
    "{{ '<a&\"b\\'>' | e }}{{ '<' | escape }}{{ 'x' | safe }}",
    "{{ messages[1] | tojson }}|{{ messages[1].function | tojson(indent=2) }}|{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true) }}",
    "{{ 'é' | tojson(ensure_ascii=true) }}{{ [1, 2] | tojson(separators=(',', ':')) }}{{ none | tojson }}{{ true | tojson }}",
    # tests
    "{{ 1 is number }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is sequence }}{{ 'a' is sequence }}{{ {} is iterable }}{{ 1 is iterable }}{{ none is none }}",
    "{{ true is boolean }}{{ 1 is boolean }}{{ 1 is integer }}{{ true is integer }}{{ 1.5 is float }}{{ true is true }}{{ 1 is true }}{{ nothing is undefined }}",
    "{{ 3 is odd }}{{ 4 is even }}{{ 9 is divisibleby(3) }}{{ 1 is eq(1) }}{{ 1 is ne 2 }}{{ 2 is gt 1 }}{{ 1 is in [1, 2] }}{{ 'A' is upper }}{{ 'a' is lower }}",
    "{{ none is sameas none }}{{ range is callable }}{{ 'upper' is filter }}{{ 'odd' is test }}{{ messages[2].content is none }}{{ x is not defined }}",
]


def by_jinja(template: str) -> str:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return environment.from_string(template.replace("generation %}", "with %}")).render(messages=MESSAGES)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_agrees_with_jinja(snippet: str):
    assert render(snippet, MESSAGES) == by_jinja(snippet)


REFUSED_BY_BOTH = [
    "{{ nothing.x }}",
    "{{ nothing + 1 }}",
    "{{ nothing() }}",
    "{{ 1 + 'a' }}",
    "{{ 1 // 0 }}",
    "{{ none.x.y }}",
    "{{ [1] | nofilter }}",
    "{{ 1 is notest }}",
    "{% for x in none %}{% endfor %}",
    "{% for x in 5 %}{% endfor %}",
    "{% set a, b = [1] %}",
    "{{ 'a' < 1 }}",
    "{% set messages.x = 1 %}",
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{% endmacro %}{{ m(z=2) }}",
    "{{ 5 | length }}",
    "{{ 'abc'.nomethod() }}",
    "{{ namespace | tojson }}",
    "{{ messages.append(1) }}",
    "{% if %}",
    "{{ 1 ",
]


@pytest.mark.parametrize("snippet", REFUSED_BY_BOTH)
def test_refuses_what_jinja_refuses(snippet: str):
    with pytest.raises(Exception):  # noqa: B017 - Jinja raises many kinds
        by_jinja(snippet)
    with pytest.raises(TemplateError):
        render(snippet, MESSAGES)
