"""An answer's text, as it comes, into thoughts, content and tool calls. Pure.

::

    START ── <think> ──► THINKING ── </think> ──► CONTENT ── <tool_call> ──► CALL ── </tool_call> ──► CONTENT
      └──────── anything else ───────────────────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from plugins.llama_cpp.pieces import overlap
from plugins.llama_cpp.tools import THINK, THOUGHT, Call, Form, read_calls

# A call may not grow without end: what is longer is text.
MAX_CALL = 1_000_000


class Part(msgspec.Struct):
    """What came of one feed."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = []

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.calls)


def parse(text: str, form: Form, names: Sequence[str] = ()) -> tuple[str, list[Call]]:
    """(text outside of calls, calls) of a whole answer without thoughts."""
    splitter = Splitter(form, names, calls=True)
    first, last = splitter.feed(text), splitter.finish()
    return first.content + last.content, [*first.calls, *last.calls]


class _At(Enum):
    START = 0
    THINKING = 1
    CONTENT = 2
    CALL = 3


class Splitter:
    """``thinking``: the prompt already opened the thoughts. ``calls``: look for tool calls; ``names`` of the tools."""

    def __init__(
        self,
        form: Form,
        names: Sequence[str] = (),
        *,
        calls: bool = False,
        thinks: bool = False,
        thinking: bool = False,
    ) -> None:
        self._form = form
        self._names = frozenset(names)
        self._opens = form.opens if calls and form.style else ()
        # Llama 3 writes bare objects: only an answer that begins with one can be a call.
        self._bare = "{[" if calls and form.style == "llama3" else ""
        self._thinks = thinks and form.thinks
        self._at = _At.THINKING if thinking and thinks else _At.START
        self._held = ""
        self._open = ""  # the mark that opened the call
        self._said = False  # some content was given out since the last call
        self._trim = self._thinks or bool(self._bare)  # blank space at the beginning means nothing

    @property
    def thinking(self) -> bool:
        return self._at is _At.THINKING

    @property
    def plain(self) -> bool:
        """Nothing can happen any more but content."""
        return self._at is _At.CONTENT and not self._opens and not self._held

    def feed(self, text: str) -> Part:
        self._held += text
        part = Part()
        while self._step(part):
            pass
        return part

    def finish(self) -> Part:
        """The rest, at the end: a call without its end is read as far as it goes."""
        part = Part()
        held, self._held = self._held, ""
        if self._at is _At.CALL:
            self._end_call(part, held)
            held, self._held = self._held, ""
        if self._at is _At.THINKING:
            part.reasoning += held.rstrip()
        elif held and (self._said or part.content or held.strip() or not self._opens):
            part.content += held
        return part

    def _step(self, part: Part) -> bool:
        """Moves on in what is held; False when more text is needed."""
        if self._at is _At.START:
            return self._start()
        if self._at is _At.THINKING:
            return self._think(part)
        if self._at is _At.CONTENT:
            return self._content(part)
        return self._call(part)

    def _start(self) -> bool:
        if self._trim:
            self._held = self._held.lstrip()
        text = self._held
        if not text:
            return False
        if self._thinks:
            if text.startswith(THINK):
                self._held, self._at = text[len(THINK) :].lstrip("\n"), _At.THINKING
                return True
            if THINK.startswith(text):
                return False
        self._at, self._open = _At.CONTENT, ""
        if self._bare and text[0] in self._bare:
            self._at = _At.CALL
        return True

    def _think(self, part: Part) -> bool:
        text = self._held
        at = text.find(THOUGHT)
        if at < 0:
            part.reasoning += self._release(overlap(text, (THOUGHT,)))
            return False
        part.reasoning += text[:at].rstrip()
        self._held, self._at = text[at + len(THOUGHT) :], _At.START
        self._thinks, self._trim = False, True
        return True

    def _content(self, part: Part) -> bool:
        text = self._held
        if not self._opens:
            part.content += text
            self._held = ""
            return False
        found = [(at, mark) for at, mark in ((text.find(mark), mark) for mark in self._opens) if at >= 0]
        if found:
            at, self._open = min(found)
            part.content += text[:at].rstrip()
            self._held, self._at = text[at + len(self._open) :], _At.CALL
            return True
        said = self._release(overlap(text, self._opens))
        self._said = self._said or bool(said)
        part.content += said
        return False

    def _release(self, keep: int) -> str:
        """Gives out what is held but for ``keep`` characters at its end and the blank space before them, which is
        dropped should a mark follow."""
        end = len(self._held) - keep
        end = len(self._held[:end].rstrip())
        text, self._held = self._held[:end], self._held[end:]
        return text

    def _call(self, part: Part) -> bool:
        closes = self._form.closes
        at = self._held.find(closes) if closes else -1
        if at < 0 and len(self._held) <= MAX_CALL:
            return False
        inside = self._held if at < 0 else self._held[:at]
        self._held = "" if at < 0 else self._held[at + len(closes) :]
        self._end_call(part, inside, closed=at >= 0)
        return bool(self._held)

    def _end_call(self, part: Part, inside: str, *, closed: bool = False) -> None:
        calls = read_calls(inside, self._form, self._names)
        self._at = _At.CONTENT
        if calls:
            part.calls = [*part.calls, *calls]
            self._said = False
            self._held = self._held.lstrip()
            return
        # Not to be read as a call: the caller gets what the model wrote.
        part.content += self._open + inside + (self._form.closes if closed else "")
        self._said = True
