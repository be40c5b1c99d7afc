"""The project's fake upstream: a real HTTP/1.1 server on loopback, in OpenAI's shapes, that misbehaves on command.

By hand, on port 9000 (the first line of stdout is `{"port": 9000}`; Ctrl-C ends it):

    python -m tests.fakes.upstream --port 9000
    curl -s localhost:9000/v1/chat/completions -d '{"model":"m1","messages":[{"role":"user","content":"hi"}]}'
    curl -s localhost:9000/__script -d '[{"match":{"model":"m1"},"times":2,"behaviour":{"preset":"github_429"}}]'
    curl -s 'localhost:9000/__count?window=60&model=m1'

In tests, in a process of its own or in this one:

    with FakeUpstream() as fake:                 # also `async with`
        fake.script([rule({"status": 503}, times=1)])
        ... requests to fake.base_url ...
        assert fake.max_in_window(60) <= 15
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
from pathlib import Path

from tests.fakes.upstream_behaviour import BadScript, Behaviour, Match, RateLimit, Rule, parse_rules
from tests.fakes.upstream_handle import FakeUpstream, InProcessUpstream, UpstreamRefused, rule
from tests.fakes.upstream_log import Arrival, FileLog, LoggedArrival, max_in_window, read_log
from tests.fakes.upstream_openai import SENTENCE
from tests.fakes.upstream_presets import PRESETS, rate_limit_body
from tests.fakes.upstream_server import Connection
from tests.fakes.upstream_state import Upstream

__all__ = [
    "PRESETS",
    "SENTENCE",
    "Arrival",
    "BadScript",
    "Behaviour",
    "FakeUpstream",
    "InProcessUpstream",
    "LoggedArrival",
    "Match",
    "RateLimit",
    "Rule",
    "UpstreamRefused",
    "max_in_window",
    "rate_limit_body",
    "read_log",
    "rule",
]


async def serve(arguments: argparse.Namespace) -> None:
    """Listens until SIGINT or SIGTERM, or until stdin ends when the parent asked for that."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if arguments.exit_on_stdin_eof:
        # The parent holds the other end: when it dies, however it dies, this process goes too.
        loop.add_reader(sys.stdin.fileno(), _stop_at_eof, stop)
    upstream = Upstream(FileLog(arguments.log) if arguments.log else None)
    if arguments.script:
        upstream.set_rules(parse_rules(Path(arguments.script).read_bytes()))
    server = await loop.create_server(
        lambda: Connection(upstream), arguments.host, arguments.port, backlog=4096, reuse_address=True
    )
    # What is loaded by now stays: the collector need not look at it again, nor often at what a benchmark allocates.
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    print(f'{{"port": {server.sockets[0].getsockname()[1]}}}', flush=True)
    await stop.wait()
    server.close()
    for connection in list(upstream.connections):
        connection.transport.abort()


def _stop_at_eof(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.upstream", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0 picks a free one (default 9000)")
    parser.add_argument("--log", metavar="FILE", help="append one JSON line per arrival, each with its own write(2)")
    parser.add_argument("--script", metavar="FILE", help="JSON rules in force from the start")
    parser.add_argument("--exit-on-stdin-eof", action="store_true", help="end when stdin does")
    import uvloop

    with contextlib.suppress(KeyboardInterrupt):
        try:
            uvloop.run(serve(parser.parse_args()))
        except (OSError, BadScript) as error:
            parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
