"""A plan as the daemon makes it before a load: the configuration's wishes, the margin that earlier loads call for, and
what was measured to be fastest. For whoever plans without the daemon: the command line, and children that look at
repositories."""

from __future__ import annotations

from msgspec.structs import replace

from hybridd.config.settings import Settings
from hybridd.local import calibration, residuals
from hybridd.local.facts import ModelFacts
from hybridd.local.machine import MachineFacts
from hybridd.local.plan import plan
from hybridd.local.plan_space import Request
from hybridd.local.types import Goal, Plan


def request_of(
    settings: Settings,
    model: str | None = None,
    *,
    goal: Goal | None = None,
    context: int | None = None,
    parallel: int | None = None,
    vram_limit_mb: int | None = None,
    limited: bool = True,
) -> Request:
    """The wishes, and where there are none those of the configuration: for ``model`` (an id), or for all.

    Args:
        limited: the configuration's ``vram_limit_mb`` holds where ``vram_limit_mb`` is absent.
    """
    section = settings.local
    own = section.models.get(model) if model is not None else None
    limit = vram_limit_mb or (section.vram_limit_mb if limited else None)
    return Request(
        goal=goal or (own and own.goal) or section.goal,
        context=context or (own and own.context) or section.context,
        parallel=parallel or (own and own.parallel) or section.parallel,
        vram_limit=limit << 20 if limit else None,
        ram_limit=section.ram_limit_mb << 20 if section.ram_limit_mb else None,
    )


def planned(facts: ModelFacts, machine: MachineFacts, request: Request, *, measured: bool = True) -> Plan:
    """The plan that a load on this machine would begin with, were nothing else loaded.

    Args:
        measured: with the findings of `models bench`; they say nothing about a machine that is not this one.

    Raises:
        StateError: what earlier loads and measurements have taught cannot be read.
    """
    if measured:
        request = _calibrated(facts, machine, request)
    return plan(facts, machine, request, margin=learned_margin(machine, facts))


def learned_margin(machine: MachineFacts, facts: ModelFacts) -> int:
    """Bytes to keep free, from what this machine's earlier loads took beyond their plans."""
    return residuals.margin(residuals.read(), machine=machine.machine_id, model=facts.id)


def _calibrated(facts: ModelFacts, machine: MachineFacts, request: Request) -> Request:
    version = calibration.llama_version()
    found = calibration.find(calibration.read(), machine=machine.machine_id, facts=facts, version=version)
    if found is None:
        return request
    return replace(request, flash_attention=found.flash_attention, micro_batch=found.micro_batch)
