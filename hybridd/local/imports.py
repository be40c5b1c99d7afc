"""Models that Ollama or LM Studio already hold, taken over by links: nothing is copied, nothing of theirs is changed.

Ollama keeps ``manifests/<host>/<namespace>/<model>/<tag>`` (JSON that names layers by digest) beside
``blobs/sha256-<digest>``; LM Studio keeps ``<publisher>/<repository>/<file>.gguf``. What they are called elsewhere is
text to us: names are made safe, digests are checked, and a link is only ever made inside our own folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from hybridd.errors import InvalidRequest, NotFound
from hybridd.local import index, names

State = Literal["linked", "updated", "there", "skipped"]
_MAGIC = b"GGUF"
_MANIFEST_BYTES = 1 << 20
_MODEL = "application/vnd.ollama.image.model"
_PROJECTOR = "application/vnd.ollama.image.projector"
_DEFAULT_HOST, _DEFAULT_NAMESPACE = "registry.ollama.ai", "library"
_DEPTH = 4


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """One file. ``name``: what it is called there; ``link``: ours; ``target``: theirs; ``reason``: why it was
    skipped. ``there``: it had been linked before."""

    name: str
    state: State
    link: str = ""
    target: str = ""
    bytes: int = 0
    reason: str = ""


class _Wish(msgspec.Struct, frozen=True):
    name: str
    link: Path
    target: Path
    sha256: str = ""


class _Layer(msgspec.Struct):
    mediaType: str = ""
    digest: str = ""
    size: int = -1


class _Manifest(msgspec.Struct):
    layers: list[_Layer] = []


def ollama_folder() -> Path | None:
    """``OLLAMA_MODELS``, or the first place with manifests where Ollama keeps its models; None when there is none."""
    given = os.environ.get("OLLAMA_MODELS")
    places = (
        [Path(given).expanduser()]
        if given
        else [Path.home() / ".ollama/models", Path("/usr/share/ollama/.ollama/models")]
    )
    return next((place for place in places if (place / "manifests").is_dir()), None)


def lm_studio_folder() -> Path | None:
    """The first place where LM Studio keeps its models, None when there is none."""
    places = (Path.home() / ".lmstudio/models", Path.home() / ".cache/lm-studio/models")
    return next((place for place in places if place.is_dir()), None)


def ollama(root: Path, models_dir: Path, *, hard: bool = False, dry_run: bool = False) -> list[Imported]:
    """Links every GGUF model of an Ollama folder as ``models_dir/ollama/<model>-<tag>.gguf``.

    Raises:
        NotFound: ``root`` holds no manifests.
        OSError: a link cannot be made.
    """
    manifests = root / "manifests"
    if not manifests.is_dir():
        raise NotFound(f"{root} is no models folder of Ollama: it has no folder 'manifests'", param="path")
    home = models_dir / "ollama"
    done: list[Imported] = []
    for manifest in _files(manifests, depth=_DEPTH):
        wishes, skipped = _of_manifest(manifest, manifests, root / "blobs", home)
        done += skipped
        done += [_link(wish, home, "ollama", hard=hard, dry_run=dry_run, replace=root / "blobs") for wish in wishes]
    return done


def lm_studio(root: Path, models_dir: Path, *, hard: bool = False, dry_run: bool = False) -> list[Imported]:
    """Links every GGUF file of an LM Studio folder as ``models_dir/lm-studio/<publisher>/<repository>/<file>``.

    Raises:
        NotFound: there is no such folder.
        OSError: a link cannot be made.
    """
    if not root.is_dir():
        raise NotFound(f"there is no folder {root}", param="path")
    home = models_dir / "lm-studio"
    done: list[Imported] = []
    taken: dict[str, Path] = {}
    for file in _files(root, depth=_DEPTH):
        if not file.name.lower().endswith(".gguf"):
            continue
        folder = [names.safe_name(part) for part in file.relative_to(root).parts[:-1]]
        plain = names.safe_name(file.name[: -len(".gguf")], limit=200) + ".gguf"
        if taken.setdefault(plain, file) != file and folder:
            plain = f"{folder[0]}-{plain}"  # the file's name is the model's: two publishers may use the same
        wish = _Wish(str(file.relative_to(root)), home.joinpath(*folder, plain), file)
        done.append(_link(wish, home, "lm_studio", hard=hard, dry_run=dry_run))
    return done


def _of_manifest(manifest: Path, manifests: Path, blobs: Path, home: Path) -> tuple[list[_Wish], list[Imported]]:
    steps = manifest.relative_to(manifests).parts
    name = ":".join(("/".join(steps[:-1]), steps[-1])).removeprefix(f"{_DEFAULT_HOST}/{_DEFAULT_NAMESPACE}/")
    try:
        if manifest.stat().st_size > _MANIFEST_BYTES:
            raise InvalidRequest("its manifest is too large to be one")
        layers = msgspec.json.decode(manifest.read_bytes(), type=_Manifest).layers
        found = [layer for layer in layers if layer.mediaType == _MODEL]
        if len(found) != 1:
            raise InvalidRequest(f"it has {len(found)} model layers, and one is needed")
        stem = _ollama_name(steps)
        wishes = [_wish(name, found[0], blobs, home / f"{stem}.gguf")]
        wishes += [
            _wish(name, layer, blobs, home / f"mmproj-{stem}.gguf") for layer in layers if layer.mediaType == _PROJECTOR
        ]
    except InvalidRequest as error:
        return [], [Imported(name=name, state="skipped", reason=error.message)]
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        return [], [Imported(name=name, state="skipped", reason=f"its manifest cannot be read: {error}")]
    return wishes, []


def _wish(name: str, layer: _Layer, blobs: Path, link: Path) -> _Wish:
    digits = names.digest(layer.digest)
    blob = blobs / f"sha256-{digits}"
    if not blob.is_file():
        raise InvalidRequest(f"its blob {blob.name} is not there")
    if 0 <= layer.size != blob.stat().st_size:
        raise InvalidRequest(f"its blob has {blob.stat().st_size:,} bytes, and its manifest says {layer.size:,}")
    return _Wish(name, link, blob, digits)


def _ollama_name(steps: tuple[str, ...]) -> str:
    """``qwen3-4b`` of ``registry.ollama.ai/library/qwen3/4b``; other hosts and namespaces stay in the name, and so
    does the tag, unless it is ``latest``."""
    kept = [step for step in steps[:-1] if step not in {_DEFAULT_HOST, _DEFAULT_NAMESPACE}]
    return names.safe_name("-".join(kept if steps[-1] == "latest" else [*kept, steps[-1]]))


def _link(wish: _Wish, home: Path, source: str, *, hard: bool, dry_run: bool, replace: Path | None = None) -> Imported:
    """Makes one link, unless it is there. ``replace``: a link into this folder may be changed (a tag moved on)."""
    reason = _unusable(wish.target)
    if not names.is_inside(home, wish.link):
        reason = "its link would lie outside the folder"
    target = Path(os.path.realpath(wish.target))
    state: State = "linked"
    if not reason and os.path.lexists(wish.link):
        if wish.link.exists() and os.path.samefile(wish.link, target):
            return Imported(name=wish.name, state="there", link=str(wish.link), target=str(target))
        ours = replace is not None and wish.link.is_symlink()
        if ours and replace is not None and names.is_inside(replace, Path(os.readlink(wish.link))):
            state = "updated"
        else:
            reason = f"{wish.link} is something else already"
    if reason:
        return Imported(name=wish.name, state="skipped", target=str(wish.target), reason=reason)
    if not dry_run:
        _make(wish.link, target, hard=hard)
        entry = index.made(target, source=source, sha256=wish.sha256, file=wish.name)
        index.record({wish.link if hard else target: entry})
    size = target.stat().st_size
    return Imported(name=wish.name, state=state, link=str(wish.link), target=str(target), bytes=size)


def _make(link: Path, target: Path, *, hard: bool) -> None:
    """The link, in one step: a name in our folder is never half there."""
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{link.name[:200]}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    if hard:
        os.link(target, temporary)
    else:
        temporary.symlink_to(target)
    os.replace(temporary, link)


def _unusable(path: Path) -> str:
    """Why a file is no model for us; empty when it may be one. Only a regular file is opened."""
    try:
        if not path.is_file():
            return "it is no regular file"
        with path.open("rb") as file:
            return "" if file.read(len(_MAGIC)) == _MAGIC else "it is no GGUF file"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _files(folder: Path, *, depth: int) -> Iterator[Path]:
    """Files below a folder, sorted; linked folders are not entered, deep and hidden ones neither."""
    for directory, inner, files in os.walk(folder):
        level = len(Path(directory).relative_to(folder).parts)
        inner[:] = sorted(name for name in inner if not name.startswith(".")) if level < depth else []
        yield from (Path(directory, name) for name in sorted(files) if not name.startswith("."))
