"""Chat templates: what models expect, and what a hostile file cannot do."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.plugin import CallFailure
from plugins.llama_cpp.template import MAX_SOURCE, BadTemplate, Template
from plugins.llama_cpp.template_budget import Budget

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": "é<"}'}}],
    },
]
# The parts of real templates that need something special.
QWEN = """{%- if tools %}{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}{%- endif %}
{%- set ns = namespace(multi=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}
{%- if ns.multi and message.role == "user" and message.content is string
       and not(message.content.startswith('<tool_response>')) %}
{%- set ns.multi = false %}{%- set ns.last = index %}{%- endif %}{%- endfor %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- if message.tool_calls %}{%- for tool_call in message.tool_calls %}
{%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '<tool_call>{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
{%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}
{%- endif %}{{- '}</tool_call>' }}{%- endfor %}{%- endif %}
{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""


def render(source: str | None, messages: list[dict[str, Any]] | None = None, **more: Any) -> str:
    return Template(source, bos="<s>", eos="</s>", model="tiny").render(HI if messages is None else messages, **more)


def test_without_a_template() -> None:
    """A file without one gets ChatML, and that is told."""
    assert render(None) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert (Template(None).origin, Template("x").origin) == ("chatml", "gguf")
    assert render(None, add_generation_prompt=False).endswith("<|im_end|>\n")


def test_a_real_template() -> None:
    """Tools, earlier calls and variables of the request come out as the model was trained on them."""
    text = render(QWEN, CALLED, tools=[{"x": "<é>'&"}], values={"enable_thinking": False})
    assert text == (
        '\n{"x": "<é>\'&"}<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n'
        '<tool_call>{"name": "f", "arguments": {"a": "é<"}}</tool_call><|im_end|>\n'
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>hi</s>"),
        ("{% for m in messages %}{% if loop.last %}{{ m['content'] | trim | upper }}{% endif %}{% endfor %}", "HI"),
        ("{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 2 %}{% break %}{% endif %}"
         "{{ i }}{% endfor %}",
         "02"),
        ("{% macro m(a, b=2) %}{{ a ~ b }}{% endmacro %}{{ m(1) }}", "12"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x * 2 }}", "a1a1"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "hi"),
        ("{{ {'b': [1, 'é'], 'a': none} | tojson }}", '{"b": [1, "é"], "a": null}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ ['a', 'b'] | join(', ') }} {{ 'a-b'.split('-')[-1] }} {{ '%s!' % 'x' }}", "a, b b x!"),
        ("{{ messages | map(attribute='content') | join }}", "hi"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ 'x' if 'h' in messages[0].content else 'y' }}", "x"),
        ("{{ strftime_now('%d %b %Y') }}", "03 Feb 2001"),
        ("{{ undefined_thing }}|{{ none }}|{{ true }}", "|None|True"),
        ("{% for a in [[1, [2]], [3]] recursive %}{{ a if a is number else loop(a) }}{% endfor %}", "123"),
        ("{{ messages[1:] | length }}{{ (1, 2) | last }}{{ 7 // 2 }}{{ 2 ** 3 }}", "0238"),
        ("{{ dict(a=1).get('a') }}{{ namespace(x=3).x }}", "13"),
    ],
)  # fmt: skip
def test_what_templates_use(source: str, text: str) -> None:
    """The language that chat templates are written in works as it does where they were made."""
    now = datetime.datetime(2001, 2, 3)
    assert Template(source, bos="<s>", eos="</s>", now=lambda: now).render(HI) == text


def test_arguments_of_earlier_calls() -> None:
    """Arguments are an object where the template writes objects, and their text where it writes texts."""
    loop = "{% for m in messages %}{% for c in m.tool_calls or [] %}%s{% endfor %}{% endfor %}"
    assert render(loop.replace("%s", "{{ c.function.arguments | tojson }}"), CALLED) == '{"a": "é<"}'
    assert render(loop.replace("%s", "{{ c.function | tojson }}"), CALLED) == '{"name": "f", "arguments": {"a": "é<"}}'
    assert render(loop.replace("%s", "{{ c.function.arguments }}"), CALLED) == '{"a": "é<"}'
    broken = [{**CALLED[1], "tool_calls": [{"function": {"name": "f", "arguments": "{broken"}}]}]
    assert render(loop.replace("%s", "{{ c.function.arguments | tojson }}"), broken) == '"{broken"'


def test_developer_messages() -> None:
    """A template that does not know developers sees a system message."""
    source = "{{ messages[0].role }}"
    messages = [{"role": "developer", "content": "x"}]
    assert render(source, messages) == "system"
    assert render(source + "{# developer #}", messages) == "developer"


def test_thoughts_that_are_open() -> None:
    """A prompt that ends with the mark of thoughts says so, if the model thinks."""
    template = Template("<think>")
    assert template.thinking("x<think>\n")
    assert not template.thinking("x<think></think>")
    assert not Template("x").thinking("<think>")


def test_refusals() -> None:
    """What the template itself refuses is the caller's mistake about the messages, in the template's words."""
    with pytest.raises(CallFailure) as caught:
        render("{{ raise_exception('roles must alternate') }}")
    error = caught.value.error
    assert (error.kind, error.sent, error.param) == ("bad_request", "no", "messages")
    assert "roles must alternate" in caught.value.message


NO_WAY_OUT = [
    "{{ ().__class__.__base__.__subclasses__() }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['os'] }}",
    "{{ range.__self__.__import__('os') }}",
    "{{ namespace.__init__.__globals__.sys }}",
    "{{ (messages | map(attribute='__class__') | first).mro() }}",
    "{{ messages | attr('__class__') }}",
    "{{ '{0.__class__.__mro__}'.format(1) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{% set x = messages.append(1) %}",
    "{% set x = messages[0].update({'a': 1}) %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{{ lipsum.__globals__ }}",
    "{% for x in [1] %}{{ loop.__class__.x }}{% endfor %}",
    "{% macro m() %}{{ caller.__class__.x.y }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% set ns = namespace() %}{{ ns.__dict__.x }}",
    "{{ joiner('x')() }}",
    "{{ (messages | first | string).__add__('x') }}",
    "{{ (0).real.__class__.x }}",
    "{% block x %}{% endblock %}",
]


@pytest.mark.parametrize("source", NO_WAY_OUT)
def test_no_way_out(source: str) -> None:
    """No template reaches anything of Python's; trying is a failure, never an answer."""
    with pytest.raises((CallFailure, BadTemplate)) as caught:
        render(source)
    if isinstance(caught.value, CallFailure):
        assert caught.value.error.kind == "bad_request"


BOMBS = {
    "loops": "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
    "quiet loops": "{% for a in range(200000) %}{% for b in range(200000) %}{% endfor %}{% endfor %}",
    "a long range": "{{ range(10 ** 12) | list }}",
    "a product": "{{ 'x' * 10 ** 9 }}",
    "a product of lists": "{{ ['x'] * 10 ** 9 }}",
    "powers": "{{ 10 ** (10 ** 9) }}",
    "products": "{% set ns = namespace(n=10) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "doubling by ~": "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubling by +": "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "lists of lists": "{% set ns = namespace(s=['x']) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}"
    "{% endfor %}{{ ns.s }}",
    "maps of maps": "{% set ns = namespace(s=1) %}{% for i in range(99) %}{% set ns.s = {'a': ns.s, 'b': ns.s} %}"
    "{% endfor %}{{ ns.s | tojson }}",
    "dicts": "{% set ns = namespace(s=1) %}{% for i in range(99) %}{% set ns.s = dict(a=ns.s, b=ns.s) %}{% endfor %}",
    "list sums": "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "the filter replace": "{% set x = ('a' * 10000) | replace('a', 'b' * 10000) %}",
    "the method replace": "{% set x = ('a' * 10000).replace('a', 'b' * 10000) %}",
    "join": "{% set x = ('a,' * 10000).split(',') | join('b' * 10000) %}",
    "the method join": "{% set x = ('b' * 10000).join(('a,' * 10000).split(',')) %}",
    "comparing": "{% set n = namespace(a=['x'], b=['x']) %}{% for i in range(99) %}{% set n.a = [n.a, n.a] %}"
    "{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}",
    "format": "{{ '%999999999d' % 1 }}",
    "padding": "{{ 'x'.ljust(10 ** 10) }}",
    "centre": "{{ 'x' | center(10 ** 10) }}",
    "indent": "{{ ('\n' * 100000) | indent(10 ** 9) | indent(16) | indent(16) | indent(16) | indent(16) }}",
    "json indent": "{% for i in range(9999) %}{{ range(100) | list | tojson(indent=10 ** 9) }}{% endfor %}",
    "round": "{{ 1.5 | round(10 ** 9, 'ceil') }}",
    "dates": "{{ strftime_now('%999999999d') }}",
    "output again and again": "{% set x = 'x' * 100000 %}{% for i in range(100000) %}{{ x }}{% endfor %}",
    "output in a macro": "{% set x = 'x' * 100000 %}{% macro m() %}{% for i in range(100000) %}{{ x }}{% endfor %}"
    "{% endmacro %}{% set y = m() %}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "macros for ever": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "loops in themselves": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "its own self": "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
    "literal text": "{% for i in range(100000) %}" + "x" * 10000 + "{% endfor %}",
    "brackets": "{{ " + "(" * 50_000 + ")" * 50_000 + " }}",
    "blocks": "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
    "size": "x" * (MAX_SOURCE + 1),
    "not closed": "{% for x in messages %}",
    "unknown filter": "{{ 1 | shell }}",
    "division": "{{ 1 / 0 }}",
}  # fmt: skip


@pytest.mark.parametrize("why", BOMBS)
def test_bombs(why: str) -> None:
    """A template that would run or grow without end fails soon, with a sentence."""
    began = time.process_time()
    with pytest.raises((CallFailure, BadTemplate)) as caught:
        render(BOMBS[why])
    assert time.process_time() - began < 6
    assert 10 < len(str(caught.value)) < 600


def test_the_deadline() -> None:
    """A template that runs past its time is stopped, whatever it makes."""
    now = iter(range(100))
    budget = Budget(10**9, seconds=5, clock=lambda: float(next(now)))
    with pytest.raises(CallFailure, match="takes too long"):
        render("{% for i in range(50) %}{% endfor %}", budget=budget)


def test_large_prompts_are_no_bombs() -> None:
    """What a template may make grows with what it is given: a long conversation goes through."""
    messages = [{"role": "user", "content": "x" * 50_000}] * 100
    assert len(render(QWEN, messages)) > 5_000_000
    many = [{"role": "user", "content": "x"}] * 20_000
    assert len(render(QWEN, many)) > 20_000


@given(st.lists(st.sampled_from([
    "{{", "}}", "{%", "%}", " for ", " x ", " in ", "messages", " if ", " endif ", " endfor ", "|", "tojson", "~", "[",
    "]", "(", ")", "'a'", " 1 ", "*", ".", "content", " set ", "=", "macro m()", " endmacro ", "range(9)", "loop", "#}",
]), max_size=25))  # fmt: skip
def test_any_template_at_all(parts: list[str]) -> None:
    """Any source is compiled and run, or refused with a reason."""
    try:
        render("".join(parts))
    except BadTemplate:
        return
    except CallFailure as failure:
        kind = failure.error.kind
    else:
        return
    assert kind == "bad_request"
