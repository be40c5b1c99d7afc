"""A model's chat template: messages and tools in, the prompt out. Compiled once per model. Pure.

Templates come out of model files and are not trusted: :mod:`template_sandbox` says what holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from jinja2 import TemplateError

from hybridd.plugin import CallFailure
from plugins.llama_cpp.forms import Form, form_of
from plugins.llama_cpp.refuse import wrong
from plugins.llama_cpp.shaping import Shaping
from plugins.llama_cpp.template_budget import BUDGET, Budget, OverBudget, Refused
from plugins.llama_cpp.template_sandbox import Sandbox

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MAX_SOURCE = 256 * 1024
MAX_SECONDS = 5.0
# Steps and characters: some for the template itself, some for each character it is given.
BASE_UNITS = 2_000_000
UNITS_PER_CHARACTER = 24
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
        self._shaping = Shaping(self.source, self.form)
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
            **self._shaping.values(messages, tools),
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
        return self.form.thinks and prompt.rstrip().endswith(self.form.thoughts[0])


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}" if str(error) else type(error).__name__
