"""The screens as text, from a recording: what `test_snapshots` compares, and how it is renewed.

``python -m tests.tui.snapshots`` writes every file of ``tests/tui/snapshots`` anew; look at the difference before it is
kept. A screen that is added to :data:`tui.screens.SCREENS` is taken without further ado.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.tui.support import Driver, driven
from tui import replay
from tui.app import Dashboard
from tui.events import Event
from tui.house import Connection
from tui.messages import Batch
from tui.screens import SCREENS
from tui.settings import Options

RECORDING = Path(__file__).parent / "day.ndjson"
FOLDER = Path(__file__).parent / "snapshots"


@dataclass(frozen=True, slots=True)
class Variant:
    """How the screens are looked at: ``lost`` with the daemon gone, ``colour`` with ``NO_COLOR`` unset."""

    name: str
    size: tuple[int, int]
    colour: bool = True
    lost: bool = False


VARIANTS = (
    Variant("60x20", (60, 20)),
    Variant("80x24", (80, 24)),
    Variant("160x50", (160, 50)),
    Variant("no-colour", (80, 24), colour=False),
    Variant("disconnected", (80, 24), lost=True),
)


@contextmanager
def surroundings(*, colour: bool = True) -> Iterator[None]:
    """The environment that pictures are taken in: UTC, English, with colours or without."""
    names = ("TZ", "NO_COLOR", "LANG", "LC_ALL", "LANGUAGE")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ.update({"TZ": "UTC", "LANG": "C.UTF-8"} | ({} if colour else {"NO_COLOR": "1"}))
    time.tzset()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        time.tzset()


@asynccontextmanager
async def played(size: tuple[int, int], *, lost: bool = False) -> AsyncIterator[Driver]:
    """The recording's last moment as it was when it was live, or 42 seconds after the daemon had gone."""
    events = list(replay.read(RECORDING))
    now = max(event.at for event in events)
    options = Options(replay=RECORDING, speed=0.0, config=Path("/nonexistent/none.json"))
    app = Dashboard(options, wall=lambda: now)
    state = Connection("live", now, ever=True)
    if lost:
        now += 42.0
        reason = "no daemon listens on /home/you/run/hybridd.sock"
        state = Connection("lost", now - 42.0, 3, reason, now + 4.0, ever=True)
    async with driven(app, size) as driver:
        await driver.until(lambda: app.house.connection.state == "ended")
        app.post_message(Batch([Event(0, now, "connection", asdict(state))]))
        await driver.until(lambda: app.house.connection.state == state.state)
        await settled(driver)
        yield driver


async def settled(driver: Driver) -> None:
    """Every worker has ended and the screen has stopped changing."""
    shown = ""
    while shown != driver.text:
        shown = driver.text
        await driver.app.workers.wait_for_complete()
        await driver.pilot.pause()
        await driver.pilot.pause()


async def show(driver: Driver, name: str) -> None:
    driver.app.action_screen(name)
    await driver.until(lambda: getattr(driver.app.screen, "NAME", "") == name and "hybridd" in driver.lines[0])
    await settled(driver)


async def screens(variant: Variant) -> dict[str, str]:
    """The text of every screen, by its name."""
    taken = {}
    with surroundings(colour=variant.colour):
        async with played(variant.size, lost=variant.lost) as driver:
            for name in SCREENS:
                await show(driver, name)
                taken[name] = f"{driver.text}\n"
    return taken


def file_of(screen: str, variant: Variant) -> Path:
    return FOLDER / f"{screen}-{variant.name}.txt"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    kept = set()
    for variant in VARIANTS:
        for name, text in asyncio.run(screens(variant)).items():
            path = file_of(name, variant)
            path.write_text(text, encoding="utf-8")
            kept.add(path)
    for path in set(FOLDER.glob("*.txt")) - kept:
        path.unlink()
    sys.stderr.write(f"{len(kept)} files in {FOLDER}\n")


if __name__ == "__main__":
    main()
