"""``hybridd models plan``"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import click

from hybridd.cli import diagnostics, output, text
from hybridd.cli.options import command, list_options
from hybridd.errors import EXIT_FAILURE

if TYPE_CHECKING:
    from hybridd.config.settings import Settings
    from hybridd.local.facts import ModelFacts
    from hybridd.local.hub import RepoModel
    from hybridd.local.machine import MachineFacts
    from hybridd.local.named import OnDisk, OnHub
    from hybridd.local.plan import Request
    from hybridd.local.types import Goal, LoadFailure, Memory, Plan

_GOALS = ("quality", "context", "throughput")
# Headers read at once: each is some megabytes, and the Hub asks for patience beyond a few connections.
_AT_ONCE = 4


@command(
    "hybridd models plan ./qwen3-4b-q4_k_m.gguf --ctx 16384",
    "hybridd models plan Qwen/Qwen3-4B-GGUF:Q4_K_M --goal context",
    "hybridd models plan Qwen/Qwen3-4B-GGUF --gpu-mb 4096",
)
@click.argument("model", metavar="REPO_OR_PATH")
@click.option("--ctx", "context", type=click.IntRange(min=1), help="Tokens for each sequence (local.context).")
@click.option("--parallel", type=click.IntRange(min=1), help="Sequences at once (local.parallel).")
@click.option("--goal", type=click.Choice(_GOALS), help="What to be good at (local.goal).")
@click.option("--gpu-mb", type=click.IntRange(min=1), help="Plan for a free GPU of that many MiB instead of this one.")
@click.option("--vram-limit-mb", type=click.IntRange(min=1), help="MiB of the GPU to use (local.vram_limit_mb).")
@click.option("--confirm", is_flag=True, help="Compare with llama.cpp's own dry run; for files on this machine.")
@click.option("--all", "everything", is_flag=True, help="Show the rejected alternatives, too.")
@click.option("--ascii", "ascii_", is_flag=True, help="Draw the bars with ASCII only.")
@list_options
def cli(
    as_json: bool, model: str, context: int | None, parallel: int | None, goal: str | None, gpu_mb: int | None,
    vram_limit_mb: int | None, confirm: bool, everything: bool, ascii_: bool, filter_: str | None, sort: str | None,
) -> int:  # fmt: skip
    """How a GGUF model would be loaded on this machine, before it is downloaded.

    REPO_OR_PATH is a file, a model of this machine, or a repository of the Hub: owner/name lists its files,
    owner/name:Q4_K_M or owner/name/file.gguf plans one. Only headers are read. What is not given is as the
    configuration says (the settings named in brackets), and else as the plan finds best. The exit code is 1 when
    nothing fits.
    """
    from hybridd.cli.commands.models import _plan_text as page
    from hybridd.config import loader
    from hybridd.local import machine as machines
    from hybridd.local.named import OnHub, meaning
    from hybridd.local.plan import plan

    if confirm and gpu_mb:
        raise click.UsageError("--confirm asks llama.cpp on this machine, which does not have the GPU of --gpu-mb")
    settings = loader.read(loader.find(None))
    where = meaning(model, settings)
    request = _request(where, settings, context, parallel, goal, vram_limit_mb, simulated=gpu_mb is not None)
    machine = machines.look()
    if gpu_mb:
        machine = machines.simulated(machine, gpu_mb << 20)
    if isinstance(where, OnHub) and where.wanted is None:
        return _repository(where, settings, machine, request, as_json=as_json, filter_=filter_, sort=sort)
    facts = _facts(where, settings, machine, request)
    made = plan(facts, machine, request, margin=_margin(machine, facts))
    checked = _confirm(where, facts, made) if confirm else None
    if as_json:
        output.emit_json(page.data(made, facts, machine, checked))
    else:
        page.show(made, facts, machine, checked, everything=everything, rich=text.utf8() and not ascii_)
    return 0 if made.options is not None else EXIT_FAILURE


def _request(
    where: OnDisk | OnHub, settings: Settings, context: int | None, parallel: int | None, goal: str | None,
    vram_limit_mb: int | None, *, simulated: bool,
) -> Request:  # fmt: skip
    """The wishes, and where there are none those of the configuration, for this model or for all."""
    from hybridd.local.named import OnDisk
    from hybridd.local.plan import Request

    section = settings.local
    own = section.models.get(where.id) if isinstance(where, OnDisk) else None
    limit = vram_limit_mb or (None if simulated else section.vram_limit_mb)
    return Request(
        goal=cast("Goal", goal or (own and own.goal) or section.goal),
        context=context or (own and own.context) or section.context,
        parallel=parallel or (own and own.parallel) or section.parallel,
        vram_limit=limit << 20 if limit else None,
        ram_limit=section.ram_limit_mb << 20 if section.ram_limit_mb else None,
    )


def _facts(where: OnDisk | OnHub, settings: Settings, machine: MachineFacts, request: Request) -> ModelFacts:
    """From the file's header, here or over HTTP."""
    from hybridd.local.named import OnDisk

    if isinstance(where, OnDisk):
        from hybridd.local.facts import facts_of
        from hybridd.local.gguf import open_model

        return facts_of(open_model(where.path), where.id, str(where.path.absolute()))
    from hybridd.local.hub import Hub, pick, token_of
    from hybridd.local.remote_plan import Planner

    hub = Hub(token_of(settings.hugging_face))
    repository = hub.repository(where.repo)
    return Planner(hub, repository, request, machine=machine).facts(pick(repository, where.wanted or ""))


