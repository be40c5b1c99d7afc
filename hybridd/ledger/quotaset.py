"""Which quotas are in force, from what configuration and plugins say."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from hybridd.contracts.quotas import Quota


def merged(quotas: Iterable[Quota]) -> list[Quota]:
    """One quota for each key. Said twice, the lower of limit - buffer rules; how a call is counted is the user's word
    before a plugin's. A rolling quota is the only kind that can be counted by arrival."""
    found: dict[str, Quota] = {}
    for quota in quotas:
        known = found.get(quota.key)
        found[quota.key] = quota if known is None else _stricter(known, quota)
    return [_plain(quota) for quota in found.values()]


def _stricter(one: Quota, other: Quota) -> Quota:
    lower = one if one.limit - one.buffer <= other.limit - other.buffer else other
    if "config" in (one.source, other.source):
        said = one if one.source == "config" else other
        return replace(lower, counted=said.counted)
    return lower


def _plain(quota: Quota) -> Quota:
    if quota.counted == "arrival" and quota.window.seconds is None:
        return replace(quota, counted="end")
    return quota
