"""What the Hub's refusals mean, and what to do about them.

===========================  ===============================================================
code                         meaning
===========================  ===============================================================
``repository_not_found``     no such repository, or a private one that the token may not see
``revision_not_found``       no such branch, tag or commit
``file_not_found``           no such file; the nearest names are given
``no_gguf``                  the repository holds no GGUF model
``does_not_fit``             no file of the repository fits this machine
``gated``                    conditions have to be accepted on the Hub first, with a token
``unauthorized``             the token is wrong or expired
``forbidden``                the token may not do this, or the author disabled the repository
``rate_limited``             too many requests; ``retry_after`` says when to come back
``hub_unavailable``          not reachable, offline, or failing (5xx)
``download_cut``             the connection broke too often; the next pull resumes
``checksum_mismatch``        what arrived is not what the Hub announced; it was thrown away
``size_mismatch``            the same, seen from the length
``bad_answer``               the answer is not the Hub's (a proxy, a login page)
``disk_full``                not enough space; needed, reserve and free are named
``storage_failed``           the disk refused a write
``busy``                     another download of the same file is running
``cancelled``                stopped from outside; the next pull resumes
===========================  ===============================================================
"""

from __future__ import annotations

from typing import Any

from hybridd.errors import ProviderError
from hybridd.local.names import endpoint

_ADVICE = (
    "a token is needed: make one on the Hub under Settings, Access Tokens, and put it into the environment variable "
    "HF_TOKEN or name its place in hugging_face.api_key"
)
_STATUS = {
    "repository_not_found": 404,
    "revision_not_found": 404,
    "file_not_found": 404,
    "no_gguf": 404,
    "gated": 403,
    "unauthorized": 401,
    "forbidden": 403,
    "rate_limited": 429,
    "does_not_fit": 409,
    "busy": 409,
    "disk_full": 507,
}
RETRYABLE = frozenset({"hub_unavailable", "download_cut"})


class HubError(ProviderError):
    """The Hub, or the way to it, failed; ``error_code`` is one of the module's table."""

    code = "hub_error"

    def __init__(self, code: str, message: str, *, retry_after: float | None = None, details: Any = None) -> None:
        super().__init__(
            message, code=code, status=_STATUS.get(code, 502), retry_after=retry_after, details=details
        )  # fmt: skip


def explain(error: Exception, repo: str, *, has_token: bool, file: str = "") -> HubError:
    """The :class:`HubError` for what huggingface_hub or its HTTP client raised.

    Raises:
        Exception: ``error`` itself when it has nothing to do with the Hub.
    """
    import httpx2
    from huggingface_hub import errors as hub

    if isinstance(error, HubError):
        return error
    if isinstance(error, hub.OfflineModeIsEnabled):
        return HubError("hub_unavailable", "HF_HUB_OFFLINE is set: nothing is asked of the Hub until it is unset.")
    if isinstance(error, hub.HFValidationError):
        return HubError("repository_not_found", f"{repo!r} is no repository: {error}")
    if isinstance(error, hub.FileMetadataError):
        return HubError("bad_answer", f"{endpoint()} does not answer as the Hub does: {_first_line(error)}")
    if isinstance(error, hub.HfHubHTTPError):
        return _of_status(error, repo, file, has_token=has_token)
    if isinstance(error, (httpx2.HTTPError, httpx2.StreamError)):
        reason = _first_line(error) or type(error).__name__
        return HubError("hub_unavailable", f"{endpoint()} cannot be reached or broke off: {reason}")
    raise error


def _of_status(error: Any, repo: str, file: str, *, has_token: bool) -> HubError:
    from huggingface_hub import errors as hub

    status: int = error.response.status_code
    page = f"{endpoint()}/{repo}"
    if isinstance(error, hub.GatedRepoError):
        return gated(repo, page, status, has_token=has_token)
    if isinstance(error, hub.RevisionNotFoundError):
        return HubError("revision_not_found", f"{repo} has no such branch, tag or commit; see {page}/tree/main")
    if isinstance(error, hub.RemoteEntryNotFoundError):
        return HubError("file_not_found", f"{repo} has no file {file!r}; see {page}/tree/main")
    if isinstance(error, hub.DisabledRepoError):
        return HubError("forbidden", f"{repo} was disabled by its author or by the Hub")
    if status == 401 and has_token:
        return HubError("unauthorized", "the Hub refuses the token (wrong, expired or revoked); " + _ADVICE)
    if isinstance(error, hub.RepositoryNotFoundError) or status in {401, 404}:
        private = "" if has_token else f" If it is private, {_ADVICE}."
        return HubError("repository_not_found", f"there is no repository {repo} at {endpoint()}.{private}")
    if status == 403:
        return HubError("forbidden", f"the Hub forbids access to {repo} (HTTP 403); does the token allow reading it?")
    if status == 429:
        return _rate_limited(error.response.headers)
    if status >= 500 or status == 408:
        return HubError("hub_unavailable", f"{endpoint()} fails with HTTP status {status}")
    return HubError("bad_answer", f"{endpoint()} answered with HTTP status {status} about {repo}")


def gated(repo: str, page: str, status: int, *, has_token: bool) -> HubError:
    """``page``: where its conditions are accepted; ``status``: of the answer, 401 or 403."""
    if not has_token or status == 401:
        how = f"accept its conditions at {page}, then {_ADVICE}"
    else:
        how = f"the token's account is not on its list: accept the conditions at {page} with that account"
    return HubError("gated", f"{repo} is gated; {how}.", details={"accept": page})


def _rate_limited(headers: Any) -> HubError:
    """``Retry-After`` in seconds, else the reset of the ``RateLimit`` header (``t=``)."""
    from huggingface_hub.utils._http import parse_ratelimit_headers

    given = headers.get("retry-after", "").strip()
    limits = parse_ratelimit_headers(headers)
    wait = float(given) if given.isdigit() else float(limits.reset_in_seconds) if limits else None
    when = f"in {wait:g} s" if wait is not None else "later"
    return HubError("rate_limited", f"the Hub asks for a pause (HTTP 429); try again {when}.", retry_after=wait)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
