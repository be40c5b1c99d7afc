"""A dashboard on a real daemon, driven without a terminal; what it shows as text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.message import Message
from textual.pilot import Pilot

from tui.app import Dashboard
from tui.settings import Options, with_section

WAIT_SECONDS = 30.0


class Driver:
    """A running dashboard: ``pilot`` presses keys, :meth:`until` waits for something to become true."""

    def __init__(self, app: Dashboard, pilot: Pilot[None], woken: asyncio.Event) -> None:
        self.app = app
        self.pilot = pilot
        self._woken = woken

    @property
    def screen(self) -> Any:
        """The screen that is shown, of whatever kind."""
        return self.app.screen

    @property
    def text(self) -> str:
        """The screen's lines, without trailing space."""
        strips = self.app.screen._compositor.render_strips(self.app.size)
        return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    async def until(self, condition: Callable[[], Any]) -> None:
        """Looks again after every message of the application.

        Raises:
            AssertionError: it has not become true; the message is the screen.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not condition():
                    await self._woken.wait()
                    self._woken.clear()
                    await self.pilot.pause()
        except TimeoutError:
            raise AssertionError(f"not so after {WAIT_SECONDS} s:\n{self.text}") from None

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()


def said(driver: Driver) -> str:
    """What the dashboard notified of; the notices themselves are not drawn in tests."""
    return "\n".join(one.message for one in driver.app._notifications)


@asynccontextmanager
async def driven(app: Dashboard, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Driver]:
    woken = asyncio.Event()

    def hook(_message: Message) -> None:
        woken.set()

    async with app.run_test(size=size, message_hook=hook) as pilot:
        yield Driver(app, pilot, woken)


@asynccontextmanager
async def dashboard(socket: Path, size: tuple[int, int] = (80, 24), **options: Any) -> AsyncIterator[Driver]:
    """On the daemon of that socket, once its snapshot and the first answers are there."""
    given = Options(socket=socket, **{"config": Path("/nonexistent/none.json"), **options})
    app = Dashboard(with_section(given))
    async with driven(app, size) as driver:
        await driver.until(lambda: app.house.connection.state == "live" and app.house.costs)
        yield driver
