"""Answers as the hosts give them: the one body of a finished answer, the events of a stream. Pure.

Bytes pass through untouched; only the few members the ledger and the router need are decoded.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from hybridd.plugin import CallFailure, Usage
from plugins.openai_compatible import text, usage

_ABSENT = Raw(b"")
_BOM = b"\xef\xbb\xbf"


class _Whole(Struct):
    choices: Raw = _ABSENT
    data: Raw = _ABSENT
    usage: usage.Reported | None = None
    error: Raw = _ABSENT


class _Choice(Struct):
    index: int | None = None
    finish_reason: str | None = None


class _Event(Struct):
    choices: list[_Choice] | None = None
    usage: usage.Reported | None = None
    error: Raw = _ABSENT


class StreamOptions(Struct):
    include_usage: bool | None = None


class _Asked(Struct):
    stream: bool = False
    stream_options: StreamOptions | None = None


_whole = msgspec.json.Decoder(_Whole).decode
_event = msgspec.json.Decoder(_Event).decode
_asked = msgspec.json.Decoder(_Asked).decode


class InBandError(Exception):
    """The body or event is an ``error`` although the HTTP status said 200; ``error`` is the decoded member."""

    def __init__(self, error: Any) -> None:
        super().__init__("error in an answer")
        self.error = error


def whole(body: bytes, member: str) -> tuple[bytes, Usage | None]:
    """Checks a finished answer and returns it with its usage.

    Args:
        body: as received.
        member: the list that makes it an answer: ``choices`` or ``data``.

    Raises:
        InBandError: the body is an error.
        CallFailure: it is no JSON, or no answer (``bad_response``).
    """
    body = body.removeprefix(_BOM)
    try:
        answer = _whole(body)
        reported = usage.convert(answer.usage)
        error, answered = bytes(answer.error), bytes(answer.choices if member == "choices" else answer.data)
    except msgspec.ValidationError:
        # JSON, but a member has a type nobody should give it; the rest of the answer may be fine.
        decoded = _decoded(body)
        reported = usage.tolerant(decoded.get("usage"))
        error, answered = msgspec.json.encode(decoded.get("error")), msgspec.json.encode(decoded.get(member))
    except (msgspec.DecodeError, RecursionError):
        raise unusable(body) from None
    if error not in (b"", b"null"):
        raise InBandError(_decoded(body).get("error"))
    if not answered.startswith(b"["):
        raise CallFailure("bad_response", f"the answer is JSON but has no list {member!r}", sent="yes")
    return body, reported


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise unusable(body) from None
    if not isinstance(decoded, dict):
        raise CallFailure("bad_response", f"the answer is a JSON {type(decoded).__name__}, not an object", sent="yes")
    return decoded


def unusable(body: bytes) -> CallFailure:
    """The failure of a 200 whose body cannot be used, with what it seems to be."""
    if not body.strip():
        return CallFailure("bad_response", "the host answered 200 with an empty body", sent="yes")
    if text.is_markup(body):
        title = text.clean(text.page_title(body), limit=120)
        return CallFailure("bad_response", f"the host answered 200 with an HTML page, no JSON: {title}", sent="yes")
    return CallFailure("bad_response", "the host answered 200 with a body that is not valid JSON", sent="yes")


def asking_for_usage(raw: bytes) -> bytes:
    """A streaming request that asks for usage in the last chunk: usually by adding one member to the bytes.

    Raises:
        CallFailure: the request is no JSON object (``bad_request``, not sent).
    """
    try:
        asked = _asked(raw)
        if asked.stream and asked.stream_options is None and b'"stream_options"' not in raw:
            head = raw.rstrip()
            return head[:-1] + b',"stream_options":{"include_usage":true}}'
        if asked.stream and asked.stream_options is not None and asked.stream_options.include_usage is True:
            return raw
    except (msgspec.DecodeError, RecursionError):
        pass  # decoded in full below, which says what is wrong
    try:
        body = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CallFailure("bad_request", f"the request is not a JSON object: {error}", sent="no") from None
    options = body.get("stream_options")
    body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    body["stream"] = True
    return msgspec.json.encode(body)


class StreamState:
    """What the events of one stream add up to."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.events = 0
        self._open: set[int] = set()
        self._finished: set[int] = set()

    @property
    def finished(self) -> bool:
        """Every choice that was begun has said why it ended."""
        return bool(self._finished) and not self._open

    def accept(self, event: bytes) -> None:
        """Takes one event in.

        Raises:
            InBandError: it is an error.
            CallFailure: it is no JSON object (``bad_response``).
        """
        try:
            decoded = _event(event)
            reported = usage.convert(decoded.usage)
            error = bytes(decoded.error)
            choices = decoded.choices
        except msgspec.ValidationError:
            body = _decoded(event)
            reported, error = usage.tolerant(body.get("usage")), msgspec.json.encode(body.get("error"))
            choices = _tolerant_choices(body.get("choices"))
        except (msgspec.DecodeError, RecursionError):
            raise CallFailure("bad_response", "the stream holds an event that is not valid JSON", sent="yes") from None
        if not event.isascii():
            _require_utf8(event)
        if error not in (b"", b"null"):
            raise InBandError(_decoded(event).get("error"))
        self.events += 1
        if reported is not None:
            self.usage = reported
        for choice in choices or ():
            index = choice.index or 0
            if choice.finish_reason:
                self._finished.add(index)
                self._open.discard(index)
            elif index not in self._finished:
                self._open.add(index)


def _tolerant_choices(choices: Any) -> list[_Choice]:
    made = []
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict):
            index, reason = choice.get("index"), choice.get("finish_reason")
            made.append(_Choice(index if isinstance(index, int) else 0, str(reason) if reason else None))
    return made


def _require_utf8(event: bytes) -> None:
    try:
        event.decode()
    except UnicodeDecodeError:
        raise CallFailure("bad_response", "the stream holds an event that is not UTF-8", sent="yes") from None
