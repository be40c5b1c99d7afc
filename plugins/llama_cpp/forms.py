"""How models write tool calls and thoughts, told by their chat templates. Pure.

A template shows a model how its own earlier calls looked, so its text says which form the model was trained on. What
follows from a form is done elsewhere: :mod:`splitter` finds calls, :mod:`calls` reads them, :mod:`tools` forces them.
Where the facts are from: the templates and cards of the models named, and the table of llama.cpp's own parsers.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

# json: {"name": …, "arguments": {…}} or a list of them; bare: the same without any mark; named: name[ARGS]{…};
# python: [f(a=1), g()]; parameters: <function=f><parameter=a>1</parameter></function>; gemma: call:f{a:1};
# deepseek: function<｜tool▁sep｜>f and JSON in a fence.
Syntax = Literal["json", "bare", "named", "python", "parameters", "gemma", "deepseek"]

THINK, THOUGHT = "<think>", "</think>"


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How one model writes.

    ``style`` "": its template shows tool calls in a way that is not known here. ``opens``: texts that begin a call,
    ``closes`` the one that ends it ("": the next call or the end of the answer). ``written``: what stands before the
    first call, between two and behind the last where hybridd writes them itself. ``key``: the arguments' name in
    JSON. ``quote``: stands around texts. ``ends``: texts behind the calls at which the model waits for results.
    ``results``: the role of results where the template hands roles through. ``shown``: further control tokens that
    calls are made of. ``thoughts``: what stands around thoughts, ``answer`` what may stand around the rest.
    """

    style: str = ""
    syntax: Syntax = "json"
    opens: tuple[str, ...] = ()
    closes: str = ""
    written: tuple[str, str, str] = ("", "", "")
    key: str = "arguments"
    quote: str = ""
    ends: tuple[str, ...] = ()
    results: str = ""
    shown: tuple[str, ...] = ()
    thoughts: tuple[str, str] = ("", "")
    answer: tuple[str, str] = ("", "")

    @property
    def thinks(self) -> bool:
        return bool(self.thoughts[0])

    @property
    def marks(self) -> tuple[str, ...]:
        """Texts that must be visible in the output although a vocabulary may hold them as control tokens, which are
        otherwise left out."""
        found = (*self.opens, self.closes, *self.ends, self.quote, *self.shown, *self.thoughts, *self.answer)
        return tuple(dict.fromkeys(mark for mark in found if mark))


