"""Downloads and measurements as rows. Pure functions of the house."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tui.shapes import Job
from tui.text import Glyphs, age, bar, clean, percent, size_of
from tui.widgets.columns import Cell, Column, Rest

ENDED_SHOWN = 3
RECENT_SECONDS = 3600.0


def shown(jobs: Iterable[Job], now: float) -> list[Job]:
    """What runs, then what ended in the last hour; the newest first."""
    everything = sorted(jobs, key=lambda one: -one.started)
    running = [one for one in everything if one.state == "running"]
    ended = [one for one in everything if one.state != "running" and now - (one.ended or 0.0) < RECENT_SECONDS]
    ended.sort(key=lambda one: -(one.ended or 0.0))
    return [*running, *ended[:ENDED_SHOWN]]


def subject(job: Job) -> str:
    """What it is about."""
    if job.kind != "pull":
        return clean(str(job.request.get("model") or "-"))
    repo, file = str(job.request.get("repo") or "-"), job.request.get("file") or _result(job).get("quantization")
    return clean(f"{repo}:{file}" if file else repo)


def _result(job: Job) -> dict[str, Any]:
    return job.result if isinstance(job.result, dict) else {}


def outcome(job: Job) -> tuple[str, str]:
    """One sentence about a job that has ended, with its style."""
    took = f" after {age(job.ended - job.started)}" if job.ended is not None else ""
    if job.state == "done":
        result = _result(job)
        if job.kind == "pull":
            brought = job.downloaded or 0
            return (f"{result.get('model', 'it')} is here, {size_of(brought) if brought else 'it was already'}", "good")
        attention = "on" if result.get("flash_attention") else "off"
        return (f"fastest: flash attention {attention}, micro-batch {result.get('micro_batch')}, "
                f"{result.get('sequences')} at once", "good")  # fmt: skip
    if job.state == "cancelled":
        return (f"ended by request{took}; what has arrived is kept" if job.kind == "pull" else f"ended{took}", "dim")
    return (f"! {clean(str((job.error or {}).get('message') or 'failed'))}", "warn")


def progress(job: Job) -> tuple[float, float]:
    """Done and whole, in the job's own unit; (0, 0) before it knows."""
    said = job.progress
    done, total = said.get("done"), said.get("total")
    known = isinstance(done, (int, float)) and isinstance(total, (int, float))
    return (float(done or 0), float(total or 0)) if known else (0.0, 0.0)


def running_text(job: Job) -> str:
    """``43 %  1.2 GB of 2.8 GB  12 MB/s  2 min left``"""
    said, (done, total) = job.progress, progress(job)
    state = clean(str(said.get("state") or "starting"))
    if not total or state not in {"downloading", "measuring"}:
        return state
    told = [percent(done / total)]
    if job.kind != "pull":
        return f"{state} {int(done)} of {int(total)}"
    told.append(f"{size_of(done)} of {size_of(total)}")
    rate = said.get("bytes_per_second")
    if isinstance(rate, (int, float)) and rate > 0:
        told += [f"{size_of(rate)}/s", f"{age((total - done) / rate)} left"]
    return "  ".join(told)


def _at(job: Job, width: int, signs: Glyphs) -> Cell:
    if job.state != "running":
        text, style = outcome(job)
        return Rest([(signs.of(text), style)])
    done, total = progress(job)
    return bar(done, 0.0, 0.0, total, width, signs, "accent") if total else [(signs.free * width, "dim")]


def _told(job: Job, width: int, signs: Glyphs) -> Cell:
    return running_text(job) if job.state == "running" else ""


JOB_COLUMNS: list[Column[Job]] = [
    Column("kind", "JOB", lambda job, width, signs: f" {job.kind}", 6, value=lambda job: job.kind),
    Column("subject", "WHAT", lambda job, width, signs: signs.of(subject(job)), 18, share=2, value=subject),
    Column("at", "DONE", _at, 8, share=1, value=lambda job: job.state),
    Column("told", "", _told, 12, share=2, value=running_text),
]


def record(job: Job) -> Any:
    return msgspec.to_builtins(job)
