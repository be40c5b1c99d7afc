"""Takes keys out of text and of nested data before they reach a log.

Two nets, one under the other:

* *names*: the value below a sensitive name (``authorization``, ``api_key``, ``HYBRIDD_PLUGIN_TOKEN`` …) goes as a
  whole, whatever it looks like;
* *shapes*: in every text, values that look like keys (``sk-…``, ``ghp_…``, ``hf_…``, ``Bearer …``, JWTs, AWS keys,
  private key blocks, user names in URLs, ``api_key=…``) and every value given to :func:`register_secret`.

Losing a harmless word is cheap and leaking a key is not, so the shapes lean towards taking too much. Every pattern is
linear in the length of the text: what is logged may come from an attacker.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

MASK = "[redacted]"
# Shorter values would tear holes into ordinary words.
SHORTEST_SECRET = 6
# One log field is never longer; a prompt of 32 MiB does not belong in a log, and scanning it would hold the loop.
LONGEST_TEXT = 16 * 1024
_OVERLAP = 4 * 1024
_DEEPEST = 8
_WIDEST = 200

_VALUE = r"""[^\s"'\\,;&<>(){}\[\]]+"""

# A text that holds none of these (lower case) holds no key; searching for them costs a tenth of the patterns.
_HINTS = (
    "sk-", "sk_", "k_live", "k_test", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "hf_", "gsk_",
    "xai-", "nvapi-", "aiza", "csk-", "r8_", "pplx-", "xox", "akia", "asia", "eyj", "bearer", "basic", "authorization",
    "api_key", "api-key", "apikey", "api key", "secret", "passw", "private", "credential", "cookie", "session",
    "signature", "sig=", "key=", "code=", "auth=", "access_key", "access-key", "accesskey", "@", "token=", "token:",
    'token"', "token'", "token ", "token\\", "token\n", "token\t",
)  # fmt: skip

# What may stand between a name and its value: `name=value`, `"name": "value"`, ('name', 'value'), {b'name': b'value'}.
_IS = r"(?:\\?[\"']?\s*[:=]\s*|\\?[\"']\s*,\s*)(?:b(?=[\"']))?\\?[\"']?"
_LEFT = r"(?<![A-Za-z0-9_-])"  # a key starts where a word starts; this also keeps the patterns linear

_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    # scheme://user:password@host, scheme://key@host
    (re.compile(r"(?<=://)[^\s/@?#\"']{1,512}@"), MASK + "@"),
    # authorization: <scheme> <value>, also when the scheme is unknown
    (re.compile(rf"(?ai)(authorization{_IS})(?!\[redacted\])(?:[a-z][a-z0-9-]{{2,20}}\s+)?{_VALUE}"), rf"\1{MASK}"),
    (re.compile(r"(?ai)\b(bearer|basic)(\s+|%20)(?!\[redacted\])[A-Za-z0-9._~+/=:-]{6,}"), rf"\1 {MASK}"),
    # api_key=…, "x-api-key": "…", HYBRIDD_PLUGIN_TOKEN=…, --password 1234
    (
        re.compile(
            r"(?ai)((?:api[ _-]?key|secret(?:[_-]?access)?(?:[_-]?key)?|access[_-]?key(?:[_-]?id)?|private[_-]?key"
            r"|passw(?:or)?d|(?:access|auth|refresh|id|bearer|session|plugin|csrf|security)[ _-]?token|credentials?"
            rf"|cookie|session[_-]?id|signature)(?:{_IS}|\s(?=[A-Za-z0-9_-]*[0-9])))(?!\[redacted\]){_VALUE}"
        ),
        rf"\1{MASK}",
    ),
    # token=…, "token": "…": only when the value could be a key, because people write about tokens
    (
        re.compile(
            rf"(?ai)((?<![A-Za-z])token{_IS})(?!\[redacted\])"
            r"(?=[^\s\"'\\,;&]*[0-9]|[^\s\"'\\,;&]{16})(?=[^\s\"'\\,;&]*[A-Za-z])[^\s\"'\\,;&]{6,}"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?ai)([?&](?:key|sig|token|code|auth)=)(?!\[redacted\])[^\s&\"'#]+"), rf"\1{MASK}"),
    (re.compile(rf"{_LEFT}(?:sk[-_]|[rp]k_(?:live|test)_)[A-Za-z0-9_-]{{8,}}"), MASK),
    (re.compile(rf"{_LEFT}(?:gh[pousr]_|github_pat_|glpat-|gsk_|xai-|nvapi-|csk-|r8_|pplx-)[A-Za-z0-9_-]{{6,}}"), MASK),
    (re.compile(rf"{_LEFT}xox[a-z]-[A-Za-z0-9-]{{8,}}"), MASK),
    # hf_downloads is a setting, not a key
    (re.compile(rf"{_LEFT}hf_(?:(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{{6,}}|[a-z]{{16,}})"), MASK),
    (re.compile(rf"{_LEFT}AIza[A-Za-z0-9_-]{{10,}}"), MASK),
    (re.compile(rf"{_LEFT}(?:AKIA|ASIA)[A-Z0-9]{{12,}}"), MASK),
    (re.compile(rf"{_LEFT}eyJ[A-Za-z0-9_-]{{6,}}\.[A-Za-z0-9_-]{{4,}}(?:\.[A-Za-z0-9_-]*)?"), MASK),
)

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SENSITIVE = re.compile(
    r"(?:^|_)(?:authorization|api_?key|access_key|secret|secret_key|private_key|password|passwd|passphrase"
    r"|token|cookie|credentials?|bearer|session_id|signature)(?:_id|_value)?$"
)
_REFERENCE_MEMBERS = frozenset({"env", "file", "credential", "command"})


