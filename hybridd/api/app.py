"""The ASGI application: a flat dispatch, hot routes first."""

from __future__ import annotations

from collections.abc import Mapping

from hybridd import logs
from hybridd.api import openai
from hybridd.api.endpoints import Call, read_query, read_struct
from hybridd.api.events import events
from hybridd.api.native import TABLE
from hybridd.api.openapi import document
from hybridd.api.plugin_link import plugin_endpoint
from hybridd.api.respond import ClientGone, Receive, Scope, Send, read_body, send_bytes, send_error, send_json
from hybridd.api.services import Services
from hybridd.errors import HybriddError, MethodNotAllowed, PermissionRefused
from hybridd.routing.request import Kind

log = logs.get_logger(__name__)

_ROUTED: dict[str, Kind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
    "/v1/embeddings": "embedding",
}
_READ_ONLY = frozenset({"/v1/events", "/v1/plugins/connect", "/openapi.json"})


class App:
    """Callable by uvicorn. Every error leaves as OpenAI-shaped JSON with a stable code."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await plugin_endpoint(scope, receive, send)
            return
        try:
            headers = dict(scope["headers"])
            refuse_browsers(headers)
            kind = _ROUTED.get(scope["path"])
            if kind is not None and scope["method"] == "POST":
                await openai.routed(self._services, kind, headers, scope, receive, send)
            else:
                await self._other(scope, receive, send)
        except HybriddError as error:
            await send_error(send, error)
        except ClientGone:
            return
        except Exception:  # the last line of defence: logged with its trace, answered without it
            log.exception("unhandled error", path=scope["path"])
            await send_error(send, HybriddError("Something went wrong inside hybridd; see its log.", code="internal"))

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path in _ROUTED:
            raise MethodNotAllowed(method, path, ["POST"])
        models = path == "/v1/models" or path.startswith("/v1/models/")
        if not (models or path in _READ_ONLY):
            await self._native(scope, receive, send)
            return
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed(method, path, ["GET"])
        if models:
            await openai.models(self._services, scope, send)
        elif path == "/v1/events":
            await events(self._services, scope, receive, send)
        elif path == "/openapi.json":
            await send_json(send, document(TABLE))
        else:
            raise HybriddError("This path speaks WebSocket.", code="upgrade_required", status=426)

    async def _native(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        endpoint, variable = TABLE.find(method, scope["path"])
        query = read_query(endpoint.query, scope["query_string"])
        body = None
        if endpoint.body is not None:
            body = read_struct(endpoint.body, await read_body(scope, receive, self._services.max_body_bytes))
        answer = await endpoint.handler(Call(self._services, query, body, variable))
        if scope["method"] == "HEAD":
            await send_bytes(send, 200, b"", [])
        else:
            await send_json(send, answer)


def refuse_browsers(headers: Mapping[bytes, bytes]) -> None:
    """No web page has business here: a request that names an Origin is refused, whatever it asks.

    Raises:
        PermissionRefused: always when the header is there.
    """
    if b"origin" in headers:
        raise PermissionRefused("Requests with an Origin header are refused.", code="origin_refused")
