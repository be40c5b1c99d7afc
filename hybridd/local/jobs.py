"""Work in child processes: downloads and measurements, which are jobs that the daemon starts, watches, shows and ends;
and questions, whose answer one caller waits for.

A child reads one JSON request from its standard input and writes JSON lines: progress, and last ``{"result": …}`` or
``{"error": {"code", "message"}}``. It dies with the daemon. The last fifty jobs are remembered, in memory.

::

    running ──result──► done
       ├──error, or an end without a last word──► failed
       └──cancel──► cancelled
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from hybridd import locations
from hybridd.bus import EventBus
from hybridd.clocks import NS, Clock
from hybridd.errors import DeadlineExceeded, HybriddError, InvalidRequest, NotFound

logger = logging.getLogger("hybridd.jobs")

JobKind = Literal["pull", "bench"]
JobState = Literal["running", "done", "failed", "cancelled"]
MODULES: dict[str, str] = {
    "pull": "hybridd.local.pull",
    "bench": "hybridd.local.calibrating",
    "plan": "hybridd.local.plan_child",
}
KEPT = 50
MAX_RUNNING = 4
MAX_ASKED = 2
"""Questions at once."""
LINE_BYTES = 4 * 1024 * 1024
STOP_SECONDS = 5.0
STDERR_LINES = 20
_LAUNCHER = Path(locations.__file__).parent / "plugin" / "launch.py"
Finish = Callable[["Job"], Awaitable[None]]


class TooManyJobs(HybriddError):
    """As many jobs run as may."""

    code = "too_many_jobs"
    http_status = 429
    type = "rate_limit_error"


class Job(msgspec.Struct):
    """One job. Times are UTC seconds. ``progress``: the child's last word about it; ``downloaded``: bytes, of a pull
    that has ended."""

    id: str
    kind: JobKind
    request: dict[str, Any]
    state: JobState
    started: float
    ended: float | None = None
    progress: dict[str, Any] = {}
    result: Any = None
    error: dict[str, Any] | None = None
    downloaded: int | None = None
    stderr: list[str] = []


class Refused(HybriddError):
    """What a child has said against a question, with the code and the status that it gave."""

    code = "refused"
    http_status = 502


class Jobs:
    """Every running job and the last ones that ended. On the event loop."""

    def __init__(self, bus: EventBus, clock: Clock, environ: Mapping[str, str] | None = None) -> None:
        self._bus = bus
        self._clock = clock
        self._environ = environ
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._cancelled: set[str] = set()
        self._asked: set[asyncio.Task[Any]] = set()
        self._count = 0
        self._closed = False

    def all(self) -> list[Job]:
        """Newest first."""
        return list(reversed(self._jobs.values()))

    def get(self, job_id: str) -> Job:
        """Raises:
        NotFound: there is none of that name, or it was forgotten.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFound(f"There is no job '{job_id}'.", param="id", code="job_not_found")
        return job

    def refuse_more(self) -> None:
        """Raises:
        TooManyJobs: no further job may be started now.
        """
        if self._closed or len(self._tasks) >= MAX_RUNNING:
            raise TooManyJobs(f"{len(self._tasks)} jobs are running; at most {MAX_RUNNING} may.", retry_after=10.0)

    def start(self, kind: JobKind, request: dict[str, Any], on_end: Finish | None = None) -> Job:
        """Starts a child. ``on_end`` is awaited once, whatever the ending, before the job counts as ended.

        Raises:
            TooManyJobs: as many run as may.
        """
        self.refuse_more()
        self._count += 1
        now = self._clock.wall_ns()
        job = Job(f"{kind}-{now // 1_000_000:x}-{self._count}", kind, request, "running", now / NS)
        self._jobs[job.id] = job
        for old in [one.id for one in self._jobs.values() if one.state != "running"][: max(0, len(self._jobs) - KEPT)]:
            del self._jobs[old]
        self._tasks[job.id] = asyncio.get_running_loop().create_task(self._run(job, on_end), name=job.id)
        self._publish(job)
        return job

    async def ask(self, kind: Literal["plan"], request: dict[str, Any], seconds: float) -> Any:
        """The result of a child that is no job: nobody else sees it, and it ends with the caller.

        Raises:
            TooManyJobs: as many questions are open as may.
            DeadlineExceeded: no answer within ``seconds``.
            Refused: the child's own error, or how it ended.
        """
        if self._closed or len(self._asked) >= MAX_ASKED:
            raise TooManyJobs(f"{len(self._asked)} such questions are open; at most {MAX_ASKED} may.", retry_after=5.0)
        self._count += 1
        # It carries what the child says, and is told to nobody: which kind of job it would be does not matter.
        asked = Job(f"{kind}-{self._count}", "pull", request, "running", self._clock.wall_ns() / NS)
        task = asyncio.get_running_loop().create_task(self._follow(asked, MODULES[kind]), name=asked.id)
        self._asked.add(task)
        try:
            async with asyncio.timeout(seconds):
                await task
        except TimeoutError:
            raise DeadlineExceeded(f"there was no answer within {seconds:g} s") from None
        except OSError as error:
            raise Refused(f"its program cannot be run: {error}", code="not_started") from error
        finally:
            self._asked.discard(task)
            self._signal(asked.id, signal.SIGKILL)
            child = self._children.pop(asked.id, None)
            if child is not None:
                await child.wait()
        if asked.result is None:
            raise _refused(asked.error or {})
        return asked.result

    async def cancel(self, job_id: str) -> Job:
        """Ends it; what it has written so far stays. Returns when it has ended."""
        job = self.get(job_id)
        task = self._tasks.get(job_id)
        if task is not None:
            self._cancelled.add(job_id)
            self._signal(job_id, signal.SIGTERM)
            done, _ = await asyncio.wait([task], timeout=STOP_SECONDS)
            if not done:
                self._signal(job_id, signal.SIGKILL)
                await asyncio.wait([task])
        return job

    async def close(self) -> None:
        self._closed = True
        for task in self._asked:
            task.cancel()
        await asyncio.gather(*(self.cancel(job_id) for job_id in list(self._tasks)))

    async def _run(self, job: Job, on_end: Finish | None) -> None:
        state: JobState = "failed"
        try:
            await self._follow(job, MODULES[job.kind])
            if job.error is None and job.result is not None:
                state = "done"
        except OSError as error:
            job.error = {"code": "not_started", "message": f"its program cannot be run: {error}"}
        finally:
            self._children.pop(job.id, None)
            if job.id in self._cancelled and state != "done":
                state = "cancelled"
            job.ended = self._clock.wall_ns() / NS
            try:
                if on_end is not None:
                    await on_end(job)
            finally:
                job.state = state
                self._tasks.pop(job.id, None)
                self._cancelled.discard(job.id)
                self._publish(job)

    async def _follow(self, job: Job, module: str) -> None:
        """The child from its start to its end."""
        environ = dict(os.environ if self._environ is None else self._environ)
        environ["PYTHONPATH"] = str(locations.plugins_dir().parent)
        arguments = ("-I", "-S", str(_LAUNCHER), str(os.getpid()), sys.executable, "-m", module)
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
            cwd="/",
            limit=LINE_BYTES,
            start_new_session=True,
        )
        self._children[job.id] = child
        if job.id in self._cancelled:
            self._signal(job.id, signal.SIGTERM)
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended already: its exit says why
            child.stdin.write(msgspec.json.encode(job.request))
            await child.stdin.drain()
        child.stdin.close()
        last_words: deque[str] = deque(maxlen=STDERR_LINES)
        await asyncio.gather(self._read(job, child), _drain(child, last_words))
        code = await child.wait()
        self._signal(job.id, signal.SIGKILL)  # what it left in its group
        job.stderr = list(last_words)
        if job.result is None and job.error is None:
            said = f": {last_words[-1]}" if last_words else ""
            job.error = {"code": "job_died", "message": f"it ended with status {code} and without a result{said}"}

    async def _read(self, job: Job, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        while True:
            try:
                line = await child.stdout.readline()
            except ValueError:
                job.error = {"code": "bad_output", "message": f"it wrote a line of more than {LINE_BYTES} bytes"}
                self._signal(job.id, signal.SIGKILL)
                return
            if not line:
                return
            try:
                said = msgspec.json.decode(line)
            except msgspec.DecodeError:
                logger.debug("%s wrote a line that is not JSON", job.id)
                continue
            if isinstance(said, dict):
                self._take(job, said)

    def _take(self, job: Job, said: dict[str, Any]) -> None:
        if isinstance(said.get("downloaded"), int):
            job.downloaded = said["downloaded"]
        if "result" in said:
            job.result = said["result"]
            if isinstance(job.result, dict) and isinstance(job.result.get("downloaded"), int):
                job.downloaded = job.result["downloaded"]
        elif isinstance(said.get("error"), dict):
            job.error = said["error"]
        else:
            job.progress = said
            if job.id in self._jobs:
                self._publish(job)

    def _signal(self, job_id: str, number: signal.Signals) -> None:
        child = self._children.get(job_id)
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)

    def _publish(self, job: Job) -> None:
        if self._bus.wanted("job"):
            self._bus.publish("job", msgspec.to_builtins(job))


def _refused(said: dict[str, Any]) -> HybriddError:
    """What a child wrote as its error. What is wrong with the request is ours to say; the rest is another's."""
    status, wait = said.get("status"), said.get("retry_after")
    known = isinstance(status, int) and 400 <= status <= 599
    kind = InvalidRequest if known and status in {400, 404, 409, 413} else Refused
    return kind(
        str(said.get("message") or "it ended without an answer"),
        code=str(said.get("code") or "refused"),
        status=status if known else None,
        param=said.get("param"),
        retry_after=float(wait) if isinstance(wait, (int, float)) else None,
        details=said.get("details"),
    )


async def _drain(child: asyncio.subprocess.Process, last_words: deque[str]) -> None:
    assert child.stderr is not None
    while True:
        try:
            line = await child.stderr.readline()
        except ValueError:
            continue  # an endless line: nobody needs it
        if not line:
            return
        text = line.decode("utf-8", "replace").rstrip()[:500]
        if text:
            last_words.append(text)
