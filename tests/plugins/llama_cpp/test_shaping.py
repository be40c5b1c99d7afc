"""Tools, earlier calls and results, as each family's template wants them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from plugins.llama_cpp.splitter import parse
from plugins.llama_cpp.template import Template
from tests.plugins.llama_cpp.spoken import LOOK, SCHEMAS, SPOKEN, TOOLS

BY_STYLE = {spoken.form.style: spoken for spoken in SPOKEN}
CALLS = [
    {"id": "1", "function": {"name": "look", "arguments": msgspec.json.encode(LOOK).decode()}},
    {"id": "2", "function": {"name": "go", "arguments": {}}},
]
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "", "tool_calls": CALLS, "reasoning_content": "hm"},
    {"role": "tool", "tool_call_id": "1", "content": "grey"},
    {"role": "tool", "tool_call_id": "2", "content": "gone"},
]
# Gemma 3 and its like: turns of two, a system message, nothing of tools.
PLAIN = """{% for m in messages %}
{%- if (m.role == 'system' and not loop.first) or m.role not in ('system', 'user', 'assistant') %}
{{- raise_exception('no role ' + m.role) }}{% endif %}[{{ m.role }}] {{ m.content }}
{% endfor %}"""


def render(source: str, messages: list[dict[str, Any]], **more: Any) -> str:
    return Template(source, bos="<s>", eos="</s>", model="tiny").render(messages, **more)


def test_a_template_that_knows_no_tools() -> None:
    """The model is told of its tools in the system message, in the form that is read; its calls and their results stay
    in the conversation, as turns that the template takes."""
    text = render(PLAIN, TALK, tools=TOOLS)
    system, user, assistant, results = text.strip().split("\n[")
    assert system.startswith("[system] You can call these functions")
    assert msgspec.json.encode(TOOLS[0]["function"]).decode() in system
    assert '<tool_call>\n{"name": "NAME", "arguments": {"ARGUMENT": "VALUE"}}\n</tool_call>' in system
    assert user == "user] hi"
    found = parse(assistant.removeprefix("assistant] "), Template(PLAIN).form, SCHEMAS)
    assert found[0] == ""
    assert [msgspec.json.decode(call.arguments) for call in found[1]] == [LOOK, {}]
    assert results == (
        "user] <tool_response>\ngrey\n</tool_response>\n<tool_response>\ngone\n</tool_response>"
    )  # fmt: skip
    own = render(PLAIN, [{"role": "system", "content": "Be kind."}, *TALK], tools=TOOLS)
    assert own.startswith("[system] Be kind.\n\nYou can call")
    assert "You can call" not in render(PLAIN, TALK)


def test_no_template_at_all() -> None:
    """A file without a template is used with ChatML, which knows no tools either."""
    text = Template(None).render(TALK, tools=TOOLS)
    assert text.count("<|im_start|>system") == 1
    assert "<tool_call>" in text


def test_tools_in_the_system_message() -> None:
    """Phi-4-mini's template looks for the tools in the system message, and hands the role of results through."""
    text = render(BY_STYLE["phi4"].template, TALK, tools=TOOLS)
    listed = msgspec.json.encode([tool["function"] for tool in TOOLS]).decode()
    assert text.startswith(f"<|system|><|tool|>{listed}<|/tool|><|end|><|user|>hi<|end|><|assistant|><|tool_call|>[")
    assert text.endswith(
        "]<|/tool_call|><|end|><|tool_response|>grey<|end|><|tool_response|>gone<|end|><|assistant|>"
    )  # fmt: skip
    own = render(BY_STYLE["phi4"].template, [{"role": "system", "content": "Be kind."}, *TALK], tools=TOOLS)
    assert own.startswith("<|system|>Be kind.<|tool|>[")


def test_roles_that_go_through() -> None:
    """Granite 3 is given its calls and their results in words, under the role it knows."""
    text = render(BY_STYLE["granite"].template, TALK, tools=TOOLS)
    assert '<|start_of_role|>assistant<|end_of_role|><|tool_call|>[{"name": "look", "arguments": {"place":' in text
    assert "<|start_of_role|>tool_response<|end_of_role|>grey<|end_of_text|>" in text


def test_calls_in_python() -> None:
    """LFM2's first template leaves calls out: they are written as the model does."""
    source = "{{ tools }}<|tool_list_start|>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}'tool'"
    text = render(source, TALK, tools=TOOLS)
    assert 'assistant: <|tool_call_start|>[look(place="Köln, (1) it\'s \\"here\\"", count=2,' in text
    assert "tool: grey" in text


def test_deepseek() -> None:
    """R1's template has no place for tools, but one for calls, which it wants without content."""
    source = (
        "{% for m in messages %}{% if m['role'] == 'assistant' and m['tool_calls'] %}<｜tool▁calls▁begin｜>"
        "{% for tool in m['tool_calls'] %}{{ tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] }}"
        "{{ '\n```json\n' + tool['function']['arguments'] + '\n```' }}{% endfor %}{% endif %}"
        "{% if m['content'] is not none %}[{{ m['role'] }}]{{ m['content'] }}{% endif %}{% endfor %}'tool'"
    )
    text = render(source, TALK, tools=TOOLS)
    assert "function<｜tool▁sep｜>NAME\n```json\n" in text
    assert "[assistant]" not in text
    assert "function<｜tool▁sep｜>go\n```json\n{}\n```[tool]grey" in text


@pytest.mark.parametrize(
    "written", ["func_args.items()", "tool_call.arguments|items", "tool_call['arguments'] | dictsort"]
)
def test_arguments_as_objects(written: str) -> None:
    """Templates that go through arguments get objects, whatever they call them."""
    source = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{% set tool_call = c.function %}"
        "{% set func_args = c.function.arguments %}{% for k, v in WRITTEN %}{{ k }}{% endfor %}{% endfor %}{% endfor %}"
    )
    assert render(source.replace("WRITTEN", written), TALK) in ("placecountdeep", "countdeepplace")


def test_smollm3() -> None:
    """Its template calls the tools by another name."""
    assert '"name": "go"' in render("{{ xml_tools | tojson }}<tool_call>", TALK, tools=TOOLS)


def test_thoughts_of_earlier_answers() -> None:
    """``reasoning_content``, as it was given out, is found by templates that look for it under another name."""
    assert render("{{ messages[1].thinking }}", TALK) == "hm"
    assert render("{{ messages[1].reasoning_content }}", TALK) == "hm"
