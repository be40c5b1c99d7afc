"""The characters of a grammar in GBNF: names, numbers, escapes, blank space, and where a mistake is. Pure."""

from __future__ import annotations

LAST_CHARACTER = 0x10FFFF
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_HEX = {"x": 2, "u": 4, "U": 8}
WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")


class Bad(Exception):
    """What is wrong with the grammar, and where."""


class Reader:
    """Goes through a text; behind its end stands a NUL, which no grammar may have."""

    def __init__(self, text: str) -> None:
        self.roots: list[int] = []  # where the name "root" stands
        self._text = text + "\0"
        self._end = len(text)
        self._at = 0
        nul = text.find("\0")
        if nul >= 0:
            self._at = nul
            raise self._bad("a NUL character")
        if not text.isascii():
            for at, one in enumerate(text):
                if "\ud800" <= one <= "\udfff":
                    self._at = at
                    raise self._bad("half a character (a lone surrogate)")

    def _character(self, where: str) -> int:
        if self._at >= self._end:
            raise self._bad(f"the end in the middle of {where}")
        one = self._text[self._at]
        if one != "\\":
            self._at += 1
            return ord(one)
        kind = self._text[self._at + 1]
        if kind in _ESCAPES:
            self._at += 2
            return ord(_ESCAPES[kind])
        digits = self._text[self._at + 2 : self._at + 2 + _HEX.get(kind, 0)]
        if kind not in _HEX or len(digits) < _HEX[kind] or any(d not in "0123456789abcdefABCDEF" for d in digits):
            raise self._bad('an escape that is none of \\n \\r \\t \\\\ \\" \\[ \\] \\- \\xHH \\uHHHH \\UHHHHHHHH')
        code = int(digits, 16)
        if code > LAST_CHARACTER or 0xD800 <= code <= 0xDFFF:
            raise self._bad("an escape that is no character")
        self._at += 2 + len(digits)
        return code

    def _integer(self) -> int:
        begin = self._at
        while self._text[self._at] in "0123456789":
            self._at += 1
        if not 0 < self._at - begin < 10:
            raise self._bad("something else than a number")
        return int(self._text[begin : self._at])

    def _word(self, what: str) -> str:
        begin = self._at
        while self._text[self._at] in WORD:
            self._at += 1
        if self._at == begin:
            raise self._bad(f"{self._text[self._at]!r} where {what} should be")
        word = self._text[begin : self._at]
        if word == "root":
            self.roots.append(begin)
        return word

    def _space(self, *, lines: bool = False) -> None:
        blank = " \t\r\n" if lines else " \t"
        while True:
            one = self._text[self._at]
            if one == "#":
                while self._text[self._at] not in "\r\n\0":
                    self._at += 1
            elif one in blank:
                self._at += 1
            else:
                return

    def _bad(self, what: str) -> Bad:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - self._text.rfind("\n", 0, self._at)
        return Bad(f"has {what} (line {line}, column {column})")
