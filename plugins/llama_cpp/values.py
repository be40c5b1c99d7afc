"""Values as models write them outside of JSON: Python's, and those of Gemma, which marks its texts. Pure.

Lenient where a model's meaning is plain (``True`` and ``true``, a quotation mark inside a text, names without any);
what cannot be understood raises, and never anything but :class:`Unreadable`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

MAX_DEPTH = 64
_LITERALS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,300})(?:\.\d{1,300})?(?:[eE][+-]?\d{1,4})?(?![\w.])")
_NAME = re.compile(r"[^\W\d][\w.-]*")
_KEY = re.compile(r"[^\s:=,(){}\[\]]+")
_BARE = re.compile(r"[^,{}\[\]]+")
_SPACE = re.compile(r"\s*")
# A quotation mark ends a text where something can follow; any other belongs to it.
_ENDS = {quote: re.compile(rf"(?s)(?:[^\\{quote}]++|\\.|{quote}(?!\s*(?:[,)\]}}:]|$)))*+{quote}") for quote in "\"'"}
_ESCAPE = re.compile(r"(?s)\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", "'": "'", '"': '"', "/": "/", "\n": ""}


class Unreadable(Exception):
    """This is no value."""


class Values:
    """Reads a text from its beginning. ``mark``: stands around texts, beside quotation marks. ``bare``: a text may
    also stand without either."""

    def __init__(self, text: str, *, mark: str = "", bare: bool = False) -> None:
        self._text = text
        self._at = 0
        self._mark = mark
        self._bare = bare

    @property
    def ended(self) -> bool:
        self._space()
        return self._at == len(self._text)

    def take(self, text: str) -> bool:
        """Goes on behind ``text``, if it comes next."""
        self._space()
        found = self._text.startswith(text, self._at)
        if found:
            self._at += len(text)
        return found

    def need(self, text: str) -> None:
        if not self.take(text):
            raise Unreadable

    def name(self) -> str:
        return self._match(_NAME)

    def pairs(self, between: str, end: str, depth: int = 0) -> dict[str, Any]:
        """``key between value, …`` up to and with ``end``."""
        found: dict[str, Any] = {}
        while not self.take(end):
            if found:
                self.need(",")
            quoted = self._quoted()
            key = quoted if quoted is not None else self._match(_KEY)
            self.need(between)
            found[key] = self.value(depth)
        return found

    def value(self, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise Unreadable
        quoted = self._quoted()
        if quoted is not None:
            return quoted
        if self.take("{"):
            return self.pairs(":", "}", depth + 1)
        if self.take("["):
            return self._list(depth + 1)
        number = _NUMBER.match(self._text, self._at)
        if number is not None:
            self._at = number.end()
            return _number(number[0])
        return self._word()

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        while not self.take("]"):
            if found:
                self.need(",")
            found.append(self.value(depth))
        return found

    def _word(self) -> Any:
        if self._bare:
            word = self._match(_BARE).strip()
            if not word:
                raise Unreadable
            return _LITERALS.get(word, word)
        word = self._match(_NAME)
        if word not in _LITERALS:
            raise Unreadable
        return _LITERALS[word]

    def _quoted(self) -> str | None:
        self._space()
        text, at = self._text, self._at
        if self._mark and text.startswith(self._mark, at):
            begin = at + len(self._mark)
            end = text.find(self._mark, begin)
            if end < 0:
                raise Unreadable
            self._at = end + len(self._mark)
            return text[begin:end]
        if at == len(text) or text[at] not in _ENDS:
            return None
        found = _ENDS[text[at]].match(text, at + 1)
        if found is None:
            raise Unreadable
        self._at = found.end()
        return _unescaped(text[at + 1 : self._at - 1])

    def _match(self, pattern: re.Pattern[str]) -> str:
        self._space()
        found = pattern.match(self._text, self._at)
        if found is None:
            raise Unreadable
        self._at = found.end()
        return found[0]

    def _space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()


def _number(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:  # beyond what a float holds
        raise Unreadable from None


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    # Characters beyond the first plane come as two escapes.
    made = _ESCAPE.sub(_character, text)
    return made.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    return chr(int(code, 16)) if code else _ESCAPES.get(found[3], found[0])
