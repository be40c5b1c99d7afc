"""A daemon that has a lot to tell: the real one's snapshot and answers, and any number of events a second.

`python -m scripts.bench_parts.tui_flood SOCKET DAEMON` serves until its stdin ends. ``POST /flood`` with ``{"rate",
"seconds"}`` sends events to whoever reads ``/v1/events``, encoded as the daemon encodes them; ``POST /burst`` with
``{"count"}`` that many requests at once; ``GET /sent`` says when the numbered requests were sent.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from typing import Any

import aiohttp
import msgspec
import uvloop
from aiohttp import web

from hybridd.api.respond import encode
from hybridd.bus import Event, Kind

TICK_S = 0.01
MIX = ("request", "quota", "request", "quota", "request", "quota", "request", "quota", "request", "provider")
"""What a busy house tells: half of it requests, their quotas, now and then a provider's state."""


class Flood:
    def __init__(self, daemon: str) -> None:
        self._daemon = daemon
        self._readers: list[web.StreamResponse] = []
        self._numbers = itertools.count()
        self._task: asyncio.Task[None] | None = None
        self.sent: list[float] = []
        self.latest_s = 0.0

    async def open(self, app: web.Application) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(self._daemon))
        async with self._session.get("http://d/v1/events") as stream:
            self._snapshot: dict[str, Any] = msgspec.json.decode(await stream.content.readuntil(b"\n"))
        async with self._session.get("http://d/v1/requests?limit=1") as answer:
            self._request: dict[str, Any] = msgspec.json.decode(await answer.read())["requests"][0]
        self._seq = itertools.count(int(self._snapshot["seq"]) + 1)
        status = self._snapshot["data"]["status"]
        self._limits = itertools.cycle(self._snapshot["data"]["limits"])
        self._provider = next(one for one in status["providers"] if one["name"] == "lab")

    async def close(self, app: web.Application) -> None:
        await self._session.close()

    async def events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        now = time.time()
        await response.write(encode({**self._snapshot, "at": now}) + b"\n")
        self._readers.append(response)
        try:
            while not response.task or not response.task.done():
                await asyncio.sleep(15)
                await response.write(b"\n")
        finally:
            self._readers.remove(response)
        return response

    async def other(self, request: web.Request) -> web.Response:
        """Whatever else is asked, the real daemon answers."""
        async with self._session.get(f"http://d{request.rel_url}") as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")

    # ---- telling -------------------------------------------------------------------------------------------------

    def _line(self, kind: Kind) -> bytes:
        at = time.time()
        if kind == "request":
            number = next(self._numbers)
            self.sent.append(at)
            data = {
                **self._request,
                "id": f"req_flood{number:07}",
                "at": at,
                "provider": "lab",
                "model": f"m{number:07}",
            }
        elif kind == "quota":
            limit = next(self._limits)
            data = {**limit, "used": limit["used"] + len(self.sent), "remaining": limit["limit"] - len(self.sent)}
        else:
            data = {"key": "lab", "provider": {**self._provider, "in_flight": len(self.sent) % 7}}
        return encode(Event(next(self._seq), at, kind, data)) + b"\n"

    async def _tell(self, lines: list[bytes]) -> None:
        body = b"".join(lines)
        for reader in list(self._readers):
            await reader.write(body)

    async def _run(self, rate: float, seconds: float) -> None:
        kinds, began, done = itertools.cycle(MIX), time.monotonic(), 0
        self.latest_s = 0.0
        while (passed := time.monotonic() - began) < seconds:
            due = int(passed * rate)
            self.latest_s = max(self.latest_s, (due - done) / rate)
            await self._tell([self._line(next(kinds)) for _ in range(due - done)])  # type: ignore[arg-type]  # of MIX
            done = due
            await asyncio.sleep(TICK_S)

    async def flood(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self._task = asyncio.create_task(self._run(asked["rate"], asked["seconds"]))
        return web.json_response({"from": len(self.sent)})

    async def burst(self, request: web.Request) -> web.Response:
        await self._tell([self._line("request") for _ in range((await request.json())["count"])])
        return web.json_response({"from": len(self.sent)})

    async def told(self, request: web.Request) -> web.Response:
        body = msgspec.json.encode({"sent": self.sent, "latest_s": self.latest_s})
        return web.Response(body=body, content_type="application/json")


async def serve(path: str, daemon: str) -> None:
    flood = Flood(daemon)
    app = web.Application()
    app.on_startup.append(flood.open)
    app.on_cleanup.append(flood.close)
    app.add_routes([
        web.get("/v1/events", flood.events), web.post("/flood", flood.flood), web.post("/burst", flood.burst),
        web.get("/sent", flood.told), web.get("/{any:.*}", flood.other),
    ])  # fmt: skip
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def at_input() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            ended.set()

    loop.add_reader(sys.stdin.fileno(), at_input)
    await web.UnixSite(runner, path).start()
    await ended.wait()
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2]))
