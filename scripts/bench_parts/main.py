"""``scripts/bench [core|local|tui|NAME…] [--json FILE] [--quick] [--seconds N]``: every figure beside its target.

Exit status: 0 when every figure could be taken (met or missed), 1 when one could not, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from pathlib import Path

import msgspec
import uvloop

from scripts.bench_parts import machine, report
from scripts.bench_parts.house import House

Part = Callable[[House], Awaitable[list[report.Figure]]]

PARTS: dict[str, tuple[str, str]] = {
    "start": ("startup", "start"),
    "routed": ("routed", "one_at_a_time"),
    "concurrent": ("routed", "concurrent"),
    "streaming": ("streaming", "first_token"),
    "streams": ("streaming", "throughput"),
    "overload": ("overload", "thousand"),
    "status": ("startup", "status"),
    "idle": ("startup", "idle"),
    "reservations": ("durable", "reservations"),
    "report": ("durable", "million"),
    "local-header": ("local_header", "figures"),
    "local-memory": ("local_memory", "figures"),
    "local-step": ("local_engine", "steps"),
    "local-generation": ("local", "generation"),
    "local-swap": ("local_loads", "swaps"),
    "local-growth": ("local_loads", "growth"),
    "tui-paint": ("tui", "first_paint"),
    "tui-rest": ("tui", "at_rest"),
    "tui-flood": ("tui", "flood"),
    "tui-filter": ("tui", "filters"),
}
"""Name on the command line to module and function. Imported when run: a part that is broken spoils only itself."""
GROUPS: dict[str, tuple[str, ...]] = {
    "core": tuple(name for name in PARTS if not name.startswith(("local-", "tui-"))),
    "local": tuple(name for name in PARTS if name.startswith("local-")),
    "tui": tuple(name for name in PARTS if name.startswith("tui-")),
}
"""``local``: models in llama.cpp. ``tui``: the dashboard in a terminal."""
PART_TIMEOUT_S = 900.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").splitlines()[0])
    names = [*GROUPS, *PARTS]
    parser.add_argument("names", nargs="*", default=["core"], metavar="NAME", help=f"any of: {', '.join(names)}")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--quick", action="store_true", help="less than a minute; noisier, fewer rows")
    parser.add_argument("--seconds", type=float, default=None, metavar="N", help="length of a load block (default 2)")
    given = parser.parse_args(arguments)
    for name in given.names:
        if name not in names:
            parser.error(f"there is no figure '{name}'; choose from {', '.join(names)}")
    if given.seconds is not None and not 0 < given.seconds <= 60:
        parser.error("--seconds is above 0 and at most 60")
    chosen = dict.fromkeys(part for name in given.names for part in GROUPS.get(name, (name,)))
    if not chosen:
        print(f"No figures are taken for {', '.join(given.names)} in this version.")
        return 0
    seconds = given.seconds or (1.0 if given.quick else 2.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(measure(list(chosen), quick=given.quick, seconds=seconds))
    print(report.table(figures))
    print(report.summary(figures))
    if given.json:
        path = Path(os.environ.get("HYBRIDD_BENCH_CWD", ".")) / given.json
        path.write_bytes(msgspec.json.format(msgspec.json.encode({"at": time.time(), "figures": figures})))
    return 1 if any(figure.verdict == "failed" for figure in figures) else 0


async def measure(parts: Sequence[str], *, quick: bool, seconds: float) -> list[report.Figure]:
    """All figures of the parts, in their order. A part that cannot run leaves one failed line and the rest goes on."""
    figures: list[report.Figure] = []
    with House(quick=quick, seconds=seconds, alternations=3 if quick else 5) as house:
        figures += machine.describe(house.scratch)
        # A collection in the middle of a block would be booked on whoever is being measured.
        gc.collect()
        gc.freeze()
        for name in parts:
            sys.stderr.write(f"· {name}\n")
            began = time.monotonic()
            try:
                module, function = PARTS[name]
                part: Part = getattr(import_module(f"scripts.bench_parts.{module}"), function)
                async with asyncio.timeout(PART_TIMEOUT_S):
                    figures += await part(house)
            except Exception as error:  # noqa: BLE001  # shown as a failed line; the other figures are still wanted
                figures.append(report.failed(name, "could not be measured", _why(error)))
            sys.stderr.write(f"  {time.monotonic() - began:.1f} s\n")
    return figures


def _why(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 600 else f"{text[:600]} …"


if __name__ == "__main__":
    sys.exit(main())
