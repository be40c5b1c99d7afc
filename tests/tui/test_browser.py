"""``hybridd tui --web`` in a real Chromium: who gets in, keys, the mouse, the clipboard, several tabs, the end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.house import House
from tests.tui.browser import MISSING, Browser, Tab, chromium
from tests.tui.test_web import WAIT_SECONDS, Served, wait_for, windows

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

PAINTED = 'document.body.classList.contains("-first-byte")'
CLIPBOARD = ["clipboardReadWrite", "clipboardSanitizedWrite"]
PASTED = "navigator.clipboard.readText()"
CELL = (8.44, 21.0)
"""Pixels of a cell of the terminal on the page, about."""


@pytest.fixture
def served(house: House) -> Iterator[Served]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tui", "--web", "--config", str(house.config_path)],
        env={**os.environ, **house.env}, cwd=house.home, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Served(process)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 0


async def opened(browser: Browser, address: str, base: str) -> Tab:
    """A tab on whose terminal something has been painted; it may read the clipboard, which only the test does."""
    tab = await browser.open(address)
    await tab.until(PAINTED, bool)
    await tab.tell("Browser.grantPermissions", permissions=CLIPBOARD, origin=base)
    await tab.until("document.activeElement.className", lambda name: name == "xterm-helper-textarea")
    return tab


async def copied(tab: Tab, key: str, *, unlike: str) -> str:
    """Presses the key until something else is in the clipboard: the rows may not be there yet."""
    text = unlike
    for _attempt in range(100):
        await tab.press(key)
        for _frame in range(20):
            text = await tab.run(f"new Promise(done => requestAnimationFrame(done)).then(() => {PASTED})")
            if text and text != unlike:
                return str(text)
    raise AssertionError(f"nothing was copied: {text}")


async def test_the_browser_of_somebody_without_the_address(served: Served) -> None:
    """A page without the token says what to do, and starts nothing."""
    async with chromium() as browser:
        for address in (served.base, f"{served.base}/?token=wrong"):
            tab = await browser.open(address)
            await tab.shows("Open the address that `hybridd tui --web` has printed.")
        assert windows(served) == []


async def test_rows_and_selections_reach_the_clipboard(served: Served) -> None:
    """y, Y and a selection with the mouse and Ctrl+C arrive in the system's clipboard; the address line has no token,
    nothing is loaded from elsewhere, no script fails."""
    async with chromium() as browser:
        tab = await opened(browser, served.address, served.base)
        assert await tab.run("location.href") == f"{served.base}/"
        assert await tab.run("navigator.clipboard.writeText('mine').then(() => 'kept')") == "kept"
        row = await copied(tab, "y", unlike="mine")
        assert row.split()[0] in {"lab", "small"}
        whole = await copied(tab, "Y", unlike=row)
        assert json.loads(whole)["provider"]["name"] == row.split()[0]
        y = round(2.5 * CELL[1])
        await tab.drag((2, y), (round(CELL[0] * 40), y))
        await tab.press("c", code=67, modifiers=2)
        selected = await tab.until(PASTED, lambda found: found and found != whole)
        assert selected.strip().startswith(row.split()[0])
        assert {address.partition("/static")[0].partition("/?")[0] for address in tab.asked} <= {
            served.base, f"{served.base}/", f"{served.base}/focus.js", "data:,",
        }  # fmt: skip
        assert tab.wrong == []


async def test_tabs_are_dashboards_of_their_own(served: Served) -> None:
    """Two at once are two processes; a closed one ends alone, a reload starts anew, q says how to go on, and when the
    browser goes nothing is left."""
    async with chromium() as browser:
        first = await opened(browser, served.address, served.base)
        second = await opened(browser, served.base, served.base)
        both = windows(served)
        assert len(both) == 2
        await second.close()
        await _left(first, served, 1)
        assert set(windows(served)) < set(both)
        await first.tell("Page.reload")
        await first.until(PAINTED, bool)
        await first.until("1", lambda _one: len(windows(served)) == 1 and not set(windows(served)) & set(both))
        await first.until("document.activeElement.className", lambda name: name == "xterm-helper-textarea")
        await first.press("q")
        await first.shows("The dashboard has ended.")
        await _left(first, served, 0)
        await first.run("document.querySelector('.ended a').click()")
        await first.until(PAINTED, bool)
        assert len(windows(served)) == 1
        last = windows(served)
        ended = [os.pidfd_open(one) for one in last]
    for one in ended:
        await asyncio.to_thread(wait_for, one)
    assert set(windows(served)) <= set(last)  # ended, if not yet collected


async def _left(tab: Tab, served: Served, count: int) -> None:
    """So many windows go on."""
    await tab.until("1", lambda _one: len(windows(served)) == count)
