"""What a plugin says, read and judged: decoders of every message, and what makes a message a violation. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UnsetType

from hybridd.contracts import protocol as wire
from hybridd.providers.calls import CallFailed, PluginCall

OPENING_BRACE = 0x7B

envelope = msgspec.json.Decoder(wire.Envelope).decode
chunk = msgspec.json.Decoder(wire.Chunk).decode
call_result = msgspec.json.Decoder(wire.CallResult).decode
probe_result = msgspec.json.Decoder(wire.ProbeResult).decode
call_error = msgspec.json.Decoder(wire.CallError).decode
initialize = msgspec.json.Decoder(wire.Initialize).decode
register = msgspec.json.Decoder(wire.Register).decode
observed = msgspec.json.Decoder(wire.Observed).decode
log = msgspec.json.Decoder(wire.Log).decode
progress = msgspec.json.Decoder(wire.Progress).decode


class Violation(Exception):
    """The plugin broke the protocol; the message is the reason it is dropped with."""


class Refused(Exception):
    """A request of the plugin is answered with an error. ``fatal``: and the connection is closed."""

    def __init__(self, code: int, message: str, *, data: Any = None, fatal: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.fatal = fatal


def named(method: str | None) -> str:
    return str(method)[:100]


def error_of(error: wire.RpcError) -> wire.CallError:
    """The typed part of an error answer; JSON-RPC's own codes for plugins that send none."""
    if not isinstance(error.data, UnsetType) and bytes(error.data) != b"null":
        return call_error(error.data)
    if error.code in (wire.METHOD_NOT_FOUND, wire.INVALID_PARAMS, wire.INVALID_REQUEST):
        return wire.CallError(kind="unsupported" if error.code == wire.METHOD_NOT_FOUND else "bad_request", sent="no")
    return wire.CallError(kind="internal", sent="maybe")


def result_of(call: PluginCall, message: wire.Envelope, label: str) -> wire.CallResult | CallFailed:
    """The final answer of a routed call; one that lacks its body or its events is a failure of the plugin's.

    Raises:
        msgspec.MsgspecError: the answer is not valid.
    """
    result = call_result(message.result)
    body = result.body
    what = ""
    if call.on_events is not None:
        what = "" if call.seq else "a stream without an event"
    elif isinstance(body, UnsetType):
        what = f"{call.method} without a body"
    elif memoryview(body)[0] != OPENING_BRACE:
        what = f"{call.method} with a body that is not a JSON object"
    if not what:
        return result
    return CallFailed(wire.CallError(kind="bad_response", sent="yes", usage=result.usage), f"{label} answered {what}")


def judge_chunk(call: PluginCall | None, chunk: wire.Chunk) -> PluginCall:
    """The call a chunk belongs to, its sequence number and credit used up.

    Raises:
        Violation: it belongs to no streaming call, is out of order, empty, over its credit or not made of objects.
    """
    if call is None:
        raise Violation(f"a chunk for the unknown or already answered request {chunk.id}")
    if call.on_events is None:
        raise Violation(f"a chunk for request {chunk.id}, which does not stream")
    if chunk.seq != call.seq:
        raise Violation(f"chunk {chunk.seq} of request {chunk.id} where {call.seq} was due")
    events = chunk.events
    if not events:
        raise Violation(f"chunk {chunk.seq} of request {chunk.id} has no events")
    call.seq += 1
    size = sum(map(len, events))
    if call.credit <= 0 or (size > call.credit and len(events) > 1):
        raise Violation(f"request {chunk.id}: {size} bytes of events with a credit of {call.credit}")
    call.credit -= size
    for event in events:
        if memoryview(event)[0] != OPENING_BRACE:
            raise Violation(f"chunk {chunk.seq} of request {chunk.id}: an event is not a JSON object")
    return call
