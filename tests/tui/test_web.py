"""``hybridd tui --web``, the real command over loopback: who is let in, and what a browser gets."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import aiohttp
import httpx
import pytest

from tests.house import House

WAIT_SECONDS = 30.0


class Served:
    """``address`` as printed, ``base`` and ``token`` of it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.address = process.stdout.readline().strip()
        self.base = self.address.partition("/?")[0]
        self.token = parse_qs(urlsplit(self.address).query)["token"][0]
        self.host = urlsplit(self.address).netloc

    def cookie(self) -> dict[str, str]:
        """What the printed address gives to a browser."""
        return dict(httpx.get(self.address).cookies)


@pytest.fixture(scope="module")
def served(house: House) -> Iterator[Served]:
    command = [sys.executable, "-m", "hybridd.cli.main", "tui", "--web", "--read-only", "--config"]
    process = subprocess.Popen(
        [*command, str(house.config_path)], env={**os.environ, **house.env}, cwd=house.home, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Served(process)
    finally:
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0


def test_only_who_has_the_token_is_let_in(served: Served) -> None:
    """Without it, with a wrong one or with a wrong cookie nothing is served: not the page, not its parts."""
    name = next(iter(served.cookie()))
    for path in ("/", "/?token=wrong", "/?token=", "/static/js/textual.js", "/focus.js", "/nothing"):
        for cookies in ({}, {name: "wrong"}, {name: served.token}):
            assert httpx.get(served.base + path, cookies=cookies).status_code == 401, (path, cookies)
    assert httpx.get(f"{served.base}/?token=wrong", cookies=served.cookie()).status_code == 401


def test_the_address_opens_the_page_and_leaves_no_token(served: Served) -> None:
    """It gives a cookie that scripts and other sites cannot use and leads to a page without the token, which loads
    from nowhere else."""
    first = httpx.get(served.address)
    assert (first.status_code, first.headers["Location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Strict"} <= set(first.headers["Set-Cookie"].split("; "))
    assert served.token not in first.headers["Set-Cookie"]
    page = httpx.get(served.base, cookies=served.cookie())
    assert page.status_code == 200
    assert served.token not in page.text
    assert set(re.findall(r"\b(?:https?|wss?)://[^/\"]+", page.text)) == {f"ws://{served.host}"}
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert httpx.get(served.base + path, cookies=served.cookie()).status_code == 200, path
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["X-Frame-Options"] == "DENY"


def test_another_host_or_origin_is_refused(served: Served) -> None:
    """A name that leads here by DNS and a page of another origin get nothing, even with cookie and token."""
    for host in ("evil.example", f"evil.example:{served.host.split(':')[1]}", "127.0.0.1.evil.example", ""):
        answer = httpx.get(served.address, headers={"Host": host}, cookies=served.cookie())
        assert answer.status_code in {400, 403}, host
        assert "Set-Cookie" not in answer.headers
    for origin in ("http://evil.example", "null", f"https://{served.host}", "http://127.0.0.1:1"):
        answer = httpx.get(served.base, headers={"Origin": origin}, cookies=served.cookie())
        assert answer.status_code == 403, origin
    port = served.host.split(":")[1]
    assert httpx.get(served.base, headers={"Host": f"localhost:{port}"}, cookies=served.cookie()).status_code == 200


async def test_the_terminal_is_only_for_the_page(served: Served) -> None:
    """The WebSocket needs the cookie and the page's own origin; no origin at all is no browser's page."""
    own = {"Origin": served.base}
    wrong: list[tuple[dict[str, str], dict[str, str], int]] = [
        ({}, own, 401),
        (served.cookie(), {}, 403),
        (served.cookie(), {"Origin": "http://evil.example"}, 403),
    ]
    for cookies, headers, status in wrong:
        async with aiohttp.ClientSession(cookies=cookies) as browser:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await browser.ws_connect(f"{served.base}/ws", headers=headers)
            assert refused.value.status == status


async def test_the_terminal_shows_the_dashboard_and_takes_keys(served: Served) -> None:
    """With the cookie the application starts, paints the daemon's providers, and a key shows another screen; when the
    window closes, its process ends."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as browser, asyncio.timeout(WAIT_SECONDS):
        await (await browser.get(served.address)).read()
        address = f"{served.base}/ws?width=100&height=30"
        async with browser.ws_connect(address, headers={"Origin": served.base}) as terminal:
            await _seen(terminal, "small")
            assert len(windows(served)) == 1
            await terminal.send_json(["stdin", "?"])
            await _seen(terminal, "On this screen")
        process = windows(served)
        for one in process:
            ended = os.pidfd_open(one)
            await asyncio.get_running_loop().run_in_executor(None, wait_for, ended)


async def _seen(terminal: aiohttp.ClientWebSocketResponse, text: str) -> None:
    """Reads until the terminal has been sent that text."""
    shown = ""
    while text not in shown:
        message = await terminal.receive()
        assert message.type in {aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT}, message
        shown += message.data.decode() if isinstance(message.data, bytes) else ""


def windows(served: Served) -> list[int]:
    """The processes of the open windows."""
    listed = f"/proc/{served.process.pid}/task/{served.process.pid}/children"
    with open(listed, encoding="ascii") as children:
        return [int(one) for one in children.read().split()]


def wait_for(pidfd: int) -> None:
    try:
        assert select.select([pidfd], [], [], WAIT_SECONDS)[0], "a window's process goes on"
    finally:
        os.close(pidfd)


async def test_ending_the_server_ends_itswindows(house: House) -> None:
    """SIGINT and even SIGKILL leave no process behind."""
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            [sys.executable, "-m", "tui", "--web", "--config", str(house.config_path)],
            env={**os.environ, **house.env}, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        here = Served(process)
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar) as browser, asyncio.timeout(WAIT_SECONDS):
            await (await browser.get(here.address)).read()
            terminal = await browser.ws_connect(f"{here.base}/ws", headers={"Origin": here.base})
            await _seen(terminal, "small")
            (window,) = windows(here)
            ended = os.pidfd_open(window)
            process.send_signal(number)
            await asyncio.to_thread(wait_for, ended)
        assert process.wait(WAIT_SECONDS) == (0 if number == signal.SIGINT else -signal.SIGKILL)


def test_what_cannot_be_served_is_said(house: House, served: Served) -> None:
    """A port that is taken, what does not go with --web and what no window could show is named before one is open."""
    for words, said in (
        (["--port", served.host.split(":")[1]], f"Port {served.host.split(':')[1]} of 127.0.0.1 cannot be used"),
        (["--record", "day.ndjson"], "--record writes what one dashboard sees"),
        (["--replay", "/nonexistent/day.ndjson"], "/nonexistent/day.ndjson cannot be read"),
        (["--theme", "hybridd-sade"], "no theme 'hybridd-sade'"),
    ):
        command = [sys.executable, "-m", "hybridd.cli.main", "tui", "--web", *words]
        done = subprocess.run(command, env={**os.environ, **house.env}, capture_output=True, text=True, check=False)
        assert (done.stdout, done.returncode != 0) == ("", True)
        assert said in done.stderr
