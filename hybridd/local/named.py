"""What a person means by the name of a model: a file, a model of this machine, or one of a repository of the Hub."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from hybridd.config.settings import Settings
from hybridd.errors import InvalidRequest, NotFound
from hybridd.local import library, names


class OnDisk(Struct, frozen=True):
    """A file (the first of a split model) and the name it goes by."""

    id: str
    path: Path


class OnHub(Struct, frozen=True):
    """A repository, and in it a quantisation or a file; None: not said which."""

    repo: str
    wanted: str | None = None


def meaning(text: str, settings: Settings) -> OnDisk | OnHub:
    """A path that is there, then a model of this machine, then the Hub's ``owner/name``, ``owner/name:Q4_K_M``,
    ``owner/name/file.gguf``.

    Raises:
        NotFound: there is no such file or model here.
        InvalidRequest: a folder, or a name that no repository has.
    """
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        return OnDisk(path.name.removesuffix(".gguf"), path)
    if text.startswith(("/", "./", "../", "~")) or text in {".", ".."}:
        if path.is_dir():
            raise InvalidRequest(f"{text} is a folder; name a .gguf file in it.", param="model")
        raise NotFound(f"There is no file {path}.")
    if "/" not in text or text.startswith("local:"):
        known = library.find(library.models(library.folders(settings)), text)
        return OnDisk(known.id, Path(known.path))
    return _on_hub(text)


def _on_hub(text: str) -> OnHub:
    owner, _, rest = text.partition("/")
    name, colon, wanted = rest.partition(":")
    if not colon:
        name, _, wanted = rest.partition("/")
        if wanted:
            names.repository_file(wanted)
    return OnHub(names.repository(f"{owner}/{name}"), wanted or None)
