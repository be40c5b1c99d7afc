"""``/openapi.json``, made from the endpoint table and the wire types."""

from __future__ import annotations

from typing import Any

import msgspec

from hybridd._version import __version__
from hybridd.api.endpoints import Endpoint, Table
from hybridd.bus import KINDS

_REF = "#/components/schemas/{name}"
_ERROR = {"$ref": "#/components/schemas/Error"}
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_KINDS = {
    "name": "kinds",
    "in": "query",
    "description": f"Only these, separated by commas: {', '.join(KINDS)}",
    "schema": {"type": "string"},
}
_OPENAI = {
    "/v1/chat/completions": "Chat completion, OpenAI-compatible; streams when `stream` is true",
    "/v1/completions": "Completion, OpenAI-compatible; streams when `stream` is true",
    "/v1/embeddings": "Embeddings, OpenAI-compatible",
}
# What the routes read and what they add to a routed answer, each with its meaning.
REQUEST_HEADERS = {
    "x-hybridd-task": "The task, for the model `auto`; otherwise only recorded",
    "x-hybridd-user": "Who asks: experiments and reports know users by it",
    "x-hybridd-tier": "`free` or `premium`",
    "x-hybridd-client": "The name of the program; absent: its user agent",
    "x-hybridd-explain": "`1`: the decision is added to the answer as `hybridd`, or to a stream as the event `hybridd`",
}
ANSWER_HEADERS = {
    "x-hybridd-request-id": "For `/v1/requests/{id}`, `hybridd why` and feedback",
    "x-hybridd-provider": "Who answered",
    "x-hybridd-model": "Which of its models",
    "x-hybridd-cache": "`off`, `miss` or `hit`",
    "x-hybridd-overhead-ms": "What hybridd itself took; for a stream, until it was sent",
    "x-hybridd-max-tokens": "The bound that was sent because a limit needs one and the caller named none",
    "x-hybridd-latency-ms": "The whole time; not for streams",
    "x-hybridd-cost-usd": "What the calls cost; not for streams",
}
_PLAIN = {
    "/v1/models": ("Models and tasks, OpenAI-compatible", "application/json"),
    "/v1/models/{id}": ("One model: `provider:model` or `task:NAME`", "application/json"),
    "/v1/events": ("NDJSON: a snapshot, then deltas", "application/x-ndjson"),
    "/openapi.json": ("This document", "application/json"),
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string", "description": "Stable, meant for programs."},
                "param": {"type": ["string", "null"]},
                "details": {},
            },
        }
    },
}


def document(table: Table) -> dict[str, Any]:
    """An OpenAPI 3.1 document."""
    kinds = [kind for item in table.endpoints for kind in (*_answers(item), item.body, item.query) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    of = dict(zip(map(id, kinds), schemas, strict=True))
    paths: dict[str, Any] = {path: {"post": _openai_operation(path, text)} for path, text in _OPENAI.items()}
    paths |= {path: {"get": _plain_operation(path, text, media)} for path, (text, media) in _PLAIN.items()}
    paths["/v1/events"]["get"]["parameters"] = [_KINDS]
    paths["/v1/plugins/connect"] = {"get": _upgrade_operation()}
    for endpoint in table.endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, of, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "hybridd", "version": __version__},
        "paths": paths,
        "components": {"schemas": {**components, "Error": _ERROR_SCHEMA}},
    }


def _answers(endpoint: Endpoint) -> tuple[Any, ...]:
    return endpoint.answer if isinstance(endpoint.answer, tuple) else (endpoint.answer,)


def _operation(endpoint: Endpoint, of: dict[int, dict[str, Any]], components: dict[str, Any]) -> dict[str, Any]:
    answers = [of[id(kind)] for kind in _answers(endpoint)]
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": _operation_id(endpoint.method, endpoint.path),
        "responses": _responses(answers[0] if len(answers) == 1 else {"oneOf": answers}),
    }
    parameters = [_ID] if "{id}" in endpoint.path else []
    if endpoint.query is not None:
        fields = components[endpoint.query.__name__]["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]
        if description := components[endpoint.query.__name__].get("description"):
            operation["description"] = description
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": of[id(endpoint.body)]}}}
    return operation


def _openai_operation(path: str, summary: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": _operation_id("POST", path),
        "parameters": [
            {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
            for name, text in REQUEST_HEADERS.items()
        ],
        "requestBody": {"content": {"application/json": {"schema": {"type": "object", "required": ["model"]}}}},
        "responses": _responses({"type": "object"}, headers=ANSWER_HEADERS),
    }


def _plain_operation(path: str, summary: str, media: str) -> dict[str, Any]:
    operation = {
        "summary": summary,
        "operationId": _operation_id("GET", path),
        "responses": _responses({"type": "object"}, media=media),
    }
    return {**operation, "parameters": [_ID]} if "{id}" in path else operation


def _upgrade_operation() -> dict[str, Any]:
    """OpenAPI has no words for a WebSocket; the plugin protocol has its own schema."""
    error = {"description": "Error", "content": {"application/json": {"schema": _ERROR}}}
    return {
        "summary": "WebSocket for plugins (docs/plugins.md)",
        "operationId": _operation_id("GET", "/v1/plugins/connect"),
        "responses": {"101": {"description": "The plugin protocol begins"}, "default": error},
    }


def _operation_id(method: str, path: str) -> str:
    return method.lower() + path.replace("/", "_").replace("{id}", "one").replace(".", "_")


def _responses(
    schema: dict[str, Any], *, media: str = "application/json", headers: dict[str, str] | None = None
) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "OK", "content": {media: {"schema": schema}}}
    if headers:
        good["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    return {"200": good, "default": {"description": "Error", "content": {"application/json": {"schema": _ERROR}}}}
