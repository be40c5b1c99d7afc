"""One figure a provider reported, as a counter keeps it."""

from __future__ import annotations


class Observed:
    """``remaining`` in the quota's unit as of ``as_of``; ``until``: its reset (boot ns).

    ``base`` is what the figure is taken to include of the counter's ``total``: calls ended by as-of, and the call that
    carried it. ``carrier`` is that call's id, so that its settlement is not subtracted. ``assumed``: nobody reported
    it, see ReportCounter.
    """

    __slots__ = ("as_of", "assumed", "at_wall", "base", "carrier", "remaining", "until")

    def __init__(
        self,
        remaining: int,
        *,
        base: int,
        until: int,
        as_of: int,
        carrier: int = 0,
        at_wall: int | None = None,
        assumed: bool = False,
    ) -> None:
        self.remaining = remaining
        self.base = base
        self.until = until
        self.as_of = as_of
        self.carrier = carrier
        self.at_wall = at_wall
        self.assumed = assumed
