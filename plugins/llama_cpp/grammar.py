"""The grammar a request's answer must follow, if any. Pure.

Who made it does not matter afterwards: the caller's own GBNF, one made from a JSON Schema, or one that lets nothing
through but tool calls. It is about the answer, not about the thoughts before it.
"""

from __future__ import annotations

from plugins.llama_cpp import tools
from plugins.llama_cpp.asked import Asked, forces_tools
from plugins.llama_cpp.forms import Form


def compile(asked: Asked, form: Form, *, thinking: bool = False) -> str | None:
    """GBNF with the rule ``root``, or None. ``thinking``: the prompt ended inside the model's thoughts.

    Of a model that thinks, thoughts may come before the answer, unless they would be part of the content
    (``reasoning_format: none``); a prompt that has opened them leaves no choice.

    Raises:
        CallFailure: ``unsupported``, tools are wanted of a model whose form is not known; ``bad_request``, a tool's
            parameters cannot be made into a grammar.
    """
    tools.require(form, asked.tools, asked.tool_choice)
    may_think = form.thinks and asked.messages is not None and asked.reasoning != "none"
    if forces_tools(asked):
        return tools.grammar(
            form, asked.tools, asked.tool_choice, parallel=asked.parallel_tool_calls, thinking=thinking,
            may_think=may_think,
        )  # fmt: skip
    if not asked.grammar:
        return None
    return tools.after_thoughts(asked.grammar, form, thinking=thinking, may_think=may_think)
