"""Makes snippets.json: small templates and what Transformers' own renderer makes of them.

    pip install transformers==5.24.0 jinja2==3.1.6
    python make_templates.py            # writes snippets.json beside this file
    python make_templates.py SEED COUNT # writes COUNT random templates to stdout, in the same form

Every construct of the language is tried with several values; "ok" is the text, "error" the type of the exception. What
prints an address or depends on chance is left out.
"""
import copy
import datetime
import itertools
import json
import random
import re
import sys
from pathlib import Path

from transformers.utils import chat_template_utils

NOW = datetime.datetime(2025, 3, 14, 15, 9, 26)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Clock

CONTEXTS = {
    "plain": {
        "s": "Hello world",
        "e": "",
        "i": 7,
        "n": -3,
        "f": 2.5,
        "t": True,
        "z": None,
        "l": [3, 1, 2],
        "w": ["b", "A", "c"],
        "d": {"k": "v", "n": 1, "items": [1]},
        "m": "line one\nline two\n\n  line four\n",
        "u": "Käse 世界 😀 ß",
        "h": "<a href='x'>T & \"q\"</a>",
        "r": [
            {"role": "user", "content": "Hi", "n": 2},
            {"role": "assistant", "content": None, "n": 1, "calls": [{"name": "f", "arguments": {"x": 1, "y": [True, None, 1.5]}}]},
            {"role": "User", "content": "  ok  ", "n": 10},
        ],
    }
}
VALUES = ["s", "e", "i", "n", "f", "t", "z", "l", "d", "u", "undefined_name"]


def render(template, context):
    try:
        return {"ok": chat_template_utils._compile_jinja_template(template).render(**copy.deepcopy(context))}
    except Exception as error:
        return {"error": type(error).__name__}


def each(pattern, values=VALUES):
    return [pattern.replace("V", value) for value in values]


def pairs(pattern, values):
    return [pattern.replace("A", a).replace("B", b) for a, b in itertools.product(values, values)]


def snippets():
    yield from white_space()
    yield from literals()
    yield from expressions()
    yield from statements()
    yield from filters()
    yield from the_tests()
    yield from methods()
    yield from dates()
    yield from whole()


def white_space():
    for a, b in itertools.product(["", "-", "+"], repeat=2):
        yield f"a \n  {{%{a} if t {b}%}}  \n  b {{%{a} endif {b}%}} \n\n c\n"
        yield f"a \n  {{#{a} note {b}#}}  \n  b\n"
        yield f"a {{%{a} raw {'-' if b == '-' else ''}%}}  {{{{ x }}}} {{%{b} endraw {a}%}} \n b"
    for a, b in itertools.product(["", "-"], repeat=2):
        yield f"a \n  {{{{{a} i {b}}}}}  \n  b\n"
    yield from [
        "a\r\nb\rc\n", "a\r\n{% if t %}\r\nb\r\n{% endif %}\r\nc", "{{ 'x\r\ny' }}|{{ 'x\ry' }}", "a\n\n", "\n", "",
        "{{ i }}\n\n", "\t{% if t %}x{% endif %}", " {# c #} {% if t %}x{% endif %}", "{% if t %}\n\n x{% endif %}",
        "{%if t%}x{%endif%}", "{%- if t -%} x {%- endif -%}", "x {%- set a = 1 -%} y", "{{i}}{{-i-}}", "{ {{ i }} }",
        "{{ '}}' }}", "{{ '%}' }}{% if '%}' %}y{% endif %}", "{# {{ x }} {% if %} #}y", "{#- a -#} b", "{{ {'a': {'b': 1}} }}",
        "{{ {'a': {}}}}", "{% raw %}{% if %}{{ {# #}{% endraw %}", "{%raw%}x{%endraw%}", "a {#- c #} b", "\u00a0{%- if t %}x{% endif %}",
        "{% if t %} {% endif %}|", "  {% if t %}  {% endif %}  |", "{%+ if t +%}\n x{%+ endif +%}\n", "x\n {%- if t %} y\n{% endif %}z",
        "{{ i }", "{{ i", "{% if t", "{# x", "{% raw %}x", "{{ ( }}", "{{ ) }}", "{{ [1) }}", "{{ }}", "{% %}", "{{ i ! }}", "{{ i ; }}",
    ]


def literals():
    texts = [
        r"'\a\b\f\n\r\t\v\0\\'", r"'\x41\u00e9\U0001f600'", r"'\101\60\7'", r"'\/\d\%\{'", "'a\\\nb'", r"'\é\世'", r"'\N{BULLET}\N{EM DASH}'",
        r"'\x4'", r"'\u12'", r"'\q\''", '"\\"\'"', "'a' 'b' \"c\"", "'multi\nline'", r"'\\n'", r"'\1234'",
    ]
    yield from (f"{{{{ {text} }}}}" for text in texts)
    numbers = [
        "1_000", "0x1F", "0X_ff", "0b101", "0o17", "00", "1e3", "1.5e-3", "1_0.2_5", "10.0", "1E5", "1e16", "1e15", "123456789.123",
        "1e-5", "0.0001", "-0.0", "1.0e10", "9007199254740993", "123456789012345678901234567890", "01", "1__0", "1_", ".5", "5.", "1.x", "0x", "1a",
        "1e400", "3.0", "100000000000000000.0", "0.1 + 0.2", "1/3", "2e22", "5e-324", "1.7976931348623157e308",
    ]
    yield from (f"{{{{ {number} }}}}" for number in numbers)
    yield from [
        "{{ True }}{{ False }}{{ None }}{{ true }}{{ none }}", "{{ TRUE }}|", "{{ [] }}{{ () }}{{ {} }}", "{{ (1,) }}{{ 1, 2 }}{{ (1) }}", "{{ [1, 2,] }}",
        "{{ {'a': 1,} }}", "{{ {1: 'x', none: 2, 1.5: 3, (1, 2): 4} }}", "{{ {[]: 1} }}", "{{ {'a': 1, 'a': 2} }}", "{{ {1: 'a', true: 'b', 1.0: 'c'} }}",
        "{{ ['it\\'s', 'say \"x\"', '\\n\\t\\x00\\x7f', 'é', '\\u200b\\u00a0'] }}", "{{ [1.0, 1e20, -0.0, 1e-7, none, true] }}", "{{ ((1, 2), [3], {'a': (4,)}) }}",
        "{{ é }}|{{ s.é }}|", "{{ _x is defined }}", "{% set 名 = 1 %}{{ 名 }}",
    ]


