"""JSON Schemas of every message, made from the types the two sides decode with (``hybridd plugin schema``)."""

from __future__ import annotations

from typing import Any

import msgspec

from hybridd.contracts import protocol as wire

TITLE = "The hybridd plugin protocol"


def schema() -> dict[str, Any]:
    """A JSON Schema (2020-12). ``$defs`` holds one shape per method and direction; ``anyOf`` allows any of them.

    Names: ``<method>`` is the request or notification, ``<method>.result`` its answer; ``error`` is any failed answer,
    with :class:`~hybridd.contracts.protocol.CallError` as the data of a failed call.
    """
    types = sorted(
        {kind for _, params, result in wire.METHODS.values() for kind in (params, result) if kind is not None}
        | {wire.CallError},
        key=lambda kind: kind.__name__,
    )
    _, parts = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    definitions: dict[str, Any] = dict(sorted(parts.items()))
    messages = []
    for method, (sender, params, result) in wire.METHODS.items():
        definitions[method] = _message(method, sender, params, is_request=result is not None)
        messages.append(method)
        if result is not None:
            definitions[f"{method}.result"] = _result(method, sender, result)
            messages.append(f"{method}.result")
    definitions["error"] = _error()
    messages.append("error")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        "description": (
            "JSON-RPC 2.0 messages, one per WebSocket text frame at /v1/plugins/connect, or one per line behind the "
            f"bridge. Protocol versions: {', '.join(wire.PROTOCOL_VERSIONS)}. "
            "Unknown members are ignored by both sides. "
            f"A message holds at most {wire.MAX_MESSAGE_BYTES} bytes."
        ),
        "anyOf": [{"$ref": f"#/$defs/{_escaped(name)}"} for name in messages],
        "$defs": definitions,
    }


def _message(method: str, sender: str, params: type[wire.Message], *, is_request: bool) -> dict[str, Any]:
    receiver = "daemon" if sender == "plugin" else "plugin"
    properties: dict[str, Any] = {
        "jsonrpc": {"const": "2.0"},
        "method": {"const": method},
        "params": {"$ref": f"#/$defs/{params.__name__}"},
    }
    if is_request:
        properties["id"] = {"type": ["integer", "string"]} if sender == "plugin" else {"type": "integer"}
    return {
        "title": method,
        "description": f"{sender} → {receiver}, {'request' if is_request else 'notification'}",
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
    }


def _result(method: str, sender: str, result: type[wire.Message]) -> dict[str, Any]:
    receiver = "daemon" if sender == "plugin" else "plugin"
    return {
        "title": f"answer to {method}",
        "description": f"{receiver} → {sender}",
        "type": "object",
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["integer", "string"]},
            "result": {"$ref": f"#/$defs/{result.__name__}"},
        },
        "required": ["id", "jsonrpc", "result"],
    }


def _error() -> dict[str, Any]:
    return {
        "title": "failed answer",
        "description": "either direction; `data` of a failed generate, embed, predict or probe is a CallError",
        "type": "object",
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["integer", "string", "null"]},
            "error": {
                "type": "object",
                "properties": {
                    "code": {"type": "integer"},
                    "message": {"type": "string"},
                    "data": {"anyOf": [{"$ref": "#/$defs/CallError"}, {"type": "object"}]},
                },
                "required": ["code", "message"],
            },
        },
        "required": ["error", "id", "jsonrpc"],
    }


def _escaped(name: str) -> str:
    """A JSON Pointer token (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def text() -> str:
    """The schema as it stands in ``docs/protocol.schema.json``."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(text())
