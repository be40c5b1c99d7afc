"""What a check found."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "fact", "fixed", "warning", "error"]


class Finding(NamedTuple):
    """``error``: hybridd cannot work; ``warning``: something will not; ``fact``: good to know, nothing is wrong.
    ``remedy``: what to do about it."""

    check: str
    level: Level
    message: str
    remedy: str | None = None