HERMES = Form(
    style="hermes", opens=("<tool_call>",), closes="</tool_call>",
    written=("<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"),
)  # fmt: skip
# Qwen3-Coder forgets the outer mark at times.
QWEN_CODER = msgspec.structs.replace(
    HERMES, style="qwen-coder", syntax="parameters", opens=("<tool_call>", "<function=")
)
MISTRAL = Form(style="mistral", opens=("[TOOL_CALLS]",), written=("[TOOL_CALLS][", ", ", "]"))
MISTRAL_NAMED = Form(
    style="mistral-named", syntax="named", opens=("[TOOL_CALLS]",), written=("[TOOL_CALLS]", "[TOOL_CALLS]", ""),
    shown=("[ARGS]", "[CALL_ID]"),
)  # fmt: skip
LLAMA3 = Form(style="llama3", syntax="bare", opens=("<|python_tag|>",), key="parameters")
PHI4 = Form(
    style="phi4", opens=("<|tool_call|>",), closes="<|/tool_call|>",
    written=("<|tool_call|>[", ", ", "]<|/tool_call|>"), results="tool_response",
)  # fmt: skip
# Granite 3; Granite 4 writes like Hermes. 3.1 and later say <tool_call> now and then.
GRANITE = Form(
    style="granite", opens=("<|tool_call|>", "<tool_call>"), written=("<|tool_call|>[", ", ", "]"),
    results="tool_response",
)  # fmt: skip
NEMOTRON = Form(
    style="nemotron", opens=("<TOOLCALL>",), closes="</TOOLCALL>", written=("<TOOLCALL>[", ", ", "]</TOOLCALL>")
)
LFM2 = Form(
    style="lfm2", syntax="python", opens=("<|tool_call_start|>",), closes="<|tool_call_end|>",
    written=("<|tool_call_start|>[", ", ", "]<|tool_call_end|>"),
)  # fmt: skip
DEEPSEEK = Form(
    style="deepseek", syntax="deepseek", opens=("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
    closes="<｜tool▁calls▁end｜>", shown=("<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
    written=("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>",
             "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
)  # fmt: skip
FUNCTION_GEMMA = Form(
    style="function-gemma", syntax="gemma", opens=("<start_function_call>",), closes="<end_function_call>",
    written=("<start_function_call>", "<end_function_call><start_function_call>", "<end_function_call>"),
    quote="<escape>", ends=("<start_function_response>",),
)  # fmt: skip
GEMMA4 = Form(
    style="gemma4", syntax="gemma", opens=("<|tool_call>",), closes="<tool_call|>",
    written=("<|tool_call>", "<tool_call|><|tool_call>", "<tool_call|>"), quote='<|"|>', ends=("<|tool_response>",),
)  # fmt: skip


class _Sign(NamedTuple):
    """``form`` is that of a template which holds all of these texts and none of those."""

    form: Form
    all: tuple[str, ...]
    none: tuple[str, ...] = ()


# The first that fits: marks that only one family has come before those that others share.
_SIGNS = (
    _Sign(FUNCTION_GEMMA, ("<start_function_call>",)),
    _Sign(GEMMA4, ("<|tool_call>",)),
    _Sign(DEEPSEEK, ("<｜tool▁calls▁begin｜>",)),
    _Sign(LFM2, ("<|tool_call_start|>",)),
    _Sign(LFM2, ("<|tool_list_start|>",)),
    _Sign(LFM2, ("List of tools: ", "<|im_start|>")),
    _Sign(GRANITE, ("<|tool_call|>", "<|start_of_role|>")),
    _Sign(PHI4, ("<|tool|>", "<|/tool|>")),
    _Sign(NEMOTRON, ("<TOOLCALL>",)),
    _Sign(QWEN_CODER, ("<tool_call>", "<function=", "<parameter=")),
    _Sign(HERMES, ("<tool_call>",), ("<function=", "<arg_key>")),
    _Sign(MISTRAL_NAMED, ("[TOOL_CALLS]", "[ARGS]")),
    _Sign(MISTRAL, ("[TOOL_CALLS]",)),
    _Sign(LLAMA3, ("<|python_tag|>",)),
    _Sign(LLAMA3, ('"parameters":', "<|start_header_id|>")),
)


class _Thoughts(NamedTuple):
    """``shown``: control tokens that a mark is made of."""

    marks: tuple[str, str]
    signs: tuple[str, ...]
    shown: tuple[str, ...] = ()


_THOUGHTS = (
    _Thoughts((THINK, THOUGHT), (THINK, THOUGHT)),
    _Thoughts(("[THINK]", "[/THINK]"), ("[THINK]",)),
    _Thoughts(("<|channel>thought", "<channel|>"), ("<channel|>",), ("<|channel>",)),
)


def knows_tools(template: str) -> bool:
    """Whether the template says anything of tools: otherwise hybridd tells the model of them."""
    return "tools" in template


def form_of(template: str) -> Form:
    """Reads a chat template's text. A template that knows no tools gets Hermes' form, the most widely trained one,
    unless it shows another."""
    found = next((sign.form for sign in _SIGNS if _fits(sign, template)), None)
    if found is None:
        found = Form() if knows_tools(template) else HERMES
    for thoughts in _THOUGHTS:
        if any(sign in template for sign in thoughts.signs):
            answer = ("<response>", "</response>") if "<response></response>" in template else ("", "")
            return msgspec.structs.replace(
                found, thoughts=thoughts.marks, shown=found.shown + thoughts.shown, answer=answer
            )
    return found


def _fits(sign: _Sign, template: str) -> bool:
    return all(text in template for text in sign.all) and not any(text in template for text in sign.none)
