"""What a request of the command line, the Python client or a native route must fulfil before anything else happens.

The OpenAI-compatible routes follow OpenAI's own rules instead: there, "hi" is a fine question.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from hybridd.errors import InvalidRequest

Tier = Literal["free", "premium"]
TIERS: tuple[str, ...] = get_args(Tier)
MIN_QUESTION_CHARACTERS = 3
MAX_USER_CHARACTERS = 256


def check_question(text: Any, *, param: str = "prompt") -> str:
    """The question as given: at least three characters besides white space around it.

    Raises:
        InvalidRequest: it is no text, too short, or not encodable (half of a surrogate pair).
    """
    if not isinstance(text, str):
        raise InvalidRequest(f"{param} must be a text, not {type(text).__name__}", param=param)
    length = len(text.strip())
    if length < MIN_QUESTION_CHARACTERS:
        raise InvalidRequest(
            f"{param} must have at least {MIN_QUESTION_CHARACTERS} characters; it has {length}", param=param
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest(f"{param} is not valid Unicode text", param=param) from None
    return text


def check_tier(tier: Any) -> Tier | None:
    """``free``, ``premium`` or None.

    Raises:
        InvalidRequest: anything else.
    """
    if tier is None or (isinstance(tier, str) and tier in TIERS):
        return tier  # type: ignore[return-value]  # narrowed by the membership test
    raise InvalidRequest('tier must be "free" or "premium"', param="tier")


def check_max_tokens(value: Any) -> int | None:
    """A whole number from 1, or None.

    Raises:
        InvalidRequest: anything else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"max_tokens must be a whole number, not {type(value).__name__}", param="max_tokens")
    if value < 1:
        raise InvalidRequest(f"max_tokens must be at least 1; it is {value}", param="max_tokens")
    return value


def check_user(user: Any) -> str | None:
    """An identifier that fits a header, or None.

    Raises:
        InvalidRequest: empty, longer than 256 characters, or with characters outside printable ASCII.
    """
    if user is None:
        return None
    if not isinstance(user, str) or not user or len(user) > MAX_USER_CHARACTERS:
        raise InvalidRequest(f"user must be a text of 1 to {MAX_USER_CHARACTERS} characters", param="user")
    if not (user.isascii() and user.isprintable()):
        raise InvalidRequest("user must consist of printable ASCII characters", param="user")
    return user


def check_call(prompt: Any, *, tier: Any = None, max_tokens: Any = None, user: Any = None) -> None:
    """All of the above.

    Raises:
        InvalidRequest: the first thing that is wrong, with ``param``.
    """
    check_question(prompt)
    check_tier(tier)
    check_max_tokens(max_tokens)
    check_user(user)
