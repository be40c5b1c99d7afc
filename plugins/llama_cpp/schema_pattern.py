"""The ``pattern`` of a JSON Schema, as GBNF over the characters of a JSON string. Pure.

A safe part of regular expressions: characters, ``.``, classes, ``\\d \\w \\s`` and their opposites, groups,
alternatives, repetitions, and ``^`` and ``$`` at the ends. Everything else is refused. Where dialects differ (which
characters beyond ASCII are digits or spaces) the grammar lets through what all of them take.
"""

from __future__ import annotations

MAX_PATTERN = 2000
MAX_NESTING = 32
MAX_REPETITIONS = 500
_LAST = 0x10FFFF
Spans = list[tuple[int, int]]
_DIGITS: Spans = [(48, 57)]
_WORD: Spans = [(48, 57), (65, 90), (95, 95), (97, 122)]
_SPACE: Spans = [(9, 13), (32, 32)]
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROL = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11}
_BREAKS: Spans = [(10, 10), (13, 13), (0x2028, 0x2029)]
_SPECIAL = frozenset("\\^$.|?*+()[]{}/-")
# Characters that JSON writes with a backslash.
_ESCAPED = {0x22: '\\"', 0x5C: "\\\\", 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}


class Bad(Exception):
    """What is wrong with the pattern, or cannot be done."""


def to_gbnf(pattern: str) -> str:
    """What stands between the quotes of a string that matches. ``char`` is any character of a JSON string.

    Raises:
        Bad
    """
    if len(pattern) > MAX_PATTERN:
        raise Bad(f"has more than {MAX_PATTERN} characters")
    begins = pattern.startswith("^")
    inner = pattern[1:] if begins else pattern
    ends = inner.endswith("$") and not _escaped_end(inner)
    parser = _Parser(inner[:-1] if ends else inner)
    body = parser.parse()
    if parser.alternatives and (begins or ends):
        raise Bad("has alternatives outside of brackets beside ^ or $; put them into brackets")
    parts = ["" if begins else "char*", f"({body})" if " | " in body else body, "" if ends else "char*"]
    return " ".join(part for part in parts if part) or '""'


def spelled(code: int) -> str:
    """One character of a JSON string as a GBNF literal."""
    escaped = _ESCAPED.get(code)
    if escaped is None and code < 0x20:
        escaped = f"\\u{code:04x}"
    if escaped is not None:
        return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f'"{_plain(code)}"'


