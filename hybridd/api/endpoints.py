"""The native API as a table: each endpoint's path, parameters, types and handler stand in one place.

Dispatch and ``/openapi.json`` are both made from it, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

import msgspec

from hybridd.api.services import Services
from hybridd.errors import InvalidRequest, MethodNotAllowed, NotFound


@dataclass(slots=True, frozen=True)
class Call:
    """One native call: ``query`` and ``body`` are already of the endpoint's types; ``id`` is the path's variable."""

    services: Services
    query: Any
    body: Any
    id: str


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(slots=True, frozen=True)
class Endpoint:
    """``path`` may hold one ``{id}``. ``query`` and ``body`` are Struct types; unknown fields are refused. ``answer``:
    a type, or a tuple of those that it may be."""

    method: Literal["GET", "POST"]
    path: str
    summary: str
    handler: Handler
    answer: Any
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None


class Table:
    """All endpoints, found by method and path."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.endpoints = endpoints
        self._exact: dict[tuple[str, str], Endpoint] = {}
        self._variable: list[tuple[str, str, Endpoint]] = []
        for item in endpoints:
            head, variable, tail = item.path.partition("{id}")
            if variable:
                self._variable.append((head, tail, item))
            else:
                self._exact[item.method, item.path] = item
        self.paths = {item.path for item in endpoints}

    def find(self, method: str, path: str) -> tuple[Endpoint, str]:
        """The endpoint and the value of its ``{id}`` ("" when there is none).

        Raises:
            NotFound: no such path.
            MethodNotAllowed: the path exists with another method.
        """
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, ""
        allowed: list[str] = [known for known, candidate in self._exact if candidate == path]
        for head, tail, endpoint in self._variable:
            value = path[len(head) : len(path) - len(tail)]
            if path.startswith(head) and path.endswith(tail) and value and "/" not in value:
                if endpoint.method == method:
                    return endpoint, value
                allowed.append(endpoint.method)
        if allowed:
            raise MethodNotAllowed(method, path, allowed)
        raise NotFound(f"There is nothing at {path}.", code="unknown_path")


def read_query(kind: type[msgspec.Struct] | None, raw: bytes) -> Any:
    """The query string as ``kind``.

    Raises:
        InvalidRequest: an unknown or repeated parameter, or a value of the wrong type; ``param`` names it.
    """
    given: dict[str, str] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=False):
        if name in given:
            raise InvalidRequest(f"The parameter '{name}' is given twice.", param=name)
        given[name] = value
    known = {field.encode_name for field in msgspec.structs.fields(kind)} if kind is not None else set()
    for name in given:
        if name not in known:
            listed = f"; known: {', '.join(sorted(known))}" if known else ""
            raise InvalidRequest(f"Unknown parameter '{name}'{listed}.", param=name, code="unknown_parameter")
    if kind is None:
        return None
    return _convert(lambda: msgspec.convert(given, kind, strict=False))


def read_struct(kind: type[msgspec.Struct], raw: bytes) -> Any:
    """A JSON body as ``kind``.

    Raises:
        InvalidRequest: not JSON, unknown fields, wrong types.
    """
    return _convert(lambda: msgspec.json.decode(raw or b"{}", type=kind))


def _convert(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        param = where.rstrip("`").lstrip(".") or None
        raise InvalidRequest(f"{text}{f' (at {param})' if param else ''}.", param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