def expressions():
    operands = ["i", "f", "s", "l", "t", "z", "undefined_name"]
    for operator in ["+", "-", "*", "/", "//", "%", "**", "~", "<", "==", "in", "and", "or"]:
        values = operands if operator in "+*<==in%" else ["i", "n", "f", "s", "z"]
        yield from (text for text in pairs(f"{{{{ A {operator} B }}}}", values) if text != "{{ n ** f }}")
    for a, b in itertools.product([7, -7, 7.5, -7.5], [2, -2, 0.5, -2.5]):
        yield f"{{{{ {a} // {b} }}}} {{{{ {a} % {b} }}}} {{{{ {a} / {b} }}}}"
    yield from each("{{ -V }}")
    yield from each("{{ +V }}")
    yield from each("{{ not V }}")
    yield from each("{{ V if V else 'no' }}")
    yield from each("{{ V.foo }}|")
    yield from each("{{ V['foo'] }}|")
    yield from each("{{ V[0] }}|")
    yield from each("{{ V[1:] }}|")
    yield from each("{{ V() }}|")
    yield from each("{{ V }}|{{ [V] }}|{{ V ~ V }}")
    yield from each("{% for x in V %}{{ x }},{% else %}none{% endfor %}")
    yield from [
        "{{ 1 + 2 * 3 ** 2 }}", "{{ 2 ** 3 ** 2 }}", "{{ -2 ** 2 }}", "{{ 2 ** -1 }}", "{{ (-8) ** 2 }}", "{{ 10 - 3 - 2 }}", "{{ 100 / 10 / 2 }}", "{{ 7 // 2 * 2 }}",
        "{{ 1 ~ 2 + 3 }}", "{{ 1 + 2 ~ 3 }}", "{{ 'a' ~ 2 * 3 }}", "{{ 1 ~ 2 * 3 ~ 4 }}", "{{ not 1 == 2 }}", "{{ not not 1 }}", "{{ not 1 in [1] }}", "{{ 1 not in [2] }}",
        "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 >= 2 == 2 }} {{ 1 < 2 in [2] }}", "{{ 1 == 1.0 == true }}", "{{ 'a' < 'b' <= 'b' }}", "{{ [1, 2] < [1, 3] }} {{ (1,) < (1, 0) }}",
        "{{ [1, 'a'] < [1, 'b'] }}", "{{ [1, 'a'] < ['b'] }}", "{{ 1 if 0 }}|{{ 1 if 0 else 2 if 0 else 3 }}", "{{ 1 if 1 if 0 }}|", "{{ 'a' if 0 else 'b' ~ 'c' }}", "{{ (1 if t else 2) + 1 }}",
        "{{ 0 or '' or none or 'x' }}", "{{ 1 and 'a' and [] }}", "{{ 1 or 1/0 }}", "{{ 0 and 1/0 }}", "{{ 1/0 }}", "{{ 1//0 }}", "{{ 1 % 0 }}", "{{ 1.5 // 0 }}", "{{ 0 ** -1 }}",
        "{{ 's' 't'.upper() }}", "{{ 'ab'[0] }}{{ 'ab'[-1] }}{{ 'ab'[5] }}|", "{{ 'ab'.0 }}{{ l.0 }}{{ l.9 }}|", "{{ d.k }}{{ d['k'] }}|", "{{ d['items'] }}", "{{ d.keys() }}",
        "{{ d.values() }}{{ d.items() }}", "{{ 'abcdef'[1:4] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[::2] }} {{ 'abcdef'[-3:] }} {{ 'abcdef'[4:1] }} {{ 'abcdef'[4:1:-1] }} {{ 'abcdef'[:99] }}",
        "{{ [1,2,3,4][1:3] }} {{ [1,2,3,4][::-2] }} {{ (1,2,3)[1:] }} {{ range(10)[2:8:3] }} {{ [1,2][none:none] }}", "{{ 'abc'[::0] }}", "{{ 'abc'['x'] }}|", "{{ 'abc'[1.5] }}|", "{{ [1,2][true] }}",
        "{{ u[0] }}{{ u[1] }}{{ u[-1] }}{{ u[5:8] }}{{ u[::-1] }}{{ u|length }}", "{{ range(5) }} {{ range(1, 10, 2) }} {{ range(3)|list }} {{ 2 in range(3) }} {{ range(3)|length }} {{ range(3) == range(0, 3) }}",
        "{{ range(0) }} {{ range(3, 0)|list }} {{ range(3, 0, -1)|list }} {{ range(0, 5)[1] }}{{ range(5)[-1] }}", "{{ range(1.5) }}", "{{ range('a') }}", "{{ range() }}", "{{ range(1, 2, 0) }}", "{{ range(100001) }}",
        "{{ [1] + [2] }} {{ (1,) + (2,) }} {{ 'a' + 'b' }} {{ [1, 2] * 2 }} {{ 2 * 'ab' }} {{ 'ab' * 0 }} {{ 'ab' * -1 }} {{ (1,) * 3 }}", "{{ [1] + (2,) }}", "{{ 'a' + 1 }}", "{{ 'a' * 1.5 }}", "{{ 'a' * 'b' }}",
        "{{ true + true }} {{ true * 3 }} {{ -true }} {{ true / 2 }} {{ true == 1 }} {{ false < true }}", "{{ '%s' % s }} {{ '%d:%s' % (i, s) }} {{ '%(k)s' % d }} {{ '%5.2f|%-5d|%05d|%+d|%x' % (f, i, i, i, 255) }}",
        "{{ '%r %a %c' % (u, u, 'x') }} {{ '%%' % () }} {{ '%e %g %G' % (12345.678, 1e-10, 1e20) }} {{ '%o %#x %X' % (8, 255, 255) }}", "{{ '%s' % l }} {{ '%s %s' % (l, none) }}", "{{ '%d' % 'x' }}", "{{ '%s %s' % 1 }}", "{{ 'x' % 1 }}", "{{ '%s' % () }}",
        "{{ '%z' % 1 }}", "{{ '%' % 1 }}", "{{ '%.3s|%5s|%-5s|' % ('abcdef', 'ab', 'ab') }} {{ '%*d' % (5, 3) }} {{ '%i %u' % (1.9, 2) }}", "{{ '%d%%' % 50 }} {{ s % () }}", "{% set p = '%s-%s' %}{{ p % (1, 2) }}", "{{ (s ~ '%d') % 3 }}",
        "{{ 'a' in 'abc' }} {{ '' in 'abc' }} {{ 'k' in d }} {{ 1 in d }} {{ 3 in l }} {{ 1.0 in [1] }} {{ none in [none] }} {{ 'x' not in d }}", "{{ 1 in 'abc' }}", "{{ 1 in 5 }}", "{{ 'a' in none }}", "{{ [] in d }}", "{{ undefined_name in l }}", "{{ 'a' in undefined_name }}",
        "{{ l == [3, 1, 2] }} {{ d == {'n': 1, 'items': [1], 'k': 'v'} }} {{ (1, 2) == [1, 2] }} {{ none == none }} {{ undefined_name == undefined_name }} {{ undefined_name == none }} {{ '1' == 1 }}", "{{ undefined_name != 1 }} {{ undefined_name ~ 'x' }}",
        "{{ undefined_name + 1 }}", "{{ undefined_name < 1 }}", "{{ undefined_name.x }}", "{{ undefined_name['x'] }}", "{{ undefined_name() }}", "{{ -undefined_name }}", "{{ z.x }}|{{ z['x'] }}|", "{{ z.x.y }}", "{{ z() }}", "{{ s() }}", "{{ s.nope() }}",
        "{{ l.append(1) }}", "{{ d.update({}) }}", "{{ d.pop('k') }}", "{{ l.sort() }}", "{{ s.__class__ }}|", "{{ s.__class__.x }}", "{{ d._x }}|", "{{ 9007199254740993 + 1 }} {{ 2 ** 64 }} {{ 2 ** 100 }} {{ -(2 ** 90) // 7 }} {{ 10 ** 20 % 7 }}",
        "{{ f(*[1]) }}", "{{ dict(a=1, **{'b': 2}) }}", "{{ dict([('a', 1), ('b', 2)]) }} {{ dict({'a': 1}, b=2) }} {{ dict() }}", "{{ dict(1) }}", "{{ dict([1]) }}", "{{ dict.fromkeys(['a', 'b'], 0) }}", "{{ namespace(a=1).a }} {{ namespace({'a': 2}).a }} {{ namespace({'a': 2}, a=3).a }} {{ namespace().x is defined }}",
        "{{ namespace(_a=1) }}", "{{ namespace(1) }}", "{{ range(*[1, 4])|list }}", "{{ 1 is defined is defined }}", "{{ a.b.c is defined }}", "{{ d.zz is defined }} {{ d.k is defined }} {{ undefined_name is defined }}", "{{ i is odd and not i is even }}", "{{ not i is odd }}",
        "{{ i is divisibleby 7 }} {{ i is divisibleby(2) }} {{ i is not divisibleby 3 }} {{ 'a' is in 'abc' }} {{ 1 is in [1] }} {{ i is eq 7 }} {{ i is gt 3 and i is lt(9) }}", "{{ s is string }}{{ s is not string }}{{ s is not none and z is none }}",
        "{{ 3 * (i) }} {{ (i)(1) }}", "{{ [i, f][0] }} {{ {'a': l}.a[0] }} {{ {'a': l}['a'][-1] }} {{ 'x'.upper().lower().title() }} {{ (1, 2)[0] }} {{ [[1, 2], [3]][0][1] }}", "{{ d.get('k') }} {{ d.get('q') }} {{ d.get('q', 5) }} {{ d.get('k').upper() }}", "{{ d.get() }}", "{{ d.get([]) }}",
        "{{ r[1].calls[0].arguments.y[2] }} {{ r[0]['role'] }} {{ r[-1].content }}| {{ r[1].calls[0]['arguments'] }}", "{{ s | upper | lower }} {{ s|upper ~ 'x' }} {{ (s|upper)[0] }} {{ s|first|upper }}", "{{ -5|abs }} {{ -f|abs }} {{ (i|string).isdigit() }}", "{{ s|upper.x }}", "{{ i|string|length }} {{ 1 + s|length }} {{ s|length * 2 }} {{ 2 ** l|length }}",
        "{{ '<b>'|safe + '<i>' }} {{ '<i>' + '<b>'|safe }} {{ '<b>'|e ~ '<i>' }} {{ '<b>'|e|e }} {{ '<b>'|e|string|e }}",
        "{{ loop }}|", "{{ caller }}|", "{{ varargs }}|", "{{ lipsum is defined }} {{ cycler is defined }} {{ range is callable }} {{ dict is callable }}",
    ]


