"""Jobs: children that are watched, shown, cancelled and remembered."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from hybridd import locations
from hybridd.bus import EventBus
from hybridd.clocks import SystemClock
from hybridd.errors import DeadlineExceeded, NotFound
from hybridd.local import jobs
from hybridd.local.jobs import Job, Jobs, Refused, TooManyJobs

CHILD = """
import json, os, sys, time
asked = json.load(sys.stdin)
def say(**line): print(json.dumps(line), flush=True)
say(state="working", done=1, total=2)
print("not JSON", flush=True)
if asked.get("wait"): time.sleep(60)
if asked.get("die"): print("last words", file=sys.stderr, flush=True); os._exit(9)
if asked.get("fail"): say(error={"code": "x", "message": "no"}, downloaded=7)
else: say(result={"asked": asked, "pid": os.getpid(), "downloaded": 5})
"""


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    (tmp_path / "job_child.py").write_text(CHILD)
    monkeypatch.setitem(jobs.MODULES, "pull", "job_child")
    monkeypatch.setattr(locations, "plugins_dir", lambda: tmp_path / "plugins")
    clock = SystemClock()
    return Jobs(EventBus(clock), clock, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)})


async def ended(running: Jobs, job: Job) -> Job:
    async with asyncio.timeout(10):
        while job.state == "running":
            await asyncio.sleep(0.01)
    assert running.get(job.id) is job
    return job


async def test_a_job_ends_with_its_result(started: Jobs) -> None:
    """The child gets its request, its progress is kept, its last word is the result; the end is told once, before the
    job counts as ended."""
    seen: list[str] = []

    async def on_end(job: Job) -> None:
        seen.append(job.state)

    job = await ended(started, started.start("pull", {"repo": "a/b"}, on_end))
    assert (job.state, job.result["asked"], job.downloaded) == ("done", {"repo": "a/b"}, 5)
    assert job.progress == {"state": "working", "done": 1, "total": 2}
    assert seen == ["running"]
    assert job.ended is not None


@pytest.mark.parametrize(("request_", "code", "downloaded"), [({"fail": 1}, "x", 7), ({"die": 1}, "job_died", None)])
async def test_a_job_that_fails_says_why(
    started: Jobs, request_: dict[str, int], code: str, downloaded: int | None
) -> None:
    """Its own error, or how it ended and its last words."""
    job = await ended(started, started.start("pull", dict(request_)))
    assert job.error is not None
    assert (job.state, job.error["code"], job.downloaded) == ("failed", code, downloaded)
    if code == "job_died":
        assert "last words" in job.error["message"]


async def test_cancel_and_close(started: Jobs) -> None:
    """A cancelled job's process is gone when the cancel returns; so are all of them after a close, and none starts."""
    first, second = (started.start("pull", {"wait": 1}) for _ in range(2))
    async with asyncio.timeout(10):
        while not (first.progress and second.progress):
            await asyncio.sleep(0.01)
    assert (await started.cancel(first.id)).state == "cancelled"
    await started.close()
    assert second.state == "cancelled"
    with pytest.raises(TooManyJobs):
        started.start("pull", {})
    with pytest.raises(NotFound):
        started.get("pull-nope")


async def test_only_so_many_at_once_and_only_so_many_kept(started: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a job is refused; ended jobs beyond the bound are forgotten, the oldest first."""
    monkeypatch.setattr(jobs, "KEPT", 3)
    running = [started.start("pull", {}) for _ in range(jobs.MAX_RUNNING)]
    with pytest.raises(TooManyJobs):
        started.start("pull", {})
    for job in running:
        async with asyncio.timeout(10):
            while job.state == "running":
                await asyncio.sleep(0.01)
    newest = await ended(started, started.start("pull", {}))
    assert started.all()[0] is newest
    assert len(started.all()) == 3
    assert running[0].id not in {job.id for job in started.all()}


def test_modules_exist() -> None:
    """What jobs run is there to be run."""
    import importlib.util

    assert all(importlib.util.find_spec(module) for module in jobs.MODULES.values())


async def test_a_question_is_answered_and_is_no_job(started: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's result goes to who asked; no job is listed; its error has the code and status that it gave."""
    monkeypatch.setitem(jobs.MODULES, "plan", "job_child")
    assert (await started.ask("plan", {"repo": "a"}, 20))["asked"] == {"repo": "a"}
    assert started.all() == []
    with pytest.raises(Refused, match="no") as caught:
        await started.ask("plan", {"fail": 1}, 20)
    assert (caught.value.error_code, caught.value.status) == ("x", 502)
    with pytest.raises(Refused, match="last words"):
        await started.ask("plan", {"die": 1}, 20)


async def test_questions_are_bounded(started: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """In time and in number; the child of one that is given up is ended."""
    monkeypatch.setitem(jobs.MODULES, "plan", "job_child")
    waiting = [asyncio.create_task(started.ask("plan", {"wait": 1}, 60)) for _ in range(jobs.MAX_ASKED)]
    while len(started._children) < jobs.MAX_ASKED:
        await asyncio.sleep(0.01)
    pids = [child.pid for child in started._children.values()]
    with pytest.raises(TooManyJobs, match="at most 2"):
        await started.ask("plan", {}, 60)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(10):
        while any(Path(f"/proc/{pid}").exists() and _runs(pid) for pid in pids):
            await asyncio.sleep(0.01)
    with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
        await started.ask("plan", {"wait": 1}, 0.2)
    assert started._children == {}


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
