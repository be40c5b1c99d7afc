"""From what was asked to the ordered list of who may answer. Pure over plain values."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping

import msgspec

from hybridd.config.resolved import Resolved, TaskSpec
from hybridd.contracts.quotas import ModelRef, Price, parse_model_ref
from hybridd.errors import NotFound
from hybridd.routing.classify import classify_task
from hybridd.routing.request import RoutedRequest


class KnownModel(msgspec.Struct, frozen=True):
    """What configuration and plugin together know of one model."""

    id: str
    context: int | None = None
    max_output: int | None = None
    price: Price | None = None
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("generate",)


class Candidates(msgspec.Struct, frozen=True):
    """``refs`` in order of preference; ``task`` is the task whose list was used; ``how`` says it in words."""

    refs: tuple[ModelRef, ...]
    how: str
    task: TaskSpec | None = None


# provider → model id → what is known; an empty mapping means that the list is not known (yet).
Catalogue = Callable[[str], Mapping[str, KnownModel]]


def candidates_for(request: RoutedRequest, resolved: Resolved, catalogue: Catalogue) -> Candidates:
    """Resolves ``auto``, ``task:NAME``, ``local``, ``provider:model``, ``provider:*`` and plain model names.

    Raises:
        NotFound: unknown task, provider or model; the message names the nearest known one.
    """
    providers = resolved.providers
    model = request.model
    if model == "auto" or model.startswith("task:"):
        name = request.task
        how = f"task {name}"
        if name is None:
            name = classify_task(request.prompt_text) if request.kind != "embedding" else "embedding"
            how = f"task {name}, recognised from the prompt"
            request.task = name
        return _of_task(name, how, request, resolved, catalogue)
    if model in ("local", "specialists"):
        return Candidates(expand(ModelRef(model, "*"), request, resolved, catalogue), f"provider {model}")
    ref = parse_model_ref(model, providers.keys())  # type: ignore[arg-type]  # a keys view is a set
    if ref is not None:
        if ref.model == "*":
            return Candidates(expand(ref, request, resolved, catalogue), f"every model of {ref.provider}")
        if not ref.model:
            raise NotFound(
                f"'{model}' names no model: write '{ref.provider}:MODEL'.", param="model", code="model_not_found"
            )
        return Candidates((ref,), "asked for by name")
    return Candidates(_by_plain_name(model, resolved, catalogue), "asked for by model name")


def _of_task(name: str, how: str, request: RoutedRequest, resolved: Resolved, catalogue: Catalogue) -> Candidates:
    task = resolved.tasks.get(name)
    if task is None:
        raise NotFound(
            f"There is no task '{name}'.{_nearest(name, resolved.tasks)}", param="model", code="task_not_found"
        )
    refs: dict[ModelRef, None] = {}
    for ref in task.candidates:
        for expanded in expand(ref, request, resolved, catalogue, task=name):
            refs.setdefault(expanded)
    return Candidates(tuple(refs), how, task)


def expand(
    ref: ModelRef, request: RoutedRequest, resolved: Resolved, catalogue: Catalogue, task: str | None = None
) -> tuple[ModelRef, ...]:
    """``provider:*`` → its models that can do what is asked; those meant for the task first, then by price when cost
    optimisation is on, then in the provider's own order. A provider whose list is unknown stays as ``provider:*`` so
    that its rejection has a reason."""
    if ref.model != "*":
        return (ref,)
    known = [model for model in catalogue(ref.provider).values() if request.method in model.methods]
    if task is not None:
        meant = [model for model in known if task in model.tasks]
        known = meant or [model for model in known if not model.tasks]
    if resolved.settings.optimization.cost_optimization:
        known.sort(key=_unit_price)
    preferred = (
        resolved.providers[ref.provider].preferred_models.get(task or "")
        if ref.provider in resolved.providers
        else None
    )
    if preferred is not None:
        known.sort(key=lambda model: model.id != preferred)
    if not known:
        return (ref,)
    return tuple(ModelRef(ref.provider, model.id) for model in known)


def _unit_price(model: KnownModel) -> int:
    price = model.price
    return 0 if price is None else price.input_per_million + price.output_per_million + price.per_request


def _by_plain_name(model: str, resolved: Resolved, catalogue: Catalogue) -> tuple[ModelRef, ...]:
    refs = tuple(ModelRef(name, model) for name in resolved.providers if model in catalogue(name))
    if refs:
        return refs
    head, colon, _ = model.partition(":")
    everything = [f"{name}:{known}" for name in resolved.providers for known in catalogue(name)]
    plain = [known for name in resolved.providers for known in catalogue(name)]
    hint = _nearest(model, plain + everything)
    if colon and not hint:
        hint = f" There is no provider '{head}' either; known providers: {', '.join(sorted(resolved.providers))}."
    raise NotFound(f"No provider serves a model '{model}'.{hint}", param="model", code="model_not_found")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    if close:
        return f" Did you mean '{close[0]}'?"
    names = sorted(known)
    return f" Known: {', '.join(names)}." if 0 < len(names) <= 12 else ""


def knows_model(known: Mapping[str, KnownModel], model: str) -> KnownModel | None:
    """The model's entry; ``org/m:host`` also matches ``org/m`` (Hugging Face's provider suffix)."""
    found = known.get(model)
    if found is None and ":" in model:
        found = known.get(model.rpartition(":")[0])
    return found