def statements():
    yield from [
        "{% for x in l %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% endfor %}", "{% for x in l %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}",
        "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}", "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}", "{% for x in l %}{{ loop.previtem.a }}{% endfor %}", "{% for x in 'aabbc' %}{{ loop.changed(x) }} {% endfor %}",
        "{% for x in 'abcd' %}{{ loop.cycle('o', 'e') }}{% endfor %}", "{% for x in 'ab' %}{{ loop.cycle() }}{% endfor %}", "{% for x in l %}{% for y in w %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}", "{% for x in l %}{% set o = loop %}{% for y in 'ab' %}{{ o.index }}{{ loop.index }} {% endfor %}{% endfor %}",
        "{% for k in d %}{{ k }}{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}", "{% for a, (b, c) in [(1, (2, 3)), (4, [5, 6])] %}{{ a }}{{ b }}{{ c }} {% endfor %}",
        "{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in ['xy'] %}{{ a }}{{ b }}{% endfor %}", "{% for a, in [[1], [2]] %}{{ a }}{% endfor %}",
        "{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.length }}{% else %}none{% endfor %}", "{% for x in l if x > 9 %}{{ x }}{% else %}none{% endfor %}", "{% for x in [] %}{% else %}e{% endfor %}", "{% for x in undefined_name %}a{% else %}e{% endfor %}", "{% for x in z %}{% endfor %}", "{% for x in 5 %}{% endfor %}",
        "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}E{% endfor %}", "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% break %}", "{% for x in l %}{% endfor %}{% continue %}", "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}", "{% for x in (1, 2) %}{{ x }}{% endfor %}",
        "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}<{{ loop(x) }}>{{ loop.depth }}{% else %}{{ x }}{% endif %}{% endfor %}", "{% for x in l recursive %}{{ x }}{% if loop.depth < 3 %}({{ loop([x, x]) }}){% endif %}{% endfor %}", "{% for x in l %}{{ loop(l) }}{% endfor %}",
        "{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "{% set x = 1 %}{% if t %}{% set x = 2 %}{% endif %}{{ x }}", "{% for i in l %}{% set y = i %}{% endfor %}{{ y }}|", "{% for x in l %}{% if loop.first %}{% set q = 1 %}{% endif %}{{ q }}{% endfor %}|", "{% for x in l %}{% endfor %}{{ x }}|",
        "{% set ns = namespace(c=0) %}{% for x in l %}{% set ns.c = ns.c + x %}{% endfor %}{{ ns.c }}", "{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.a, ns.b = 2, 3 %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }}", "{% set d.k = 1 %}", "{% set q.k = 1 %}", "{% set ns = namespace() %}{% set ns._a = 1 %}",
        "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set (a, b), c = (1, 2), 3 %}{{ a }}{{ b }}{{ c }}", "{% set a = 1, 2 %}{{ a }}", "{% set a, b = 1 %}", "{% set a = b = 1 %}", "{% set true = 1 %}", "{% set none = 1 %}", "{% set x = 1 if t else 2 %}{{ x }}", "{% set 1 = x %}", "{% set x %}", "{% set x = %}",
        "{% set x %}a{{ i }}b{% endset %}[{{ x }}]{{ x|length }}", "{% set x | upper | trim %} a {% endset %}[{{ x }}]", "{% set x %}{% set y = 1 %}{% endset %}{{ y }}|", "{% for q in l %}{% set x %}{{ q }}{% endset %}{{ x }}{% endfor %}",
        "{% if z %}a{% elif e %}b{% elif l %}c{% else %}d{% endif %}", "{% if t %}{% elif %}{% endif %}", "{% if %}{% endif %}", "{% if t %}a{% else %}b{% else %}c{% endif %}", "{% if t %}", "{% endif %}", "{% else %}", "{% for %}{% endfor %}", "{% for x l %}{% endfor %}", "{% endfor %}", "{% foo %}", "{% if undefined_name.x is defined %}{% endif %}",
        "{% if undefined_name %}a{% else %}b{% endif %}", "{% if t and (i > 3 or z) and not e %}y{% endif %}", "{% if 'a' in s or 'H' in s %}y{% endif %}", "{% if i is odd %}o{% endif %}", "{% if 1, 2 %}t{% endif %}",
        "{% with a = 1, b = i %}{{ a }}{{ b }}{% endwith %}{{ a }}|", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}|", "{% with a = 1 %}{% with a = a + 1, b = a %}{{ a }}{{ b }}{% endwith %}{% endwith %}", "{% with a, b = (1, 2) %}{{ a }}{{ b }}{% endwith %}",
        "{% macro m(a, b=2, c=b) %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c=9) }}{{ m(b=5, a=4) }}{{ m() }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}", "{% macro m(a=1, b) %}{% endmacro %}",
        "{% macro m(a) %}{{ a }}{{ varargs }}{% endmacro %}{{ m(1, 2, 3) }}{{ m(1) }}", "{% macro m(a) %}{{ a }}{{ kwargs }}{% endmacro %}{{ m(1, x=2) }}{{ m(1) }}", "{% macro m() %}{{ varargs|join('-') }}{{ kwargs|dictsort }}{% endmacro %}{{ m(1, 2, z=3, y=4) }}", "{% macro m(*a) %}{% endmacro %}",
        "{% macro m(a) %}<{{ caller() }}{{ a }}>{% endmacro %}{% call m(1) %}in{{ i }}{% endcall %}", "{% macro m() %}{{ caller('x', 2) }}{% endmacro %}{% call(a, b=1) m() %}{{ a }}{{ b }}{% endcall %}", "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}", "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}",
        "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% call s %}{% endcall %}", "{% call s.upper() %}{% endcall %}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
        "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}", "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro m() %}{{ loop }}{% endmacro %}{% for x in l %}{{ m() }}{% endfor %}", "{% macro m() %}{% set q = 1 %}{% endmacro %}{{ m() }}{{ q }}|", "{% macro m(x) %}{{ x|upper }}{% endmacro %}{{ m('a') ~ m('b') }}{{ m('a')|length }}",
        "{% macro m(a, b) %}{{ a is defined }}{{ b is defined }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(a, b) %}{{ b.x }}{% endmacro %}{{ m(1) }}", "{{ m() }}{% macro m() %}x{% endmacro %}", "{% macro m(a=none) %}{{ a }}{% endmacro %}{{ m() }}{{ m(none) }}{{ m.name }}{{ m.arguments }}", "{% macro m(l=[]) %}{{ l }}{% endmacro %}{{ m() }}{{ m([1]) }}",
        "{% filter upper %}a{{ s }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}banana{% endfilter %}", "{% filter nope %}{% endfilter %}", "{% filter indent(2) %}a\nb{% endfilter %}", "{% filter upper %}{% set q = 1 %}{% endfilter %}{{ q }}|",
        "{% generation %}a{{ i }}{% endgeneration %}", "{% for x in l %}{% generation %}{{ x }}{{ loop.index }}{% endgeneration %}{% endfor %}", "{%- generation -%} a {%- endgeneration -%} b", "{% generation %}{% set q = 1 %}{% endgeneration %}{{ q }}|", "{% generation %}", "a\n  {% generation %}\n  b\n  {% endgeneration %}\nc",
        "{% raw %}{{ x }}{% endraw %}", "{% print i %}", "{% block b %}x{{ i }}{% endblock %}", "{% block b %}x{% endblock b %}", "{% set v = 1 %}{% block b %}{{ v }}{% endblock %}", "{% autoescape false %}{{ h }}{% endautoescape %}", "{% autoescape true %}{{ h }}{{ h|safe }}{{ '<' ~ 1 }}{% endautoescape %}{{ h }}",
        "{% include 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}", "{% extends 'x' %}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.reset() }}{{ c.next() }}", "{{ cycler() }}", "{% set j = joiner() %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}", "{% set j = joiner('|') %}{{ j() }}a{{ j() }}b",
        "{{ raise_exception('no') }}", "{{ raise_exception() }}", "{% if t %}{{ raise_exception(s) }}{% endif %}", "{{ s|nope }}", "{{ s is nope }}", "{% if e %}{{ s|nope }}{% endif %}", "{% if e %}{{ s is nope }}{% endif %}ok", "{% for x in [] %}{{ s|nope }}{% endfor %}", "{{ 'a' if t else s|nope }}",
        "{% for m in r %}{{ m.role }}: {{ m.content if m.content is not none else m.calls[0].name }}{% if not loop.last %}\n{% endif %}{% endfor %}", "{% for m in r if m.role == 'user' %}{{ m['content'] | trim }}{% endfor %}", "{% for m in r[::-1] %}{{ m.n }}{% endfor %}", "{% for m in r[:-1] %}{{ m.n }}{% endfor %}",
    ]


