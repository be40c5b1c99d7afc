"""How models of a repository, or of any web server, would be loaded here, from their headers alone: a few ranges of
each file over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from hybridd.config.settings import Settings
from hybridd.errors import HybriddError
from hybridd.local import plan_view
from hybridd.local.facts import ModelFacts, facts_of
from hybridd.local.gguf_url import open_parts, open_url
from hybridd.local.http_link import Link
from hybridd.local.hub import Choice, Hub, RepoModel, Repository, choose, pick, token_of
from hybridd.local.hub_errors import gated
from hybridd.local.machine import MachineFacts, look
from hybridd.local.named import OnHub, OnWeb
from hybridd.local.names import shown_url
from hybridd.local.plan import usable_gpus
from hybridd.local.plan_space import Request
from hybridd.local.planning import planned
from hybridd.local.sources import SourceError
from hybridd.local.types import FilePlan, Memory, Plan, RepositoryPlan

LEAST_CONTEXT = 4096
"""Tokens below which a model is no use, unless it was trained for fewer."""
# Headers read at once: each is some megabytes, and the Hub asks for patience beyond a few connections.
_AT_ONCE = 4


class Planner:
    """Plans the models of one repository for one machine.

    Args:
        hub: where from.
        repository: at which commit.
        request: goal, context and so on.
        machine: absent: looked at now.
        measured: with what was measured on it.
    """

    def __init__(
        self,
        hub: Hub,
        repository: Repository,
        request: Request,
        *,
        machine: MachineFacts | None = None,
        measured: bool = True,
    ) -> None:
        self._hub = hub
        self._repository = repository
        self._request = request
        self.machine = machine or look()
        self._measured = measured
        self._mine = threading.local()

    @property
    def has_gpu(self) -> bool:
        """Is there a GPU that the installed llama.cpp can use?"""
        return bool(usable_gpus(self.machine))

    def facts(self, model: RepoModel) -> ModelFacts:
        """What the headers of all its files say. Each thread keeps its connections from one model to the next.

        Raises:
            BadGguf: they are no model's.
            HubError: ``gated``, what has to be done on the Hub first.
            SourceError: they cannot be read.
        """
        by_name = {file.path.rpartition("/")[2]: file for file in model.files}
        link: Link | None = getattr(self._mine, "link", None)
        if link is None:
            link = self._mine.link = Link()
        first = model.files[0].path
        try:
            found = open_parts(
                first.rpartition("/")[2],
                lambda name: self._hub.url(self._repository, by_name[name]),
                token=self._hub.token,
                link=link,
            )
        except SourceError as error:
            if not self._repository.gated or error.status not in {401, 403}:
                raise
            repo = self._repository.repo
            raise gated(repo, f"{self._hub.endpoint}/{repo}", error.status, has_token=bool(self._hub.token)) from error
        return facts_of(found, model.name, first)

    def plan(self, model: RepoModel) -> Plan:
        """The plan; one without options, and with the reason, for a file that is no model or has room for too little
        context only."""
        try:
            facts = self.facts(model)
            made = planned(facts, self.machine, self._request, measured=self._measured)
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

    def survey(self) -> RepositoryPlan:
        """Every model of the repository, and the one that a pull would take."""
        models = [model for model in self._repository.models if model.kind == "model"]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="header") as pool:
            plans = dict(zip(models, pool.map(self.plan, models), strict=True))
        taken, reasons = self._choice(models, plans)
        return RepositoryPlan(
            repo=self._repository.repo,
            revision=self._repository.commit,
            files=[line(model.files[0].path, model, plan, taken) for model, plan in plans.items()],
            reasons=reasons,
        )

    def _choice(self, models: Sequence[RepoModel], plans: Mapping[RepoModel, Plan]) -> tuple[str, list[str]]:
        try:
            choice: Choice = choose(models, plans.__getitem__, has_gpu=self.has_gpu)
        except HybriddError as error:
            return "", [error.message]
        return choice.model.files[0].path, list(choice.reasons)


def line(file: str, model: RepoModel | ModelFacts, plan: Plan, taken: str = "") -> FilePlan:
    """One file as data."""
    options = plan.options
    return FilePlan(
        file=file,
        quantization=model.quantization,
        bytes=model.bytes,
        fit=plan_view.fit(plan),
        gpu_layers=options.gpu_layers if options else None,
        layers=plan.layers,
        context=plan.sequence_context if options else None,
        sequences=options.sequences if options else None,
        kv=options.type_k if options else None,
        device=plan.memory.device.total,
        host=plan.memory.host.total,
        taken=file == taken,
        reasons=list(plan.reasons),
    )


def planner_of(
    where: OnHub, settings: Settings, request: Request, *, machine: MachineFacts | None = None, measured: bool = True
) -> tuple[Planner, Repository]:
    """The planner of a repository as it is now.

    Raises:
        HubError: see :mod:`hybridd.local.hub_errors`.
        ConfigError: huggingface_hub is not installed, or the token's place is empty.
    """
    hub = Hub(token_of(settings.hugging_face))
    repository = hub.repository(where.repo, where.revision)
    return Planner(hub, repository, request, machine=machine, measured=measured), repository


def facts_elsewhere(
    where: OnHub | OnWeb, settings: Settings, request: Request, machine: MachineFacts | None = None
) -> ModelFacts:
    """What the header of one file says that is not on this machine.

    Raises:
        HybriddError: it cannot be had, or is no model's.
    """
    if isinstance(where, OnWeb):
        name = where.url.partition("#")[0].partition("?")[0].rpartition("/")[2]
        return facts_of(open_url(where.url), name.removesuffix(".gguf"), shown_url(where.url))
    planner, repository = planner_of(where, settings, request, machine=machine)
    return planner.facts(pick(repository, where.wanted or ""))


def survey(where: OnHub | OnWeb, settings: Settings, request: Request) -> RepositoryPlan:
    """The whole repository, or the one file that is meant, with its plan in full.

    Raises:
        HybriddError: as :func:`planner_of` and :func:`facts_elsewhere`.
    """
    if isinstance(where, OnHub):
        planner, repository = planner_of(where, settings, request)
        if where.wanted is None:
            return planner.survey()
        facts, machine = planner.facts(pick(repository, where.wanted)), planner.machine
        repo, revision = repository.repo, repository.commit
    else:
        facts, machine = facts_elsewhere(where, settings, request), look()
        repo, revision = facts.path, ""
    made = planned(facts, machine, request)
    row = line(facts.path, facts, made)
    return RepositoryPlan(repo=repo, revision=revision, files=[row], reasons=list(made.reasons), plan=made)
