"""A real Chromium without a window, driven over its debugging protocol: keys, mouse, clipboard, requests."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

WAIT_SECONDS = 30.0
PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
MISSING = "" if PROGRAM else "Chromium is not installed"
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0",
          "--window-size=1000,700")  # fmt: skip


class Tab:
    """One page. ``asked``: every address it has requested; ``wrong``: what its scripts threw."""

    def __init__(self, browser: Browser, identity: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self._browser = browser
        self._identity = identity
        self._socket = socket
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                self._waiting.pop(told["id"]).set_result(told.get("result", told))
            elif told["method"] == "Network.requestWillBeSent":
                self.asked.append(told["params"]["request"]["url"])
            elif told["method"] == "Runtime.exceptionThrown":
                self.wrong.append(str(told["params"]["exceptionDetails"]))

    async def tell(self, method: str, **parameters: Any) -> Any:
        number = self._browser.number()
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        return await asyncio.wait_for(answer, WAIT_SECONDS)

    async def run(self, script: str) -> Any:
        """The value of a script, as if the user had caused it."""
        found = await self.tell(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        return found["result"].get("value")

    async def until(self, script: str, condition: Callable[[Any], object]) -> Any:
        """Runs it again at each of the browser's frames until the value is as wanted.

        Raises:
            AssertionError: it has not become so.
        """
        value: Any = None
        await self.tell("Page.bringToFront")  # only the tab in front has frames and the clipboard
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not condition(value := await self.run(script)):
                    await self.run("new Promise(done => requestAnimationFrame(done))")
        except TimeoutError:
            raise AssertionError(f"not so after {WAIT_SECONDS} s: {value}") from None
        return value

    async def shows(self, text: str) -> None:
        await self.until("document.body.innerText", lambda shown: text in (shown or ""))

    async def press(self, key: str, *, code: int = 0, modifiers: int = 0) -> None:
        """``a``, ``Escape`` (with its ``code`` 27); ``modifiers`` 2: Ctrl."""
        known: dict[str, Any] = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code}
        typed = {"text": key} if len(key) == 1 and not modifiers else {}
        await self.tell("Input.dispatchKeyEvent", type="keyDown", **known, **typed)
        await self.tell("Input.dispatchKeyEvent", type="keyUp", **known)

    async def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """With the left button, in pixels."""
        moves = [("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)]
        for kind, (x, y) in moves:
            await self.tell("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    async def close(self) -> None:
        await self._browser.close(self._identity)
        await self._reader


class Browser:
    def __init__(self, http: aiohttp.ClientSession, port: str) -> None:
        self._http = http
        self._base = f"http://127.0.0.1:{port}/json"
        self._count = 0

    def number(self) -> int:
        self._count += 1
        return self._count

    async def open(self, address: str) -> Tab:
        async with self._http.put(f"{self._base}/new?about:blank") as answer:
            found = await answer.json()
        tab = Tab(self, found["id"], await self._http.ws_connect(found["webSocketDebuggerUrl"], max_msg_size=0))
        for part in ("Page", "Runtime", "Network"):
            await tab.tell(f"{part}.enable")
        await tab.tell("Page.navigate", url=address)
        return tab

    async def close(self, identity: str) -> None:
        async with self._http.get(f"{self._base}/close/{identity}") as answer:
            await answer.read()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    folder = Path(tempfile.mkdtemp(prefix="hy-chromium-"))
    command = [PROGRAM, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        port = await asyncio.to_thread(_port_of, process)
        async with aiohttp.ClientSession() as http:
            yield Browser(http, port)
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def _port_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"ws://127\.0\.0\.1:(\d+)/", line)
        if found:
            return found[1]
    raise AssertionError("Chromium ended")
