"""From a request and a behaviour to bytes with a timetable: pure, so that the protocol has only to play them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from tests.fakes.upstream_behaviour import Behaviour, Header
from tests.fakes.upstream_openai import (
    GET_KINDS,
    SLOT,
    Ask,
    Kind,
    answer_body,
    answer_events,
    embeddings_body,
    listing_body,
    reply,
)

JSON = "application/json"
HTML = b"""<!DOCTYPE html>
<html><head><title>Bad Gateway</title></head>
<body><center><h1>Bad Gateway</h1></center><hr><center>nginx</center></body></html>
"""
DRIP_STEP_S = 0.02

End = Literal["keep", "close", "reset", "hang"]


class Answer(msgspec.Struct, kw_only=True):
    """An answer before it is cut, slowed or numbered. `groups` are the moments of the body, each a list of pieces."""

    status: int
    headers: dict[str, Header]
    groups: list[list[bytes]]
    chunked: bool = False
    garbage: bool = False

    def head(self, *, keep_alive: bool) -> bytes:
        try:
            reason = HTTPStatus(self.status).phrase
        except ValueError:
            reason = "Scripted"
        lines = [f"HTTP/1.1 {self.status} {reason}"]
        framing: dict[str, Header] = {"transfer-encoding": "chunked"}
        if not self.chunked:
            framing = {} if self.status in (204, 304) else {"content-length": sum(map(len, self._pieces()))}
        closing = {} if keep_alive and not self.garbage else {"connection": "close"}
        for name, value in {**self.headers, **framing, **closing, **self._forced(framing)}.items():
            lines.extend(f"{name}: {one}" for one in (value if isinstance(value, list) else [value]))
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def _forced(self, framing: Mapping[str, Header]) -> dict[str, Header]:
        """Framing headers that the script gives itself, true or not."""
        return {name: value for name, value in self.headers.items() if name in framing}

    def moments(self) -> list[bytes]:
        """The body's bytes on the wire, one item per moment; a chunked body's terminator travels with the last."""
        if not self.chunked:
            return [b"".join(group) for group in self.groups]
        wired = [b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in group) for group in self.groups]
        if self.garbage:
            return [*wired[: max(1, len(wired) // 2)], b"ZZ\r\nthis is not a chunk\r\n"]
        return [*wired[:-1], wired[-1] + b"0\r\n\r\n"]

    def wire(self, *, keep_alive: bool) -> bytes:
        """The whole answer at once."""
        return self.head(keep_alive=keep_alive) + b"".join(self.moments())

    def _pieces(self) -> Iterable[bytes]:
        return (piece for group in self.groups for piece in group)


def error_body(message: str, kind: str = "invalid_request_error", code: str | None = None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def plain_answer(status: int, body: bytes, headers: Mapping[str, Header] | None = None) -> Answer:
    return Answer(status=status, headers={"content-type": JSON, **(headers or {})}, groups=[[body]])


def build(kind: Kind | None, method: str, ask: Ask | None, behaviour: Behaviour, prompt: int, now: float) -> Answer:
    """The answer to a request (`ask` is None when its body was no valid request) under a resolved behaviour."""
    headers = {name.lower(): value for name, value in behaviour.headers.items()}
    answer = _override(behaviour) or _normal(kind, method, ask, behaviour, prompt, now)
    if behaviour.status is not None:
        answer.status = behaviour.status
    answer.headers = {"x-request-id": f"req-{SLOT}", **answer.headers, **headers}
    if behaviour.invalid_json:
        _spoil(answer, lambda piece: piece[: len(piece) // 2].rstrip(b"\n") + (b"\n\n" if answer.chunked else b""))
    if behaviour.invalid_utf8:
        _spoil(answer, _without_utf8)
    if behaviour.chunked_garbage:
        if not answer.chunked:
            body = b"".join(answer.groups[0])
            answer.groups, answer.chunked = [[body[: len(body) // 2]], [body[len(body) // 2 :]]], True
        answer.garbage = True
    return answer


def _override(behaviour: Behaviour) -> Answer | None:
    """What is answered whatever was asked, if the script says so."""
    status = behaviour.status
    if behaviour.redirect is not None:
        return Answer(status=307, headers={"location": behaviour.redirect}, groups=[[b""]])
    if behaviour.body is not UNSET:
        if isinstance(behaviour.body, str):
            kind = {"content-type": "text/plain; charset=utf-8"} if behaviour.body else {}
            return Answer(status=200, headers={**kind}, groups=[[behaviour.body.encode()]])
        return plain_answer(200, msgspec.json.encode(behaviour.body))
    if behaviour.html:
        return Answer(status=200, headers={"content-type": "text/html; charset=utf-8"}, groups=[[HTML]])
    if status is not None and status >= 400:
        return plain_answer(status, error_body(f"scripted answer {status}", "server_error", "scripted"))
    if status in (204, 304):
        return Answer(status=status, headers={}, groups=[[b""]])
    return None


def _normal(kind: Kind | None, method: str, ask: Ask | None, behaviour: Behaviour, prompt: int, now: float) -> Answer:
    if kind is None:
        return plain_answer(404, error_body("no such endpoint", code="unknown_url"))
    if method != ("GET" if kind in GET_KINDS else "POST"):
        return plain_answer(405, error_body(f"{method} is not allowed here", code="method_not_allowed"))
    if kind in GET_KINDS:
        return plain_answer(200, listing_body(kind, behaviour, now))
    if ask is None:
        return plain_answer(400, error_body("the body is not a valid request", code="invalid_json"))
    if kind == "embeddings":
        return plain_answer(200, embeddings_body(ask, behaviour, prompt))
    said = reply(ask, behaviour, prompt, kind)
    if not ask.stream:
        return plain_answer(200, answer_body(ask, said, kind))
    broken = behaviour.sse_error_midstream
    groups = answer_events(ask, said, kind, done=not behaviour.no_done)
    if broken is not False:
        error: Any = broken if isinstance(broken, dict) else _SERVER_ERROR
        groups = [*groups[: len(groups) // 2], [b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"]]
    headers: dict[str, Header] = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
    return Answer(status=200, headers=headers, groups=groups, chunked=True)


_SERVER_ERROR = {
    "message": "The server had an error while processing your request. Sorry about that!",
    "type": "server_error",
    "param": None,
    "code": None,
}


def _spoil(answer: Answer, change: Any) -> None:
    """Applies `change` to the last piece of the middle moment: a stream's middle content chunk, or the only body."""
    group = answer.groups[(len(answer.groups) - 1) // 2]
    index = len(group) - 1 if len(answer.groups) > 2 else 0
    group[index] = change(group[index])


def _without_utf8(piece: bytes) -> bytes:
    """Puts bytes that no UTF-8 text has (0xFF, a cut two-byte sequence) at the start of the first text found."""
    field = next((f for f in (b'"content":"', b'"text":"', b':"') if f in piece), b"")
    at = piece.find(field) + len(field)
    return piece[:at] + b"\xff\xc3(" + piece[at:]


class Plan(msgspec.Struct, kw_only=True):
    """Bytes and when to send them (seconds since the request was taken up), then what becomes of the connection."""

    status: int | None
    segments: list[tuple[float, bytes]]
    end: End
    broken: bool = False
    """Whether the answer is deliberately not whole when the connection ends."""


HANG = Plan(status=None, segments=[(0, b"")], end="hang")


def timetable(answer: Answer, behaviour: Behaviour, number: bytes, *, keep_alive: bool) -> Plan:
    """Lays an answer out in time and applies cuts; `number` replaces the slot before any byte is counted."""
    at = behaviour.delay_s
    segments = [(at, _numbered(answer.head(keep_alive=keep_alive), number))]
    at += behaviour.first_byte_delay_s
    step = behaviour.chunk_interval_s if answer.chunked else 0
    segments += [(at + i * step, _numbered(moment, number)) for i, moment in enumerate(answer.moments())]
    broken = answer.garbage
    end: End = "keep" if keep_alive and not broken else "close"
    most = behaviour.cut_after_bytes if behaviour.hang_after_bytes is None else behaviour.hang_after_bytes
    if most is not None and most < sum(len(data) for _, data in segments):
        segments, broken = _first_bytes(segments, most), True
        end = "hang" if behaviour.hang_after_bytes is not None else "reset" if behaviour.reset else "close"
    if behaviour.slow_drip:
        segments = _dripped(segments, behaviour.slow_drip)
    sent = any(data for _, data in segments)
    return Plan(status=answer.status if sent else None, segments=segments, end=end, broken=broken)


def _numbered(data: bytes, number: bytes) -> bytes:
    return data.replace(SLOT.encode(), number)


def _first_bytes(segments: list[tuple[float, bytes]], most: int) -> list[tuple[float, bytes]]:
    kept = []
    for at, data in segments:
        kept.append((at, data[:most]))
        most -= len(data)
        if most <= 0:
            break
    return kept


def _dripped(segments: list[tuple[float, bytes]], rate: float) -> list[tuple[float, bytes]]:
    """Slices of `DRIP_STEP_S` worth of bytes (one at least), none earlier than its own segment's time."""
    size = max(1, int(rate * DRIP_STEP_S))
    free_at = 0.0
    slices = []
    for at, data in segments:
        free_at = max(free_at, at)
        for i in range(0, len(data), size):
            part = data[i : i + size]
            slices.append((free_at, part))
            free_at += len(part) / rate
    return slices or segments