def filters():
    for name in [
        "abs", "capitalize", "count", "default", "dictsort|list", "e", "escape", "first", "float", "forceescape", "int", "items|list", "join", "last", "length", "list", "lower", "max", "min",
        "reverse|list", "round", "safe", "sort", "string", "sum", "title", "tojson", "trim", "unique|list", "upper", "urlencode", "wordcount", "striptags", "pprint", "center(20)", "xmlattr", "indent",
    ]:
        yield from each(f"{{{{ V|{name} }}}}|")
    yield from [
        "{{ m|indent }}", "{{ m|indent(2, true) }}", "{{ m|indent(2, blank=true) }}", "{{ m|indent(width=1, first=true) }}", "{{ m|indent('> ', true, true) }}", "{{ 'a'|indent(first=true) }}", "{{ ''|indent(2, true) }}|", "{{ 'a\n'|indent }}|", "{{ 'a\n\n'|indent }}|", "{{ 'a\x0bb\u2028c'|indent }}", "{{ s|indent('x', foo=1) }}", "{{ i|indent }}",
        "{{ z|default('x') }}{{ z|default('x', true) }}{{ e|default('x', boolean=true) }}{{ undefined_name|default(default_value='q') }}{{ undefined_name|d }}|", "{{ d.q|default(i + 1) }} {{ d.q.w|default(1) }}", "{{ '42'|int }} {{ '42.7'|int }} {{ 'x'|int }} {{ 'x'|int(5) }} {{ 'x'|int(default=6) }} {{ 'ff'|int(base=16) }} {{ '0x1f'|int(0, 16) }} {{ '0b11'|int(base=2) }} {{ ' 12 '|int }} {{ '1_000'|int }} {{ '-5'|int }}",
        "{{ 2.9|int }} {{ -2.9|int }} {{ none|int }} {{ [1]|int }} {{ true|int }} {{ 'inf'|int }} {{ '1e3'|int }} {{ ''|int }} {{ '٣'|int }} {{ '0x1f'|int }} {{ '010'|int }}", "{{ '1e999'|float }} {{ 'nan'|float }} {{ '-inf'|float }} {{ '1_0.5'|float }} {{ 'x'|float(1.5) }} {{ 'x'|float(default='d') }} {{ ' 1.5 '|float }} {{ '.5'|float }} {{ '5.'|float }} {{ 3|float }} {{ true|float }} {{ '1__0'|float }}",
        "{{ (1e400)|int }}", "{{ 2.5|round }} {{ 3.5|round }} {{ -2.5|round }} {{ 2.567|round(2) }} {{ 2.567|round(1, 'floor') }} {{ 2.511|round(1, 'ceil') }} {{ 5|round }} {{ 15|round(-1) }} {{ 25|round(-1) }} {{ 1234.5|round(-2) }} {{ 0.5|round }} {{ 1.005|round(2) }} {{ 2.675|round(2) }} {{ 5|round(1, 'floor') }} {{ -1.5|round(method='ceil') }}", "{{ 1|round(0, 'x') }}",
        "{{ [1, 2.5]|sum }} {{ r|sum(attribute='n') }} {{ [[1], [2]]|sum(start=[]) }} {{ []|sum }} {{ [1, 2]|sum(start=10) }}", "{{ ['a']|sum }}", "{{ ['a', 'b']|sum(start='') }}", "{{ l|join(', ') }} {{ r|join('+', attribute='role') }} {{ r|join(attribute='n') }} {{ [1, none, 'x', 2.5]|join('-') }} {{ 'abc'|join('.') }} {{ l|join(1) }} {{ d|join }}",
        "{{ w|sort }} {{ w|sort(true) }} {{ w|sort(case_sensitive=true) }} {{ r|sort(attribute='n')|map(attribute='n')|list }} {{ r|sort(attribute='role,n')|map(attribute='n')|list }} {{ 'hello'|sort }} {{ d|sort }} {{ [true, 0, 0.5]|sort }}", "{{ [1, 'a']|sort }}", "{{ r|sort(attribute='zz') }}", "{{ [none, 1]|sort }}", "{{ [[2, 1], [1, 5]]|sort(attribute=0) }} {{ [[2, 1], [1, 5]]|sort(attribute='1') }}",
        "{{ {'b': 1, 'A': 3, 'c': 2}|dictsort }} {{ {'b': 1, 'A': 3}|dictsort(true) }} {{ {'b': 1, 'A': 3}|dictsort(by='value') }} {{ {'b': 1, 'A': 3}|dictsort(false, 'value', true) }}", "{{ d|dictsort(by='x') }}", "{{ ['a', 'A', 'b']|unique|list }} {{ ['a', 'A']|unique(true)|list }} {{ r|unique(attribute='role')|map(attribute='n')|list }} {{ [1, 1.0, true]|unique|list }}", "{{ [[1]]|unique|list }}",
        "{{ w|max }} {{ w|min }} {{ w|max(case_sensitive=true) }} {{ (r|max(attribute='n')).role }} {{ []|min }}| {{ 'hello'|max }} {{ d|min }}", "{{ [1, 'a']|max }}", "{{ l|batch(2)|list }} {{ l|batch(2, 'x')|list }} {{ []|batch(2)|list }} {{ l|batch(0)|list }}", "{{ [1,2,3,4,5]|slice(3)|list }} {{ [1,2,3,4,5]|slice(3, 'x')|list }} {{ [1]|slice(2)|list }}", "{{ l|slice(0)|list }}",
        "{% for g in r|groupby('role') %}{{ g.grouper }}:{{ g.list|length }};{% endfor %}", "{% for k, v in r|groupby('role', case_sensitive=true) %}{{ k }}{{ v|map(attribute='n')|list }}{% endfor %}", "{{ [{'a': 1}, {}]|groupby('a', default=0)|map('first')|list }}", "{{ [{'a': 1}, {}]|groupby('a') }}", "{{ r|map(attribute='content')|list }} {{ r|map(attribute='zz', default='-')|list }}",
        "{{ r|map(attribute='zz')|list }}", "{{ r|map(attribute='zz.y')|list }}", "{{ w|map('upper')|list }} {{ w|map('replace', 'b', 'x')|list }} {{ [1.25, 2.75]|map('round', 1)|list }} {{ [[1, 2], [3]]|map('join', '-')|list }} {{ [none, 'x']|map('default', 'd', true)|list }} {{ ['a b']|map('indent', width=2, first=true)|list }} {{ [{'a': 1}]|map('tojson', indent=1)|list }}", "{{ w|map }}", "{{ w|map('nope')|list }}", "{{ w|map(attribute='a', foo=1)|list }}", "{{ z|map('upper')|list }}", "{{ 5|map('upper')|list }}",
        "{{ [0, 1, '', 'a', none]|select|list }} {{ [0, 1, '']|reject|list }} {{ l|select('odd')|list }} {{ l|reject('gt', 1)|list }} {{ l|select('in', [1, 2])|list }} {{ r|selectattr('content')|list|length }} {{ r|selectattr('role', 'equalto', 'user')|list|length }} {{ r|rejectattr('content', 'none')|map(attribute='role')|list }} {{ r|selectattr('calls', 'defined')|list|length }} {{ r|selectattr('n', '>', 1)|list|length }}",
        "{{ l|select('nope')|list }}", "{{ r|selectattr }}", "{{ r|selectattr('a.b')|list }}", "{{ l|select|first }} {{ l|map('string')|first }} {{ l|map('string')|join }} {{ (l|map('string')) is iterable }} {{ (l|map('string')) is sequence }}", "{{ l|map('string')|length }}", "{{ (l|map('string'))[0] }}|", "{{ l|map('string')|tojson }}", "{{ l|map('string')|last }}", "{% set g = l|map('string') %}{{ g|list }}{{ g|list }}", "{% set g = l|map('string') %}{{ g|first }}{{ g|list }}",
        "{{ 'a-b c(d)e f_g'|title }} {{ \"they're bill's\"|title }} {{ 'HELLO wORLD'|capitalize }} {{ 'ßx éa'|title }} {{ 'ǆx'|upper }} {{ 'İ'|lower|length }} {{ 'ΑΣ'|lower }}", "{{ 'abc def ghi'|truncate(7) }} {{ 'abc def ghi'|truncate(7, true) }} {{ 'abc def ghi'|truncate(7, leeway=0) }} {{ 'abc def ghi jkl'|truncate(9, false, '..', 0) }} {{ 'abcdef'|truncate(3, end='', leeway=0) }} {{ s|truncate(length=5, killwords=true, leeway=0) }}", "{{ s|truncate(2, leeway=0) }}",
        "{{ 'The quick brown fox jumps over the lazy-dog and so-called well-known things'|wordwrap(20) }}", "{{ 'abcdefghijklmnop'|wordwrap(5) }}|{{ 'abcdefghij kl'|wordwrap(5, false) }}|{{ 'a b c d'|wordwrap(3, wrapstring='/') }}", "{{ 'aa-bb-cc-dd  ee   ff'|wordwrap(6) }}|{{ 'aa-bb-cc-dd'|wordwrap(4, break_on_hyphens=false) }}|{{ 'x -- y--z  one--two'|wordwrap(5) }}", "{{ m|wordwrap(6) }}", "{{ s|wordwrap(0) }}", "{{ 'super-long-hyphenated-word here'|wordwrap(8) }}",
        "{{ 'a b c, d-e f_g é'|wordcount }} {{ ''|wordcount }}", "{{ s|center(21) }}| {{ 'ab'|center(5) }}| {{ 'abc'|center(6) }}|", "{{ 'aXbXc'|replace('X', '-') }} {{ 'aXbXc'|replace('X', '-', 1) }} {{ 'abc'|replace('', '.') }} {{ i|replace(7, 8) }} {{ 'aaa'|replace('a', 'b', count=2) }}", "{{ s|replace('a') }}", "{{ '  x '|trim }}| {{ 'xxaxx'|trim('x') }}| {{ i|trim }}| {{ 'xya'|trim(chars='yx') }}", "{{ s|trim(1) }}",
        "{{ '%s %s'|format(1, 'a') }} {{ '%(a)s'|format(a=5) }}", "{{ '%s'|format(1, 2) }}", "{{ '%s'|format(1, a=2) }}", "{{ 100|filesizeformat }} {{ 1|filesizeformat }} {{ 1000|filesizeformat }} {{ 123456789|filesizeformat }} {{ 1024|filesizeformat(true) }} {{ 1e30|filesizeformat }} {{ '5000'|filesizeformat }}", "{{ 'a b&c/d?é'|urlencode }} {{ {'a b': 'c/d', 'e': 1}|urlencode }} {{ [('x', 'y z')]|urlencode }} {{ i|urlencode }}", "{{ {'a': 'x<y', 'b': none, 'c': 1}|xmlattr }}| {{ {'a': 1}|xmlattr(false) }}| {{ {}|xmlattr }}|", "{{ {'a b': 1}|xmlattr }}",
        "{{ h|e }} {{ h|forceescape }} {{ h|e|forceescape }} {{ h|striptags }} {{ '<!-- x --> a  <b>c</b>&amp;&lt;&#39;&#x41;'|striptags }} {{ 'a < b'|striptags }}", "{{ r|tojson }}", "{{ r[1]|tojson(indent=2) }}", "{{ d|tojson(indent=4) }} {{ d|tojson(true) }} {{ u|tojson(true) }} {{ u|tojson(ensure_ascii=true) }} {{ u|tojson }} {{ d|tojson(false, 1) }} {{ d|tojson(indent='\t') }} {{ d|tojson(indent=0) }} {{ d|tojson(sort_keys=true) }} {{ d|tojson(separators=(',', ':')) }} {{ [d]|tojson(indent=1, separators=[' ,', '=']) }}",
        "{{ [1.0, 1e20, none, true, 'é\\n\"\\\\/<>&\\x7f\\x01']|tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }} {{ (1, 2)|tojson }} {{ []|tojson(indent=2) }}{{ {}|tojson(indent=2) }} {{ [[]]|tojson(indent=2) }} {{ 'x'|safe|tojson }} {{ 1e400|tojson }}", "{{ {(1, 2): 3}|tojson }}", "{{ undefined_name|tojson }}", "{{ [undefined_name]|tojson }}", "{{ range(3)|tojson }}", "{{ d.items()|tojson }}", "{{ d|tojson(foo=1) }}", "{{ {'b': 1, 1: 2}|tojson(sort_keys=true) }}", "{{ d|tojson(4) }}",
        "{{ s|attr('upper')() }} {{ d|attr('k') }}| {{ s|attr('zz') }}|", "{{ 'abc'|first }}{{ 'abc'|last }}{{ d|first }}{{ d|last }}{{ (1, 2)|last }}{{ range(3)|last }}", "{{ ''|first }}|{{ []|last }}|", "{{ 'abc'|reverse }} {{ l|reverse|list }} {{ d|reverse|list }} {{ (1, 2)|reverse|list }} {{ l|reverse|first }}", "{{ z|first }}", "{{ i|last }}", "{{ l|list }} {{ 'ab'|list }} {{ d|list }} {{ (1,)|list }} {{ d.items()|list }}", "{{ [3, -2.5]|map('abs')|list }} {{ true|abs }}",
        "{{ s|upper() }} {{ s|upper(1) }}", "{{ s|length(1) }}", "{{ undefined_name|items|list }} {{ undefined_name|list }} {{ undefined_name|length }} {{ undefined_name|upper }}| {{ undefined_name|join }}|", "{{ l|items|list }}", "{{ {'b': {'d': 1, 'c': 2}, 'a': [1]}|pprint }} {{ 'x'|pprint }}", "{{ s|string is string }} {{ i|string + '!' }} {{ none|string }} {{ l|string }} {{ 1.0|string }}",
    ]


