"""The dashboard in a real terminal on a real daemon: first paint, at rest, under a thousand events a second, filters.

Nothing of it is simulated but the flood's source: `tui_flood` passes the real daemon's snapshot and answers on and
tells more than any house could.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from scripts.bench_parts import report
from scripts.bench_parts.daemon_process import (
    ROOT,
    Daemon,
    Process,
    StartFailed,
    ask,
    configuration,
    environment,
    post,
)
from scripts.bench_parts.house import House
from scripts.bench_parts.proc import cpu_seconds, rss_mib
from scripts.bench_parts.tui_terminal import BLUR, FOCUS, SIZE, Paints, Terminal
from tui.screens import SCREENS

RATE = 1000.0
HELD = 5000
ROWS = 100_000
RARE_EVERY = 50
SETTLE_S = 3.0
GROWTH_MIB = 2.0
"""What a process may gain in the flood and still count as flat: the allocator's own unrest."""
_HEAD = rb"hybridd "
_DATA = rb"lab\b"


@contextlib.asynccontextmanager
async def _daemon(house: House, *, rows: int = 0) -> AsyncIterator[Daemon]:
    """One of its own, that nobody else asks; with ``rows`` recorded requests."""
    daemon = Daemon(house.scratch.home(), configuration(house.upstream.base_url))
    with daemon:
        if rows:
            daemon.stop()
            _record(daemon, rows)
            daemon.start()
        await asyncio.to_thread(daemon.wait_routed, ["lab:m1"])
        yield daemon


def _record(daemon: Daemon, rows: int) -> None:
    """Requests of the last month; each 50th to a model ``z-…``, the very first to ``xenon``."""
    (path,) = Path(daemon.env["XDG_STATE_HOME"]).rglob("*.db")
    now, month = time.time(), 30 * 86_400.0

    def row(number: int) -> tuple[object, ...]:
        at = round((now - 60 - month * (rows - number) / rows) * 1e6)
        model = "xenon" if not number else f"z-{number}" if (rows - number) % RARE_EVERY == 1 else "m1"
        return at, at * 1000, model

    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executemany(
            "INSERT INTO requests (id, at_wall_ns, task, requested, provider, model, status, stream, cache, attempts,"
            " input_tokens, output_tokens, usd_micro, latency_us, client)"
            " VALUES (?, ?, 'code', 'auto', 'lab', ?, 200, 0, 'off', 1, 5, 7, 1000, 20000, 'ci')",
            map(row, range(rows)),
        )


# ---- first paint -----------------------------------------------------------------------------------------------------


async def first_paint(house: House) -> list[report.Figure]:
    """From the command to the frame, and to the first frame with the daemon's data."""
    frames, data = [], []
    async with _daemon(house) as daemon:
        for _ in range((3 if house.quick else 7) + 1):
            async with Terminal(daemon.env) as terminal:
                frames.append(await terminal.shows(_HEAD) - terminal.began)
                data.append(await terminal.shows(_DATA) - terminal.began)
    frames, data = frames[1:], data[1:]  # the first one fills the caches
    runs = ", ".join(f"{value:.2f}" for value in frames)
    detail = f"`hybridd tui` to the first frame, median of {len(frames)} ({runs})"
    return [
        report.at_most("dashboard, start", "first paint", report.median(frames), 0.8, "s", detail=detail),
        report.context(
            "dashboard, start", "first paint of the daemon's data", report.median(data), "s", "from the command on"
        ),
    ]


# ---- at rest ---------------------------------------------------------------------------------------------------------


