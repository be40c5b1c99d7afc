"""What a failed attempt means: for the target, for the next candidate, and for the caller. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

from hybridd.contracts.protocol import CallError, ErrorKind

Rest = Literal["none", "cool_model", "cool_provider", "park", "retire"]


class Meaning(msgspec.Struct, frozen=True):
    """``elsewhere``: the next candidate may be asked. ``rest``: what happens to the target. ``whole_provider``: other
    models of the provider are not worth trying for this request. ``status``: the HTTP status for the caller."""

    elsewhere: bool
    rest: Rest
    whole_provider: bool
    status: int


# The caller's own mistakes are answered as they are; nothing else will like them better. What one model cannot do
# another may; what the host, the account or the line cannot do rules out the provider.
_MEANINGS: dict[ErrorKind, Meaning] = {
    "bad_request": Meaning(False, "none", False, 400),
    "conflict": Meaning(False, "none", False, 409),
    "too_large": Meaning(True, "none", False, 413),
    "not_found": Meaning(True, "none", False, 404),
    "unsupported": Meaning(True, "none", False, 400),
    "auth": Meaning(True, "park", True, 502),
    "payment": Meaning(True, "park", True, 502),
    "forbidden": Meaning(True, "park", True, 502),
    "gone": Meaning(True, "retire", True, 502),
    "rate_limited": Meaning(True, "cool_model", False, 429),
    "timeout": Meaning(True, "cool_provider", True, 504),
    "unavailable": Meaning(True, "cool_provider", True, 503),
    "overloaded": Meaning(True, "cool_provider", True, 503),
    "bad_response": Meaning(True, "cool_model", True, 502),
    "internal": Meaning(True, "cool_model", True, 502),
    "cancelled": Meaning(False, "none", True, 499),
}


def meaning(error: CallError, *, own: bool = False) -> Meaning:
    """The table above, with ``permanent`` overruling: a retirement is never a cooldown.

    ``own``: a process of ours for each model answered. What one of them cannot do says nothing of the others, and how
    long it rests after its end is its owner's business, which has a rule for each cause.
    """
    what = _MEANINGS["gone" if error.permanent else error.kind]
    if own and what.rest == "cool_provider":
        return replace(what, rest="none", whole_provider=False)
    return replace(what, whole_provider=False) if own and what.rest == "cool_model" else what


# There is no upstream behind our own processes: a wrong request is called what the API itself calls it.
_OWN_CODES: dict[ErrorKind, str] = {"bad_request": "invalid_request", "unsupported": "unsupported"}


def code_of(error: CallError, what: Meaning, *, own: bool = False) -> str:
    """The code for the caller: a mistake of the caller's keeps the provider's code, what is between us and the provider
    has ours."""
    if error.upstream_code and what.status in (400, 404, 413):
        return error.upstream_code
    return (_OWN_CODES.get(error.kind) if own else None) or f"upstream_{error.kind}"


def counts_as_answer(error: CallError) -> bool:
    """An error status is an answer: the request counts, tokens do not. Everything else may have used the lot."""
    return error.status is not None and error.status >= 300
