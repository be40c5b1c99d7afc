"""The model files on this machine: what the provider ``local`` may serve, and where each came from.

Blocking, and light enough for the daemon (in a thread): a listing and ``stat``; no file is opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import msgspec

from hybridd import locations
from hybridd.config import gguf_files
from hybridd.config.settings import Settings
from hybridd.errors import InvalidRequest, NotFound
from hybridd.local import index, names


class Folders(msgspec.Struct, frozen=True):
    """Where model files lie. ``default``: the file that ``local.default_model`` names, when it names one by path."""

    models: Path
    hub: Path
    default: Path | None = None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model: a file, or all parts of a split one.

    ``id``: the name it is called by (``local:<id>``); ``path``: its (first) file, as found; ``files``: all of them;
    ``bytes``: of the files that are there; ``source``: ``hub``, ``ollama``, ``lm_studio`` or ``file``; ``repo`` and
    ``revision``: of the Hub; ``links_to``: what the entry is a symbolic link to; ``aliases``: other names of the same
    file; ``missing``: parts that are not there; ``modified``: seconds since the epoch; ``sha256``: of the first file,
    when it was ever computed and the file is still that one.
    """

    id: str
    path: str
    files: list[str]
    bytes: int
    quantization: str
    source: str
    repo: str | None = None
    revision: str | None = None
    links_to: str | None = None
    aliases: list[str] = []
    missing: list[str] = []
    modified: float = 0.0
    sha256: str | None = None


def folders(settings: Settings) -> Folders:
    """The folders of a configuration, as the provider ``local`` uses them."""
    section = settings.local
    given = section.default_model
    return Folders(
        models=locations.resolve(section.models_dir) if section.models_dir else locations.data_dir() / "models",
        hub=locations.resolve(settings.hugging_face.cache_dir),
        default=locations.resolve(given) if given and given.lower().endswith(".gguf") else None,
    )


def models(where: Folders, entries: Mapping[str, index.Entry] | None = None) -> list[Model]:
    """All models, sorted by id; a file found under several names is listed once.

    Args:
        where: the folders.
        entries: of the index; absent: read now.

    Raises:
        StateError: the index is broken.
    """
    known = dict(index.read() if entries is None else entries)
    found: dict[tuple[int, int], Model] = {}
    for stem, path in gguf_files.find((where.models, where.hub), where.default).items():
        try:
            status = path.stat()
        except OSError:
            continue  # it went away meanwhile
        identity = (status.st_dev, status.st_ino)
        first = found.get(identity)
        if first is None:
            found[identity] = _model(stem, path, where, known)
        else:
            found[identity] = msgspec.structs.replace(first, aliases=[*first.aliases, stem])
    return sorted(found.values(), key=lambda model: model.id)


def find(all_models: Sequence[Model], name: str) -> Model:
    """The model that ``name`` (an id, an alias, ``local:<id>``, a file name, or a path to it) means.

    Raises:
        InvalidRequest: an empty name.
        NotFound: none, or several; with the nearest names.
    """
    wanted = name.removeprefix("local:").strip()
    if not wanted:
        # A shell's variable that is not set must not mean whatever has no name.
        raise InvalidRequest("No model is named. `hybridd models list` shows all.", param="model")
    for model in all_models:
        if wanted in {model.id, *model.aliases}:
            return model
    real = os.path.realpath(wanted)
    folded = wanted.lower().removesuffix(".gguf")
    hits = [model for model in all_models if "/" in wanted and os.path.realpath(model.path) == real]
    hits = hits or [model for model in all_models if folded in {one.lower() for one in (model.id, *model.aliases)}]
    hits = hits or [model for model in all_models if model.repo and folded == model.repo.lower()]
    if len(hits) == 1:
        return hits[0]
    known = [one for model in all_models for one in (model.id, *model.aliases)]
    near = [model.id for model in hits] or get_close_matches(wanted, known, n=3, cutoff=0.3)
    which = "is several models" if hits else "is no model here"
    hint = f": {', '.join(near)}" if hits else f"; the nearest: {', '.join(near)}" if near else ""
    raise NotFound(f"{name!r} {which}{hint}. `hybridd models list` shows all.", code="model_not_found")


def parts(path: Path) -> tuple[list[Path], list[str]]:
    """The files of the model at ``path`` that are there, and the names of those that are not."""
    all_names = names.part_names(path.name)
    there = [path.with_name(name) for name in all_names if path.with_name(name).is_file()]
    return there or [path], [name for name in all_names if not path.with_name(name).is_file()]


def hub_place(path: Path, hub: Path) -> tuple[str, str] | None:
    """Repository and commit of a file in the Hub's cache; None for a file elsewhere."""
    try:
        steps = path.relative_to(hub).parts
    except ValueError:
        return None
    if len(steps) < 4 or not steps[0].startswith("models--") or steps[1] != "snapshots":
        return None
    return steps[0].removeprefix("models--").replace("--", "/"), steps[2]


def _model(stem: str, path: Path, where: Folders, known: dict[str, index.Entry]) -> Model:
    there, missing = parts(path)
    sizes = [file.stat() for file in there]
    entry = index.entry_of(known, path)
    place = hub_place(path, where.hub)
    source = "hub" if place else entry.source if entry else "file"
    return Model(
        id=stem,
        path=str(path),
        files=[str(file) for file in there],
        bytes=sum(size.st_size for size in sizes),
        quantization=names.quantization(path.name) or names.quantization(path.parent.name + ".gguf"),
        source=source,
        repo=place[0] if place else (entry.repo or None) if entry else None,
        revision=place[1] if place else None,
        links_to=os.path.realpath(path) if path.is_symlink() else None,
        missing=missing,
        modified=max(size.st_mtime for size in sizes),
        sha256=(entry.sha256 or None) if entry else None,
    )
