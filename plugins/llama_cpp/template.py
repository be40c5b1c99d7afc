"""A model's chat template: messages and tools in, the prompt out. Compiled once per model. Pure.

Templates come out of model files and are not trusted: :mod:`template_sandbox` says what holds them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from jinja2 import TemplateError

from hybridd.plugin import CallFailure
from plugins.llama_cpp.refuse import wrong
from plugins.llama_cpp.template_budget import BUDGET, Budget, OverBudget, Refused
from plugins.llama_cpp.template_sandbox import Sandbox
from plugins.llama_cpp.tools import THINK, Form, form_of

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MAX_SOURCE = 256 * 1024
MAX_SECONDS = 5.0
# Steps and characters: some for the template itself, some for each character it is given.
BASE_UNITS = 2_000_000
UNITS_PER_CHARACTER = 24
_OBJECT_ARGUMENTS = re.compile(
    r"(?:arguments['\"]?\]?|function['\"]?\]?|tool_calls?|tool)\s*(?:\|\s*(?:tojson|items|dictsort)|\.(?:items|keys)\()"
)
# What Python and Jinja raise when a template does something that cannot be done.
_FAILURES = (
    TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError, ZeroDivisionError,
    OverflowError, MemoryError, SyntaxError,
)  # fmt: skip


class BadTemplate(Exception):
    """The file's template cannot be used; the message says why."""


class Template:
    """``source`` None: the file has none and ChatML is used; :attr:`origin` says so (``gguf`` or ``chatml``).

    Raises:
        BadTemplate: it cannot be compiled.
    """

    def __init__(
        self, source: str | None, *, bos: str = "", eos: str = "", now: Callable[[], datetime] = datetime.now,
        model: str = "the model",
    ) -> None:  # fmt: skip
        self.origin = "gguf" if source else "chatml"
        self.source = source or CHATML
        self.form: Form = form_of(self.source)
        self._model = model
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._objects = _OBJECT_ARGUMENTS.search(self.source) is not None
        self._developer = "developer" in self.source
        if len(self.source) > MAX_SOURCE:
            raise BadTemplate(f"the chat template has {len(self.source)} characters; at most {MAX_SOURCE} are taken")
        try:
            self._template = Sandbox(now).from_string(self.source)
        except _FAILURES as error:
            raise BadTemplate(f"the chat template cannot be compiled: {_why(error)}") from None

    @property
    def adds_bos(self) -> bool:
        """The template writes the token that begins a text itself, so that tokenizing must not add another."""
        return "bos_token" in self.source

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (),
        values: Mapping[str, Any] | None = None, add_generation_prompt: bool = True,
        budget: Budget | None = None,
    ) -> str:  # fmt: skip
        """The prompt. ``values``: further variables (``enable_thinking``, ``documents`` …).

        Raises:
            CallFailure: ``bad_request``, the template refuses the messages or cannot be run on them.
        """
        given = {
            **self._tokens,
            **(values or {}),
            "messages": [self._shaped(message) for message in messages],
            "tools": list(tools) or None,
            "add_generation_prompt": add_generation_prompt,
        }
        if budget is None:
            size = len(msgspec.json.encode([given["messages"], given["tools"], values]))
            budget = Budget(BASE_UNITS + UNITS_PER_CHARACTER * size, MAX_SECONDS)
        try:
            context = self._template.new_context({**given, BUDGET: budget})
            return "".join(self._template.root_render_func(context))
        except Refused as error:
            raise wrong("messages", f"are refused by the chat template of {self._model}: {error}") from None
        except OverBudget as error:
            raise CallFailure(
                "bad_request", f"the chat template of {self._model} was stopped: {error}", sent="no", param="messages"
            ) from None
        except _FAILURES as error:
            raise wrong("messages", f"cannot be put into the chat template of {self._model}: {_why(error)}") from None

    def thinking(self, prompt: str) -> bool:
        """Whether ``prompt`` ends inside the model's thoughts."""
        return self.form.thinks and prompt.rstrip().endswith(THINK)

    def _shaped(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message as templates expect it: tool calls' arguments as an object where the template writes objects."""
        shaped = dict(message)
        if shaped.get("role") == "developer" and not self._developer:
            shaped["role"] = "system"
        if shaped.get("tool_calls"):
            shaped["tool_calls"] = [self._call(call) for call in shaped["tool_calls"]]
        return shaped

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        function = dict(call["function"])
        arguments = function.get("arguments", "{}")
        if self._objects and isinstance(arguments, str):
            with contextlib.suppress(msgspec.DecodeError, RecursionError):  # else as broken as the model said it
                arguments = msgspec.json.decode(arguments or "{}")
        elif not self._objects and not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        function["arguments"] = arguments
        return {**call, "type": "function", "function": function}


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}" if str(error) else type(error).__name__
