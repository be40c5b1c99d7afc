"""A thousand callers at once on an upstream that takes 50 ms: everybody is answered or told why not; memory stays."""

from __future__ import annotations

import asyncio

from scripts.bench_parts import report
from scripts.bench_parts.house import SLOW_S, House
from scripts.bench_parts.loadgen import Result, chat_request, run
from scripts.bench_parts.proc import children, rss_mib
from scripts.bench_parts.routed import MS, no_errors, whole, words

CALLERS = 1000
SAMPLE_S = 0.05
ROUNDS = 8
LAST = 3
MOST_GROWTH = 1.05
MOST_MIB = 256.0


async def thousand(house: House) -> list[report.Figure]:
    """Rounds of 1,000 new connections with a few calls each; memory is bounded when the last rounds need no more.

    The first rounds may: the allocator's pools and the log of the last minute's calls fill up.
    """
    calls = 2 * CALLERS if house.quick else 5 * CALLERS
    daemon = house.daemon
    target = daemon.target("lab:slow")
    before, peaks, results = rss_mib(daemon.pid), [], []
    for _ in range(ROUNDS):
        sampler = asyncio.ensure_future(_peak(daemon.pid))
        results.append(await run(target, chat_request(target.model), callers=CALLERS, calls=calls, check=whole))
        sampler.cancel()
        peaks.append(await sampler)
        house.upstream.clear_log()
    after = rss_mib(daemon.pid)
    return _figures(results, before, peaks, after, sum(map(rss_mib, children(daemon.pid))))


async def _peak(pid: int) -> float:
    peak = 0.0
    try:
        while True:
            peak = max(peak, rss_mib(pid))
            await asyncio.sleep(SAMPLE_S)
    except asyncio.CancelledError:
        return peak


def _figures(
    results: list[Result], before: float, peaks: list[float], after: float, plugins: float
) -> list[report.Figure]:
    group = f"{CALLERS:,} concurrent callers, upstream {SLOW_S * MS:g} ms"
    total = Result()
    for result in results:
        total.latencies += result.latencies
        total.refused += result.refused
        total.errors += result.errors
        total.seconds += result.seconds
    latency = ""
    if total.latencies:
        p50, p99 = (report.number(MS * report.percentile(total.latencies, share)) for share in (0.5, 0.99))
        latency = f"p50 {p50} ms, p99 {p99} ms; "
    bounded = max(peaks) <= MOST_MIB and max(peaks[-LAST:]) <= MOST_GROWTH * min(peaks[-LAST:])
    course = " → ".join(report.number(value) for value in (before, *peaks, after))
    return [
        report.context(group, "answered", total.per_second, "/s", latency + total.described()),
        no_errors(group, words(total.errors)),
        report.Figure(
            group=group,
            name="daemon's memory, highest peak",
            value=max(peaks),
            unit="MiB",
            target=f"≤ {MOST_MIB:g} MiB, settles",
            verdict="met" if bounded else "missed",
            detail=f"before → peak of each round → after: {course}; plugins afterwards {report.number(plugins)}",
        ),
    ]
