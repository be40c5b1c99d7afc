"""What a schema cannot say: names, references between sections, and secrets where only references may stand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from hybridd.config.jsonfile import Document, KeyPath
from hybridd.config.mistakes import KEY_REFERENCE_FORMS, nearest
from hybridd.config.presets import BUNDLED_PLUGINS, PRESETS, ROLES
from hybridd.config.settings import KeyReference, ProviderSettings, QuotaSettings, Settings, TaskSettings
from hybridd.contracts.quotas import parse_model_ref

ALWAYS_KNOWN = frozenset({"github_models", "hugging_face", "local", "specialists"})
LARGEST_AMOUNT = 10**15

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_HEADER = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
_KEY_HEADERS = {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"}
_SECRET_OPTIONS = {"api_key", "apikey", "key", "token", "access_token", "secret", "password", "authorization"}
_NAME_RULE = "a name has up to 64 letters, digits, '_', '-' and '.', and starts with a letter or digit"


def provider_names(settings: Settings) -> frozenset[str]:
    """Every name that can stand before the colon of a model reference."""
    return ALWAYS_KNOWN | frozenset(settings.providers)


def check(document: Document, settings: Settings) -> None:
    """Raise ConfigError for the first thing that cannot mean anything."""
    for name, provider in settings.providers.items():
        _provider_name(document, name)
        _provider(document, ("providers", name), provider)
    for section, legacy in (("github_models", settings.github_models), ("hugging_face", settings.hugging_face)):
        _key_reference(document, (section, "api_key"), legacy.api_key)
        _url(document, (section, "base_url"), legacy.base_url)
        for task, model in legacy.preferred_models.items():
            _task_name(document, (section, "preferred_models", task), task)
            if not model.strip():
                document.fail((section, "preferred_models", task), "must name a model")
    _url(document, ("github_models", "rate_limit_url"), settings.github_models.rate_limit_url)
    _tasks(document, settings)
    _experiments(document, settings)


def _provider_name(document: Document, name: str) -> None:
    path = ("providers", name)
    if name in {"auto", "task"}:
        document.fail(path, f'"{name}" is a reserved word of model references and cannot name a provider')
    if name in {"local", "specialists"}:
        document.fail(path, f'"{name}" is built in; change it in the section "{name}" at the top of the file')
    if not _NAME.match(name):
        document.fail(path, _NAME_RULE)


def _provider(document: Document, path: KeyPath, provider: ProviderSettings) -> None:
    _plugin(document, path, provider)
    _key_reference(document, (*path, "api_key"), provider.api_key)
    if provider.base_url is not None:
        _url(document, (*path, "base_url"), provider.base_url)
    for name in provider.env:
        if not _VARIABLE.match(name):
            document.fail((*path, "env"), "lists names of environment variables (letters, digits, '_'), not values")
    for header, text in provider.headers.items():
        if header.lower() in _KEY_HEADERS:
            document.fail(
                (*path, "headers", header), f"a header never carries a key; use api_key: {KEY_REFERENCE_FORMS}"
            )
        if not _HEADER.match(header) or any(ord(character) < 32 or ord(character) == 127 for character in text):
            document.fail((*path, "headers", header), "is not a valid HTTP header")
    _options(document, (*path, "options"), provider.options)
    seen: dict[Any, int] = {}
    for index, quota in enumerate(provider.quotas):
        place = (*path, "quotas", index)
        _quota(document, place, quota)
        models = (quota.model,) if quota.model else tuple(sorted(quota.models or ()))
        first = seen.setdefault((quota.unit, quota.window, quota.zone, models), index)
        if first != index:
            document.fail(place, f"repeats quotas[{first}] (same unit, window and models)")


def _plugin(document: Document, path: KeyPath, provider: ProviderSettings) -> None:
    if not _NAME.match(provider.plugin):
        document.fail((*path, "plugin"), _NAME_RULE)
    if provider.command is not None and (not provider.command or not provider.command[0].strip()):
        document.fail((*path, "command"), "must start with a program")
    if provider.preset is not None and provider.preset not in PRESETS:
        near = nearest(provider.preset, list(PRESETS))
        document.fail(
            (*path, "preset"), f'unknown preset "{provider.preset}"; the nearest is "{near}" of {", ".join(PRESETS)}'
        )
    if provider.command is not None:
        return
    if provider.plugin not in BUNDLED_PLUGINS:
        near = nearest(provider.plugin, sorted(BUNDLED_PLUGINS))
        if near is not None and _similar(provider.plugin, near):
            document.fail((*path, "plugin"), f'there is no plugin "{provider.plugin}"; the nearest is "{near}"')
    if provider.plugin == "openai_compatible" and provider.base_url is None:
        preset = PRESETS[provider.preset] if provider.preset else None
        if preset is None:
            document.fail(path, 'openai_compatible needs "base_url" or "preset"')
        if preset.base_url is None:
            document.fail(path, f'the preset "{provider.preset}" needs "base_url" as well ({preset.note})')


def _similar(word: str, known: str) -> bool:
    """A slip of the keyboard rather than another name."""
    from difflib import SequenceMatcher

    return SequenceMatcher(None, word.lower().replace("-", "_"), known).ratio() >= 0.8


def _key_reference(document: Document, path: KeyPath, reference: KeyReference | None) -> None:
    """Shapes of references; a value that cannot be one is probably the key itself and is not echoed."""
    if reference is None:
        return
    if reference.env is not None and not _VARIABLE.match(reference.env):
        document.fail((*path, "env"), "must be the name of an environment variable (letters, digits, '_'), not a key")
    if reference.credential is not None and ("/" in reference.credential or reference.credential in {".", ".."}):
        document.fail((*path, "credential"), "must be the name of a systemd credential, without a folder")
    if reference.command is not None and not reference.command[0].strip():
        document.fail((*path, "command"), "must start with a program")
    for text in (reference.file, *(reference.command or ())):
        if text is not None and "\0" in text:
            document.fail(path, "must not contain a NUL character")


def _url(document: Document, path: KeyPath, url: str) -> None:
    """The address of an API root; one that carries a secret is not echoed."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        document.fail(path, "is not a valid URL")
    if parts.scheme not in {"http", "https"} or not host or any(character.isspace() for character in url):
        document.fail(path, "must be an http:// or https:// address with a host")
    if parts.username is not None or parts.password is not None:
        document.fail(path, "must not hold a user name or password; use api_key")
    if parts.query or parts.fragment:
        document.fail(path, "must not have a query or fragment (a key never stands in an address; use api_key)")