async def at_rest(house: House) -> list[report.Figure]:
    """A house in which nothing happens, looked at, not looked at and without a dashboard."""
    seconds = 10.0 if house.quick else 60.0
    group = "dashboard, at rest"
    async with _daemon(house) as daemon:
        await asyncio.sleep(SETTLE_S)
        alone = await _share([daemon.pid], seconds)
        async with Terminal(daemon.env) as terminal:
            await terminal.shows(_DATA)
            terminal.write(FOCUS)
            await asyncio.sleep(SETTLE_S)
            focused, attached = await _shares([terminal.pid, daemon.pid], seconds)
            terminal.write(BLUR)
            await asyncio.sleep(SETTLE_S)
            unfocused = await _share([terminal.pid], seconds)
            first = rss_mib(terminal.pid)
            terminal.write(FOCUS)
            await _visit(terminal)
            weight = rss_mib(terminal.pid)
    of = f"of one core over {seconds:g} s, {SIZE[0]}×{SIZE[1]}"
    with_it = f"{report.number(attached)} % with it and {report.number(alone)} % without"
    return [
        report.at_most(group, "CPU with focus", focused, 1, "%", detail=of),
        report.at_most(group, "CPU without focus", unfocused, 0.3, "%", detail=of),
        report.at_most(group, "what it costs the daemon", max(0.0, attached - alone), 1, "%", detail=with_it),
        report.at_most(
            group, "memory", weight, 90, "MiB",
            detail=f"every screen visited; {report.number(first)} MiB with the Overview alone",
        ),
    ]  # fmt: skip


async def _visit(terminal: Terminal) -> None:
    for spec in SCREENS.values():
        if (ROOT / "tui" / "screens" / f"{spec.module}.py").exists():
            terminal.forget()
            terminal.write(b"\x1b")  # a prompt keeps its digits until Esc
            await asyncio.sleep(0.3)
            terminal.write(spec.key.encode())
            await terminal.shows(spec.title.encode())
            await asyncio.sleep(0.5)


async def _share(pids: Sequence[int], seconds: float) -> float:
    return sum(await _shares(pids, seconds))


async def _shares(pids: Sequence[int], seconds: float) -> list[float]:
    """Per cent of one core that each process used in the following seconds."""
    before, began = [*map(cpu_seconds, pids)], time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    return [100 * (cpu_seconds(pid) - spent) / took for pid, spent in zip(pids, before, strict=True)]


# ---- a thousand events a second --------------------------------------------------------------------------------------


async def flood(house: House) -> list[report.Figure]:
    """On the Overview and on the Requests, with as many requests held as are ever held."""
    seconds = 10.0 if house.quick else 60.0
    figures: list[report.Figure] = []
    async with (
        _daemon(house) as daemon,
        _source(house, daemon) as socket,
        Terminal({**daemon.env, "HYBRIDD_SOCKET": str(socket)}) as terminal,
    ):
        await terminal.shows(_DATA)
        for key in ("overview", "requests"):
            terminal.write(SCREENS[key].key.encode())
            await terminal.shows(SCREENS[key].title.encode())
            figures += await _flooded(terminal, socket, seconds, f"dashboard, 1,000 events/s on {key}")
        weight = rss_mib(terminal.pid)
        figures.append(
            report.at_most(
                "dashboard, 1,000 events/s on requests", "memory afterwards", weight, 90, "MiB",
                detail=f"{HELD:,} requests held",
            )
        )  # fmt: skip
        times = await _filtered(terminal, b"7", rb"   filter ", 3 if house.quick else 7)
        figures.append(
            report.at_most(
                "dashboard, 1,000 events/s on requests", "filter of what is held", report.median(times), 100, "ms",
                detail=f"key to paint, median of {len(times)}; worst {report.number(max(times))} ms",
            )
        )  # fmt: skip
    return figures


@contextlib.asynccontextmanager
async def _source(house: House, daemon: Daemon) -> AsyncIterator[Path]:
    socket = daemon.home / "flood.sock"
    command = [sys.executable, "-m", "scripts.bench_parts.tui_flood", str(socket), str(daemon.socket)]
    process = Process(command, env=environment(daemon.home), log=daemon.home / "flood.log", cwd=ROOT)
    try:
        until = time.monotonic() + 30
        while ask(socket, "GET", "/sent")[0] != 200:
            if time.monotonic() > until or not process.running():
                raise StartFailed(f"the flood's source did not start:\n{process.last_lines()}")
            await asyncio.sleep(0.05)
        yield socket
    finally:
        process.stop()


