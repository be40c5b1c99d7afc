"""The routes of local models: what there is, what is loaded, plans, loads, downloads."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from hybridd.api.endpoints import Call, Endpoint
from hybridd.errors import InvalidRequest, ProviderError
from hybridd.local import names
from hybridd.local.jobs import Job
from hybridd.local.named import elsewhere, on_hub
from hybridd.local.plan import Request, check
from hybridd.local.residency_views import Figures, LocalModel, ResidentView, details, listing, residents, what_if
from hybridd.local.types import Goal, Plan, RepositoryPlan

LOAD_SECONDS = 600.0
PLAN_SECONDS = 120.0
"""For the headers of a repository's files."""


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters and bodies: unknown fields are refused."""


class LocalModelsQuery(Strict):
    """``state``: unloaded, loading, ready, draining, failed. ``q``: a text in the name, architecture or quantization.
    ``sort``: a field, ``-`` in front for descending."""

    state: str | None = None
    q: str | None = None
    sort: str = ""


class LocalModels(msgspec.Struct):
    models: list[LocalModel]


async def models(call: Call) -> LocalModels:
    query = call.query
    found = await listing(call.services.residency)
    if query.state is not None:
        found = [one for one in found if one.state == query.state]
    if query.q:
        wanted = query.q.lower()
        found = [one for one in found if wanted in f"{one.id} {one.architecture} {one.quantization}".lower()]
    key = query.sort.removeprefix("-")
    if key:
        if key not in LocalModel.__struct_fields__:
            known = ", ".join(sorted(LocalModel.__struct_fields__))
            raise InvalidRequest(f"Models cannot be sorted by '{key}'; known: {known}.", param="sort")
        found.sort(key=lambda one: _order(getattr(one, key)), reverse=query.sort.startswith("-"))
    return LocalModels(found)


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (int, float)):
        return (0, float(value), "")
    return (1, 0.0, "" if value is None else str(value))


class LocalModelDetails(msgspec.Struct):
    """``facts``: what its header says; ``plan``: how it would be loaded now, or is loaded."""

    model: LocalModel
    facts: dict[str, Any] | None
    plan: Plan | None
    resident: ResidentView | None


async def model(call: Call) -> LocalModelDetails:
    found = await details(call.services.residency, call.id)
    return LocalModelDetails(*found)


class PlanBody(Strict):
    """Either ``model``, one of this machine, or ``repository``: one of the Hub, a file of one (``owner/name:Q4_K_M``,
    ``owner/name/file.gguf``), or the address of a GGUF file; only headers are read. ``context``: tokens of each
    request; ``parallel``: requests at the same time; absent: the configuration's."""

    model: str | None = None
    repository: str | None = None
    context: int | None = None
    parallel: int | None = None
    goal: Goal | None = None


async def plan(call: Call) -> Plan | RepositoryPlan:
    asked: PlanBody = call.body
    if (asked.model is None) == (asked.repository is None):
        raise InvalidRequest("Give 'model' (of this machine) or 'repository' (of the Hub), not both.", param="model")
    if asked.model is None:
        return await _elsewhere(call, asked)
    return await what_if(call.services.residency, asked.model, asked.context, asked.parallel, asked.goal)


async def _elsewhere(call: Call, asked: PlanBody) -> RepositoryPlan:
    """In a child: headers come over the network, and the Hub's library is none of the daemon's."""
    repository = str(asked.repository)
    elsewhere(repository)  # as for a pull: a name that is none starts no child
    check(Request(context=asked.context, parallel=asked.parallel))
    given = {"repository": repository, "context": asked.context, "parallel": asked.parallel, "goal": asked.goal}
    config = call.services.router.resolved.path
    answer = await call.services.jobs.ask(
        "plan", {key: value for key, value in {**given, "config": config}.items() if value is not None}, PLAN_SECONDS
    )
    return msgspec.convert(answer, RepositoryPlan)


class LoadBody(Strict):
    """``timeout_seconds``: how long this call waits; the load itself goes on."""

    model: str
    timeout_seconds: float = LOAD_SECONDS


class UnloadBody(Strict):
    model: str


class Unloaded(msgspec.Struct):
    """``unloaded``: it was loaded, and its process is gone now."""

    model: str
    unloaded: bool


async def load(call: Call) -> ResidentView:
    asked: LoadBody = call.body
    if not 0 < asked.timeout_seconds <= 86_400:
        raise InvalidRequest("'timeout_seconds' must be above 0 and at most a day.", param="timeout_seconds")
    residency = call.services.residency
    known = await residency.find(asked.model)
    await residency.ensure(known.id, asked.timeout_seconds, promise=False)
    found = next((one for one in residents(residency) if one.model == known.id), None)
    if found is None:
        raise ProviderError(f"{known.id} was unloaded again at once.", code="not_loaded", status=503)
    return found


