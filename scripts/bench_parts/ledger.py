"""Durable reservations a second: admit, dispatch (row on the disk), settle; three binding quotas, a real file."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hybridd.bus import EventBus
from hybridd.clocks import SystemClock
from hybridd.contracts.protocol import Usage
from hybridd.contracts.quotas import Amounts, Price, Quota, Window
from hybridd.ledger import Ending, Ledger
from hybridd.store.database import Database

QUOTAS = [
    Quota("bench", "requests", 10**12, Window(seconds=60)),
    Quota("bench", "total_tokens", 10**15, Window(calendar="day")),
    Quota("bench", "concurrent", 10**6),
]


_ROWS: deque[Any] = deque(maxlen=1)


async def reservations_per_second(concurrency: int = 256, seconds: float = 3, folder_in: str = ".") -> dict[str, Any]:
    """``concurrency`` callers each reserve, dispatch and settle in a loop for ``seconds``."""
    with tempfile.TemporaryDirectory(prefix="hybridd-bench-", dir=folder_in) as folder:
        clock = SystemClock()
        database = Database.open(Path(folder), clock=clock)
        try:
            ledger = Ledger(database, clock, EventBus(clock))
            ledger.configure(QUOTAS)
            await ledger.recover()
            done = await _run(ledger, concurrency, min(0.5, seconds / 4))
            cpu, began = time.thread_time(), time.perf_counter()
            done = await _run(ledger, concurrency, seconds)
            took, cpu = time.perf_counter() - began, time.thread_time() - cpu
            await database.writer.barrier()
        finally:
            database.close()
    return {
        "reservations_per_second": round(done / took),
        "loop_cpu_us_each": round(cpu / done * 1e6, 2),
        "concurrency": concurrency,
        "seconds": round(took, 3),
        "binding_quotas": len(QUOTAS),
    }


async def _run(ledger: Ledger, concurrency: int, seconds: float) -> int:
    amounts, price = Amounts(1, 100, 200), Price(150_000, 600_000)
    ending = Ending(kind="ok", usage=Usage(90, 120))
    until = time.perf_counter() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < until:
            call = ledger.admit(
                request_id=1, provider="bench", account="bench", model="m", task="t", amounts=amounts, price=price,
                linger_seconds=0,
            )  # fmt: skip
            await ledger.dispatch(call)
            ledger.settle(call, ending)
            done += 1

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return done


def memory_microseconds(rounds: int = 100_000) -> float:
    """Event-loop time of admit + settle alone (no writer), in microseconds."""
    clock = SystemClock()
    admission_only: Any = SimpleNamespace(boot=1, writer=SimpleNamespace(failed=None, settle=_ROWS.append))
    ledger = Ledger(admission_only, clock, EventBus(clock))
    ledger.configure(QUOTAS)
    ledger._recovered = True
    amounts, price = Amounts(1, 100, 200), Price(150_000, 600_000)
    ending = Ending(kind="ok", usage=Usage(90, 120))
    began = time.thread_time()
    for _ in range(rounds):
        call = ledger.admit(
            request_id=1, provider="bench", account="bench", model="m", task="t", amounts=amounts, price=price,
            linger_seconds=0,
        )  # fmt: skip
        call.state = "dispatched"
        ledger.settle(call, ending)
    return (time.thread_time() - began) / rounds * 1e6


if __name__ == "__main__":
    import uvloop

    print(uvloop.run(reservations_per_second()))
    print({"admit_settle_us": round(memory_microseconds(), 2)})
