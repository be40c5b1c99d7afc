"""``/openapi.json``, made from the endpoint table and the wire types."""

from __future__ import annotations

from typing import Any

import msgspec

from hybridd._version import __version__
from hybridd.api.endpoints import Endpoint, Table

_REF = "#/components/schemas/{name}"
_ERROR = {"$ref": "#/components/schemas/Error"}
_OPENAI = {
    "/v1/chat/completions": "Chat completion, OpenAI-compatible; streams when `stream` is true",
    "/v1/completions": "Completion, OpenAI-compatible",
    "/v1/embeddings": "Embeddings, OpenAI-compatible",
}
_ROUTING_HEADERS = ("x-hybridd-task", "x-hybridd-user", "x-hybridd-tier", "x-hybridd-explain")
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
    kinds = [kind for item in table.endpoints for kind in (item.answer, item.body, item.query) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    of = dict(zip(map(id, kinds), schemas, strict=True))
    paths: dict[str, Any] = {path: {"post": _openai_operation(path, text)} for path, text in _OPENAI.items()}
    paths["/v1/models"] = {"get": _plain_operation("Models and tasks, OpenAI-compatible")}
    paths["/v1/events"] = {"get": _plain_operation("NDJSON: a snapshot, then deltas", "application/x-ndjson")}
    for endpoint in table.endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, of, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "hybridd", "version": __version__},
        "paths": paths,
        "components": {"schemas": {**components, "Error": _ERROR_SCHEMA}},
    }


def _operation(endpoint: Endpoint, of: dict[int, dict[str, Any]], components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method.lower()}{endpoint.path.replace('/', '_').replace('{id}', 'one')}",
        "responses": _responses(of[id(endpoint.answer)]),
    }
    parameters = []
    if "{id}" in endpoint.path:
        parameters.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string"}})
    if endpoint.query is not None:
        fields = components[endpoint.query.__name__]["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": of[id(endpoint.body)]}}}
    return operation


def _openai_operation(path: str, summary: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": f"post{path.replace('/', '_')}",
        "parameters": [{"name": name, "in": "header", "schema": {"type": "string"}} for name in _ROUTING_HEADERS],
        "requestBody": {"content": {"application/json": {"schema": {"type": "object", "required": ["model"]}}}},
        "responses": _responses({"type": "object"}),
    }


def _plain_operation(summary: str, media: str = "application/json") -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "OK", "content": {media: {"schema": {}}}}}}


def _responses(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "200": {"description": "OK", "content": {"application/json": {"schema": schema}}},
        "default": {"description": "Error", "content": {"application/json": {"schema": _ERROR}}},
    }
