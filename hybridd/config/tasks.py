"""Tasks: those of the configuration, and the default routing table over what is configured."""

from __future__ import annotations

from hybridd.config.checks import provider_names
from hybridd.config.presets import OTHER_ROLE, ROLES, Role
from hybridd.config.resolved import TaskSpec
from hybridd.config.settings import Settings, TaskSettings
from hybridd.contracts.quotas import ModelRef, parse_model_ref


def resolve_tasks(settings: Settings) -> dict[str, TaskSpec]:
    """The tasks that ``tasks`` names, exactly as written, and the rest of the default table.

    ``preferred_models`` puts its model first for a task that ``tasks`` does not name.
    """
    named = dict.fromkeys((*ROLES, *settings.github_models.preferred_models, *settings.hugging_face.preferred_models))
    resolved = {name: _default_task(name, settings) for name in named if name not in settings.tasks}
    for name, task in settings.tasks.items():
        resolved[name] = _configured_task(name, task, settings)
    return resolved


def resolve_candidate(text: str, settings: Settings) -> ModelRef:
    """``provider:model``; a provider alone means all its models; a model declared by one provider only is that one's.

    The text has passed :func:`hybridd.config.checks.candidate_problem`.
    """
    names = provider_names(settings)
    if text in names:
        return ModelRef(text, "*")
    reference = parse_model_ref(text, names)
    if reference is not None:
        return reference
    owner = next(name for name, provider in settings.providers.items() if text in provider.models)
    return ModelRef(owner, text)


def _configured_task(name: str, task: list[str] | TaskSettings, settings: Settings) -> TaskSpec:
    defaults = task if isinstance(task, TaskSettings) else TaskSettings(candidates=task)
    candidates = dict.fromkeys(resolve_candidate(text, settings) for text in defaults.candidates)
    return TaskSpec(
        name=name,
        candidates=tuple(candidates),
        origin="config",
        system_prompt=defaults.system_prompt,
        temperature=defaults.temperature,
        max_tokens=defaults.max_tokens,
        timeout_seconds=defaults.timeout_seconds,
    )


def _default_task(name: str, settings: Settings) -> TaskSpec:
    """One row of the default table. GitHub's role is dead for everyone: the providers the user has configured stand
    right behind it and inherit it."""
    role = ROLES.get(name, OTHER_ROLE)
    names = provider_names(settings)
    preferred = settings.github_models.preferred_models.get(name)
    first = (parse_model_ref(preferred, names) or ModelRef("github_models", preferred)) if preferred else None
    users = tuple(ModelRef(user, "*") for user, provider in settings.providers.items() if provider.enabled)
    groups = {
        "github": (ModelRef("github_models", role.github),) if first is None else (),
        "users": users,
        "specialists": (ModelRef("specialists", role.specialist),),
        "hugging_face": (ModelRef("hugging_face", _hugging_face_model(name, role, settings)),),
        "local": (ModelRef("local", "*"),),
    }
    ordered = [candidate for part in role.order for candidate in groups[part]]
    return TaskSpec(
        name=name,
        candidates=tuple(dict.fromkeys([*([first] if first else []), *ordered])),
        origin="builtin",
    )


def _hugging_face_model(name: str, role: Role, settings: Settings) -> str:
    return settings.hugging_face.preferred_models.get(name, role.hugging_face)