def the_tests():
    for name in [
        "defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence", "iterable", "callable", "odd", "even", "lower", "upper", "escaped", "eq(7)", "ne(7)", "gt(2)", "in(['x', 7])", "sameas(none)", "divisibleby(7)",
    ]:
        yield from each(f"{{{{ V is {name} }}}}")
    yield from [
        "{{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }} {{ 1 is filter }}", "{{ (1, 2) is sequence }} {{ range(2) is sequence }} {{ d.items() is sequence }} {{ d.keys() is iterable }} {{ d.keys is callable }} {{ namespace() is mapping }}", "{{ 'abc' is lower }} {{ 'ABC1' is upper }} {{ '1' is upper }} {{ 'x'|safe is escaped }} {{ 'x'|e is string }}",
        "{{ i is lessthan 8 }} {{ i is le 7 }} {{ i is ge 8 }} {{ i is greaterthan 3 }} {{ i is equalto 7 }} {{ i is ne 7 }} {{ s is in('Hello world!') }}", "{{ i is divisibleby }}", "{{ i is divisibleby(0) }}", "{{ i is defined(1) }}", "{{ s is gt 1 }}", "{{ true is sameas true }} {{ 1 is sameas 1 }} {{ none is sameas none }} {{ [] is sameas [] }} {{ l is sameas l }} {{ 1 is sameas true }}",
        "{{ true is integer }} {{ true is number }} {{ 1.0 is float }} {{ 1.0 is integer }} {{ 1 is boolean }}", "{{ macro is defined }}{% macro mm() %}{% endmacro %}{{ mm is callable }}{{ mm is string }}{{ mm is iterable }}", "{% for x in l %}{{ loop is iterable }}{{ loop is callable }}{{ loop is sequence }}{% endfor %}", "{{ 's' is not string or 1 is not number }} {{ not 's' is string }} {{ 'a' ~ 'b' is string }} {{ 1 + 1 is odd }}",
    ]


