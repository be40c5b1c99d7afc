"""Figures of the ledger and the store, from the parts that their own modules measure."""

from __future__ import annotations

import contextlib

from scripts.bench_parts import ledger, report, store
from scripts.bench_parts.house import House

CALLERS = 256
ROWS = 1_000_000
QUICK_ROWS = 100_000


async def reservations(house: House) -> list[report.Figure]:
    """Durable reservations a second at 256 callers: admission, the commit, settlement."""
    group = f"reservations, {CALLERS} concurrent, durable"
    rounds = 3 if house.quick else house.alternations
    seconds = min(house.seconds, 2.0)
    # The parts make their databases under the working directory; here it is the scratch folder, on a real disk.
    with contextlib.chdir(house.scratch.path):
        # First, while the disk is not yet busy with what the others leave behind.
        lone = await store.lone_dispatch_microseconds(300 if house.quick else 2000)
        measured = [await ledger.reservations_per_second(CALLERS, seconds) for _ in range(rounds)]
        writer = [await store.reservations_per_second(CALLERS, seconds) for _ in range(rounds)]
        whole = [await store.calls_per_second(CALLERS, seconds) for _ in range(rounds)]
    rates = [one["reservations_per_second"] for one in measured]
    spread = f"median of {rounds} ({', '.join(f'{rate:,}' for rate in rates)}), {measured[0]['binding_quotas']} quotas"
    return [
        report.at_least(group, "through ledger and database", report.median(rates), 30_000, "/s", detail=spread),
        report.context(group, "the writer alone", report.median(writer), "/s"),
        report.context(group, "the writer, with settlement and request", report.median(whole), "calls/s"),
        report.context(group, "one at a time, p50", lone[0] / 1000, "ms", f"p99 {report.number(lone[1] / 1000)} ms"),
    ]


async def million(house: House) -> list[report.Figure]:
    """Reports over a million recorded calls."""
    rows = QUICK_ROWS if house.quick else ROWS
    with contextlib.chdir(house.scratch.path):
        times = await store.report_milliseconds(rows)
    name = max(times, key=lambda name: times[name])
    rest = ", ".join(f"{name} {report.number(value)}" for name, value in times.items())
    group = f"report over {rows:,} recorded calls"
    return [report.at_most(group, f"slowest ({name})", times[name], 200, "ms", detail=rest)]
