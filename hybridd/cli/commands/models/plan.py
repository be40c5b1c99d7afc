"""``hybridd models plan``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from hybridd.cli import diagnostics, output, text
from hybridd.cli.commands.models import common
from hybridd.cli.options import command, list_options, socket_option
from hybridd.client.stdlib import Api
from hybridd.errors import EXIT_FAILURE

if TYPE_CHECKING:
    from hybridd.config.settings import Settings
    from hybridd.local.facts import ModelFacts
    from hybridd.local.machine import MachineFacts
    from hybridd.local.named import OnDisk, OnHub, OnWeb
    from hybridd.local.plan import Request
    from hybridd.local.types import Goal, LoadFailure, Memory, Plan

_GOALS = ("quality", "context", "throughput")


@command(
    "hybridd models plan ./qwen3-4b-q4_k_m.gguf --ctx 16384",
    "hybridd models plan Qwen/Qwen3-4B-GGUF:Q4_K_M --goal context",
    "hybridd models plan Qwen/Qwen3-4B-GGUF --gpu-mb 4096",
)
@click.argument("model", metavar="REPO_OR_PATH")
@click.option("--ctx", "context", type=click.IntRange(min=1), help="Tokens for each sequence (local.context).")
@click.option("--parallel", type=click.IntRange(1, 256), help="Sequences at once (local.parallel).")
@click.option("--goal", type=click.Choice(_GOALS), help="What to be good at (local.goal).")
@click.option("--gpu-mb", type=click.IntRange(min=1), help="Plan for a free GPU of that many MiB instead of this one.")
@click.option("--vram-limit-mb", type=click.IntRange(min=1), help="MiB of the GPU to use (local.vram_limit_mb).")
@click.option("--confirm", is_flag=True, help="Compare with llama.cpp's own dry run; for files on this machine.")
@click.option("--all", "everything", is_flag=True, help="Show the rejected alternatives, too.")
@click.option("--ascii", "ascii_", is_flag=True, help="Draw the bars with ASCII only.")
@list_options
@common.config_option
@socket_option
def cli(
    api: Api, as_json: bool, model: str, context: int | None, parallel: int | None, goal: str | None,
    gpu_mb: int | None, vram_limit_mb: int | None, confirm: bool, everything: bool, ascii_: bool,
    config: Path | None, filter_: str | None, sort: str | None,
) -> int:  # fmt: skip
    """How a GGUF model would be loaded on this machine, before it is downloaded.

    REPO_OR_PATH is a file, a model of this machine, the https address of a file, or a repository of the Hub: owner/name
    lists its files, owner/name:Q4_K_M or owner/name/file.gguf plans one. Only headers are read. What is not given is as
    the configuration says (the settings named in brackets), and else as the plan finds best. The exit code is 1 when
    nothing fits. Works without a daemon.
    """
    from hybridd.cli.commands.models import _plan_text as page
    from hybridd.local import machine as machines
    from hybridd.local.named import OnDisk, OnHub, meaning
    from hybridd.local.planning import planned, request_of

    if confirm and gpu_mb:
        raise click.UsageError("--confirm asks llama.cpp on this machine, which does not have the GPU of --gpu-mb")
    settings = common.settings(config, api)
    where = meaning(model, lambda: common.folders(config, common.resident(api)))
    request = request_of(
        settings, where.id if isinstance(where, OnDisk) else None, goal=cast("Goal | None", goal), context=context,
        parallel=parallel, vram_limit_mb=vram_limit_mb, limited=gpu_mb is None,
    )  # fmt: skip
    machine = machines.look()
    if gpu_mb:
        machine = machines.simulated(machine, gpu_mb << 20)
    if isinstance(where, OnHub) and where.wanted is None:
        return _repository(
            where, settings, machine, request, measured=not gpu_mb, as_json=as_json, filter_=filter_, sort=sort
        )
    facts = _facts(where, settings, machine, request)
    made = planned(facts, machine, request, measured=not gpu_mb)
    checked = _confirm(where, facts, made) if confirm else None
    if as_json:
        output.emit_json(page.data(made, facts, machine, checked))
    else:
        page.show(made, facts, machine, checked, everything=everything, rich=text.utf8() and not ascii_)
    return 0 if made.options is not None else EXIT_FAILURE


def _facts(where: OnDisk | OnHub | OnWeb, settings: Settings, machine: MachineFacts, request: Request) -> ModelFacts:
    """From the file's header, here or over HTTP."""
    from hybridd.local.named import OnDisk

    if isinstance(where, OnDisk):
        from hybridd.local.facts import facts_of
        from hybridd.local.gguf import open_model

        return facts_of(open_model(where.path), where.id, str(where.path.absolute()))
    from hybridd.local.remote_plan import facts_elsewhere

    return facts_elsewhere(where, settings, request, machine)


def _repository(
    where: OnHub, settings: Settings, machine: MachineFacts, request: Request, *, measured: bool, as_json: bool,
    filter_: str | None, sort: str | None,
) -> int:  # fmt: skip
    """One line for each quantisation, and the one that ``models pull`` would take."""
    import msgspec

    from hybridd.cli.commands.models import _plan_text as page
    from hybridd.local.remote_plan import planner_of

    planner, repository = planner_of(where, settings, request, machine=machine, measured=measured)
    count = sum(model.kind == "model" for model in repository.models)
    diagnostics.note(f"reading the headers of {count} files of {where.repo} …")
    found = planner.survey()
    rows = output.select([msgspec.to_builtins(one) for one in found.files], filter_, sort)
    if as_json:
        output.emit_json({"repo": found.repo, "revision": found.revision, "files": rows, "reasons": found.reasons})
    else:
        page.show_files(rows, found.reasons)
    return 0 if any(one.taken for one in found.files) else EXIT_FAILURE


def _confirm(where: OnDisk | OnHub | OnWeb, facts: ModelFacts, made: Plan) -> Memory | LoadFailure | None:
    """llama.cpp's own figures for the plan; None when there is nothing to load."""
    import asyncio

    from hybridd.local.dry_run import dry_run
    from hybridd.local.named import OnDisk

    if not isinstance(where, OnDisk):
        raise click.UsageError("--confirm needs the file: name one on this machine, or pull the model first")
    return asyncio.run(dry_run(facts, made.options)) if made.options is not None else None