def _margin(machine: MachineFacts, facts: ModelFacts) -> int:
    """Bytes to keep free, learned from this machine's earlier loads."""
    from hybridd.local import residuals

    return residuals.margin(residuals.read(), machine=machine.machine_id, model=facts.id)


def _repository(
    where: OnHub, settings: Settings, machine: MachineFacts, request: Request, *, as_json: bool,
    filter_: str | None, sort: str | None,
) -> int:  # fmt: skip
    """One line for each quantisation, and the one that ``models pull`` would take."""
    from hybridd.cli.commands.models import _plan_text as page
    from hybridd.errors import HybriddError
    from hybridd.local.hub import Hub, choose, token_of
    from hybridd.local.remote_plan import Planner

    hub = Hub(token_of(settings.hugging_face))
    repository = hub.repository(where.repo)
    planner = Planner(hub, repository, request, machine=machine, margin=_margin)
    models = [model for model in repository.models if model.kind == "model"]
    diagnostics.note(f"reading the headers of {len(models)} files of {where.repo} …")
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="header") as pool:
        plans: dict[RepoModel, Plan] = dict(zip(models, pool.map(planner.plan, models), strict=True))
    taken, why = "", []
    try:
        choice = choose(models, plans.__getitem__, has_gpu=planner.has_gpu)
        taken, why = choice.model.files[0].path, list(choice.reasons)
    except HybriddError as error:
        why = [error.message]
    rows = output.select([page.line(model, made, taken) for model, made in plans.items()], filter_, sort)
    if as_json:
        output.emit_json({"repo": repository.repo, "revision": repository.commit, "files": rows, "reasons": why})
    else:
        page.show_files(rows, why)
    return 0 if taken else EXIT_FAILURE


def _confirm(where: OnDisk | OnHub, facts: ModelFacts, made: Plan) -> Memory | LoadFailure | None:
    """llama.cpp's own figures for the plan; None when there is nothing to load."""
    import asyncio

    from hybridd.local.dry_run import dry_run
    from hybridd.local.named import OnHub

    if isinstance(where, OnHub):
        raise click.UsageError("--confirm needs the file: pull the model first, or name a file on this machine")
    return asyncio.run(dry_run(facts, made.options)) if made.options is not None else None
