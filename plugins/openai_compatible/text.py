"""Upstream text made fit for messages and logs: one line, bounded, without markup and without keys. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

MAX_MESSAGE = 500
REDACTED = "[redacted]"
_SCANNED = 8192
_SHORTEST_SECRET = 4

# Shapes of keys that hosts like to echo, whole or half masked.
_KEYS = re.compile(
    r"(?:\b(?:sk|pk|rk|gsk|csk|xai|nvapi|hf|ghp|gho|ghu|ghs|ghr|r8|AIza|key)[-_][A-Za-z0-9*_.\-]{6,}"
    r"|\bgithub_pat_[A-Za-z0-9*_]{6,}|\bAIza[A-Za-z0-9*_\-]{20,}|\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-.]{8,})"
)
_BEARER = re.compile(r"(?i)\b(bearer|token|api[-_ ]?key|authorization)(\s*[:=]\s*|\s+)[\"']?[A-Za-z0-9._~+/*\-]{16,}=*")
_URL_USER = re.compile(r"(?i)\b([a-z][a-z0-9+.\-]*://)[^/\s@]+@")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_SCRIPT = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]{0,2000}>")


def clean(text: str, secrets: Iterable[str] = (), *, limit: int = MAX_MESSAGE) -> str:
    """``text`` on one line, without control or direction characters, keys replaced, at most ``limit`` characters."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, REDACTED)
    text = text[:_SCANNED]
    text = _KEYS.sub(REDACTED, text)
    text = _BEARER.sub(rf"\1\2{REDACTED}", text)
    text = _URL_USER.sub(r"\1", text)
    # Not printable: control and direction characters, lone surrogates, everything that could fool a terminal.
    text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def is_markup(body: bytes) -> bool:
    """Whether a body is HTML or XML rather than JSON."""
    return body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def page_title(body: bytes) -> str:
    """What an HTML error page is about: its title, or else its first words."""
    page = body[:_SCANNED].decode("utf-8", "replace")
    title = _TITLE.search(page)
    return html.unescape(title[1] if title and title[1].strip() else _TAG.sub(" ", _SCRIPT.sub(" ", page)))
