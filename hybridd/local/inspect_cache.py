"""What was once read from model files, kept as long as the files and the code that read them are the same ones."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hybridd.local import names
from hybridd.local.facts import ModelFacts

_CODE = ("facts*.py", "gguf*.py", "ggml_types.py", "quantization.py", "names.py")
_log = logging.getLogger(__name__)

State = tuple[tuple[int, int, int], ...]
"""Size, modification time and inode of each part; empty when one of them is not there."""


def state(path: Path) -> State:
    """What tells a changed model from an unchanged one."""
    found = []
    for name in names.part_names(path.name):
        try:
            stat = path.with_name(name).stat()
        except (OSError, ValueError):
            return ()
        found.append((stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(found)


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    state: State
    facts: ModelFacts | None = None
    error: str = ""


class _Document(msgspec.Struct):
    made_by: str
    files: dict[str, _Entry] = {}


class Cache:
    """One JSON file. Losing it costs reading the models again, so a broken one is an empty one."""

    def __init__(self, file: Path, entries: dict[str, _Entry]) -> None:
        self._file = file
        self._entries = entries

    @classmethod
    def read(cls, file: Path) -> Cache:
        """The cache as it is on disk; empty when other code made it."""
        try:
            document = msgspec.json.decode(file.read_bytes(), type=_Document)
        except (OSError, ValueError) as error:
            if not isinstance(error, FileNotFoundError):
                _log.info("%s is made anew: %s", file, error)
            return cls(file, {})
        return cls(file, document.files if document.made_by == made_by() else {})

    def get(self, path: Path, now: State) -> ModelFacts | str | None:
        """What is known of the model at ``path`` in the state ``now``."""
        entry = self._entries.get(str(path))
        if entry is None or not now or entry.state != now:
            return None
        return entry.facts if entry.facts is not None else entry.error

    def write(self, fresh: Mapping[Path, ModelFacts | str], states: Mapping[Path, State]) -> None:
        """Adds answers, forgets files that are gone, replaces the file in one step.

        Others may have written meanwhile: what they found is kept. A disk that refuses costs the cache only.
        """
        entries = type(self).read(self._file)._entries
        for path, answer in fresh.items():
            if states[path]:
                facts = answer if isinstance(answer, ModelFacts) else None
                entries[str(path)] = _Entry(states[path], facts, answer if isinstance(answer, str) else "")
        entries = {path: entry for path, entry in entries.items() if Path(path).exists()}
        data = msgspec.json.encode(_Document(made_by(), entries))
        try:
            self._replace(data)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._file, error)

    def _replace(self, data: bytes) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=self._file.parent, prefix=".models-")
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(data)
            os.replace(temporary, self._file)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


@functools.cache
def made_by() -> str:
    """A digest of the code that reads headers and makes facts: other code, other facts."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for pattern in _CODE:
        for file in sorted(folder.glob(pattern)):
            digest.update(file.read_bytes())
    return digest.hexdigest()
