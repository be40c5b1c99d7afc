"""The bare control: what any proxy on this stack costs, without a ledger and without a plugin.

`python -m scripts.bench_parts.control SOCKET UPSTREAM` serves until its stdin ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import aiohttp
import uvicorn
import uvloop


def make_app(upstream: str) -> Any:
    """An ASGI application that passes POST bodies on to ``upstream`` and the answers back."""
    session: aiohttp.ClientSession | None = None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal session
        session = session or aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {"content-type": "application/json"}
        async with session.post(upstream + scope["path"], data=body, headers=headers) as answer:
            kind = answer.headers.get("content-type", "application/json")
            names = [(b"content-type", kind.encode())]
            if not kind.startswith("text/event-stream"):
                whole = await answer.read()
                names.append((b"content-length", b"%d" % len(whole)))
                await send({"type": "http.response.start", "status": answer.status, "headers": names})
                await send({"type": "http.response.body", "body": whole})
                return
            await send({"type": "http.response.start", "status": answer.status, "headers": names})
            async for piece in answer.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    return app


async def serve(path: str, upstream: str) -> None:
    """Listens on the Unix socket at ``path`` until stdin ends."""
    config = uvicorn.Config(
        make_app(upstream), uds=path, loop="uvloop", http="httptools", ws="none", lifespan="off", log_level="warning"
    )
    server = uvicorn.Server(config)

    def stop_at_eof() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            server.should_exit = server.force_exit = True
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop_at_eof)
    await server.serve()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2]))