class _Secrets:
    """Values known to be secret, and how they look once quoted, escaped or encoded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.values: tuple[str, ...] = ()

    def add(self, value: str) -> bool:
        forms = {form for line in {value, *value.splitlines()} for form in _forms(line.strip())}
        forms = {form for form in forms if len(form) >= SHORTEST_SECRET}
        with self._lock:
            # Longest first: a key that contains another must go as a whole.
            self.values = tuple(sorted(forms | set(self.values), key=len, reverse=True))
        return bool(forms)

    def clear(self) -> None:
        with self._lock:
            self.values = ()


def _forms(value: str) -> Iterable[str]:
    yield value
    yield quote(value, safe="")
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield base64.b64encode(value.encode()).decode().rstrip("=")


_secrets = _Secrets()


def register_secret(value: str | bytes | None) -> bool:
    """From now on this value never reaches a log. False when it is too short (under 6 characters) to be taken out."""
    if not value:
        return False
    return _secrets.add(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)


def forget_secrets() -> None:
    """Forget every registered value (a new configuration, or a test)."""
    _secrets.clear()


def suspicious(text: str) -> bool:
    """Could the text hold a key? Cheap, and never False when :func:`redact` would change something."""
    lowered = text.lower()
    return any(hint in lowered for hint in _HINTS) or any(secret in text for secret in _secrets.values)


def redact(text: str) -> str:
    """The text without anything that is, or looks like, a key; cut at 16,384 characters."""
    tail = ""
    if len(text) > LONGEST_TEXT + _OVERLAP:
        tail = f"… ({len(text) - LONGEST_TEXT} more characters)"
        text = text[: LONGEST_TEXT + _OVERLAP]
    if suspicious(text):
        for secret in _secrets.values:
            if secret in text:
                text = text.replace(secret, MASK)
        for pattern, replacement in _SHAPES:
            text = pattern.sub(replacement, text)
    # A key that straddles the first cut is only half visible to the patterns: the overlap is thrown away with it.
    return text[: max(0, min(LONGEST_TEXT, len(text) - _OVERLAP))] + tail if tail else text


def sensitive_name(name: str) -> bool:
    """Does a mapping's key (or a header's name) announce a secret? ``max_tokens`` does not, ``X-API-Key`` does."""
    words = _CAMEL.sub("_", name).lower().replace("-", "_").replace(" ", "_")
    return _SENSITIVE.search(words) is not None


def redact_value(value: Any, depth: int = 0) -> Any:
    """The same data with every secret masked: mappings, sequences, bytes, exceptions and objects included.

    Numbers, booleans and None pass; what is nested deeper than 8 levels or wider than 200 members is shortened.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return redact(bytes(value[: LONGEST_TEXT * 2]).decode("utf-8", "backslashreplace"))
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return _redact_mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return _redact_sequence(list(value), depth)
    return redact(_text_of(value))


def _redact_mapping(mapping: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    masked: dict[str, Any] = {}
    for index, (key, value) in enumerate(mapping.items()):
        if index >= _WIDEST:
            masked["…"] = f"{len(mapping) - _WIDEST} more"
            break
        name = key if isinstance(key, str) else _text_of(key)
        masked[redact(name)] = _masked(value, depth) if sensitive_name(name) else redact_value(value, depth + 1)
    return masked


def _redact_sequence(items: list[Any], depth: int) -> list[Any]:
    # A header as a pair, ("authorization", "Bearer …"), is a mapping in disguise.
    if len(items) == 2 and isinstance(items[0], str | bytes) and not isinstance(items[1], list | tuple | Mapping):
        name = _text_of(items[0])
        if len(name) < 64 and sensitive_name(name):
            return [name, _masked(items[1], depth)]
    kept = [redact_value(item, depth + 1) for item in items[:_WIDEST]]
    # Command lines: ["--api-key", "value"].
    for index, item in enumerate(kept[:-1]):
        if isinstance(item, str) and item.startswith("-") and sensitive_name(item.lstrip("-")):
            kept[index + 1] = MASK
    return kept if len(items) <= _WIDEST else [*kept, f"… {len(items) - _WIDEST} more"]


def _masked(value: Any, depth: int) -> Any:
    """A value under a sensitive name. A key *reference* says where the key is and stays readable."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping) and value and _REFERENCE_MEMBERS.issuperset(value):
        return {str(name): redact_value(member, depth + 2) for name, member in value.items()}
    return MASK


def _text_of(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    try:
        return str(value) if isinstance(value, BaseException) else (value if isinstance(value, str) else repr(value))
    except Exception as error:  # noqa: BLE001  # a broken __repr__ must not break the log, nor hide that it is broken
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