def _plain(code: int) -> str:
    one = chr(code)
    if one.isascii() and one.isalnum():
        return one
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _escaped_end(text: str) -> bool:
    slashes = len(text) - 1 - len(text[:-1].rstrip("\\"))
    return slashes % 2 == 1


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self.alternatives = False

    def parse(self) -> str:
        body = self._any(top=True)
        if self._at < len(self._text):
            raise Bad("has a ')' too many")
        return body

    def _any(self, *, top: bool = False) -> str:
        ways = [self._all()]
        while self._peek() == "|":
            self._at += 1
            self.alternatives = self.alternatives or top
            ways.append(self._all())
        return " | ".join(way or '""' for way in ways) if len(ways) > 1 else ways[0]

    def _all(self) -> str:
        parts = []
        while (one := self._peek()) and one not in "|)":
            parts.append(self._repeated(self._one(one)))
        return " ".join(part for part in parts if part)

    def _one(self, one: str) -> str:
        self._at += 1
        if one == "(":
            return self._group()
        if one == "[":
            return _class(self._class())
        if one == ".":
            return _class(_without([(0, _LAST)], _BREAKS))
        if one == "\\":
            found = self._escape()
            return spelled(found) if isinstance(found, int) else _class(found)
        if one in "^$":
            raise Bad(f"has {one} in the middle, which is not supported")
        if one in "*+?{":
            raise Bad(f"has {one} with nothing before it")
        if "\ud800" <= one <= "\udfff":
            raise Bad("has half a character")
        return spelled(ord(one))

    def _group(self) -> str:
        if self._text.startswith("?:", self._at):
            self._at += 2
        elif self._peek() == "?":
            raise Bad("has a group that begins with (?, which is not supported")
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise Bad(f"has more than {MAX_NESTING} brackets in each other")
        body = self._any()
        if self._peek() != ")":
            raise Bad("has a '(' without its ')'")
        self._at += 1
        self._depth -= 1
        return f"({body or chr(34) * 2})"

    def _repeated(self, item: str) -> str:
        one = self._peek()
        if not one or one not in "*+?{":
            return item
        if one == "{":
            item += self._bounds()
        else:
            self._at += 1
            item += one
        if self._peek() == "?":  # reads as little as it can: the same texts
            self._at += 1
        following = self._peek()
        if following and following in "*+{?":
            raise Bad("repeats a repetition")
        return item

    def _bounds(self) -> str:
        close = self._text.find("}", self._at)
        low, comma, high = self._text[self._at + 1 : max(close, 0)].partition(",")
        numbers = [one for one in (low, high) if one]
        if close < 0 or not low or any(not one.isascii() or not one.isdigit() or len(one) > 4 for one in numbers):
            raise Bad("has a '{' that is no repetition")
        if max(map(int, numbers)) > MAX_REPETITIONS or (high and int(high) < int(low)):
            raise Bad(f"repeats more than {MAX_REPETITIONS} times, or has bounds in the wrong order")
        self._at = close + 1
        return "{" + str(int(low)) + comma + (str(int(high)) if high else "") + "}"

    def _class(self) -> Spans:
        inverted = self._peek() == "^"
        self._at += inverted
        spans: Spans = []
        named = first = False
        while (one := self._peek()) != "]" or not first:
            if not one:
                raise Bad("has a '[' without its ']'")
            first = True
            low = self._member()
            if isinstance(low, list):
                spans += low
                named = True
                continue
            high: int | Spans = low
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._member()
            if isinstance(high, list) or high < low:
                raise Bad("has a range in a class that goes nowhere")
            spans.append((low, high))
        self._at += 1
        if inverted:
            # What \w leaves out beyond ASCII is seen differently by different engines.
            spans = _without([(0, 126 if named else _LAST)], spans)
        return spans

    def _member(self) -> int | Spans:
        one = self._peek()
        self._at += 1
        if one == "\\":
            if self._peek() == "b":
                self._at += 1
                return 8
            return self._escape()
        if "\ud800" <= one <= "\udfff":
            raise Bad("has half a character")
        return ord(one)

    def _escape(self) -> int | Spans:
        one = self._peek()
        self._at += 1
        if one in _CLASSES and one:
            return list(_CLASSES[one])
        if one and one.lower() in _CLASSES:
            return _without([(0, 126)], _CLASSES[one.lower()])
        if one in _CONTROL and one:
            return _CONTROL[one]
        if one in ("x", "u"):
            size = 2 if one == "x" else 4
            digits = self._text[self._at : self._at + size]
            if len(digits) == size and all(digit in "0123456789abcdefABCDEF" for digit in digits):
                self._at += size
                code = int(digits, 16)
                if not 0xD800 <= code <= 0xDFFF:
                    return code
        if one and (one in _SPECIAL or not (one.isalnum() or one == "_")):
            return ord(one)
        raise Bad(f"has \\{one}, which is not supported")

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]


def _without(spans: Spans, holes: Spans) -> Spans:
    left = list(spans)
    for low, high in holes:
        cut: Spans = []
        for begin, end in left:
            if high < begin or low > end:
                cut.append((begin, end))
                continue
            if begin < low:
                cut.append((begin, low - 1))
            if high < end:
                cut.append((high + 1, end))
        left = cut
    return left


def members(spans: Spans) -> str:
    """A GBNF class of the characters in ``spans`` that JSON writes plainly; "" when there are none.

    Never an inverted class: llama.cpp takes bytes that are no UTF-8 for characters of one.
    """
    plain = _without(spans, [(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F), (0xD800, 0xDFFF)])
    found = (_plain(low) if low == high else f"{_plain(low)}-{_plain(high)}" for low, high in sorted(plain))
    return f"[{''.join(found)}]" if plain else ""


def all_but(letters: str) -> str:
    """:func:`members` of every character but ``letters``."""
    return members(_without([(0, _LAST)], [(ord(one), ord(one)) for one in letters]))


def _class(spans: Spans) -> str:
    """Characters of a set, each as JSON writes it."""
    ways = [members(spans)] if members(spans) else []
    ways += [spelled(code) for code in _ESCAPED if any(low <= code <= high for low, high in spans)]
    if not ways:
        raise Bad("has a class that no character is in")
    return f"({' | '.join(ways)})" if len(ways) > 1 else ways[0]
