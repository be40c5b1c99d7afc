"""What children of the daemon have in common: a JSON request on their standard input, and an error as their last line.

Who reads them is :mod:`hybridd.local.jobs`.
"""

from __future__ import annotations

import sys
from typing import Any, TypeVar

import msgspec

from hybridd.errors import HybriddError, InvalidRequest

Asked = TypeVar("Asked")


def read_request(kind: type[Asked]) -> Asked:
    """All of standard input.

    Raises:
        InvalidRequest: it is no such request.
    """
    try:
        return msgspec.json.decode(sys.stdin.buffer.read(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the request cannot be read: {error}") from error


def error_line(error: HybriddError) -> dict[str, Any]:
    """``{"code", "message", "status", "retry_after"?, "details"?, …}``, for the member ``error`` of the last line."""
    body = {**error.to_body()["error"], "status": error.status}
    return body if error.retry_after is None else {**body, "retry_after": error.retry_after}
