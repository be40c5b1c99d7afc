"""Streams of 100 chunks: time to the first token, and streams per second at 32."""

from __future__ import annotations

from collections.abc import Callable

from scripts.bench_parts import report
from scripts.bench_parts.house import STREAM_CHUNKS, House
from scripts.bench_parts.loadgen import Result, Target, chat_request, run
from scripts.bench_parts.routed import CONCURRENT, MS, WARM_UP, errors_of, no_errors

EVENTS = STREAM_CHUNKS + 3
"""The role, the chunks, the finish reason and [DONE]."""


def complete_stream(events: int = EVENTS) -> Callable[[bytes], bool]:
    """A check that a stream has exactly so many events and ends as it should."""

    def check(body: bytes) -> bool:
        return body.count(b"data: ") == events and body.endswith(b"data: [DONE]\n\n")

    return check


async def first_token(house: House) -> list[report.Figure]:
    """Time to the first token of streams one at a time, in alternating blocks."""
    streams = 80 if house.quick else 200
    rounds = house.alternations if house.quick else 2 * house.alternations - 1
    blocks: dict[str, list[Result]] = {}
    for index in range(rounds):
        targets = house.targets()
        for target in targets[index % 3 :] + targets[: index % 3]:
            result = await _streams(target, calls=streams, warm_up=WARM_UP)
            blocks.setdefault(target.name, []).append(result)
        house.upstream.clear_log()
    group = "streaming 100 chunks, one at a time"
    first = {name: _middle(results, lambda result: result.firsts) for name, results in blocks.items()}
    figures = [
        report.context(
            group,
            f"{name} first token p50",
            first[name],
            "ms",
            f"whole stream {report.number(_middle(blocks[name], lambda result: result.latencies))} ms",
        )
        for name in ("direct", "control", "hybridd")
    ]
    over = f"over direct, {rounds} blocks; over the control {report.number(first['hybridd'] - first['control'])} ms"
    added = first["hybridd"] - first["direct"]
    figures.append(report.at_most(group, "added time to first token p50", added, 1.5, "ms", detail=over))
    figures.append(no_errors(group, errors_of(result for results in blocks.values() for result in results)))
    return figures


async def throughput(house: House) -> list[report.Figure]:
    """Streams per second at 32 callers; the upstream writes each stream at once, then in about four writes."""
    return [
        *await _throughput(house, "m1", "streaming 100 chunks, 32 at once", aimed=True),
        *await _throughput(house, "four", "the same, upstream in about 4 writes", aimed=False),
    ]


async def _throughput(house: House, model: str, group: str, *, aimed: bool) -> list[report.Figure]:
    rounds = house.alternations if aimed else max(1, house.alternations - 2)
    results: dict[str, list[Result]] = {}
    for index in range(rounds):
        order = house.targets(model)[1:]
        for target in order if index % 2 else reversed(order):
            result = await _streams(target, callers=CONCURRENT, seconds=house.seconds)
            results.setdefault(target.name, []).append(result)
        house.upstream.clear_log()
    rate = {name: report.median(result.per_second for result in found) for name, found in results.items()}
    how = f"median of {rounds} alternating blocks of {house.seconds:g} s"
    ratio = f"{report.number(rate['hybridd'] / max(1e-9, rate['control']))} of the control's; {how}"
    figures = [report.context(group, "control", rate["control"], "streams/s")]
    if aimed:
        figures.append(report.at_least(group, "hybridd", rate["hybridd"], 1000, "streams/s", detail=ratio))
    else:
        figures.append(report.context(group, "hybridd", rate["hybridd"], "streams/s", ratio))
    figures.append(no_errors(group, errors_of(result for found in results.values() for result in found)))
    return figures


async def _streams(
    target: Target, *, callers: int = 1, calls: int | None = None, seconds: float | None = None, warm_up: int = 0
) -> Result:
    request = chat_request(target.model, stream=True)
    return await run(
        target, request, callers=callers, calls=calls, seconds=seconds, warm_up=warm_up, check=complete_stream()
    )


def _middle(results: list[Result], of: Callable[[Result], list[float]]) -> float:
    return MS * report.median(report.percentile(of(result), 0.5) for result in results if of(result))
