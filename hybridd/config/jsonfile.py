"""Reading a JSON file strictly, so that every mistake is named with its line and column.

Stricter than :func:`json.loads`: UTF-8 only, no byte order mark, no duplicate keys, no NaN or Infinity, no lone
surrogates. :class:`Document` remembers where each key stands, for the errors found later.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

from hybridd.errors import ConfigError

MAX_BYTES = 8 * 1024 * 1024
KeyPath = tuple[str | int, ...]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_EMPTY_FILE = "the file is empty; an empty configuration is {}"


def dotted(path: KeyPath) -> str:
    """``("providers", "lab", "quotas", 2, "limit")`` as ``providers.lab.quotas[2].limit``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


class Document:
    """One parsed file: ``data`` and the position of every key."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.data = self._parse()
        self._offsets: dict[KeyPath, int] = {}
        self._index()

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a file.

        Raises:
            ConfigError: it cannot be read, is not UTF-8 or not JSON, or has a key twice.
        """
        try:
            raw = path.read_bytes() if path.is_file() else _not_a_file(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
        if len(raw) > MAX_BYTES:
            raise ConfigError(f"{path}: the file has {len(raw)} bytes; at most {MAX_BYTES} are read")
        if raw.startswith(b"\xef\xbb\xbf"):
            raise ConfigError(f"{path}:1:1: the file starts with a byte order mark; save it as UTF-8 without one")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            before = raw[: error.start].decode("utf-8", "replace")
            line, column = _line_column(before, len(before))
            hint = "; save it as UTF-8" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
            message = f"{path}:{line}:{column}: byte 0x{raw[error.start]:02x} is not valid UTF-8{hint}"
            raise ConfigError(message) from error
        return cls(str(path), text)

    def where(self, path: KeyPath) -> str:
        """``file:line:column`` of the key, or of the nearest one above it."""
        for length in range(len(path), 0, -1):
            offset = self._offsets.get(path[:length])
            if offset is not None:
                line, column = _line_column(self.text, offset)
                return f"{self.file}:{line}:{column}"
        return self.file

    def fail(self, path: KeyPath, message: str) -> NoReturn:
        """Raise the error for one key."""
        raise ConfigError(f"{self.where(path)}: {dotted(path)}: {message}", param=dotted(path))

    def _fail_at(self, offset: int, message: str) -> NoReturn:
        line, column = _line_column(self.text, offset)
        raise ConfigError(f"{self.file}:{line}:{column}: {message}")

    def _parse(self) -> Any:
        if not self.text.strip():
            raise ConfigError(f"{self.file}:1:1: {_EMPTY_FILE}")
        try:
            data = json.loads(self.text, parse_constant=_refuse_constant)
            json.dumps(data, ensure_ascii=False).encode("utf-8")
        except json.JSONDecodeError as error:
            self._fail_at(*_explain(self.text, error))
        except UnicodeEncodeError:
            raise ConfigError(f"{self.file}: a text holds half of a surrogate pair (\\ud800 to \\udfff)") from None
        except RecursionError:
            raise ConfigError(f"{self.file}: objects or lists are nested too deeply") from None
        except ValueError as error:  # NaN and its like, or an integer of thousands of digits
            raise ConfigError(f"{self.file}: {error}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{self.file}:1:1: the configuration must be an object, {{…}}")
        return data

    def _index(self) -> None:
        """Note the offset of each key; refuse a key given twice. The text is known to be valid JSON here."""
        seen: list[set[str] | None] = []  # one entry for each open bracket; None for a list
        path: list[str | int] = []
        key_next = False
        for match in _TOKEN.finditer(self.text):
            piece = match.group()
            if piece in "{[":
                seen.append(set() if piece == "{" else None)
                path.append("" if piece == "{" else 0)
                key_next = piece == "{"
            elif piece in "}]":
                seen.pop()
                path.pop()
                key_next = False
            elif piece == ",":
                key_next = seen[-1] is not None
                if isinstance(path[-1], int):
                    path[-1] += 1
            elif key_next and (keys := seen[-1]) is not None:
                path[-1] = key = json.loads(piece)
                key_next = False
                if key in keys:
                    self._fail_at(match.start(), f"{dotted(tuple(path))}: this key is given twice")
                keys.add(key)
                self._offsets[tuple(path)] = match.start()


def _not_a_file(path: Path) -> NoReturn:
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file; `hybridd doctor --fix` writes a default configuration")
    raise ConfigError(f"{path}: is not a regular file")


def _line_column(text: str, offset: int) -> tuple[int, int]:
    """Both from 1; the column counts characters."""
    line_start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, offset) + 1, offset - line_start + 1


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _explain(text: str, error: json.JSONDecodeError) -> tuple[int, str]:
    """The offset and a sentence for a syntax error; names the two mistakes people make most."""
    offset = error.pos
    while offset < len(text) and text[offset].isspace():
        offset += 1
    before = text[:offset].rstrip()
    if text[offset : offset + 1] in ("}", "]") and before.endswith(","):
        return len(before) - 1, "not valid JSON: a comma must not stand before a closing bracket"
    if text[offset : offset + 1] in ("}", "]") and text[error.pos : error.pos + 1] == ",":
        return error.pos, "not valid JSON: a comma must not stand before a closing bracket"
    following = text[error.pos :].lstrip(", \t\r\n")
    if text[error.pos : error.pos + 1] == "," and following[:1] in ("}", "]"):
        return error.pos, "not valid JSON: a comma must not stand before a closing bracket"
    if text[offset : offset + 2] in ("//", "/*") or text[offset : offset + 1] == "#":
        return offset, "not valid JSON: comments are not allowed"
    if text[offset : offset + 1] == "'":
        return offset, 'not valid JSON: texts stand in double quotes, "…"'
    if offset >= len(text):
        return len(before), "not valid JSON: the file ends too early (a bracket or quote is not closed)"
    if error.msg.startswith("Unterminated string"):
        return offset, "not valid JSON: this text has no closing quote"
    message = error.msg[:1].lower() + error.msg[1:]
    return offset, f"not valid JSON: {message}"