def methods():
    calls = [
        "capitalize()", "casefold()", "center(15, '*')", "count('l')", "count('l', 4)", "count('')", "endswith('ld')", "endswith(('x', 'world'))", "endswith('o', 0, 5)", "expandtabs()", "find('o')", "find('o', 5)", "find('o', 5, 6)", "find('zz')", "find('', 3)", "find('l', -4)", "format(1)", "index('w')", "index('zz')", "index('o', 5)",
        "isalnum()", "isalpha()", "isascii()", "isdecimal()", "isdigit()", "isidentifier()", "islower()", "isnumeric()", "isprintable()", "isspace()", "istitle()", "isupper()", "join(['a', 'b'])", "join('xy')", "join([1])", "ljust(15, '.')", "lower()", "lstrip('He')", "partition(' ')", "partition('z')", "partition('')", "removeprefix('Hello ')", "removesuffix('ld')",
        "replace('l', 'L')", "replace('l', 'L', 1)", "replace('', '-', 2)", "replace('l', 'L', -1)", "replace('l')", "rfind('o')", "rfind('o', 0, 5)", "rindex('l')", "rjust(15)", "rpartition('o')", "rpartition('z')", "rsplit()", "rsplit('o', 1)", "rsplit(none, 1)", "rsplit('l', maxsplit=2)", "rstrip('dl')", "split()", "split('o')", "split('o', 1)", "split(sep='l')", "split('l', maxsplit=1)", "split(none, 1)", "split(' ', -1)", "split('')", "split(maxsplit=0)",
        "splitlines()", "splitlines(true)", "startswith('He')", "startswith(('x', 'He'))", "startswith('world', 6)", "startswith(['He'])", "startswith(1)", "startswith('H', none, none)", "strip('Hd')", "strip(none)", "swapcase()", "title()", "upper()", "zfill(15)", "upper(1)", "nope()", "strip(1)", "center(5, 'ab')",
    ]
    for call in calls:
        # What looks for something and does not find it raises, so each text goes alone.
        yield from each(f"{{{{ V.{call} }}}}|", ["s", "e", "u"])
    yield from [
        "{{ m.splitlines() }} {{ m.splitlines(keepends=true) }} {{ 'a\\r\\nb\\rc\\x0bd\\x1ce\\u2028f\\n'.splitlines() }}", "{{ ' a  b '.split() }} {{ ' a  b '.split(' ') }} {{ ' a  b  c '.split(none, 1) }} {{ ' a  b  c '.rsplit(none, 1) }} {{ '\\x1ca\\u00a0b'.split() }}", "{{ '-42'.zfill(6) }} {{ '+4'.zfill(4) }} {{ 'abc'.zfill(2) }} {{ '--1'.zfill(6) }}", "{{ 'a\tb\tc'.expandtabs(4) }} {{ 'a\tb'.expandtabs(tabsize=2) }} {{ '\t'.expandtabs(0) }}|",
        "{{ 'ab'.center(5, '-') }} {{ 'abc'.center(6, '-') }} {{ 'a'.center(4, '-') }} {{ 'ab'.ljust(1) }}", "{{ '{} {}'.format(1, 'a') }} {{ '{1}{0}'.format('a', 'b') }} {{ '{a}-{b}'.format(a=1, b=2) }} {{ '{0.k} {0[n]}'.format(d) }} {{ '{:>5}|{:<5}|{:^5}|{:*^7}'.format(1, 'a', 'b', 'c') }} {{ '{:.2f} {:,} {:05d} {:+d} {:x} {:#x} {:b} {:e} {:%}'.format(3.14159, 1234567, 42, 5, 255, 255, 5, 12345.678, 0.5) }}",
        "{{ '{!r} {!s} {!a}'.format('a', 'b', 'é') }} {{ '{{}}'.format() }} {{ '{:{}}'.format('a', 5) }}| {{ '{:_}'.format(1234567) }} {{ '{:g} {:g} {:.3g}'.format(1e10, 0.0001, 1234.5) }} {{ '{}'.format(none) }} {{ '{:5}'.format(true) }} {{ '{:>10,.2f}'.format(1234.5) }} {{ '{:010.3f}'.format(-3.14159) }} {{ '{:=+8}'.format(42) }}", "{{ '{}'.format() }}", "{{ '{x}'.format(1) }}", "{{ '{'.format(1) }}", "{{ '}'.format(1) }}", "{{ '{} {0}'.format(1, 2) }}", "{{ '{:d}'.format('x') }}", "{{ '{:q}'.format(1) }}", "{{ '{0.__class__}'.format(1) }}", "{{ '{:.2f}'.format(2) }} {{ '{:,}'.format(1234567.891) }} {{ '{:.0f}'.format(2.5) }} {{ '{:s}'.format('x') }} {{ '{:c}'.format(65) }} {{ '{:.3}'.format(2.0) }} {{ '{:10}'.format(2.5) }}|{{ '{:<10}'.format(2.5) }}|",
        "{{ l.index(1) }} {{ l.count(3) }} {{ l.index(2, 1) }} {{ (1, 2, 1).count(1) }} {{ (1, 2).index(2) }} {{ l.copy() }} {{ d.copy() }}", "{{ l.index(9) }}", "{{ l.index(3, 1) }}", "{{ range(5).index(3) }} {{ range(5).count(3) }} {{ range(1, 5).start }}", "{{ (2.0).is_integer() }} {{ (2.5).is_integer() }} {{ (5).bit_length() }}", "{{ s.upper is callable }}", "{{ d.keys()|list }} {{ d.values()|list }} {{ d.items()|list }} {{ d.keys()|length }} {{ 'k' in d.keys() }} {{ ('k', 'v') in d.items() }} {{ d.keys() == d.keys() }}",
        "{{ d.keys()[0] }}|", "{{ d.items()|first }} {{ d.values()|last }} {{ d.items()|list|length }}", "{{ (s ~ s).split('o')[1:]|join('0') }} {{ s.split()[-1].strip('d') }} {{ 'a</think>b'.split('</think>')[-1].lstrip('\\n') }} {{ 'x,y'.split(',')|map('upper')|join }}", "{{ 'Straße'.upper() }} {{ 'STRASSE'.casefold() }} {{ \"they're\".title() }} {{ 'foo_bar1baz'.title() }} {{ 'éÀ'.swapcase() }} {{ 'ﬁ'.capitalize() }}",
        "{{ '١٢'.isdigit() }}{{ '²'.isdigit() }}{{ '²'.isdecimal() }}{{ '½'.isnumeric() }}{{ '½'.isdigit() }}{{ 'Ⅷ'.isnumeric() }}{{ ' '.isspace() }}{{ ''.isspace() }}{{ 'a1'.isidentifier() }}{{ '1a'.isidentifier() }}{{ 'A1'.isupper() }}{{ 'Aa Bb'.istitle() }}{{ 'é'.isalpha() }}{{ 'a\\n'.isprintable() }}", "{{ 'x'.format_map({'a': 1}) }} {{ '{a}'.format_map({'a': 1}) }}", "{{ 'aXbX'.rsplit('X', 1) }} {{ 'a.b.c'.rsplit('.') }} {{ 'abc'.rsplit('', 1) }}",
    ]


