"""Going to a time: asks the daemon for what a past house is made from, and gives the application that house."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from textual.message import Message

from hybridd.client.wire import Call
from hybridd.errors import HybriddError
from hybridd.i18n import _
from tui.ask import Ask
from tui.house import BURN_POINTS, BURN_SECONDS, House
from tui.messages import Failed
from tui.timetravel import REACH_SECONDS, Past, calls, house_at, on_grid, series_call, series_names, when

if TYPE_CHECKING:
    from tui.app import Dashboard

AT_ONCE = 4
"""Queries open at the daemon."""


class Arrived(Message):
    """The house as it was; ``house`` None: back at the present."""

    def __init__(self, house: House | None) -> None:
        super().__init__()
        self.house = house


class Travel:
    """``target``: the moment that is shown, or on its way; None: now."""

    def __init__(self, app: Dashboard) -> None:
        self._app = app
        self.target: float | None = None
        self._reached: Past | None = None

    def step(self, seconds: float) -> None:
        """From where we are; beyond the present is the present."""
        start = self._app.house.now if self.target is None else self.target
        self.go(on_grid(start + seconds) if self.target is not None or seconds < 0 else None)

    def ask(self) -> None:
        """A time to go to, typed."""
        live = self._app.house

        def arrive(text: str | None) -> None:
            if text is not None:
                self.go(when(text, live.now))

        hint = _("14:05 is the last one, 2h is two hours ago; or 2026-11-20 14:05.")
        self._app.push_screen(Ask(_("Go to a time"), hint, lambda text: when(text, live.now)), arrive)

    def go(self, at: float | None) -> None:
        """There, or None: to the present."""
        if at is None or on_grid(at) >= self._app.house.now:
            self.target = self._reached = None
            self._app.workers.cancel_group(self._app, "travel")
            self._app.post_message(Arrived(None))
            return
        if self._app.feed is None:
            self._app.post_message(Failed(_("This is a recording: it cannot be stepped through, only played.")))
            return
        self.target = on_grid(at)
        self._app.run_worker(self._fetch(self.target), group="travel", exclusive=True)

    async def _fetch(self, at: float) -> None:
        try:
            past = await self._past(at)
        except HybriddError as error:
            shown = self._app.past
            self.target = None if shown is None else shown.as_of
            self._app.post_message(Failed(_("The past cannot be shown: {reason}").format(reason=error.message)))
            return
        self._reached = past
        self._app.post_message(Arrived(house_at(self._app.house, past)))

    async def _past(self, at: float) -> Past:
        asked = calls(at)
        names = series_names(self._app.house)
        known = self._reached
        ready = asyncio.Semaphore(AT_ONCE)

        async def one(call: Call) -> Any:
            async with ready:
                return await self._app.query_daemon(call)

        if known is not None and known.series.keys() == set(names) and _covers(known, at, self._app.house.now):
            since, until, series = known.since, known.until, known.series
            wanted: Sequence[Call] = []
        else:
            since, until = at - REACH_SECONDS, min(at + REACH_SECONDS, on_grid(self._app.house.now))
            wanted = [series_call(name, since, until) for name in names]
        found = await asyncio.gather(*(one(call) for call in [*asked.values(), *wanted]))
        if wanted:
            bodies = found[len(asked) :]
            series = {name: body["points"] for name, body in zip(names, bodies, strict=True)}
        return Past(at, since, until, series, dict(zip(asked, found[: len(asked)], strict=True)))


def _covers(known: Past, at: float, now: float) -> bool:
    """Its series hold what a moment needs: the two hours before it that are drawn, and nothing beyond their end."""
    return known.since <= at - BURN_POINTS * BURN_SECONDS and at <= known.until <= now
