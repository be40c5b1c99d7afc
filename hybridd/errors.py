"""Every error hybridd raises on purpose, in one small tree.

::

    HybriddError
    ├── ConfigError            the configuration cannot be used (file, key and remedy named)
    ├── StateError             the state directory, its lock or its database cannot be used
    │   ├── AlreadyRunning     another daemon owns the socket or the state
    │   ├── SchemaTooNew       the database was written by a newer hybridd
    │   └── StorageError       the disk refused a write: nothing is dispatched until it recovers
    ├── DaemonUnreachable      a client found no daemon behind the socket
    ├── InvalidRequest         the caller's request is wrong (HTTP 400)
    │   ├── NotFound           unknown model, task, provider, request or alert (404)
    │   ├── MethodNotAllowed   the path takes other methods (405, with ``Allow``)
    │   ├── TooLarge           body over the cap (413)
    │   ├── RequestTimeout     the request did not arrive whole (408)
    │   └── PermissionRefused  the peer may not do this (403)
    ├── NoFeasibleProvider     every candidate was rejected, each with its reason (429 or 503)
    ├── Overloaded             admission control refused the caller (503)
    ├── DeadlineExceeded       the time budget of a request ran out (504)
    ├── ProviderError          a provider answered with an error or broke (502, or its own 4xx)
    └── ProtocolError          a plugin broke the protocol

What only one part can raise stands beside it: ``QuotaRefused`` (ledger), ``SpawnFailed`` and ``CallFailed``
(providers), ``BadGguf``, ``SourceError``, ``HubError``, ``TooManyJobs`` and ``Refused`` (local).

``code`` is stable and meant for programs; ``exit_code`` is what the command line exits with. Exit codes live
here and nowhere else.
"""

from __future__ import annotations

from typing import Any, ClassVar

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_CONFIG = 3
EXIT_UNREACHABLE = 4
EXIT_NO_PROVIDER = 5
EXIT_PROVIDER = 6
EXIT_STATE = 7
EXIT_TIMEOUT = 8
EXIT_INTERRUPTED = 130


class HybriddError(Exception):
    """Base of every deliberate error.

    Args:
        message: one human sentence: what, where, and what would be right.
        param: the request field or configuration key concerned, if there is one.
        retry_after: seconds after which trying again can help; None when waiting does not help.
        details: plain data for programs, sent as ``error.details``.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    exit_code: ClassVar[int] = EXIT_FAILURE
    request_id: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        details: Any = None,
        code: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.details = details
        self.error_code = code or self.code
        self.status = status or self.http_status

    def to_body(self) -> dict[str, Any]:
        """The OpenAI-shaped error body: ``{"error": {"message", "type", "code", "param"[, "details"]}}``."""
        error: dict[str, Any] = {
            "message": self.message,
            # Whoever found it out, hybridd or a provider: the request was wrong.
            "type": "invalid_request_error" if self.status in (400, 404, 413) else self.type,
            "code": self.error_code,
            "param": self.param,
        }
        if self.details is not None:
            error["details"] = self.details
        return {"error": error}


class ConfigError(HybriddError):
    code = "config_invalid"
    http_status = 400
    type = "invalid_request_error"
    exit_code = EXIT_CONFIG


class StateError(HybriddError):
    code = "state_unusable"
    http_status = 503
    exit_code = EXIT_STATE


class AlreadyRunning(StateError):
    code = "already_running"


class SchemaTooNew(StateError):
    code = "schema_too_new"


class StorageError(StateError):
    code = "storage_failed"


class DaemonUnreachable(HybriddError):
    code = "daemon_unreachable"
    http_status = 503
    exit_code = EXIT_UNREACHABLE


class InvalidRequest(HybriddError):
    code = "invalid_request"
    http_status = 400
    type = "invalid_request_error"
    exit_code = EXIT_USAGE


class NotFound(InvalidRequest):
    code = "not_found"
    http_status = 404


class MethodNotAllowed(InvalidRequest):
    """``allowed`` becomes the ``Allow`` header; a path that answers GET answers HEAD too."""

    code = "method_not_allowed"
    http_status = 405

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        super().__init__(f"{path} does not take {method}; it takes {', '.join(allowed)}.")
        self.allowed = [*allowed, "HEAD"] if "GET" in allowed else allowed


class TooLarge(InvalidRequest):
    code = "request_too_large"
    http_status = 413


class RequestTimeout(InvalidRequest):
    code = "request_timeout"
    http_status = 408


class PermissionRefused(InvalidRequest):
    code = "permission_denied"
    http_status = 403
    type = "permission_error"


class NoFeasibleProvider(HybriddError):
    """``details`` is a list of ``{candidate, code, reason, retry_after}``, one for each candidate."""

    code = "no_feasible_provider"
    http_status = 503
    exit_code = EXIT_NO_PROVIDER


class Overloaded(HybriddError):
    code = "overloaded"
    http_status = 503
    exit_code = EXIT_NO_PROVIDER


class DeadlineExceeded(HybriddError):
    code = "deadline_exceeded"
    http_status = 504
    exit_code = EXIT_TIMEOUT


class ProviderError(HybriddError):
    code = "provider_error"
    http_status = 502
    exit_code = EXIT_PROVIDER


class ProtocolError(HybriddError):
    code = "protocol_error"
    http_status = 502
    exit_code = EXIT_PROVIDER
