"""How a model of a repository would be loaded here, from its headers alone: a few ranges of each file over HTTP."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hybridd.errors import HybriddError
from hybridd.local import gguf, residuals
from hybridd.local.facts import ModelFacts, facts_of
from hybridd.local.http_source import HttpSource
from hybridd.local.hub import Hub, RepoModel, Repository
from hybridd.local.machine import MachineFacts, look
from hybridd.local.plan import plan, usable_gpus
from hybridd.local.plan_space import Request
from hybridd.local.types import Memory, Plan

LEAST_CONTEXT = 4096
"""Tokens below which a model is no use, unless it was trained for fewer."""


class Planner:
    """Plans the models of one repository for one machine.

    Args:
        hub: where from.
        repository: at which commit.
        request: goal, context and so on.
        machine: absent: looked at now.
        margin: bytes to keep free; absent: as learned from earlier loads.
    """

    def __init__(
        self,
        hub: Hub,
        repository: Repository,
        request: Request,
        *,
        machine: MachineFacts | None = None,
        margin: Callable[[MachineFacts, ModelFacts], int] | None = None,
    ) -> None:
        self._hub = hub
        self._repository = repository
        self._request = request
        self.machine = machine or look()
        self._margin = margin or learned_margin

    @property
    def has_gpu(self) -> bool:
        """Is there a GPU that the installed llama.cpp can use?"""
        return bool(usable_gpus(self.machine))

    def facts(self, model: RepoModel) -> ModelFacts:
        """What the headers of all its files say.

        Raises:
            BadGguf: they are no model's.
            SourceError: they cannot be read.
        """
        by_name = {file.path.rpartition("/")[2]: file for file in model.files}

        def source(name: str) -> HttpSource:
            return HttpSource(self._hub.url(self._repository, by_name[name]), token=self._hub.token)

        first = model.files[0].path
        return facts_of(gguf.read_parts(first.rpartition("/")[2], source), model.name, first)

    def plan(self, model: RepoModel) -> Plan:
        """The plan; one without options, and with the reason, for a file that is no model or has room for too little
        context only."""
        try:
            facts = self.facts(model)
            made = plan(facts, self.machine, self._request, margin=self._margin(self.machine, facts))
        except HybriddError as error:
            if error.status in {401, 403, 429}:
                raise
            return Plan(
                model=model.name,
                goal=self._request.goal,
                target="cpu",
                options=None,
                memory=Memory(),
                layers=0,
                budget=0,
                margin=0,
                reasons=[error.message],
            )
        least = min(LEAST_CONTEXT, facts.trained_context or LEAST_CONTEXT)
        if made.options is not None and self._request.context is None and made.sequence_context < least:
            short = f"only {made.sequence_context:,} tokens of context fit beside it"
            return msgspec.structs.replace(made, options=None, reasons=[short])
        return made


def learned_margin(machine: MachineFacts, facts: ModelFacts) -> int:
    """Bytes to keep free, from what this machine's earlier loads took beyond their plans."""
    return residuals.margin(residuals.read(), machine=machine.machine_id, model=facts.id)
