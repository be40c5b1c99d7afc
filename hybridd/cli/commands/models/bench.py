"""``hybridd models bench``"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import click

from hybridd import errors
from hybridd.cli import diagnostics, output, text
from hybridd.cli.commands.models import common
from hybridd.cli.options import command, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api

_ENDED = frozenset({"done", "failed", "cancelled"})
_POLL_SECONDS = 0.25
_BAR = 24


@command("hybridd models bench qwen3-4b-q4_k_m", "hybridd models bench qwen3-4b-q4_k_m --seconds 30 --json")
@common.model_argument
@click.option(
    "--seconds",
    type=click.FloatRange(min=1, max=3600),
    default=120,
    show_default=True,
    help="Begin no new measurement after that long.",
)
@common.config_option
@socket_option
def cli(api: Api, as_json: bool, name: str, seconds: float, config: Path | None) -> int:
    """Measure how this machine runs a model best: flash attention, micro-batch, sequences in a batch.

    What is found is kept for this machine, model and build of llama.cpp, and used for every load from then on. A
    running daemon does it as a job, with its other models unloaded; it refuses while they answer. Without a daemon it
    runs here.
    """
    view = common.resident(api)
    result = _here(name, seconds, config) if view is None else _job(api, name, seconds, as_json=as_json)
    if as_json:
        output.emit_json(result)
    else:
        show(result)
    return errors.EXIT_OK


def _here(name: str, seconds: float, config: Path | None) -> dict[str, Any]:
    from hybridd.local import library
    from hybridd.local.calibrating import Asked

    settings = common.settings(config)
    model = library.find(library.models(library.folders(settings)), name)
    limit = settings.local.vram_limit_mb
    return asyncio.run(_measure(Asked(model.id, model.path, seconds, limit << 20 if limit else None)))


async def _measure(asked: Any) -> dict[str, Any]:
    from hybridd.local.calibrating import calibrate

    result: dict[str, Any] = {}
    async for line in calibrate(asked):
        if "result" in line:
            result = line["result"]
        else:
            _note(line)
    return result


def _job(api: Api, name: str, seconds: float, *, as_json: bool) -> dict[str, Any]:
    """The result of the daemon's job.

    Raises:
        HybriddError: the daemon refuses (models are in use), or the job failed or was cancelled.
    """
    answer = api.send(wire.post("/v1/local/bench", model=name, seconds=seconds))
    job = answer.get("job", answer)
    path = f"/v1/local/jobs/{wire.segment(job['id'])}"
    seen = None
    try:
        while job.get("state") not in _ENDED:
            at = job.get("progress") or {}
            if at != seen and not as_json:
                _note(at)
                seen = at
            time.sleep(_POLL_SECONDS)
            answer = api.send(wire.get(path))
            job = answer.get("job", answer)
    except KeyboardInterrupt:
        api.send(wire.post(f"{path}/cancel"))
        raise
    if job["state"] != "done":
        raise wire.job_error(job)
    result: dict[str, Any] = job.get("result") or {}
    return result


def _note(line: dict[str, Any]) -> None:
    measured = line.get("measured")
    if measured:
        speed = text.number(measured["prefill_per_second"], 0)
        setting = _setting(measured)
        diagnostics.note(f"{line.get('done')} of {line.get('total')}: {setting}: {speed} prompt tokens/s")
    elif line.get("state") == "repeating":
        diagnostics.note(f"{line.get('done')} of {line.get('total')}: a second time, to see what is noise")
    elif line.get("state"):
        diagnostics.note(f"{line['state']} …")


def show(result: dict[str, Any]) -> None:
    """The table, the bars and what follows from them."""
    measured = result["measured"]
    widths = sorted({int(width) for one in measured for width in one["decode_per_second"]})
    titles = [
        output.Column("FLASH ATTENTION"),
        output.Column("MICRO-BATCH", right=True),
        output.Column("PROMPT", right=True),
        output.Column("±", right=True),
        *(output.Column(f"×{width}", right=True) for width in widths),
        output.Column("±", right=True),
        output.Column(""),
    ]
    output.table(titles, [_row(one, widths, chosen=_is_chosen(one, result)) for one in measured])
    output.paragraph(
        "Tokens per second: of a prompt, and of answers with that many sequences in a batch, all together. ±: how far "
        "repetitions lay from the figures before it."
    )
    output.emit()
    best = next(one for one in measured if _is_chosen(one, result))
    most = max(best["decode_per_second"].values())
    for width in widths:
        rate = _decode(best, width)
        bar = text.bar(rate / most, 0.0, 0.0, 1.0, _BAR, rich=text.utf8())
        output.emit(f"  {width:>2} at once  {bar}  {text.number(rate, 1)}")
    output.emit()
    for one in result.get("left_out") or []:
        output.emit(f"Not measured: {_setting(one)}: {one['reason']}.")
    output.paragraph(_verdict(result), indent="")
    output.paragraph(f"{result['sequences']} at once is the best batch width here.", indent="")


def _verdict(result: dict[str, Any]) -> str:
    noise, gain = float(result.get("noise") or 0.0), float(result.get("gain") or 0.0)
    told = f"From now on {result['model']} is loaded with {_setting(result)} where the plan leaves the choice"
    if not noise:
        return f"{told}."
    if not result.get("kept"):
        return f"{told}: it saves {gain:.0%} of a request's time, and the figures vary by ±{noise:.0%}."
    if gain <= 0:
        return f"{told}, the plan's own choice: nothing was faster (±{noise:.0%})."
    return (
        f"{told}, the plan's own choice: the fastest measured saves {gain:.0%} of a request's time, and the figures "
        f"vary by ±{noise:.0%}, so it may be chance."
    )


def _row(one: dict[str, Any], widths: list[int], *, chosen: bool) -> tuple[str, ...]:
    return (
        "on" if one["flash_attention"] else "off",
        str(one["micro_batch"]),
        text.number(one["prefill_per_second"], 0),
        _share(one.get("prefill_spread")),
        *(text.number(_decode(one, width), 1) for width in widths),
        _share(max((one.get("decode_spread") or {}).values(), default=None)),
        "chosen" if chosen else "",
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _decode(one: dict[str, Any], width: int) -> float:
    """JSON has only texts as keys, the result of a measurement in this process has numbers."""
    speeds = one["decode_per_second"]
    return float(speeds.get(width, speeds.get(str(width), 0.0)))


def _is_chosen(one: dict[str, Any], result: dict[str, Any]) -> bool:
    return (one["flash_attention"], one["micro_batch"]) == (result["flash_attention"], result["micro_batch"])


def _setting(one: dict[str, Any]) -> str:
    return f"flash attention {'on' if one['flash_attention'] else 'off'}, micro-batch {one['micro_batch']}"
