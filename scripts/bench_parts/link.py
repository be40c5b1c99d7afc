"""The link alone: hub and session on one core, an SDK plugin that answers at once on another.

    python scripts/bench_parts/link.py [--seconds 3] [--concurrency 32] [--profile]

Prints calls/s and the round trip's p50/p99 for single calls, calls/s at the given concurrency, and 100-chunk streams/s
(frames of ten events). No ledger, no HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hybridd.api.bind import bind  # noqa: E402  # the path comes first
from hybridd.api.plugin_link import plugin_endpoint  # noqa: E402
from hybridd.api.server import build_server  # noqa: E402
from hybridd.bus import EventBus  # noqa: E402
from hybridd.clocks import SystemClock  # noqa: E402
from hybridd.config.resolved import ProviderSpec  # noqa: E402
from hybridd.contracts.protocol import Generate  # noqa: E402
from hybridd.providers import Hub, PluginCall, SpawnContext  # noqa: E402

PLUGIN = """
import json
from hybridd.plugin import Model, Provider, Result, Usage, run

ANSWER = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 60}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 60, "total_tokens": 69},
}).encode()
CHUNK = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
    "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}],
}).encode()

class Trivial(Provider):
    name = "trivial"
    async def models(self):
        return [Model(id="m")]
    async def generate(self, request, stream):
        usage = Usage(input_tokens=9, output_tokens=60)
        if not request.stream:
            return Result(ANSWER, usage=usage)
        for _ in range(10):
            await stream.send(*([CHUNK] * 10))
        return Result(usage=usage)

run(Trivial)
"""

BODY = msgspec.Raw(json.dumps({"model": "m", "messages": [{"role": "user", "content": "Explain it. " * 20}]}).encode())


async def single(hub: Hub, seconds: float) -> list[float]:
    loop = asyncio.get_running_loop()
    times = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        call = hub.start_call("trivial", "generate", Generate("trivial", "m", BODY), deadline=loop.time() + 30)
        await call.result()
        times.append(time.perf_counter() - began)
    return times


async def many(hub: Hub, seconds: float, concurrency: int, *, stream: bool) -> float:
    loop = asyncio.get_running_loop()
    done = 0
    until = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < until:
            params = Generate("trivial", "m", BODY, stream=stream)
            count = 0
            calls: list[PluginCall] = []

            def on_events(events: list[msgspec.Raw], calls: list[PluginCall] = calls) -> None:
                nonlocal count
                count += len(events)
                calls[-1].grant(sum(map(len, events)))

            calls.append(
                hub.start_call(
                    "trivial", "generate", params, deadline=loop.time() + 30, on_events=on_events if stream else None
                )
            )
            await calls[-1].result()
            if stream and count != 100:
                raise AssertionError(f"{count} events instead of 100")
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return done / (time.perf_counter() - began)


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "trivial.py"
        program.write_text(PLUGIN)
        bound = bind(Path(directory) / "run" / "bench.sock")
        clock = SystemClock()
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        hub = Hub(clock=clock, bus=EventBus(clock), spawn=SpawnContext(socket=bound.path, environ=environ))
        server = build_server(plugin_endpoint, hub=hub)
        serving = asyncio.create_task(server.serve([bound.socket]))
        spec = ProviderSpec(
            name="trivial",
            plugin="trivial",
            account="trivial",
            process="trivial",
            command=(sys.executable, str(program)),
            environment=("PYTHONPATH",),
        )
        await hub.apply({"trivial": spec})
        await hub.ensure_connected("trivial", 10)
        await single(hub, 0.3)
        times = sorted(await single(hub, arguments.seconds))
        rounds = [await many(hub, arguments.seconds / 3, arguments.concurrency, stream=False) for _ in range(3)]
        streams = [await many(hub, arguments.seconds / 3, arguments.concurrency, stream=True) for _ in range(3)]
        await hub.close(2)
        server.stop()
        await serving
        bound.close()
    return {
        "round_trip_p50_us": round(times[len(times) // 2] * 1e6),
        "round_trip_p99_us": round(times[len(times) * 99 // 100] * 1e6),
        f"calls_per_second_at_{arguments.concurrency}": round(statistics.median(rounds)),
        f"streams_100_per_second_at_{arguments.concurrency}": round(statistics.median(streams)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--profile", action="store_true", help="cProfile of the daemon's side")
    arguments = parser.parse_args()
    random.seed(0)

    def work() -> dict[str, Any]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measure(arguments))

    if arguments.profile:
        import cProfile
        import pstats

        profile = cProfile.Profile()
        figures = profile.runcall(work)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    else:
        figures = work()
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