async def unload(call: Call) -> Unloaded:
    residency = call.services.residency
    known = await residency.find(call.body.model)
    return Unloaded(known.id, await residency.unload(known.id))


class Residents(msgspec.Struct):
    """``models``: what is loaded; ``machine``: the memory that plans are made for, now; ``folders``: where files are
    looked for (``models_dir``, ``cache_dir``, ``default_path``)."""

    models: list[ResidentView]
    machine: Figures
    folders: dict[str, str | None]


async def resident(call: Call) -> Residents:
    residency = call.services.residency
    machine = await residency.loads.room.look(residency.workers)
    return Residents(residents(residency), Figures.of(machine), residency.shelf.places)


class PullBody(Strict):
    """``repo``: ``owner/name``, ``owner/name:Q4_K_M`` or a page of the Hub; ``file``: a file or a quantisation of it;
    absent: the largest that the plan says fits well."""

    repo: str
    file: str | None = None
    revision: str | None = None
    context: int | None = None
    parallel: int | None = None
    goal: Goal | None = None


class JobList(msgspec.Struct):
    jobs: list[Job]


async def pull(call: Call) -> Job:
    services = call.services
    resolved = services.router.resolved
    asked: PullBody = call.body
    # A name that is none starts no child and counts for nothing.
    where = on_hub(asked.repo)
    for name, there in (("file", where.wanted), ("revision", where.revision)):
        if there is not None and getattr(asked, name):
            raise InvalidRequest(f"'repo' names a {name} already ({there}); leave '{name}' out.", param=name)
    meant = {"repo": where.repo, "file": asked.file or where.wanted, "revision": asked.revision or where.revision}
    if meant["file"] is not None:
        names.repository_file(meant["file"])
    if meant["revision"] is not None:
        names.revision(meant["revision"])
    check(Request(context=asked.context, parallel=asked.parallel))
    request = {key: value for key, value in {**msgspec.structs.asdict(asked), **meant}.items() if value is not None}
    if resolved.path is not None:
        request["config"] = resolved.path
    return await services.pulls.start(request, resolved.providers["hugging_face"])


class BenchBody(Strict):
    """``seconds``: begin no new measurement after that long; at most an hour."""

    model: str
    seconds: float = 120.0


async def bench(call: Call) -> Job:
    """Measures on a device that nothing else uses: idle models leave first, busy ones are a refusal."""
    services, asked = call.services, call.body
    if not 1 <= asked.seconds <= 3600:
        raise InvalidRequest("'seconds' must be between 1 and 3,600.", param="seconds")
    residency = services.residency
    known = await residency.find(asked.model)
    services.jobs.refuse_more()
    await residency.clear()
    limit = residency.shelf.wanted(known.id).vram_limit
    request = {"model": known.id, "path": str(known.path), "seconds": asked.seconds, "vram_limit": limit}
    return services.jobs.start("bench", request)


async def jobs(call: Call) -> JobList:
    return JobList(call.services.jobs.all())


async def job(call: Call) -> Job:
    return call.services.jobs.get(call.id)


async def cancel(call: Call) -> Job:
    return await asyncio.shield(call.services.jobs.cancel(call.id))


class NoBody(Strict):
    """No fields."""


ENDPOINTS = [
    Endpoint(
        "GET", "/v1/local/models", "Local model files and their state", models, LocalModels, query=LocalModelsQuery
    ),
    Endpoint("GET", "/v1/local/models/{id}", "One local model, its facts and its plan", model, LocalModelDetails),
    Endpoint(
        "POST",
        "/v1/local/plan",
        "How a model would be loaded; loads nothing",
        plan,
        (Plan, RepositoryPlan),
        body=PlanBody,
    ),
    Endpoint("POST", "/v1/local/load", "Load a model and wait for it", load, ResidentView, body=LoadBody),
    Endpoint("POST", "/v1/local/unload", "End a model's worker", unload, Unloaded, body=UnloadBody),
    Endpoint("GET", "/v1/local/resident", "What is loaded, and the memory there is", resident, Residents),
    Endpoint("POST", "/v1/local/pull", "Download a model from the Hub, as a job", pull, Job, body=PullBody),
    Endpoint("POST", "/v1/local/bench", "Measure a model on this machine, as a job", bench, Job, body=BenchBody),
    Endpoint("GET", "/v1/local/jobs", "Downloads and measurements, newest first", jobs, JobList),
    Endpoint("GET", "/v1/local/jobs/{id}", "One job", job, Job),
    Endpoint("POST", "/v1/local/jobs/{id}/cancel", "End a job", cancel, Job, body=NoBody),
]
