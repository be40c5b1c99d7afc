"""Which GGUF files the provider ``local`` may serve: a listing, the files are not opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

_PART = re.compile(r"-(\d{5})-of-\d{5}$")
MAX_DEPTH = 6  # a Hub cache nests five deep: hub/models--org--name/snapshots/<revision>/<file>


def find(folders: Iterable[Path], default: Path | None = None) -> dict[str, Path]:
    """Model name to path, sorted by name; the first folder wins for a name found twice.

    Later parts of split files and vision projectors (``mmproj``) are no models of their own. A folder that cannot be
    read holds nothing for us.
    """
    found: dict[str, Path] = {}
    if default is not None and default.suffix.lower() == ".gguf" and default.is_file():
        found[model_name(default)] = default
    for folder in folders:
        for path in _walk(folder):
            stem = path.stem
            part = _PART.search(stem)
            if (part and part.group(1) != "00001") or stem.lower().startswith("mmproj"):
                continue
            found.setdefault(model_name(path), path)
    return dict(sorted(found.items()))


def model_name(file: Path) -> str:
    """What a file is called in requests: its stem, without the number of a part."""
    return _PART.sub("", file.stem)


def _walk(folder: Path) -> list[Path]:
    paths = []
    for directory, names, files in os.walk(folder):
        if len(Path(directory).relative_to(folder).parts) >= MAX_DEPTH:
            names.clear()
        names.sort()
        paths += [Path(directory, file) for file in sorted(files) if file.lower().endswith(".gguf")]
    return [path for path in paths if path.is_file()]
