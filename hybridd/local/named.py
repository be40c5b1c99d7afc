"""What a person means by the name of a model: a file, a model of this machine, or one of a repository of the Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from hybridd.errors import InvalidRequest, NotFound
from hybridd.local import library, names
from hybridd.local.library import Folders

_HUBS = ("huggingface.co", "www.huggingface.co", "hf.co")
_TAKEN = "a model of the Hub looks like owner/name, owner/name:Q4_K_M or owner/name/file.gguf"


class OnDisk(Struct, frozen=True):
    """A file (the first of a split model) and the name it goes by."""

    id: str
    path: Path


class OnHub(Struct, frozen=True):
    """A repository, and in it a quantisation or a file; None: not said which. ``revision``: branch, tag or commit;
    None: ``main``."""

    repo: str
    wanted: str | None = None
    revision: str | None = None


class OnWeb(Struct, frozen=True):
    """A file on a web server that is not the Hub."""

    url: str


def meaning(text: str, folders: Callable[[], Folders]) -> OnDisk | OnHub | OnWeb:
    """A path that is there, then a model of this machine (``folders``: where they are), then what :func:`elsewhere`
    takes.

    Raises:
        NotFound: there is no such file or model here.
        InvalidRequest: nothing, a folder, or a name that no repository has.
    """
    if not text.strip():
        raise InvalidRequest(
            f"No model is named; {_TAKEN}, one of this machine like `models list` shows.", param="model"
        )
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        return OnDisk(path.name.removesuffix(".gguf"), path)
    if text.startswith(("/", "./", "../", "~")) or text in {".", ".."}:
        if path.is_dir():
            raise InvalidRequest(f"{text} is a folder; name a .gguf file in it.", param="model")
        raise NotFound(f"There is no file {path}.")
    if "/" not in text or text.startswith("local:"):
        known = library.find(library.models(folders()), text)
        return OnDisk(known.id, Path(known.path))
    return elsewhere(text)


def elsewhere(text: str) -> OnHub | OnWeb:
    """The Hub's ``owner/name``, ``owner/name:Q4_K_M``, ``owner/name/file.gguf``, the address of one of its pages, or
    the address of a file on another web server.

    Raises:
        InvalidRequest: none of them.
    """
    given = text.strip()
    if "://" in given:
        return _of_url(given)
    return on_hub(given)


def on_hub(text: str) -> OnHub:
    """As :func:`elsewhere`, of the Hub only.

    Raises:
        InvalidRequest: no repository is named like that, or it is the address of another server.
    """
    given = text.strip()
    if "://" in given:
        found = _of_url(given)
        if isinstance(found, OnHub):
            return found
        raise InvalidRequest(
            f"{names.shown_url(given)} is no address of the Hub ({names.endpoint()}); {_TAKEN}.", param="repo"
        )
    head, _, rest = given.partition("/")
    if head in _HUBS:
        given = rest
    owner, slash, rest = given.partition("/")
    if not slash:
        bare, _, wanted = owner.partition(":")
        return OnHub(_repository(bare, given), _file(wanted))
    name, colon, wanted = rest.partition(":")
    if not colon:
        name, _, wanted = rest.partition("/")
    return OnHub(_repository(f"{owner}/{name}", given), _file(wanted))


def _of_url(url: str) -> OnHub | OnWeb:
    try:
        parts = urlsplit(url)
        hosts = (*_HUBS, urlsplit(names.endpoint()).netloc)
    except ValueError as error:
        raise InvalidRequest(f"{names.shown_url(url)} is no address: {error}.", param="model") from None
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise InvalidRequest(f"{names.shown_url(url)} is no http or https address of a file.", param="model")
    steps = [unquote(step) for step in parts.path.strip("/").split("/")]
    if parts.netloc not in hosts:
        if not steps[-1].lower().endswith(".gguf"):
            raise InvalidRequest(f"{names.shown_url(url)} is no address of a .gguf file.", param="model")
        return OnWeb(url)
    repo = _repository("/".join(steps[:2]), url)
    if len(steps) > 3 and steps[2] in {"blob", "resolve", "tree", "raw"}:
        return OnHub(repo, _file("/".join(steps[4:])), names.revision(steps[3]))
    if len(steps) > 2:
        raise InvalidRequest(
            f"{names.shown_url(url)} is no page of a repository or of one of its files.", param="model"
        )
    return OnHub(repo)


def _repository(name: str, given: str) -> str:
    try:
        return names.repository(name)
    except InvalidRequest:
        raise InvalidRequest(f"{names.shown_url(given)!r} names no repository; {_TAKEN}.", param="repo") from None


def _file(wanted: str) -> str | None:
    return names.repository_file(wanted) if wanted else None
