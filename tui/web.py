"""``hybridd tui --web``: the same application in a browser, on loopback only, for whoever has the token.

textual-serve runs one ``python -m tui`` for each browser window and carries its screen over a WebSocket. What it serves
is a terminal with the rights of the user, so everything before it is strict here: the address is 127.0.0.1; the page is
opened once with the token of this start, from then on a cookie stands for it; a request whose ``Host`` is another name
(DNS rebinding) or whose ``Origin`` is another page is refused; the page loads nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import html
import os
import re
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from string import Template

import textual_serve
from aiohttp import web
from aiohttp.typedefs import Handler
from textual_serve.server import Server

from hybridd.errors import HybriddError, InvalidRequest
from hybridd.i18n import _, language, use
from tui.replay import check
from tui.settings import Options, with_section

ADDRESS = "127.0.0.1"
COOKIE = "hybridd_tui_{port}"
"""A browser sends the cookies of all ports to each; the name keeps two dashboards apart."""
MOST_WINDOWS = 8
"""Browser windows at once; each is a process of about 80 MiB."""
STOP_SECONDS = 2.0
_FOCUS = """
new MutationObserver((changes, observer) => {
  const keys = document.querySelector(".xterm-helper-textarea");
  if (keys && document.body.classList.contains("-first-byte")) { observer.disconnect(); keys.focus(); }
}).observe(document.body, {attributes: true});
"""
"""Gives the keyboard to the terminal as soon as it shows something; textual-serve waits for a click."""
_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?", re.IGNORECASE)
_STATIC = Path(textual_serve.__file__).parent / "static"
_HEADERS = {
    # xterm.js writes its own style elements; scripts come from the file alone.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
        "img-src 'self' data:; connect-src 'self' ws://$host; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def same(given: str, wanted: str) -> bool:
    """Compared in constant time."""
    return secrets.compare_digest(given.encode(), wanted.encode())


def command_of(options: Options) -> str:
    """The shell command of one window; ``exec``, so that no shell stays between."""
    words = [sys.executable, "-m", "tui", "--parent", str(os.getpid()), "--socket", str(options.socket)]
    if options.config is not None:
        words += ["--config", str(options.config)]
    if options.theme:
        words += ["--theme", options.theme]
    if options.replay is not None:
        words += ["--replay", str(options.replay), "--speed", str(options.speed)]
    words += ["--read-only"] * options.read_only + ["--ascii"] * options.ascii_only
    return f"exec {shlex.join(words)}"


class WebDashboard(Server):
    """``token`` opens the page; ``session`` is what the cookie holds. Both are new at every start."""

    def __init__(self, options: Options, port: int) -> None:
        super().__init__(command_of(options), host=ADDRESS, port=port, title="hybridd")
        self.cookie = COOKIE.format(port=port)
        self.token = secrets.token_urlsafe(32)
        self.session = secrets.token_urlsafe(32)
        self._windows: set[asyncio.Task[object]] = set()
        self._page = Template(resources.files("tui").joinpath("web_page.html").read_text(encoding="utf-8"))

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", self.handle_index, name="index")
        app.router.add_get("/ws", self.handle_websocket, name="websocket")
        app.router.add_get("/focus.js", self.handle_script, name="script")
        app.router.add_static("/static", _STATIC, name="static")
        app.on_response_prepare.append(_harden)
        app.on_shutdown.append(self.on_shutdown)
        return app

    # ---- who may come in -----------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            raise web.HTTPForbidden(text=_("This dashboard is only served to this machine.") + "\n")
        origin = request.headers.get("Origin")
        if (origin is None and request.path == "/ws") or origin not in {None, f"http://{hosts[0]}"}:
            raise web.HTTPForbidden(text=_("Another page asked for this; it is refused.") + "\n")
        if request.path == "/" and same(request.query.get("token", ""), self.token):
            answer = web.HTTPSeeOther("/")  # so that the token stays in no history
            answer.set_cookie(self.cookie, self.session, httponly=True, samesite="Strict", path="/")
            raise answer
        if "token" in request.query or not same(request.cookies.get(self.cookie, ""), self.session):
            raise web.HTTPUnauthorized(text=_("Open the address that `hybridd tui --web` has printed.") + "\n")
        return await handler(request)

    # ---- what is served ------------------------------------------------------------------------------------------

    async def handle_index(self, request: web.Request) -> web.Response:
        words = {
            "language": (language() or "en").replace("_", "-"),
            "host": request.host,
            "starting": _("Starting the dashboard…"),
            "ended": _("The dashboard has ended."),
            "again": _("Start it again"),
        }
        page = self._page.substitute({name: html.escape(word) for name, word in words.items()})
        return web.Response(text=page, content_type="text/html")

    async def handle_script(self, request: web.Request) -> web.Response:
        return web.Response(text=_FOCUS, content_type="text/javascript")

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        if len(self._windows) >= MOST_WINDOWS:
            raise web.HTTPServiceUnavailable(text=_("Too many windows are open.") + "\n")
        window = asyncio.current_task()
        assert window is not None
        self._windows.add(window)
        try:
            return await super().handle_websocket(request)
        finally:
            self._windows.discard(window)

    async def on_shutdown(self, app: web.Application) -> None:
        """Ends every window; its process has been told to quit when this returns."""
        for _attempt in range(2):  # the second time for a browser that does not answer the closing of its socket
            windows = list(self._windows)
            for window in windows:
                window.cancel()
            if windows:
                await asyncio.wait(windows, timeout=STOP_SECONDS)


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    host = request.host if _HOST.fullmatch(request.host) else ADDRESS
    for name, value in _HEADERS.items():
        response.headers[name] = value.replace("$host", host)


async def serve(options: Options, port: int, say: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; ``say`` is given the address to open, once it can be opened.

    Raises:
        HybriddError: the port cannot be had.
        InvalidRequest: a window could not be started so.
    """
    use(with_section(options).section.language)
    if options.record is not None:
        said = _("--record writes what one dashboard sees; it does not go with --web")
        raise InvalidRequest(said, param="record")
    if options.replay is not None:
        check(options.replay)
    try:
        listening = socket.create_server((ADDRESS, port))
    except OSError as error:
        said = _("Port {port} of {address} cannot be used: {reason}")
        text = said.format(port=port, address=ADDRESS, reason=error.strerror)
        raise HybriddError(text, code="port_in_use") from error
    port = listening.getsockname()[1]
    dashboard = WebDashboard(options, port)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ending.set)
    runner = web.AppRunner(dashboard.application(), access_log=None, shutdown_timeout=STOP_SECONDS)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        say(f"http://{ADDRESS}:{port}/?token={dashboard.token}")
        await ending.wait()
    finally:
        await runner.cleanup()


def run(options: Options, port: int, say: Callable[[str], None]) -> None:
    """:func:`serve`, in a loop of its own."""
    asyncio.run(serve(options, port, say))