def dates():
    codes = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%"
    yield from (f"{{{{ strftime_now('%{code}') }}}}|" for code in codes if code != "s")
    yield from [
        "{{ strftime_now('%d %b %Y') }}", "{{ strftime_now('%-d/%-m/%y %-I:%M %p') }}", "{{ strftime_now('%_d|%_H|%^a|%^B|%0e') }}", "{{ strftime_now('100%') }}", "{{ strftime_now('%Q') }}", "{{ strftime_now('') }}|", "{{ strftime_now('é %Y') }}", "{{ strftime_now() }}", "{{ strftime_now(1) }}", "{{ strftime_now is defined }}", "{{ strftime_now(format='%Y') }}", "{{ strftime_now('%Ey %OH') }}",
    ]


def whole():
    """Longer pieces, as chat templates have them."""
    yield from [
        "{%- for message in r %}\n    {%- if message.role == 'user' %}\n        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n    {%- elif message.calls %}\n        {{- message.calls | tojson }}\n    {%- endif %}\n{%- endfor %}\n",
        "{% for m in r %}{% if m['content'] is string %}{{ m['content'] | trim }}{% elif m['content'] is iterable %}{% for c in m['content'] %}{{ c }}{% endfor %}{% else %}null{% endif %}|{% endfor %}",
        "{% set ns = namespace(found=false, text='') %}{% for m in r %}{% if not ns.found and m.role|lower == 'user' %}{% set ns.found = true %}{% set ns.text = ns.text ~ loop.index %}{% endif %}{% endfor %}{{ ns.found }}{{ ns.text }}",
        "{% macro show(v, depth=0) %}{% if v is mapping %}{% for k, w in v|dictsort %}{{ '  ' * depth }}{{ k }}:\n{{ show(w, depth + 1) }}{% endfor %}{% elif v is iterable and v is not string %}{% for w in v %}{{ show(w, depth + 1) }}{% endfor %}{% else %}{{ '  ' * depth }}{{ v }}\n{% endif %}{% endmacro %}{{ show(r[1]) }}",
        "{%- if r[0]['role'] == 'system' -%}{%- set rest = r[1:] -%}{%- else -%}{%- set rest = r -%}{%- endif -%}{%- for m in rest -%}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('roles must alternate') }}{%- endif -%}{{ m.role }}{%- endfor -%}",
        "{%- set tool_names = r | selectattr('calls', 'defined') | map(attribute='calls') | first | map(attribute='name') | join(', ') -%}{{ tool_names }}", "{{ r | map(attribute='role') | map('lower') | unique | sort | join(',') }}",
        "{% set content %}{% for m in r %}{{ m.content or '' }}{% endfor %}{% endset %}{{ content.strip().split()[-1] }}", "{{ (r[0].content ~ '</think>answer').split('</think>')[-1].lstrip('\\n') }}", "{% set date = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}Today: {{ date }}",
        "<user>\r\n{% for m in r %}\r\n[{{ m.role }}]\r\n{% endfor %}\r\n", "{{ '[First.\\\nSecond.\\\n\\\nEnd]' }}", "{{ m | indent(2, first=true) }}|{{ ({'a': 1} | tojson(indent=2)) | indent(4) }}", "{% for m in r %}{{ m.content|default('none', true) }}{{ m.get('calls', []) | length }}{% endfor %}",
        "{{ s is sequence }}{{ s is iterable }}{{ s is mapping }}{{ l is sequence }}{{ l is string }}{{ z is iterable }}{{ none is sequence }}", "{{ d.items() | list | tojson }}", "{% for key in d %}{{ key }}{{ d[key] }}{% endfor %}", "{% set q = d.k if d.k is defined and d.k is not none else 'x' %}{{ q }}", "{{ 'yes' if 'user' in r|map(attribute='role') else 'no' }}{{ 'user' in r|map(attribute='role')|list }}",
    ]


# Random templates.

