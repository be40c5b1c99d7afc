"""A line on the terminal that is drawn over itself; nothing when standard error is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from hybridd.cli import output, text
from hybridd.contracts.units import size

_CELLS = 24
_EVERY_SECONDS = 0.1


class Progress:
    """``show`` draws at most ten times a second; leaving the block wipes the line."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._live = not quiet and sys.stderr.isatty()
        self._drawn = 0
        self._last = -1.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write("")

    def show(self, label: str, done: float, total: float, rate: float | None = None) -> None:
        """``done`` of ``total`` bytes, ``rate`` in bytes a second."""
        now = time.monotonic()
        if not self._live or (now - self._last < _EVERY_SECONDS and done < total):
            return
        self._last = now
        self._write(line(label, done, total, rate, output.columns() - 1, rich=text.utf8()))

    def _write(self, shown: str) -> None:
        if not self._live or (not shown and not self._drawn):
            return
        sys.stderr.write("\r" + shown + " " * max(0, self._drawn - text.width(shown)) + ("" if shown else "\r"))
        sys.stderr.flush()
        self._drawn = text.width(shown)


def line(label: str, done: float, total: float, rate: float | None, columns: int, *, rich: bool) -> str:
    """``label  ▓▓▓───  42%  980 MiB of 2,333 MiB  9 MiB/s  2 min``, cut to ``columns``; figures go before the label."""
    share = min(1.0, done / total) if total else 0.0
    parts = [text.bar(share, 0.0, 0.0, 1.0, _CELLS, rich=rich), f"{share:4.0%}"]
    parts.append(f"{size(done)} of {size(total)}" if total else size(done))
    if rate:
        parts.append(f"{size(rate)}/s")
        if total > done:
            parts.append(text.span((total - done) / rate))
    figures = "  ".join(parts)
    room = columns - text.width(figures) - 2
    name = text.clean(label)
    if text.width(name) > room:
        name = name[: max(0, room - 1)] + ("…" if rich and room > 0 else "")
    return f"{name}  {figures}"[:columns] if room > 0 else figures[:columns]
