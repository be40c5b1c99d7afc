"""The grammar a request's answer must follow, if any. Pure.

Who made it does not matter afterwards: the caller's own GBNF, one made from a JSON Schema, or one that lets nothing
through but tool calls.
"""

from __future__ import annotations

from plugins.llama_cpp import tools
from plugins.llama_cpp.asked import Asked, forces_tools
from plugins.llama_cpp.tools import Form


def compile(asked: Asked, form: Form, *, thinking: bool = False) -> str | None:
    """GBNF with the rule ``root``, or None. ``thinking``: the prompt ended inside the model's thoughts, which come
    before what the grammar is about.

    Raises:
        CallFailure: ``unsupported``, tools are wanted of a model whose form is not known; ``bad_request``, a tool's
            parameters cannot be made into a grammar.
    """
    tools.require(form, asked.tools, asked.tool_choice)
    if forces_tools(asked):
        return tools.grammar(
            form, asked.tools, asked.tool_choice, parallel=asked.parallel_tool_calls, thinking=thinking
        )
    if not asked.grammar:
        return None
    return tools.after_thoughts(asked.grammar) if thinking else asked.grammar
