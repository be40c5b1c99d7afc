"""Events as they come from the stream, from a query's answer or from a recording: one shape for all of them."""

from __future__ import annotations

from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False):
    """``at``: UTC seconds. ``kind``: those of ``/v1/events``, and two of our own:

    - ``answer``: what a query returned; ``data`` is ``{"name": …, "body": …}`` (see :mod:`tui.queries`);
    - ``connection``: the subscription's state; ``data`` has the members of :class:`tui.house.Connection`.
    """

    seq: int
    at: float
    kind: str
    data: Any


_decoder = msgspec.json.Decoder(Event)


def decode(line: bytes) -> Event:
    """One line of the stream.

    Raises:
        msgspec.DecodeError: it is not an event.
    """
    return _decoder.decode(line)


def encode(event: Event) -> bytes:
    """The event as one line of a recording."""
    return msgspec.json.encode(event) + b"\n"


def answer(name: str, body: Any, at: float) -> Event:
    return Event(0, at, "answer", {"name": name, "body": body})
