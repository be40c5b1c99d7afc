"""``python -m hybridd.local.pull``: fetches one model from the Hub, as a child process.

It reads one JSON request (:class:`Request`) from its standard input and writes JSON lines: progress as
``{"state", "file", "done", "total", "bytes_per_second"}`` (state ``looking``, ``choosing``, ``downloading``,
``verifying``; ``done`` and ``total`` in bytes over all files), and at the end ``{"result": …}`` or
``{"error": …, "downloaded"}`` (:func:`hybridd.local.child.error_line`). The exit status is 0 after a result.

SIGTERM and SIGINT end it with the code ``cancelled``; like after every other ending but a wrong checksum, what has
arrived stays and the next pull goes on from there. A token is read from where the configuration refers to, sent to the
Hub's own host only, and never written anywhere.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from hybridd import locations
from hybridd.config import gguf_files, loader
from hybridd.config.gguf_files import model_name
from hybridd.config.settings import Settings
from hybridd.errors import HybriddError, InvalidRequest
from hybridd.local import index, library, names
from hybridd.local.child import error_line, read_request
from hybridd.local.download import Fetched, fetch, patiently
from hybridd.local.facts import facts_of
from hybridd.local.gguf import open_model
from hybridd.local.hub import Choice, Hub, RepoModel, Repository, choose, pick, token_of
from hybridd.local.hub_cache import Cache, held
from hybridd.local.hub_errors import HubError
from hybridd.local.types import Goal

KEEP_FREE = 1 << 30
"""Bytes of the disk that a download leaves free: the daemon's database lives somewhere too."""
_EVERY_SECONDS = 0.2


class Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to fetch. Only ``repo`` is needed."""

    repo: str
    file: str | None = None
    """A file, a stem or a quantisation (``Q4_K_M``); absent: chosen by the plan."""
    revision: str | None = None
    """Branch, tag or commit; absent: ``main``."""
    context: int | None = None
    parallel: int | None = None
    goal: Goal | None = None
    vram_limit_mb: int | None = None
    """These four are for the plan; absent: as the configuration says."""
    cache_dir: str | None = None
    """Absent: ``hugging_face.cache_dir`` of the configuration."""
    config: str | None = None
    """The configuration file; absent: as the daemon finds it."""
    keep_free: int = KEEP_FREE
    """Bytes of the disk that have to stay free."""
    dry_run: bool = False
    """Only say what would be fetched."""
    retry_seconds: float = 1.0
    """The first pause before a further try; it doubles, up to 30 s."""


class Cancelled(BaseException):
    """SIGTERM or SIGINT. No Exception, so that no handler of a library keeps it."""


class Output:
    """JSON lines on standard output; progress at most a few times a second. ``clock``: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = -1.0
        self._began = clock()
        self._state, self._file = "looking", ""
        self.total = 0
        self.before = 0
        """Bytes of the files that are done."""
        self.downloaded = 0

    def line(self, **members: Any) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(members) + b"\n")
        sys.stdout.buffer.flush()

    def state(self, state: str, file: str) -> None:
        self._state, self._file = state, file
        self._say(self.before)

    def at(self, done: int, arrived: int) -> None:
        first = self.downloaded == 0 and arrived > 0
        if first:
            self._began = self._clock()
        self.downloaded += arrived
        if first or self._clock() - self._last >= _EVERY_SECONDS:
            self._say(self.before + done)

    def _say(self, done: int) -> None:
        self._last = self._clock()
        seconds = self._last - self._began
        rate = round(self.downloaded / seconds) if self.downloaded and seconds > 0 else None
        self.line(state=self._state, file=self._file, done=done, total=self.total, bytes_per_second=rate)


def pull(request: Request, settings: Settings, out: Output) -> dict[str, Any]:
    """The result: repository, commit, files, the model's name and path, and why this file.

    Raises:
        HybriddError: with a stable code; see :mod:`hybridd.local.hub_errors`.
    """
    if request.file is not None:
        names.repository_file(request.file)
    root = locations.resolve(request.cache_dir or settings.hugging_face.cache_dir)
    cache = Cache(root, request.repo)
    hub = Hub(token_of(settings.hugging_face))

    def wait(failures: int) -> None:
        time.sleep(min(30.0, request.retry_seconds * 2.0 ** min(10, failures)))

    out.state("looking", request.repo)
    repository = patiently(lambda: hub.repository(request.repo, request.revision), wait)
    choice = _chosen(request, settings, hub, repository, out)
    model = choice.model
    out.total = model.bytes
    needed = _missing_bytes(cache, model)
    answer: dict[str, Any] = {
        "repo": repository.repo,
        "revision": repository.commit,
        "model": model_name(Path(model.files[0].path)),
        "quantization": model.quantization,
        "bytes": model.bytes,
        "left": [one.files[0].path for one in repository.models if one.kind == "projector"],
        "choice": {"reasons": choice.reasons, "passed_over": choice.passed_over},
    }
    if request.dry_run:
        return {**answer, "dry_run": True, "needed": needed, "files": [{"file": one.path} for one in model.files]}
    check_space(root, needed, request.keep_free)
    fetched = []
    for file in model.files:
        out.state("downloading", file.path)
        fetched.append(fetch(hub, repository, file, cache, out, wait))
        out.before += file.bytes
    _remember(cache, request, repository, fetched)
    listed = [
        {"file": one.file.path, "bytes": one.blob.stat().st_size, "sha256": one.sha256, "resumed": one.resumed}
        for one in fetched
    ]
    answer["problem"] = _problem(fetched[0].pointer, answer["model"])
    answer["hidden_by"] = _other_of_that_name(answer["model"], fetched[0].pointer, settings, root)
    return {**answer, "files": listed, "path": str(fetched[0].pointer), "downloaded": out.downloaded}


