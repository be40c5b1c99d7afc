"""An answer's text, as it comes, into thoughts, content and tool calls. Pure.

::

    START ── <think> ──► THINKING ── </think> ──► CONTENT ── <tool_call> ──► CALL ── </tool_call> ──► CONTENT
      └──────── anything else ───────────────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from plugins.llama_cpp.calls import Call, read_calls, unfinished
from plugins.llama_cpp.forms import Form
from plugins.llama_cpp.pieces import overlap

# A call may not grow without end: what is longer is text.
MAX_CALL = 1_000_000
# Marks inside of a call at which it is tried whether it can be read; behind them only its end counts.
MAX_TRIES = 32
# Texts that look like the beginning of a call and are none; behind them there are no calls any more.
MAX_FAILURES = 64


class Part(msgspec.Struct):
    """What came of one feed."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = []

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.calls)


def parse(text: str, form: Form, tools: Mapping[str, Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """(text outside of calls, calls) of a whole answer without thoughts."""
    splitter = Splitter(form, tools, calls=True)
    first, last = splitter.feed(text), splitter.finish()
    return first.content + last.content, [*first.calls, *last.calls]


class _At(Enum):
    START = 0
    THINKING = 1
    CONTENT = 2
    CALL = 3


class Splitter:
    """``thinking``: the prompt already opened the thoughts. ``calls``: look for tool calls; ``tools``: their names and
    the schemas of their arguments."""

    def __init__(
        self, form: Form, tools: Mapping[str, Mapping[str, Any]] | None = None, *, calls: bool = False,
        thinks: bool = False, thinking: bool = False,
    ) -> None:  # fmt: skip
        self._form = form
        self._tools = tools or {}
        self._opens = form.opens if calls and form.style else ()
        # Llama 3 writes bare objects: only an answer that begins with one can be a call.
        self._bare = "{[" if calls and form.syntax == "bare" else ""
        self._thinks = thinks and form.thinks
        self._wrapped = form.answer if self._thinks else ("", "")  # what may stand around the content
        self._close = ""  # the mark behind the content, once the one before it was seen
        self._at = _At.THINKING if thinking and self._thinks else _At.START
        self._held = ""
        self._open = ""  # the mark that opened the call
        self._tried = 0  # how far marks were looked for inside the call
        self._tries = 0
        self._failures = 0
        self._said = False  # some content was given out since the last call
        self._trim = self._thinks or bool(self._bare)  # blank space at the beginning means nothing
        self._skip = ""  # characters that mean nothing at the place reached

    @property
    def thinking(self) -> bool:
        return self._at is _At.THINKING

    @property
    def plain(self) -> bool:
        """Nothing can happen any more but content."""
        return self._at is _At.CONTENT and not (self._opens or self._held or self._close or self._skip)

    def feed(self, text: str) -> Part:
        self._held += text
        part = Part()
        self._run(part)
        return part

    def finish(self) -> Part:
        """The rest, at the end: a call without its end is read as far as it goes."""
        part = Part()
        while self._at is _At.CALL:
            if not self._read(part, self._held, ""):
                self._give_back(part)
            self._run(part)
        held, self._held = self._held, ""
        if self._at is _At.THINKING:
            part.reasoning += held.rstrip()
        elif held and (self._said or part.content or held.strip() or not self._opens):
            part.content += held
        return part

    def _run(self, part: Part) -> None:
        while self._step(part):
            pass

    def _step(self, part: Part) -> bool:
        """Moves on in what is held; False when more text is needed."""
        if self._skip:
            self._held = self._held.lstrip(self._skip)
            if self._held:
                self._skip = ""
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
        for mark, here in ((self._form.thoughts[0], self._thinks), (self._wrapped[0], bool(self._wrapped[0]))):
            if here and text.startswith(mark):
                self._enter(mark)
                return True
            if here and mark.startswith(text):
                return False
        self._at, self._open = _At.CONTENT, ""
        if self._bare and text[0] in self._bare:
            self._begin_call("")
        return True

    def _enter(self, mark: str) -> None:
        """Behind the mark of thoughts, or of the answer after them."""
        self._held = self._held[len(mark) :]
        if mark == self._wrapped[0]:
            self._close, self._wrapped, self._thinks = self._wrapped[1], ("", ""), False
        else:
            self._at, self._skip = _At.THINKING, "\n"

    def _think(self, part: Part) -> bool:
        text, mark = self._held, self._form.thoughts[1]
        at = text.find(mark)
        if at < 0:
            part.reasoning += self._release(overlap(text, (mark,)))
            return False
        part.reasoning += text[:at].rstrip()
        self._held, self._at = text[at + len(mark) :], _At.START
        self._thinks, self._trim = False, True
        return True

    def _content(self, part: Part) -> bool:
        text = self._held
        marks = (*self._opens, self._close) if self._close else self._opens
        if not marks:
            part.content += text
            self._held = ""
            return False
        at, mark = _first(text, marks, 0)
        if at < 0:
            said = self._release(overlap(text, marks))
            self._said = self._said or bool(said)
            part.content += said
            return False
        part.content += text[:at].rstrip()
        self._held = text[at + len(mark) :]
        if mark == self._close:
            self._close, self._skip = "", " \t\r\n"
        else:
            self._begin_call(mark)
        return True

    def _release(self, keep: int) -> str:
        """Gives out what is held but for ``keep`` characters at its end and the blank space before them, which is
        dropped should a mark follow."""
        end = len(self._held) - keep
        end = len(self._held[:end].rstrip())
        text, self._held = self._held[:end], self._held[end:]
        return text

    # calls

    def _begin_call(self, mark: str) -> None:
        self._at, self._open, self._tried, self._tries = _At.CALL, mark, 0, 0

    def _call(self, part: Part) -> bool:
        """A call ends at its closing mark, or where the next one begins if it can be read by then."""
        text, closes = self._held, self._form.closes
        while True:
            marks = self._marks if self._tries < MAX_TRIES else self._marks[: bool(closes)]
            at, mark = _first(text, marks, self._tried)
            if at < 0:
                break
            self._tried = at + len(mark)
            self._tries += 1
            closed = mark == closes
            if self._read(part, text[:at], text[self._tried :] if closed else text[at:]):
                return True
            # The mark may stand inside of a text.
            if closed and not (self._tries < MAX_TRIES and unfinished(text[:at], self._form)):
                self._give_back(part)
                return True
        self._tried = max(self._tried, len(text) - max(map(len, marks), default=0) + 1)
        if len(text) > MAX_CALL:
            self._opens = ()
            self._give_back(part)
            return True
        return False

    @property
    def _marks(self) -> tuple[str, ...]:
        closes = self._form.closes
        return (closes, *self._opens) if closes else self._opens

    def _read(self, part: Part, inside: str, rest: str) -> bool:
        # Some forms tell by its mark what kind of call it is.
        prefix = self._open if self._form.syntax == "parameters" and self._open.startswith("<function") else ""
        calls = read_calls(prefix + inside, self._form, self._tools)
        if calls:
            part.calls = [*part.calls, *calls]
            self._at, self._said, self._held, self._skip = _At.CONTENT, False, rest, " \t\r\n"
        return bool(calls)

    def _give_back(self, part: Part) -> None:
        """Not to be read as a call: the caller gets what the model wrote, up to where another call may begin."""
        text, closes = self._held, self._form.closes
        self._failures += 1
        if self._failures > MAX_FAILURES:
            self._opens = ()
        at, mark = _first(text, self._marks, 0)
        end = len(text) if at < 0 else at + (len(mark) if mark == closes else 0)
        part.content += self._open + text[:end]
        self._at, self._said, self._held, self._open = _At.CONTENT, True, text[end:], ""


def _first(text: str, marks: tuple[str, ...], begin: int) -> tuple[int, str]:
    """(place, mark) of the first one; (-1, "") for none."""
    found = [(at, mark) for at, mark in ((text.find(mark, begin), mark) for mark in marks) if at >= 0]
    return min(found) if found else (-1, "")
