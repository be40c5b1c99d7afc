"""Routed calls: one at a time, 32 at once, and into a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from scripts.bench_parts import report
from scripts.bench_parts.cpu import CpuMeter
from scripts.bench_parts.daemon_process import TIGHT_REQUESTS
from scripts.bench_parts.house import House
from scripts.bench_parts.loadgen import Result, Target, chat_request, run

CONCURRENT = 32
WARM_UP = 20
MS = 1000.0


def whole(body: bytes) -> bool:
    """Whether a chat completion is there, usage included."""
    return b'"usage"' in body and b'"choices"' in body


async def one_at_a_time(house: House) -> list[report.Figure]:
    """Latency of a call in blocks that alternate between the targets; medians over the blocks."""
    calls = 300 if house.quick else 500
    rounds = house.alternations if house.quick else 2 * house.alternations - 1
    blocks: dict[str, list[Result]] = {}
    for index in range(rounds):
        targets = house.targets()
        # The order turns, so that no target always comes after the same neighbour.
        for target in targets[index % 3 :] + targets[: index % 3]:
            result = await run(target, chat_request(target.model), calls=calls, warm_up=WARM_UP, check=whole)
            blocks.setdefault(target.name, []).append(result)
        house.upstream.clear_log()
    p50 = {name: _over_blocks(results, 0.50) for name, results in blocks.items()}
    p99 = {name: _over_blocks(results, 0.99) for name, results in blocks.items()}
    errors = errors_of(result for results in blocks.values() for result in results)
    group, how = "routed call, one at a time", f"median of {rounds} alternating blocks of {calls} calls"
    figures = [
        report.context(group, f"{name} p50 / p99", p50[name], "ms", f"p99 {report.number(p99[name])} ms; {how}")
        for name in ("direct", "control", "hybridd")
    ]
    over = f"; over the control {report.number(p50['hybridd'] - p50['control'])} ms"
    figures.append(
        report.at_most(group, "added p50", p50["hybridd"] - p50["direct"], 1.0, "ms", detail=f"over direct{over}")
    )
    over = f"; over the control {report.number(p99['hybridd'] - p99['control'])} ms"
    figures.append(
        report.at_most(group, "added p99", p99["hybridd"] - p99["direct"], 3.0, "ms", detail=f"over direct{over}")
    )
    figures.append(no_errors(group, errors))
    return figures


async def concurrent(house: House) -> list[report.Figure]:
    """Throughput at 32 callers, alternating with the bare control."""
    pairs: list[dict[str, Result]] = []
    costs: dict[str, list[dict[str, float]]] = {}
    foreign = []
    for index in range(house.alternations):
        pair = {}
        order = house.targets()[1:]
        for target in order if index % 2 else reversed(order):
            meter = CpuMeter(house)
            result = pair[target.name] = await _load(target, house.seconds)
            seconds, others = meter.read()
            costs.setdefault(target.name, []).append(
                {name: 1e6 * spent / max(1, result.answered) for name, spent in seconds.items()}
            )
            foreign.append(others)
        house.upstream.clear_log()
        pairs.append(pair)
    group, how = "32 concurrent", f"median of {len(pairs)} alternating blocks of {house.seconds:g} s"
    ratio = report.median(pair["hybridd"].per_second / max(1e-9, pair["control"].per_second) for pair in pairs)
    figures = [
        report.context(group, name, report.median(pair[name].per_second for pair in pairs), "/s", _latency(pairs, name))
        for name in ("control", "hybridd")
    ]
    figures.append(report.at_least(group, "hybridd / control", ratio, 0.6, "×", detail=f"requests/s; {how}"))
    figures += [_cost(group, name, costs[name]) for name in ("control", "hybridd")]
    share = 100 * report.median(foreign)
    figures.append(
        report.context(group, "other programs meanwhile", share, "%", "of the machine; read the ratio with it")
    )
    figures.append(no_errors(group, errors_of(result for pair in pairs for result in pair.values())))
    return [*figures, *await into_a_limit(house)]


def _cost(group: str, name: str, blocks: list[dict[str, float]]) -> report.Figure:
    """Microseconds of processor time that one call costs, by process; those that did nothing are left out."""
    each = {process: report.median(block[process] for block in blocks) for process in blocks[0]}
    used = {process: cost for process, cost in each.items() if cost >= 1}
    detail = ", ".join(f"{process} {report.number(cost)}" for process, cost in used.items())
    return report.context(group, f"CPU of a call, {name}", sum(used.values()), "µs", detail, **used)


async def into_a_limit(house: House) -> list[report.Figure]:
    """32 callers against a limit of 400 requests in 1 s and 16 at once: what the upstream itself counted."""
    house.upstream.clear_log()
    seconds = 3.0 if house.quick else 6.0
    target = house.daemon.target("tight:t1")
    result = await run(target, chat_request(target.model), callers=CONCURRENT, seconds=seconds, check=whole)
    fullest = house.upstream.max_in_window(1, model="t1")
    house.upstream.clear_log()
    group = "32 concurrent into a limit of 400 calls/s"
    return [
        report.at_most(
            group, "fullest second at the upstream", fullest, TIGHT_REQUESTS, "calls", detail=result.described()
        ),
        report.context(group, "answered", result.per_second, "/s", "the limit is used, not only kept"),
        no_errors(group, words(result.errors)),
    ]


async def _load(target: Target, seconds: float) -> Result:
    return await run(target, chat_request(target.model), callers=CONCURRENT, seconds=seconds, check=whole)


def _over_blocks(results: list[Result], share: float) -> float:
    return MS * report.median(report.percentile(result.latencies, share) for result in results if result.latencies)


def _latency(pairs: list[dict[str, Result]], name: str) -> str:
    results = [pair[name] for pair in pairs]
    p50, p99 = _over_blocks(results, 0.5), _over_blocks(results, 0.99)
    return f"p50 {report.number(p50)} ms, p99 {report.number(p99)} ms"


def words(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} × {what}" for what, count in counts.most_common())


def errors_of(results: Iterable[Result]) -> str:
    """Every refusal and error of the runs in words; empty when there was none."""
    total: Counter[str] = Counter()
    for result in results:
        total += result.errors + result.refused
    return words(total)


def no_errors(group: str, errors: str) -> report.Figure:
    verdict: report.Verdict = "missed" if errors else "met"
    return report.Figure(
        group=group, name="errors", value=None, target="none", verdict=verdict, detail=errors or "none"
    )
