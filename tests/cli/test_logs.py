"""``hybridd logs`` against canned answers: how records are written, and what is said about those that are missing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hybridd import errors
from hybridd.cli import diagnostics
from hybridd.cli.main import program
from tests.cli.support import Done, Run
from tests.client.canned import Answer, CannedDaemon

AT = 1_795_226_000.25


def record(number: int, message: str = "hello", **more: Any) -> dict[str, Any]:
    made = {"id": number, "at": AT + number, "level": "info", "component": "hybridd.test", "message": message}
    rest: dict[str, Any] = {
        "provider": None,
        "model": None,
        "request": None,
        "fields": {},
        "exception": None,
        "cut": False,
    }
    return {**made, **rest, **more}


def page(*records: dict[str, Any], following: int | None = None, lost: int = 0, first: int = 1) -> Answer:
    body = {"logs": list(records), "next": following, "level": "info", "kept": len(records), "lost": lost}
    return Answer({**body, "first": first, "oldest": AT})


def events(*data: dict[str, Any]) -> Answer:
    kinds = [{"seq": 0, "at": AT, "kind": "snapshot", "data": {}}]
    kinds += [{"seq": 1, "at": AT, "kind": "dropped" if "reason" in one else "log", "data": one} for one in data]
    return Answer(pieces=[json.dumps(one).encode() + b"\n" for one in kinds], kind="application/x-ndjson")


@pytest.fixture
def run(canned: CannedDaemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HYBRIDD_SOCKET", str(canned.socket))

    def execute(*arguments: str) -> Done:
        code = diagnostics.run(program, list(arguments))
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return execute


def test_how_a_record_is_written(run: Run, canned: CannedDaemon) -> None:
    """Newest last; time, level, component, message, what it names, its fields; further lines and the trace below."""
    old = record(1, "two\nlines", provider="groq", fields={"path": "/a b", "pid": 3})
    new = record(2, "broke \x1b[31m", level="error", exception="Traceback:\nValueError: Ouch")
    canned.routes["GET", "/v1/logs"] = page(new, old)
    done = run("logs")
    lines = done.out.splitlines()
    assert lines[0].endswith(" info     hybridd.test: two")
    assert lines[1] == '    lines provider=groq path="/a b" pid=3'
    assert " error    hybridd.test: broke " in lines[2]
    assert lines[3:] == ["    Traceback:", "    ValueError: Ouch"]
    assert "\x1b" not in done.out
    assert (done.code, done.err) == (0, "")


def test_what_is_asked_for(run: Run, canned: CannedDaemon) -> None:
    """Each option is a parameter of the daemon's; what is left out is not sent."""
    canned.routes["GET", "/v1/logs"] = page(record(1))
    run("logs", "--level", "error", "--component", "hybridd.plugin", "--grep", "a b", "--limit", "7")
    assert canned.last.query == {"level": "error", "component": "hybridd.plugin", "contains": "a b", "limit": "7"}
    run("logs")
    assert canned.last.query == {"limit": "100"}


def test_what_is_missing_is_said(run: Run, canned: CannedDaemon) -> None:
    """Older records that were not asked for, and those that are gone, on standard error: standard output is data."""
    canned.routes["GET", "/v1/logs"] = page(record(9), following=9, lost=1234)
    done = run("logs", "--limit", "1")
    assert "older ones: --limit, or --until 2026-" in done.err
    assert "1,234 older records are no longer kept" in done.err
    assert len(done.out.splitlines()) == 1
    as_json = run("logs", "--json")
    assert as_json.json["lost"] == 1234
    assert as_json.err == ""


def test_following(run: Run, canned: CannedDaemon) -> None:
    """The page first, then the events that fit, nothing twice; what came too fast is asked for, and what of that is
    gone is said; the end of the stream is the end of the daemon."""

    def answer(asked: Any) -> Answer:
        if "before" in asked.query:
            return page(record(8, "fetched"), record(7, "fetched"), first=6)
        return page(record(2, "page"), record(1, "page"))

    canned.routes["GET", "/v1/logs"] = answer
    canned.routes["GET", "/v1/events"] = events(
        record(2, "page"), record(3, "told"), {"left_out": 5, "first": 4, "last": 8}, record(9, "told"),
        record(10, "another", level="debug"), {"reason": "hybridd is stopping"},
    )  # fmt: skip
    done = run("logs", "--follow", "--json", "--level", "info")
    shown = [json.loads(line) for line in done.out.splitlines()]
    assert [one["id"] for one in shown] == [1, 2, 3, 7, 8, 9]
    assert "2 records came too fast to be kept" in done.err
    assert "hybridd is stopping; nothing more is logged" in done.err
    assert done.code == errors.EXIT_UNREACHABLE


def test_wrong_uses(run: Run) -> None:
    """Options that cannot be are usage errors, before anybody is asked."""
    for words in (["--level", "loud"], ["--limit", "0"], ["--since", "never"], ["--follow", "--until", "1h"]):
        assert run("logs", *words).code == errors.EXIT_USAGE
