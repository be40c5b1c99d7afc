"""One answer (``choices[i]``) on its way from tokens to what the caller gets, streamed or whole. Pure.

Token bytes become text (:mod:`pieces`), text becomes content, thoughts and tool calls (:mod:`splitter`), and these
become chunks (:class:`responses.Writer`) or, at the end, the choice of a whole answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from plugins.llama_cpp import calls as tool_calls
from plugins.llama_cpp import logprobs
from plugins.llama_cpp.asked import Asked
from plugins.llama_cpp.forms import Form
from plugins.llama_cpp.logprobs import Scored
from plugins.llama_cpp.pieces import Pieces
from plugins.llama_cpp.responses import Writer
from plugins.llama_cpp.splitter import Part, Splitter

Feed = Callable[[int, bytes, Scored | None, Mapping[str, Any] | None], bytes | None]


def call_id() -> str:
    """Nine letters and digits: the only length that Mistral's templates take back."""
    return secrets.token_hex(5)[:9]


class Choice:
    """Feed it every token but the one that ends the answer.

    ``feed(token, piece, scored, extra)`` returns the chunk to send, or None while there is nothing to show (always
    None for a whole answer). ``scored``: with ``asked.logprobs``. ``extra``: ``timings``, with
    ``asked.timings_per_token``. Once ``stopped`` is True nothing more is wanted. Then ``finish``, which returns the
    last chunks, and for a whole answer ``body``.
    """

    def __init__(
        self, asked: Asked, index: int, *, writer: Writer | None = None, form: Form | None = None,
        thinking: bool = False, prompt: str = "", new_id: Callable[[], str] = call_id,
    ) -> None:  # fmt: skip
        """``writer`` None: the answer is not streamed. ``thinking``: the prompt ended inside thoughts. ``prompt``:
        the prompt's text, for ``asked.echo``. ``new_id`` names tool calls."""
        form = form or Form()
        self._asked = asked
        self._index = index
        self._chat = asked.messages is not None
        self._writer = writer
        self._new_id = new_id
        self._splitter = self._splitter_for(form, thinking) if self._chat else None
        # Behind its calls a model waits for their results.
        self._pieces = Pieces((*asked.stops, *form.ends) if self._looks_for_calls(form) else asked.stops)
        self._before = writer.text_of(index) if writer is not None else b""
        self._begun = False  # a chunk was sent: a chat's first one names the role
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._tokens: list[int] = []
        self._unsent: list[int] = []  # tokens no chunk has carried yet
        self._scores = _Scores(self._chat, len(prompt) if asked.echo else 0)
        self.produced = 0
        self.reasoning_tokens = 0
        self.finish_reason = ""
        self.feed: Feed = self._full
        if asked.echo and prompt:
            self._echo: str = prompt
        else:
            self._echo = ""
        self._shorten()

    @property
    def stopped(self) -> bool:
        return self._pieces.stopped or (bool(self._calls) and not self._asked.parallel_tool_calls)

    @property
    def text(self) -> str:
        """What was said outside of thoughts and calls, of a whole answer or one that is not plain text."""
        return "".join(self._content)

    def finish(self, reason: str, extra: Mapping[str, Any] | None = None) -> list[bytes]:
        """``reason``: ``stop`` or ``length``. ``extra``: members of the last chunk (``timings``, ``local``)."""
        part = self._split(self._pieces.flush())
        if self._splitter is not None:
            rest = self._splitter.finish()
            part = Part(part.content + rest.content, part.reasoning + rest.reasoning, [*part.calls, *rest.calls])
        chunks = [self._say(part, None, final=True)]
        self.finish_reason = "stop" if self.stopped else reason
        if self._calls and self.finish_reason == "stop":
            self.finish_reason = "tool_calls"
        if self._writer is not None:
            chunks.append(self._writer.delta(self._index, self._first({}), finish=self.finish_reason, extra=extra))
        return [chunk for chunk in chunks if chunk is not None]

    def body(self) -> dict[str, Any]:
        """``choices[i]`` of a whole answer, after ``finish``."""
        made: dict[str, Any] = {"index": self._index}
        if self._chat:
            message: dict[str, Any] = {"role": "assistant", "content": self.text or (None if self._calls else "")}
            if self._reasoning:
                message["reasoning_content"] = "".join(self._reasoning)
            message["refusal"] = None
            if self._calls:
                message["tool_calls"] = self._calls
            made["message"] = message
        else:
            made["text"] = self.text
        scores = self._scores.everything() if self._asked.logprobs is not None else None
        made |= {"logprobs": scores, "finish_reason": self.finish_reason}
        if self._asked.return_tokens:
            made["tokens"] = self._tokens
        return made

    def _splitter_for(self, form: Form, thinking: bool) -> Splitter | None:
        asked = self._asked
        calls = self._looks_for_calls(form)
        thinks = asked.reasoning != "none" and form.thinks
        if not calls and not thinks:
            return None
        return Splitter(form, tool_calls.names(asked.tools), calls=calls, thinks=thinks, thinking=thinking)

    def _looks_for_calls(self, form: Form) -> bool:
        return bool(self._asked.tools) and self._asked.tool_choice != "none" and bool(form.style)

    def _shorten(self) -> None:
        """Takes the short way once nothing can come any more but text."""
        asked = self._asked
        plain = not (asked.return_tokens or asked.timings_per_token or asked.logprobs is not None or self._echo)
        if not plain or (self._splitter is not None and not self._splitter.plain):
            return
        if self._writer is None:
            self.feed = self._silent
        elif self._begun or not self._chat:
            self.feed = self._quick

    def _quick(self, token: int, piece: bytes, scored: Scored | None, extra: Mapping[str, Any] | None) -> bytes | None:
        self.produced += 1
        text = self._pieces.feed(piece)
        return self._writer.text(self._before, text) if text and self._writer is not None else None

    def _silent(self, token: int, piece: bytes, scored: Scored | None, extra: Mapping[str, Any] | None) -> bytes | None:
        self.produced += 1
        self._content.append(self._pieces.feed(piece))
        return None

    def _full(self, token: int, piece: bytes, scored: Scored | None, extra: Mapping[str, Any] | None) -> bytes | None:
        self.produced += 1
        begin = self._pieces.decoded
        text = self._pieces.feed(piece)
        if scored is not None:
            self._scores.add(begin, self._pieces.decoded, scored)
        if self._asked.return_tokens:
            self._tokens.append(token)
            self._unsent.append(token)
        if self._splitter is not None and self._splitter.thinking:
            self.reasoning_tokens += 1
        chunk = self._say(self._split(text), extra)
        self._shorten()
        return chunk

    def _split(self, text: str) -> Part:
        if self._echo:
            text, self._echo = self._echo + text, ""
        return Part(text) if self._splitter is None or self._splitter.plain else self._splitter.feed(text)

    def _say(self, part: Part, extra: Mapping[str, Any] | None, *, final: bool = False) -> bytes | None:
        """Keeps ``part``, or makes a chunk of it and of the tokens whose text is out by now."""
        calls = [
            {"id": self._new_id(), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in part.calls
        ]
        if not self._asked.parallel_tool_calls:
            calls = calls[: 1 - len(self._calls)]
        first_call = len(self._calls)
        self._calls += calls
        self._scores.show(self._pieces.shown, stopped=self._pieces.stopped, final=final)
        if self._writer is None:
            self._content.append(part.content)
            if part.reasoning:
                self._reasoning.append(part.reasoning)
            return None
        if not part and not (final and (self._scores.fresh or self._unsent)):
            return None
        delta: dict[str, Any] = {}
        if part.reasoning:
            delta["reasoning_content"] = part.reasoning
        if calls:
            delta["tool_calls"] = [{"index": first_call + at, **call} for at, call in enumerate(calls)]
        if part.content or not delta:
            delta["text" if not self._chat else "content"] = part.content
        more = dict(extra) if extra else {}
        if self._asked.return_tokens:
            more["tokens"], self._unsent = self._unsent, []
        scores = self._scores.new() if self._asked.logprobs is not None else None
        return self._writer.delta(self._index, self._first(delta), logprobs=scores, extra=more)

    def _first(self, delta: dict[str, Any]) -> dict[str, Any]:
        if self._begun:
            return delta
        self._begun = True
        return {"role": "assistant", **delta}


class _Scores:
    """Which tokens' scores may be shown: those whose text is out. Their places are told in characters."""

    def __init__(self, chat: bool, offset: int) -> None:
        self._chat = chat
        self._offset = offset
        self._waiting: list[tuple[int, int, Scored]] = []
        self._shown: list[tuple[int, Scored]] = []
        self._told = 0

    @property
    def fresh(self) -> bool:
        return self._told < len(self._shown)

    def add(self, begin: int, end: int, scored: Scored) -> None:
        self._waiting.append((begin, end, scored))

    def show(self, shown: int, *, stopped: bool, final: bool) -> None:
        if not self._waiting:
            return
        out = 0
        for begin, end, _ in self._waiting:
            # A token that a stop string cut in the middle counts; one wholly behind it does not.
            if end > shown and not (begin < shown and (stopped or final)):
                break
            out += 1
        self._shown += [(begin, scored) for begin, _, scored in self._waiting[:out]]
        self._waiting = self._waiting[out:]

    def new(self) -> dict[str, Any]:
        told, self._told = self._told, len(self._shown)
        return self._body(self._shown[told:])

    def everything(self) -> dict[str, Any]:
        return self._body(self._shown)

    def _body(self, shown: list[tuple[int, Scored]]) -> dict[str, Any]:
        scores = [scored for _, scored in shown]
        if self._chat:
            return logprobs.chat(scores)
        return logprobs.completion(scores, [self._offset + begin for begin, _ in shown])
