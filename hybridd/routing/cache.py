"""Answers to identical, deterministic requests, in memory only (prompts are never stored on disk).

A request is deterministic when it asks for ``temperature: 0`` or names a ``seed``, or is an embedding. Streams are not
cached. A hit costs nothing and is not billed.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from hybridd.clocks import NS, Clock
from hybridd.contracts.protocol import Usage
from hybridd.contracts.quotas import ModelRef
from hybridd.routing.request import RoutedRequest

_canonical = msgspec.json.Encoder(order="deterministic")
# Who asks and how it is transported does not change the answer.
_IGNORED = frozenset({"stream", "stream_options", "user", "metadata", "store", "model"})


class Cached(msgspec.Struct, frozen=True):
    body: bytes
    provider: str
    model: str
    usage: Usage | None
    expires_boot_ns: int


class ResponseCache:
    """Least-recently-used, bounded by bytes and age."""

    def __init__(self, clock: Clock, *, ttl_seconds: float, max_bytes: int) -> None:
        self._clock = clock
        self._entries: OrderedDict[bytes, Cached] = OrderedDict()
        self._bytes = 0
        self.configure(ttl_seconds=ttl_seconds, max_bytes=max_bytes)

    def configure(self, *, ttl_seconds: float, max_bytes: int) -> None:
        self._ttl_ns = round(ttl_seconds * NS)
        self._max_bytes = max_bytes
        self._shrink()

    def __len__(self) -> int:
        return len(self._entries)

    @staticmethod
    def key(request: RoutedRequest, candidates: Sequence[ModelRef]) -> bytes | None:
        """The request's identity among the candidates it may go to, or None when it must not be cached."""
        body = request.body
        deterministic = request.kind == "embedding" or body.get("temperature") == 0 or body.get("seed") is not None
        if request.stream or not deterministic:
            return None
        identity: dict[str, Any] = {name: value for name, value in body.items() if name not in _IGNORED}
        scope = [str(ref) for ref in candidates]
        return hashlib.sha256(_canonical.encode((request.kind, scope, identity))).digest()

    def get(self, key: bytes) -> Cached | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock.boot_ns() >= entry.expires_boot_ns:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, *, body: bytes, provider: str, model: str, usage: Usage | None) -> None:
        if len(body) > self._max_bytes // 4 or self._ttl_ns == 0:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = Cached(body, provider, model, usage, self._clock.boot_ns() + self._ttl_ns)
        self._bytes += len(body)
        self._shrink()

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _drop(self, key: bytes) -> None:
        self._bytes -= len(self._entries.pop(key).body)

    def _shrink(self) -> None:
        while self._bytes > self._max_bytes and self._entries:
            self._drop(next(iter(self._entries)))
