"""Which files are models: GGUF files by path or in folders, each under its stem."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from plugins.llama_cpp import header

MAX_DEPTH = 6  # a Hub cache nests five deep: hub/models--org--name/snapshots/<revision>/<file>
_PART = re.compile(r"-(\d{5})-of-\d{5}$")
_NOT_TEXT = frozenset({"clip", "t5encoder", "bert", "nomic-bert", "jina-bert-v2", "wavtokenizer-dec"})


class ModelFile(msgspec.Struct, frozen=True):
    """``size``: bytes of all parts together."""

    id: str
    path: Path
    size: int
    header: header.Header


def find(
    folders: Iterable[Path], named: Mapping[str, Path], default: str | None = None
) -> tuple[dict[str, ModelFile], list[str]]:
    """Models by id, the default one first, and a sentence for each file that is none.

    Args:
        folders: searched with their sub-folders; the first wins where two hold the same stem.
        named: files by id that the configuration names; they win over found ones.
        default: id or path of the default model.
    """
    candidates = dict(named)
    if default and default.lower().endswith(".gguf"):
        path = Path(default).expanduser()
        candidates.setdefault(path.stem, path)
        default = path.stem
    for folder in folders:
        for path in _walk(folder):
            candidates.setdefault(path.stem, path)
    found: dict[str, ModelFile] = {}
    problems = []
    for name in sorted(candidates, key=lambda name: (name != default, name)):
        try:
            facts = header.read(candidates[name])
        except (header.BadGguf, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(f"{candidates[name]} is not used: {reason}")
            continue
        if facts.architecture in _NOT_TEXT:
            continue
        found[name] = ModelFile(name, candidates[name], _size(candidates[name]), facts)
    return found, problems


def alias(name: str) -> str:
    """A split model may be asked for without its part's number."""
    return _PART.sub("", name)


def _walk(folder: Path) -> list[Path]:
    paths = []
    for directory, names, files in os.walk(folder):
        if len(Path(directory).relative_to(folder).parts) >= MAX_DEPTH:
            names.clear()
        names.sort()
        paths += [Path(directory, file) for file in sorted(files) if _is_model(file)]
    return [path for path in paths if path.is_file()]


def _is_model(file: str) -> bool:
    stem, dot, extension = file.rpartition(".")
    part = _PART.search(stem)
    return (
        bool(dot)
        and extension.lower() == "gguf"
        and not stem.lower().startswith("mmproj")
        and (part is None or part[1] == "00001")
    )


def _size(path: Path) -> int:
    part = _PART.search(path.stem)
    paths = path.parent.glob(f"{_glob(path.stem[: part.start()])}-*-of-*.gguf") if part else [path]
    return sum(one.stat().st_size for one in paths)


def _glob(text: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", text)
