"""How fast the fake upstream is: a raw client that counts bytes, against a server in a process of its own.

    python -m tests.fakes.upstream_bench --connections 32 --seconds 5 [--stream] [--behaviour '{"chunks": 100}']

Each connection keeps one request in flight. Every answer has the same length, so the client only has to add up what it
reads; it costs less CPU than the server. Printed: requests per second, and the server's CPU time per request, which is
what matters to a benchmark that shares the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from typing import cast

import msgspec

from tests.fakes.upstream_behaviour import Behaviour
from tests.fakes.upstream_handle import FakeUpstream, rule


class _Client(asyncio.Protocol):
    """Sends the same request again as soon as `length` bytes of answer are in."""

    def __init__(self, request: bytes, length: int, until: float) -> None:
        self.request, self.length, self.until = request, length, until
        self.answers = self.got = self.reads = 0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        self.reads += 1
        if self.got < self.length:
            return
        assert self.got == self.length, "answers differ in length"
        self.got = 0
        self.answers += 1
        if time.monotonic() < self.until:
            self.transport.write(self.request)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _request(stream: bool) -> bytes:
    body = json.dumps(
        {
            "model": "m1",
            "messages": [{"role": "user", "content": "Write a function that adds two numbers."}],
            "max_tokens": 100,
            **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer sk-fake-key\r\n"
        "Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: hybridd-bench\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _answer_length(host: str, port: int, request: bytes) -> int:
    """Length of one answer, found by asking for the connection to be closed after it (whose header is taken off)."""
    reader, writer = await asyncio.open_connection(host, port)
    closing = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    writer.write(closing)
    length = len(await asyncio.wait_for(reader.read(-1), 30)) - len(b"connection: close\r\n")
    writer.close()
    return length


async def run(
    *, connections: int, seconds: float, stream: bool, behaviour: Behaviour | None = None
) -> dict[str, float]:
    """Requests and reads per second, and the server's CPU microseconds per request."""
    async with FakeUpstream() as fake:
        if behaviour is not None:
            fake.script([rule(behaviour)])
        request = _request(stream)
        length = await _answer_length(fake.host, fake.port, request)
        loop = asyncio.get_running_loop()
        cpu, began = _cpu_seconds(fake.pid), time.monotonic()
        clients = []
        for _ in range(connections):
            _, client = await loop.create_connection(
                lambda: _Client(request, length, began + seconds), fake.host, fake.port
            )
            clients.append(client)
        async with asyncio.timeout(seconds + 60):
            await asyncio.gather(*(client.ended for client in clients))
        took, cpu = time.monotonic() - began, _cpu_seconds(fake.pid) - cpu
        answers = sum(client.answers for client in clients)
        return {
            "answer_bytes": length,
            "requests": answers,
            "requests_per_s": round(answers / took),
            "reads_per_s": round(sum(client.reads for client in clients) / took),
            "server_cpu_us_per_request": round(1e6 * cpu / answers, 1),
            "server_cpu_share": round(cpu / took, 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.upstream_bench")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--behaviour", metavar="JSON", help="scripted for all requests")
    given = parser.parse_args()
    import uvloop

    result = run(
        connections=given.connections,
        seconds=given.seconds,
        stream=given.stream,
        behaviour=msgspec.json.decode(given.behaviour, type=Behaviour) if given.behaviour else None,
    )
    print(json.dumps(uvloop.run(result)))


if __name__ == "__main__":
    main()
