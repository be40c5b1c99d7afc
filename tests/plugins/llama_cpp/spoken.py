"""What models of each form say, and pieces of their templates: written after their cards and templates."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from plugins.llama_cpp import forms
from plugins.llama_cpp.forms import Form

# The tools that are called; ``look`` has a bit of everything.
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Looks at something.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "where"},
                    "count": {"type": "integer"},
                    "mode": {"type": "string", "enum": ["fast", "slow \"one\""]},
                    "deep": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
                },
                "required": ["place"],
            },
        },
    },
    {"type": "function", "function": {"name": "go"}},
]  # fmt: skip
SCHEMAS = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in TOOLS}
LOOK: dict[str, Any] = {"place": 'Köln, (1) it\'s "here"', "count": 2, "deep": {"on": True}}


class Spoken(NamedTuple):
    """``look``: a call with :data:`LOOK` between its marks; ``go``: one without arguments."""

    form: Form
    template: str
    look: str
    go: str

    def said(self, *inside: str) -> str:
        first, between, last = self.form.written
        return f"{first}{between.join(inside)}{last}"

    @property
    def both(self) -> str:
        return self.said(self.look, self.go)


_QUOTED = '"Köln, (1) it\'s \\"here\\""'
_ARGUMENTS = f'{{"place": {_QUOTED}, "count": 2, "deep": {{"on": true}}}}'
_JSON = f'{{"name": "look", "arguments": {_ARGUMENTS}}}'
_GO = '{"name": "go", "arguments": {}}'
_RAW = LOOK["place"]

SPOKEN = [
    Spoken(forms.HERMES, "{% if tools %}<tool_call>{% endif %}", _JSON, _GO),
    Spoken(
        forms.QWEN_CODER,
        "{% if tools %}<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>{% endif %}",
        f"<function=look>\n<parameter=place>\n{_RAW}\n</parameter>\n<parameter=count>\n2\n</parameter>\n"
        "<parameter=deep>\n{'on': True}\n</parameter>\n</function>",
        "<function=go>\n</function>",
    ),
    Spoken(forms.MISTRAL, "{% if tools %}[AVAILABLE_TOOLS][TOOL_CALLS]{% endif %}", _JSON, _GO),
    Spoken(
        forms.MISTRAL_NAMED, "{% if tools %}[AVAILABLE_TOOLS][TOOL_CALLS]{{ name }}[ARGS]{% endif %}",
        f"look[ARGS]{_ARGUMENTS}", "go[CALL_ID]123456789[ARGS]{}",
    ),
    Spoken(
        forms.LLAMA3, "{% if tools %}<|python_tag|>{% endif %}", _JSON.replace('"arguments"', '"parameters"'),
        _GO.replace('"arguments"', '"parameters"'),
    ),
    Spoken(
        forms.PHI4,
        "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is "
        "not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>'"
        " + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
        _JSON, _GO,
    ),
    Spoken(
        forms.GRANITE,
        "{%- if tools and not available_tools -%}{%- set available_tools = tools -%}{%- endif -%}"
        "{%- if available_tools %}respond only with <|tool_call|> followed by a JSON list{% endif %}"
        "{%- for message in messages %}{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + "
        "message['content'] + '<|end_of_text|>\n' }}{%- endfor %}",
        _JSON, _GO,
    ),
    Spoken(forms.NEMOTRON, "{% if tools %}<TOOLCALL>[{{ x }}]</TOOLCALL>{% endif %}", _JSON, _GO),
    Spoken(
        forms.LFM2, "{% if tools %}List of tools: <|tool_list_start|>[{{ tools }}]<|tool_list_end|>{% endif %}",
        f"look(place={_QUOTED}, count=2, deep={{\"on\": true}})", "go()",
    ),
    Spoken(
        forms.DEEPSEEK, "{{'<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type']}}",
        f"function<｜tool▁sep｜>look\n```json\n{_ARGUMENTS}\n```", "function<｜tool▁sep｜>go\n```json\n{}\n```",
    ),
    Spoken(
        forms.FUNCTION_GEMMA, "{% if tools %}<start_function_call>call:{% endif %}",
        f"call:look{{place:<escape>{_RAW}<escape>,count:2,deep:{{on:true}}}}", "call:go{}",
    ),
    Spoken(
        forms.GEMMA4, "{% if tools %}<|tool_call>call:{% endif %}",
        f'call:look{{place:<|"|>{_RAW}<|"|>,count:2,deep:{{on:true}}}}', "call:go{}",
    ),
]  # fmt: skip
MARKED = [one for one in SPOKEN if one.form.syntax != "bare"]


def thinking(form: Form, marks: tuple[str, str] = ("<think>", "</think>")) -> Form:
    """The form of a model that also thinks."""
    return msgspec.structs.replace(form, thoughts=marks)