def _options(document: Document, path: KeyPath, options: Any) -> None:
    if isinstance(options, dict):
        for name, value in options.items():
            if str(name).lower().replace("-", "_") in _SECRET_OPTIONS and isinstance(value, str):
                document.fail((*path, name), f"a key itself never stands here; use api_key: {KEY_REFERENCE_FORMS}")
            _options(document, (*path, name), value)
    elif isinstance(options, list):
        for index, value in enumerate(options):
            _options(document, (*path, index), value)


def _quota(document: Document, path: KeyPath, quota: QuotaSettings) -> None:
    if quota.limit > LARGEST_AMOUNT:
        document.fail((*path, "limit"), f"must be at most {LARGEST_AMOUNT:g}")
    if quota.unit != "usd":
        for name in ("limit", "buffer"):
            if getattr(quota, name) != int(getattr(quota, name)):
                document.fail((*path, name), f"must be a whole number of {quota.unit}")
    if quota.models is not None and not quota.models:
        document.fail((*path, "models"), "must name at least one model; leave it out to bind the whole account")
    try:
        ZoneInfo(quota.zone)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError; odd names raise the others
        document.fail(
            (*path, "zone"), f'unknown time zone "{quota.zone[:64]}"; write one such as "Europe/Lisbon" or "UTC"'
        )


def _task_name(document: Document, path: KeyPath, name: str) -> None:
    if not _NAME.match(name):
        document.fail(path, _NAME_RULE)


def _tasks(document: Document, settings: Settings) -> None:
    for name, task in settings.tasks.items():
        path: KeyPath = ("tasks", name)
        _task_name(document, path, name)
        inner = (*path, "candidates") if isinstance(task, TaskSettings) else path
        candidates = task.candidates if isinstance(task, TaskSettings) else task
        if not candidates:
            document.fail(inner, 'a task needs at least one candidate, such as "local:*"')
        for index, text in enumerate(candidates):
            problem = candidate_problem(text, settings)
            if problem is not None:
                document.fail((*inner, index), f'task "{name}": {problem}')


def candidate_problem(text: str, settings: Settings) -> str | None:
    """Why a candidate of a task or an experiment means nothing, or None."""
    names = provider_names(settings)
    if text in names:
        return None  # a provider alone: all its models
    reference = parse_model_ref(text, names)
    if reference is not None:
        return None if reference.model.strip() else f'"{text}" names no model; write "{reference.provider}:*" for all'
    head, colon, _ = text.partition(":")
    owners = [name for name, provider in settings.providers.items() if text in provider.models]
    if len(owners) == 1:
        return None
    if owners:
        return f'"{text}" is a model of {" and ".join(owners)}; write which, as in "{owners[0]}:{text}"'
    if head in {"auto", "task"}:
        return f'"{text}" cannot be a candidate; name providers and models'
    near = nearest(head, sorted(names))
    if colon:
        return f'"{text}": there is no provider "{head}"; the nearest is "{near}"'
    return f'"{text}" names no provider; write "provider:model" (providers: {", ".join(sorted(names))})'


def _experiments(document: Document, settings: Settings) -> None:
    preferred: Iterable[str] = (*settings.github_models.preferred_models, *settings.hugging_face.preferred_models)
    tasks = {*ROLES, *settings.tasks, *preferred}
    for name, experiment in settings.experiments.items():
        path: KeyPath = ("experiments", name)
        _task_name(document, path, name)
        for arm in experiment.arms:
            problem = candidate_problem(arm, settings)
            if problem is not None:
                document.fail((*path, "arms", arm), problem)
        for index, task in enumerate(experiment.tasks):
            if task not in tasks:
                near = nearest(task, sorted(tasks))
                document.fail((*path, "tasks", index), f'there is no task "{task}"; the nearest is "{near}"')
