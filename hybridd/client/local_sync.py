"""The methods for local models of the synchronous client."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from hybridd.client import local_models, wire
from hybridd.client.local_models import Progress
from hybridd.client.types import Goal, Job, LocalModel, LocalModelDetails, Resident


class LocalMethods:
    """Of :class:`~hybridd.client.Client`, which sends."""

    if TYPE_CHECKING:

        def _send(self, call: wire.Call, *, seconds: float | None = None) -> Any: ...

    # ---- local models ----------------------------------------------------------------------------------------------

    def local_models(self, *, state: str | None = None, q: str | None = None) -> list[LocalModel]:
        """Model files of this machine and their state, after a look into the folders.

        Args:
            state: only ``unloaded``, ``loading``, ``ready``, ``draining`` or ``failed``.
            q: a text in the name, architecture or quantisation.
        """
        sent = wire.get("/v1/local/models", state=state, q=q)
        return cast(list[LocalModel], (self._send(sent))["models"])

    def local_model(self, model: str) -> LocalModelDetails:
        """One of them: what its header says, how it would be loaded now or is, and its worker. Raises NotFound."""
        return cast(LocalModelDetails, self._send(wire.get(f"/v1/local/models/{wire.segment(model)}")))

    def plan_model(
        self,
        model: str | None = None,
        *,
        repository: str | None = None,
        context: int | None = None,
        parallel: int | None = None,
        goal: Goal | None = None,
    ) -> dict[str, Any]:
        """How a model would be loaded; loads and downloads nothing.

        Args:
            model: of this machine; the answer is its plan, beside what is loaded now.
            repository: of the Hub (``owner/name``, ``owner/name:Q4_K_M``), or the address of a GGUF file; the answer
                has ``files`` with a plan each and marks the one that :meth:`pull_model` would take. Takes seconds:
                headers are read over HTTP.
            context: tokens of each request.
            parallel: requests at the same time.
            goal: what to be good at; absent, like the others: as the configuration says.
        """
        sent = local_models.plan(model, repository, context, parallel, goal)
        return cast(dict[str, Any], self._send(sent, seconds=local_models.PLAN_SECONDS))

    def load_model(self, model: str, *, timeout: float = 600.0) -> Resident:
        """Loads a model and waits for it, for ``timeout`` seconds; the load itself goes on after that."""
        sent = wire.post("/v1/local/load", model=model, timeout_seconds=timeout)
        return cast(Resident, self._send(sent, seconds=timeout + local_models.LOAD_GRACE_SECONDS))

    def unload_model(self, model: str) -> bool:
        """Ends a model's worker; its calls may finish first. False when it was not loaded."""
        sent = wire.post("/v1/local/unload", model=model)
        return bool((self._send(sent, seconds=local_models.UNLOAD_SECONDS))["unloaded"])

    def resident_models(self) -> list[Resident]:
        """What is loaded now."""
        return cast(list[Resident], (self._send(wire.get("/v1/local/resident")))["models"])

    # ---- downloads and measurements --------------------------------------------------------------------------------

    def pull_model(
        self,
        repository: str,
        *,
        file: str | None = None,
        revision: str | None = None,
        context: int | None = None,
        parallel: int | None = None,
        goal: Goal | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Downloads a model from the Hub and waits for it: its name, path, bytes, and why this file.

        Leaving (an exception in ``progress``, a timeout around the call) leaves the download running: it is the
        daemon's job, see :meth:`jobs` and :meth:`cancel_job`.

        Args:
            repository: ``owner/name`` or ``owner/name:Q4_K_M``.
            file: a file or a quantisation; absent: the largest that the plan says fits well.
            revision: branch, tag or commit; absent: ``main``.
            context, parallel, goal: for that plan.
            progress: called with the job, each time that it has got on.

        Raises:
            InvalidRequest: no repository is named like that.
            NoFeasibleProvider: the month's downloads are used up.
            ProviderError: the download failed or was cancelled; ``error_code`` says how.
        """
        asked = wire.post(
            "/v1/local/pull",
            repo=repository,
            file=file,
            revision=revision,
            context=context,
            parallel=parallel,
            goal=goal,
        )
        return local_models.result_of(self._followed(self._send(asked), progress))

    def bench_model(self, model: str, *, seconds: float = 120.0, progress: Progress | None = None) -> dict[str, Any]:
        """Measures how this machine runs a model best, and waits for it; the finding is used for loads from then on.
        Other models leave first; while they answer, it is refused."""
        asked = wire.post("/v1/local/bench", model=model, seconds=seconds)
        return local_models.result_of(self._followed(self._send(asked), progress))

    def jobs(self) -> list[Job]:
        """Downloads and measurements, newest first: those that run and the last ones that ended."""
        return cast(list[Job], (self._send(wire.get("/v1/local/jobs")))["jobs"])

    def job(self, job_id: str) -> Job:
        """One of them. Raises NotFound."""
        return cast(Job, self._send(wire.get(local_models.job(job_id))))

    def cancel_job(self, job_id: str) -> Job:
        """Ends a job; what a download has brought so far stays, and the next one goes on from there."""
        return cast(Job, self._send(wire.post(local_models.job(job_id, "/cancel"))))

    def _followed(self, started: Any, progress: Progress | None) -> Job:
        job, told = cast(Job, started), None
        while True:
            if progress is not None and job["progress"] != told:
                told = job["progress"]
                progress(job)
            if job["state"] in local_models.ENDED:
                return job
            time.sleep(local_models.POLL_SECONDS)
            job = self.job(job["id"])