class Random:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def pick(self, *choices):
        return self.r.choice(choices)

    def atom(self):
        return self.pick(
            "s", "e", "i", "n", "f", "t", "z", "l", "w", "d", "m", "u", "r", "undefined_name", "d.k", "d['n']", "r[0]", "r[1].content", "r[2]['role']", "l[0]", "w[-1]", "s[1:4]", "l[::-1]", "u[2:]",
            "'a b'", "'%s'", "''", "'\\n x '", "0", "1", "-1", "2.5", "10", "true", "none", "[]", "[1, 'a']", "(1, 2)", "{'a': 1}", "range(4)", "d.items()", "d.keys()", "'<&>'", "[3, 1.5, true]", "['b', 'a', 'B']",
        )

    def expression(self, depth):
        if depth <= 0:
            return self.atom()
        e = lambda: self.expression(depth - self.r.randint(1, 2))
        kind = self.r.randint(0, 13)
        if kind <= 1:
            return f"{e()} {self.pick('+', '-', '*', '/', '//', '%', '~', '~', '+')} {e()}"
        if kind == 2:
            return f"{e()} {self.pick('==', '!=', '<', '<=', '>', '>=', 'in', 'not in')} {e()}"
        if kind == 3:
            return f"{e()} {self.pick('and', 'or')} {e()}"
        if kind == 4:
            return f"({e()} if {e()} else {e()})"
        if kind <= 8:
            return f"({e()})|{self.filter(e)}"
        if kind == 9:
            return f"({e()}).{self.method(e)}"
        if kind == 10:
            return f"({e()} is {self.pick('', 'not ')}{self.test(e)})"
        if kind == 11:
            return f"[{e()}, {e()}]" if self.r.random() < 0.6 else "{'x': %s, 'y': %s}" % (e(), e())
        if kind == 12:
            # Slices of what has none depend on whether Jinja could fold the constant.
            if self.r.random() < 0.5:
                return f"(({e()})|{self.pick('string', 'list')})[{self.pick('1:', ':2', '::2', ':-1', '-2:', '2::-1', '5:')}]"
            return f"({e()})[{self.pick('0', '-1', '5', chr(39) + 'k' + chr(39), 'i', 'true')}]"
        return f"(not {e()})"

    def filter(self, e):
        return self.pick(
            "abs", "capitalize", "count", "default('D')", f"default({e()}, true)", "dictsort", "e", "first", "float", "int", "int(5)", "items|list", "join", "join(', ')", f"join({e()})", "last", "length", "list", "lower", "max", "min", "reverse|list", "round", "round(1)", "safe", "sort", "sort(reverse=true)",
            "string", "sum", "title", "tojson", "tojson(indent=2)", "trim", "unique|list", "upper", "urlencode", "wordcount", "indent", "indent(2, true)", "batch(2)|list", "slice(2)|list", "map('string')|list", "map('upper')|join", "map(attribute='role')|list", "select('defined')|list", "reject('none')|list", "select|list",
            "selectattr('content')|list|length", "replace('a', 'X')", f"replace('o', {e()})", "truncate(5)", "center(9)", "wordwrap(5)", "string|length", "striptags", f"map('default', {e()})|list", "groupby('role')|length", "sort(attribute='n')|map(attribute='n')|list", "join('|', attribute='role')", "forceescape", "tojson(sort_keys=true)", "pprint",
        )

    def method(self, e):
        return self.pick(
            "upper()", "lower()", "strip()", "split()", "split(' ')", "split('l', 1)", f"replace('l', {e()})", "startswith('H')", "endswith('d')", "find('o')", "count('l')", "title()", "capitalize()", "items()|list", "keys()|list", "values()|list", "get('k')", f"get('q', {e()})", f"join({e()})", "rsplit(none, 1)", "splitlines()",
            "index(1)", "isdigit()", "isalpha()", "zfill(5)", "partition(' ')", "lstrip()", "rstrip()", "center(9, '*')", "swapcase()", "format(1, a=2)", "k", "role", "content", "n", "copy()", "islower()",
        )

    def test(self, e):
        return self.pick("defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable", "callable", "odd", "even", "lower", "upper", "true", "false", f"eq({e()})", f"in({e()})", "gt(1)", "divisibleby(2)", "escaped")

    def body(self, depth):
        return "".join(self.statement(depth) for _ in range(self.r.randint(1, 3)))

    def space(self):
        return self.pick("", "", "", " ", "\n", "  \n  ", "x", " y ")

    def tag(self, text):
        return f"{self.space()}{{%{self.pick('', '', '', '-', '+')} {text} {self.pick('', '', '', '-', '+')}%}}{self.space()}"

    def statement(self, depth):
        e = lambda: self.expression(self.r.randint(0, 2))
        kind = self.r.randint(0, 11) if depth > 0 else 0
        if kind <= 3:
            return f"{self.space()}{{{{{self.pick('', '', '-')} {e()} {self.pick('', '', '-')}}}}}{self.space()}"
        inner = lambda: self.body(depth - 1)
        if kind == 4:
            return self.tag(f"if {e()}") + inner() + self.tag("else") + inner() + self.tag("endif")
        if kind <= 6:
            items = self.pick("l", "w", "r", "d", "s", "range(3)", "d.items()", e())
            middle = inner() + self.pick("", "{{ loop.index }}", "{{ x }}", "{{ loop.last }}", "{{ x.role }}", "{% set q = x %}{{ q }}", "{% if loop.index > 1 %}{% break %}{% endif %}")
            return self.tag(f"for x in {items}{self.pick('', '', ' if x')}") + middle + self.pick("", self.tag("else") + "none") + self.tag("endfor")
        if kind == 7:
            return self.tag(f"set {self.pick('q', 's', 'i', 'v')} = {e()}") + self.pick("", "{{ q }}", "{{ s }}", "{{ v }}")
        if kind == 8:
            return self.tag("set q") + inner() + self.tag("endset") + "[{{ q }}]"
        if kind == 9:
            return self.tag(f"macro mm(a, b={e()})") + inner() + "{{ a }}{{ b }}" + self.tag("endmacro") + f"{{{{ mm({e()}) }}}}"
        if kind == 10:
            return self.tag(f"filter {self.pick('upper', 'trim', 'indent(2)', 'replace(' + chr(39) + 'a' + chr(39) + ', ' + chr(39) + 'b' + chr(39) + ')')}") + inner() + self.tag("endfilter")
        return self.tag(f"with v = {e()}") + inner() + "{{ v }}" + self.tag("endwith")


def case_of(template, context):
    result = render(template, CONTEXTS[context])
    if re.search(r" at 0x[0-9a-f]|built-in method|<class |generator object|Namespace|dict_reversekeyiterator", result.get("ok", "")):
        return None
    return {"template": template, "context": context, **result}


def main():
    if len(sys.argv) == 3:
        source = Random(int(sys.argv[1]))
        cases = []
        while len(cases) < int(sys.argv[2]):
            template = source.body(2) if source.r.random() < 0.4 else "{{ %s }}" % source.expression(3)
            case = case_of(template, "plain")
            if case and len(case.get("ok", "")) < 4000:
                cases.append(case)
        json.dump({"contexts": CONTEXTS, "cases": cases}, sys.stdout, indent=1)
        return
    seen = dict.fromkeys(template for template in snippets() if template)
    cases = [case for case in (case_of(template, "plain") for template in seen) if case]
    lines = ",\n".join("  " + json.dumps(case) for case in cases)
    contexts = json.dumps(CONTEXTS)
    Path(__file__).with_name("snippets.json").write_text(f'{{\n "contexts": {contexts},\n "cases": [\n{lines}\n ]\n}}\n')
    print(len(cases), "cases,", sum("error" in case for case in cases), "of them errors", file=sys.stderr)


if __name__ == "__main__":
    main()
