"""What the daemon's children say when they fail."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hybridd.errors import InvalidRequest, ProviderError
from hybridd.local.child import error_line
from hybridd.local.jobs import MODULES


def test_an_error_keeps_what_is_its_own() -> None:
    """Its own code and status, not those of its kind, and when to try again if that helps."""
    told = error_line(ProviderError("too many", code="rate_limited", status=429, retry_after=7.0, details={"a": 1}))
    assert {name: told[name] for name in ("code", "message", "status", "retry_after", "details")} == {
        "code": "rate_limited", "message": "too many", "status": 429, "retry_after": 7.0, "details": {"a": 1},
    }  # fmt: skip
    assert "retry_after" not in error_line(InvalidRequest("no"))


@pytest.mark.parametrize("module", sorted(MODULES.values()))
@pytest.mark.parametrize("request_", [b"{", b"[]", b'{"nothing": 1}', b"\xff"])
def test_what_is_no_request_is_one_line(module: str, request_: bytes) -> None:
    """Whatever comes on standard input, every child answers with one error line and status 1."""
    ended = subprocess.run([sys.executable, "-m", module], input=request_, capture_output=True, timeout=60, check=False)
    (line,) = ended.stdout.splitlines()
    assert (ended.returncode, json.loads(line)["error"]["code"]) == (1, "invalid_request"), ended.stderr
