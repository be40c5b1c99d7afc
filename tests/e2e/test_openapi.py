"""``/openapi.json`` is a valid description of exactly what is served, and ``docs/api.md`` names all of it."""

from __future__ import annotations

import re
from typing import Any, get_args

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest

from hybridd import errors
from hybridd.contracts.protocol import ErrorKind
from tests.e2e.support import error_of
from tests.house import ROOT, House

METHODS = {"get", "post"}
DOCS = ROOT / "docs" / "api.md"


@pytest.fixture(scope="module")
def house():
    with House({}) as running:
        yield running


@pytest.fixture(scope="module")
def document(house):
    answer = house.http.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, it) for path, item in document["paths"].items() for method, it in item.items()]


def test_the_structure(document):
    """The members that OpenAPI 3.1 requires are there, with the types it requires."""
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert set(document["info"]) >= {"title", "version"}
    ids = []
    for path, method, operation in operations(document):
        assert path.startswith("/")
        assert method in METHODS
        ids.append(operation["operationId"])
        assert operation["summary"]
        assert operation["responses"]
        for status, response in operation["responses"].items():
            assert status == "default" or 100 <= int(status) <= 599
            assert response["description"]
            for media, content in response.get("content", {}).items():
                assert "/" in media
                assert "schema" in content
        parameters = operation.get("parameters", [])
        assert len({(one["name"], one["in"]) for one in parameters}) == len(parameters)
        for parameter in parameters:
            assert parameter["in"] in ("query", "path", "header")
            assert "schema" in parameter
            assert parameter["in"] != "path" or parameter["required"] is True
        named = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_]+", one) for one in ids)


def test_the_schemas(document):
    """Every schema is valid JSON Schema 2020-12, and every reference points to something."""
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    text = repr(document)
    for reference in set(re.findall(r"'\$ref': '([^']+)'", text)):
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in document["components"]["schemas"]


def test_every_path_is_served(house, document):
    """Each operation of the document is answered with something else than 404 or 405."""
    for path, method, _ in operations(document):
        one = "specialists:sentiment" if path.startswith("/v1/models") else "req_65bfdedd6c000"
        concrete = path.replace("{id}", one)
        if path == "/v1/events":
            assert house.http.head(path).status_code == 200
            continue
        answer = house.http.request(method, concrete)
        if answer.status_code in (404, 405):
            assert error_of(answer)["code"] not in ("unknown_path", "method_not_allowed"), (method, path)


def test_no_path_is_missing(document):
    """What the application dispatches is in the document."""
    source = (ROOT / "hybridd/api/app.py").read_text() + (ROOT / "hybridd/api/native.py").read_text()
    served = set(re.findall(r'"(/(?:v1/[a-z/{}\-]+|health|ready|openapi\.json))"', source))
    assert len(served) > 20
    assert served - {"/v1/models/"} <= set(document["paths"])


@pytest.mark.parametrize("path", ["/health", "/v1/status", "/v1/limits", "/v1/route", "/v1/requests", "/v1/alerts"])
def test_answers_fit_their_schemas(house, document, path):
    """What is answered is what is described."""
    assert house.chat("task:sentiment_analysis", "What a day").status_code == 200
    described = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    schema = {**described, "components": document["components"]}
    jsonschema.validate(house.http.get(path).json(), schema, jsonschema.Draft202012Validator)


def test_errors_fit_their_schema(house, document):
    """One error object everywhere."""
    schema = {**document["components"]["schemas"]["Error"], "components": document["components"]}
    for answer in (house.http.get("/nope"), house.http.get("/v1/limits?provider=x"), house.chat("nope")):
        jsonschema.validate(answer.json(), schema, jsonschema.Draft202012Validator)


# -- docs/api.md


# Codes of errors that end a start, or that never leave the process: no answer carries them.
UNANSWERED = {
    "error", "already_running", "schema_too_new", "daemon_unreachable", "protocol_error", "provider_error",
    "state_unusable",
}  # fmt: skip


def codes() -> set[str]:
    """Every stable error code that an answer can carry, as the program has them."""
    kinds: list[type[errors.HybriddError]] = [errors.HybriddError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    named = {kind.code for kind in kinds if kind.__module__ == "hybridd.errors"} - UNANSWERED
    sources = [path.read_text() for part in ("api", "routing") for path in (ROOT / "hybridd" / part).glob("*.py")]
    written = {code for source in sources for code in re.findall(r'code="([a-z0-9_]+)"', source)}
    upstream = {f"upstream_{kind}" for kind in get_args(ErrorKind)}
    return named | written | upstream | {"rate_limit_exceeded", "recovering"}


def test_the_reference_names_every_path(document):
    """Each path has its line, with its methods; and no other is named."""
    text = DOCS.read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:GET|POST) (/[a-z0-9/{}._-]+)`", text))
    assert named == set(document["paths"])
    for path, method, _ in operations(document):
        assert f"`{method.upper()} {path}`" in text


def test_the_reference_names_every_parameter(document):
    """Each query parameter, request header and answer header is named."""
    text = DOCS.read_text(encoding="utf-8")
    for path, _, operation in operations(document):
        for parameter in (one for one in operation.get("parameters", []) if one["in"] != "path"):
            assert f"`{parameter['name']}`" in text, (path, parameter["name"])
        for name in operation["responses"].get("200", {}).get("headers", {}):
            assert f"`{name}`" in text, (path, name)


def test_the_reference_names_every_code():
    """Each stable error code has its row."""
    text = DOCS.read_text(encoding="utf-8")
    assert [code for code in sorted(codes()) if f"| `{code}` |" not in text] == []
