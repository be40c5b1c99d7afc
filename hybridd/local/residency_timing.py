"""Every delay of residency, in seconds. Tests shorten them."""

from __future__ import annotations

import msgspec

HANG_SECONDS = 120.0
"""A step that the device takes may be long (a batch of 2,048 tokens on a slow CPU); this long it never is."""


class WorkerTiming(msgspec.Struct, frozen=True):
    """Of one worker. There is no limit on a load that goes on."""

    stall: float = 120.0
    """A load without a sign of progress is hung."""
    probe_every: float = 3.0
    """Between two looks at the decoding, while calls are open."""
    probe_timeout: float = 5.0
    probe_misses: int = 2
    hang: float = HANG_SECONDS
    """Without a decoding step, while calls are open."""
    promise: float = 1.0
    """A worker that was found ready is kept that long for the call that is about to be written to it."""
    drain: float = 60.0
    stop: float = 5.0
    """From ``shutdown`` to SIGTERM; as long again to SIGKILL."""


class ResidencyTiming(msgspec.Struct, frozen=True):
    """Of the owner."""

    scan: float = 30.0
    """Between two looks into the folders."""
    vram: float = 10.0
    """How long an ended worker's video memory may take to come back."""
