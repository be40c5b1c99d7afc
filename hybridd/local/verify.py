"""Is a model still what it was when it came? Its digest against the recorded one, its header against the format."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from hybridd.local import index, names
from hybridd.local.hub_cache import digest_of
from hybridd.local.library import Model

State = Literal["intact", "recorded", "changed", "broken", "missing"]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One file. ``state``: ``intact`` (the digest is the expected one), ``recorded`` (there was none to compare with;
    it is kept for the next time), ``changed`` (another one), ``broken`` (its header is no model's), ``missing``.
    ``against``: where the expected digest came from."""

    model: str
    file: str
    state: State
    sha256: str = ""
    expected: str = ""
    against: str = ""
    problem: str = ""


def verify(
    model: Model,
    entries: Mapping[str, index.Entry],
    header_problem: str,
    progress: Callable[[str, int], None] = lambda _file, _done: None,
) -> list[Checked]:
    """Reads every file of ``model`` from end to end.

    Args:
        model: what to check.
        entries: of the index.
        header_problem: what the header's reader said about it; empty when it is a model.
        progress: called with the file and the bytes read so far.

    Raises:
        OSError: a file cannot be read.
    """
    checked = [
        Checked(model=model.id, file=name, state="missing", problem="a part is missing") for name in model.missing
    ]
    for number, file in enumerate(model.files):
        checked.append(_file(model, Path(file), entries, header_problem if number == 0 else "", progress))
    return checked


def _file(
    model: Model,
    path: Path,
    entries: Mapping[str, index.Entry],
    header_problem: str,
    progress: Callable[[str, int], None],
) -> Checked:
    expected, against = expected_digest(path, entries)
    found = digest_of(path, expected, lambda done: progress(path.name, done))
    problem, state = header_problem, "intact"
    if expected and found != expected:
        state, problem = "changed", f"its content is not what {against} says"
    elif header_problem:
        state = "broken"
    elif not expected:
        state = "recorded"
    return Checked(
        model=model.id,
        file=str(path),
        state=state,  # type: ignore[arg-type]  # one of the literals above
        sha256=found if names.is_sha256(found) else "",
        expected=expected,
        against=against,
        problem=problem,
    )


def expected_digest(path: Path, entries: Mapping[str, index.Entry]) -> tuple[str, str]:
    """The digest a file should have and who says so; two empty texts when nobody does.

    A content-addressed name (a Hub blob, an Ollama blob) goes before the index. Of the index the digest counts even
    when size or time have changed since: that change is what is looked for.
    """
    real = Path(os.path.realpath(path))
    if real.parent.name == "blobs":
        name = real.name.removeprefix("sha256-")
        if names.is_sha256(name) or (names.is_commit(name) and name == real.name):
            return name, "the name of its blob"
    entry = entries.get(str(real))
    if entry is not None and names.is_sha256(entry.sha256):
        return entry.sha256, "the index"
    return "", ""


def remember(checked: list[Checked], entries: Mapping[str, index.Entry]) -> None:
    """Keeps the digests that were computed for the first time.

    Raises:
        StateError: the index cannot be written.
    """
    changes: dict[Path, index.Entry | None] = {}
    for one in checked:
        if one.state == "recorded":
            path = Path(os.path.realpath(one.file))
            before = entries.get(str(path))
            source = before.source if before is not None else "file"
            changes[path] = index.made(path, sha256=one.sha256, source=source)
    if changes:
        index.record(changes)
