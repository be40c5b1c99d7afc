"""``hybridd models pull``"""

from __future__ import annotations

import time
from typing import Any, get_args

import click

from hybridd import errors
from hybridd.cli import diagnostics, output
from hybridd.cli.commands.models import common
from hybridd.cli.commands.models.progress import Progress
from hybridd.cli.options import command, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.contracts.units import size
from hybridd.local import names
from hybridd.local.named import on_hub
from hybridd.local.types import Goal

_ENDED = frozenset({"done", "failed", "cancelled"})
_POLL_SECONDS = 0.25


@command(
    "hybridd models pull Qwen/Qwen3-4B-GGUF",
    "hybridd models pull Qwen/Qwen3-4B-GGUF:Q4_K_M --detach",
    "hybridd models pull --cancel JOB",
)
@click.argument("repo", required=False, metavar="OWNER/NAME[:QUANTIZATION]")
@click.option("--file", help="This file of the repository (all its parts, when it is split).")
@click.option("--revision", help="Branch, tag or commit (default: main).")
@click.option("--ctx", "context", type=click.IntRange(min=1), help="Tokens of context that have to fit.")
@click.option("--parallel", type=click.IntRange(1, 256), help="Requests at the same time that have to fit.")
@click.option("--goal", type=click.Choice(get_args(Goal)), help="What the plan is for.")
@click.option("--detach", is_flag=True, help="Do not wait; print the job.")
@click.option("--cancel", "job_id", metavar="JOB", help="Stop this download; what has arrived is kept.")
@socket_option
def cli(
    api: Api,
    as_json: bool,
    repo: str | None,
    file: str | None,
    revision: str | None,
    context: int | None,
    parallel: int | None,
    goal: str | None,
    detach: bool,
    job_id: str | None,
) -> int:
    """Download a model from the Hub, through the daemon, which counts it against the quota of downloads.

    Without a quantisation or --file, the largest file that fits this machine well is taken, and the reason is shown.
    The daemon does the work: Ctrl-C stops the watching, not the download (--cancel does). A download that was cut or
    cancelled goes on where it stopped when it is asked for again.
    """
    if (repo is None) == (job_id is None):
        raise click.UsageError("give a repository, or --cancel and a job")
    if job_id is not None:
        job = _job(api.send(wire.post(f"/v1/local/jobs/{wire.segment(job_id)}/cancel")))
        common.emit_state(job, as_json, f"Job {job_id} is asked to stop; what has arrived is kept.")
        return errors.EXIT_OK
    where = on_hub(str(repo))
    if where.wanted and file:
        raise click.UsageError("give a quantisation or --file, not both")
    if where.revision and revision:
        raise click.UsageError("the address names a revision; leave out --revision")
    name = where.repo
    body = {
        "repo": name,
        "file": names.repository_file(file) if file else where.wanted,
        "revision": names.revision(revision) if revision else where.revision,
        "context": context,
        "parallel": parallel,
        "goal": goal,
    }
    job = _job(api.send(wire.post("/v1/local/pull", **body)))
    if detach:
        common.emit_state(job, as_json, f"Job {job['id']} downloads {name}.")
        return errors.EXIT_OK
    return _finish(_follow(api, job, as_json=as_json), as_json)


def _follow(api: Api, job: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """The job when it has ended; its progress is drawn meanwhile."""
    path = f"/v1/local/jobs/{wire.segment(job['id'])}"
    with Progress(quiet=as_json) as progress:
        try:
            while job.get("state") not in _ENDED:
                at = job.get("progress") or {}
                label = f"{at.get('state', 'waiting')} {at.get('file', '')}".strip()
                progress.show(label, at.get("done") or 0, at.get("total") or 0, at.get("bytes_per_second"))
                time.sleep(_POLL_SECONDS)
                job = _job(api.send(wire.get(path)))
        except KeyboardInterrupt:
            diagnostics.note(
                f"\njob {job['id']} goes on in the daemon; `hybridd models pull --cancel {job['id']}` stops it"
            )
            raise
    return job


def _finish(job: dict[str, Any], as_json: bool) -> int:
    if job["state"] != "done":
        raise wire.job_error(job)
    result = job.get("result") or {}
    if as_json:
        output.emit_json(job)
        return errors.EXIT_FAILURE if result.get("problem") else errors.EXIT_OK
    for reason in (result.get("choice") or {}).get("reasons") or []:
        output.emit(f"  {reason}")
    for name, reason in ((result.get("choice") or {}).get("passed_over") or {}).items():
        output.emit(f"  not {name}: {reason}")
    for one in result.get("left") or []:
        output.emit(f"  left: {one}: it is for images, and local models take text only")
    resumed = sum(one.get("resumed") or 0 for one in result.get("files") or [])
    arrived = result.get("downloaded") or 0
    how = "it was here already" if not arrived else f"{size(arrived)} downloaded"
    how += f", {size(resumed)} were here already" if arrived and resumed else ""
    model, other = result.get("model"), result.get("hidden_by")
    if result.get("problem"):
        output.emit(f"{model} is here ({how}, digest checked) as its author put it on the Hub, and cannot be loaded:")
        output.emit(f"  {result['problem']}")
    elif other:
        output.emit(f"{model} is here ({how}, digest checked), but local:{model} is another file of that name: {other}")
        output.emit("  rename or remove one of the two to use this one")
    else:
        output.emit(f"{model} is ready as local:{model} ({how}, digest checked).")
    output.emit(f"  {result.get('path')}")
    return errors.EXIT_FAILURE if result.get("problem") else errors.EXIT_OK


def _job(answer: Any) -> dict[str, Any]:
    """A job's view, alone or as the member ``job``.

    Raises:
        ProtocolError: it is neither.
    """
    job = answer.get("job", answer) if isinstance(answer, dict) else None
    if not isinstance(job, dict) or "id" not in job:
        raise errors.ProtocolError("the daemon's answer is no job; is it the same version?")
    return job