def _problem(file: Path, model: str) -> str | None:
    """Why what has arrived, just as the Hub announced it, cannot be loaded; None: its headers are a model's."""
    try:
        facts_of(open_model(file), model, str(file))
    except HybriddError as error:
        return error.message
    return None


def _other_of_that_name(model: str, pointer: Path, settings: Settings, root: Path) -> str | None:
    """The file that requests for ``model`` get instead of this one, if another is called the same and found first."""
    where = library.folders(settings)
    first = gguf_files.find((where.models, root), where.default).get(model)
    return str(first) if first is not None and first.resolve() != pointer.resolve() else None


def check_space(folder: Path, needed: int, keep: int) -> None:
    """Is there room for ``needed`` bytes, with ``keep`` staying free?

    Raises:
        HubError: ``disk_full``, with both and what is free.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed and needed + keep > free:
        raise HubError(
            "disk_full",
            f"{needed:,} bytes are needed and {keep:,} stay free, but {folder} has only {free:,} bytes left; "
            "`hybridd models gc` and `hybridd models rm` make room",
            details={"needed": needed, "keep_free": keep, "free": free},
        )


def _missing_bytes(cache: Cache, model: RepoModel) -> int:
    """Bytes of the model that are not on the disk yet. A file without a known digest counts whole."""
    missing = 0
    for file in model.files:
        there = held(cache.blob(file.sha256)) if file.sha256 else 0
        missing += max(0, file.bytes - there)
    return missing


def _chosen(request: Request, settings: Settings, hub: Hub, repository: Repository, out: Output) -> Choice:
    if request.file:
        named = pick(repository, request.file)
        if named.kind == "projector":
            raise InvalidRequest(
                f"{named.files[0].path} is no model but a projector for images, which local models do not look at.",
                param="file", code="not_a_model",
            )  # fmt: skip
        return Choice(named, ("asked for by name",))
    models = [model for model in repository.models if model.kind == "model"]
    if len(models) == 1:
        return Choice(models[0], ("the only model of the repository",))
    out.state("choosing", request.repo)
    # Imported here: a pull by name needs neither the planner nor what it needs.
    from hybridd.local.planning import request_of
    from hybridd.local.remote_plan import Planner

    wish = request_of(
        settings, goal=request.goal, context=request.context, parallel=request.parallel,
        vram_limit_mb=request.vram_limit_mb,
    )  # fmt: skip
    planner = Planner(hub, repository, wish)
    return choose(models, planner.plan, has_gpu=planner.has_gpu)


def _remember(cache: Cache, request: Request, repository: Repository, fetched: list[Fetched]) -> None:
    """The branch's reference, the index, and no second copy of the same name: when the branch has moved on, its
    former commit lets go of the file (`models gc` then frees the blob)."""
    revision = request.revision or "main"
    if revision != repository.commit:
        ref = cache.ref(revision)
        former = ref.read_text(encoding="utf-8").strip() if ref.is_file() else ""
        if names.is_commit(former) and former != repository.commit:
            for one in fetched:
                cache.pointer(former, one.file.path).unlink(missing_ok=True)
        ref.parent.mkdir(parents=True, exist_ok=True)
        temporary = ref.with_name(f".{ref.name}.{os.getpid()}")
        temporary.write_text(repository.commit, encoding="utf-8")
        os.replace(temporary, ref)
    common = {"source": "hub", "repo": repository.repo, "revision": repository.commit}
    index.record({one.blob: index.made(one.blob, sha256=one.sha256, file=one.file.path, **common) for one in fetched})


def _cancel(_number: int, _frame: FrameType | None) -> None:
    raise Cancelled


def _failed(out: Output, error: HybriddError) -> int:
    out.line(error=error_line(error), downloaded=out.downloaded)
    return 1


def main() -> int:
    """One request from standard input to its end."""
    signal.signal(signal.SIGTERM, _cancel)
    signal.signal(signal.SIGINT, _cancel)
    out = Output()
    try:
        request = read_request(Request)
        settings = loader.read(loader.find(Path(request.config) if request.config else None))
        out.line(result=pull(request, settings, out))
    except Cancelled:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return _failed(
            out, HubError("cancelled", "stopped; what has arrived is kept, the next pull goes on from there")
        )
    except HybriddError as error:
        return _failed(out, error)
    except BrokenPipeError:
        return 1  # nobody listens any more; what has arrived is kept
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        code = "disk_full" if full else "storage_failed"
        return _failed(out, HubError(code, f"the download cannot be written: {error}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