async def _flooded(terminal: Terminal, socket: Path, seconds: float, group: str) -> list[report.Figure]:
    await asyncio.to_thread(post, socket, "/burst", {"count": HELD})
    await asyncio.to_thread(post, socket, "/flood", {"rate": RATE, "seconds": SETTLE_S})
    await asyncio.sleep(SETTLE_S + 1)
    terminal.painted = paints = Paints()
    status, text = await asyncio.to_thread(post, socket, "/flood", {"rate": RATE, "seconds": seconds})
    if status != 200:
        raise StartFailed(f"the flood's source said {status}: {text}")
    first = msgspec.json.decode(text)["from"]
    before = rss_mib(terminal.pid)
    share = await _share([terminal.pid], seconds)
    growth = rss_mib(terminal.pid) - before
    await asyncio.sleep(1)
    told = msgspec.json.decode((await asyncio.to_thread(ask, socket, "GET", "/sent"))[1])
    lags = paints.lags(told["sent"], first)
    unseen = len(told["sent"]) - first - len(lags)
    if not lags or unseen:
        raise StartFailed(f"{unseen} of the requests were never shown, {len(lags)} were: {terminal.words()}")
    late = 1000 * max(lags)
    how = (
        f"event to paint; median {report.number(1000 * report.median(lags))} ms, p99"
        f" {report.number(1000 * report.percentile(lags, 0.99))} ms over {seconds:g} s and {len(paints.seen)} paints;"
        f" the source itself was at most {report.number(1000 * told['latest_s'])} ms late"
    )
    return [
        report.at_most(group, "longest lag", late, 250, "ms", detail=how),
        report.at_most(group, "CPU", share, 35, "%", detail=f"of one core over {seconds:g} s"),
        report.at_most(
            group, "growth of its memory", growth, GROWTH_MIB, "MiB", detail=f"in {seconds:g} s; {HELD:,} held before"
        ),
    ]  # fmt: skip


# ---- filters ---------------------------------------------------------------------------------------------------------


async def filters(house: House) -> list[report.Figure]:
    """100,000 recorded requests; the screen holds the newest ones and asks the daemon for what lies further back."""
    group = f"dashboard, {ROWS:,} requests"
    async with _daemon(house, rows=ROWS) as daemon, Terminal(daemon.env) as terminal:
        await terminal.shows(_DATA)
        terminal.write(SCREENS["requests"].key.encode())
        await terminal.shows(rb"z-%d\b" % (ROWS - 1))
        # Not on the screen before, and among those that are held.
        third = rb"z-%d\b" % (ROWS - 1 - 2 * RARE_EVERY)
        times = await _filtered(terminal, b"z", third, 3 if house.quick else 7)
        older = await _filtered(terminal, b"x", rb"xenon", 3)
    return [
        report.at_most(
            group, "filter", report.median(times), 100, "ms",
            detail=f"key to paint, median of {len(times)}; worst {report.number(max(times))} ms",
        ),
        report.at_most(
            group, "a word that only the oldest one has", report.median(older), 100, "ms",
            detail=f"key to paint, with the daemon's search through all of them; worst {report.number(max(older))} ms",
        ),
    ]  # fmt: skip


async def _filtered(terminal: Terminal, key: bytes, shown: bytes, count: int) -> list[float]:
    """Milliseconds from a key in the filter line to the table it leaves, each time from no filter on."""
    times = []
    for _ in range(count):
        terminal.write(b"/")
        await asyncio.sleep(0.5)
        terminal.forget()
        typed = terminal.write(key)
        times.append(1000 * (await terminal.shows(shown) - typed))
        terminal.write(b"\r")
        await asyncio.sleep(0.3)
        terminal.write(b"\x1b")
        await asyncio.sleep(0.7)
    return times
