"""Downloads and measurements as rows. Pure functions of the house."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from hybridd.i18n import N_, _
from tui.shapes import Job
from tui.text import Glyphs, age, bar, clean, percent, size_of
from tui.widgets.columns import Cell, Column, Rest

_KINDS = {"pull": N_("pull"), "bench": N_("bench")}
_STATES = {
    "starting": N_("starting"), "planning": N_("planning"), "downloading": N_("downloading"),
    "verifying": N_("verifying"), "loading": N_("loading"), "measuring": N_("measuring"),
    "repeating": N_("measuring again"),
}  # fmt: skip
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
    took = age(job.ended - job.started) if job.ended is not None else ""
    if job.state == "done":
        result = _result(job)
        if job.kind == "pull":
            return _pulled(job, result)
        form = _("fastest: {setting}, micro-batch {micro}, {count} at once")
        setting = _("flash attention on") if result.get("flash_attention") else _("flash attention off")
        told = form.format(setting=setting, micro=result.get("micro_batch"), count=result.get("sequences"))
        return (told, "good")
    if job.state == "cancelled":
        form = (
            _("ended by request after {span}; what has arrived is kept")
            if job.kind == "pull"
            else _("ended by request after {span}")
        )
        return (form.format(span=took), "dim")
    return (f"! {clean(str((job.error or {}).get('message') or _('failed')))}", "warn")


def _pulled(job: Job, result: dict[str, Any]) -> tuple[str, str]:
    """What has arrived is no success while it cannot be loaded, or while its name means another file."""
    model, problem, other = clean(str(result.get("model", "-"))), result.get("problem"), result.get("hidden_by")
    if problem:
        form = _("! {model} is here and cannot be loaded: {reason}")
        return form.format(model=model, reason=clean(str(problem))), "warn"
    if other:
        form = _("! {model} is here, but local:{model} is another file: {path}")
        return form.format(model=model, path=clean(str(other))), "warn"
    form = _("{model} is here, {size}") if job.downloaded else _("{model} was here already")
    return form.format(model=model, size=size_of(job.downloaded)), "good"


def progress(job: Job) -> tuple[float, float]:
    """Done and whole, in the job's own unit; (0, 0) before it knows."""
    said = job.progress
    done, total = said.get("done"), said.get("total")
    known = isinstance(done, (int, float)) and isinstance(total, (int, float))
    return (float(done or 0), float(total or 0)) if known else (0.0, 0.0)


def running_text(job: Job) -> str:
    """``43 %  1.2 GiB of 2.8 GiB  12 MiB/s  2 min left``"""
    said, (done, total) = job.progress, progress(job)
    state = clean(str(said.get("state") or "starting"))
    word = _(_STATES.get(state, state))
    if not total or state not in {"downloading", "measuring", "repeating"}:
        return word
    told = [percent(done / total)]
    if job.kind != "pull":
        return _("{state} {done} of {total}").format(state=word, done=int(done), total=int(total))
    told.append(_("{used} of {whole}").format(used=size_of(done), whole=size_of(total)))
    rate = said.get("bytes_per_second")
    if isinstance(rate, (int, float)) and rate > 0:
        told += [f"{size_of(rate)}/s", _("{span} left").format(span=age((total - done) / rate))]
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
    Column(
        "kind", "JOB", lambda job, width, signs: f" {_(_KINDS.get(job.kind, job.kind))}", 7, value=lambda job: job.kind
    ),
    Column("subject", "WHAT", lambda job, width, signs: signs.of(subject(job)), 18, share=2, value=subject),
    Column("at", "DONE", _at, 8, share=1, value=lambda job: job.state),
    Column("told", "", _told, 12, share=2, value=running_text),
]


def record(job: Job) -> Any:
    return msgspec.to_builtins(job)
