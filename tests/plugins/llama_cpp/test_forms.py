"""Which form a chat template tells of."""

from __future__ import annotations

import pytest

from plugins.llama_cpp import forms
from plugins.llama_cpp.forms import Form, form_of
from tests.plugins.llama_cpp.spoken import SPOKEN, Spoken


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda one: one.form.style)
def test_each_form(spoken: Spoken) -> None:
    """A piece of each family's template is enough to know the form, alone and of a model that thinks."""
    assert form_of(spoken.template) == spoken.form
    thinks = form_of(spoken.template + "<think></think>")
    assert (thinks.style, thinks.thoughts) == (spoken.form.style, ("<think>", "</think>"))


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("{% if tools %}<|tool_call_start|>[{% endif %}", forms.LFM2),
        ("{% if tools %}<|im_start|>system\nList of tools: {{ tools }}{% endif %}", forms.LFM2),
        ("{% if tools %}<|system|><|tool|>{{ tool }}<|/tool|><|tool_call|>{% endif %}", forms.PHI4),
        ('{% if tools %}<|start_header_id|>{"name": x, "parameters": y}', forms.LLAMA3),
        ("{% if xml_tools or python_tools %}<tool_call>{% endif %}", forms.HERMES),
        ("{{ messages }}", forms.HERMES),
        ("{% if tools %}<tool_call>{{ name }}\n<arg_key>{% endif %}", Form()),
        ("{% if tools %}<|channel|>commentary to=functions{% endif %}", Form()),
        ("{% if tools %}something of its own{% endif %}", Form()),
    ],
)
def test_others(template: str, form: Form) -> None:
    """Variants are known too; a template without tools gets Hermes' form, one with tools in another form none."""
    assert form_of(template) == form


@pytest.mark.parametrize(
    ("template", "thoughts"),
    [
        ("{{ content.split('</think>')[-1] }}", ("<think>", "</think>")),
        ("[SYSTEM_PROMPT][THINK]", ("[THINK]", "[/THINK]")),
        ("{{ '<|channel>thought\n<channel|>' }}", ("<|channel>thought", "<channel|>")),
        ("{{ messages }}", ("", "")),
    ],
)
def test_thoughts(template: str, thoughts: tuple[str, str]) -> None:
    """The marks of thoughts are told by the template too, whichever part of them it speaks of."""
    assert form_of(template).thoughts == thoughts
    granite = form_of("between <think></think> and write your response between <response></response>")
    assert granite.answer == ("<response>", "</response>")


def test_marks_are_visible_tokens() -> None:
    """All marks of a form are told, to be shown even where a vocabulary holds them as control tokens."""
    assert forms.HERMES.marks == ("<tool_call>", "</tool_call>")
    assert forms.MISTRAL_NAMED.marks == ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")
    assert set(form_of("{% if tools %}<|tool_call>{% endif %}<|channel>thought<channel|>").marks) == {
        "<|tool_call>", "<tool_call|>", "<|tool_response>", '<|"|>', "<|channel>", "<|channel>thought", "<channel|>",
    }  # fmt: skip
    assert Form().marks == ()


def test_no_mark_begins_another() -> None:
    """Marks of one form can be told apart as soon as they are there."""
    for spoken in SPOKEN:
        marks = [mark for mark in (*spoken.form.opens, spoken.form.closes) if mark]
        assert not [(a, b) for a in marks for b in marks if a != b and a.startswith(b)]
