"""Downloads from the Hub as jobs, each on the account's books: refused before it starts when the quota says no,
settled with the bytes that really came."""

from __future__ import annotations

import logging
from typing import Any

from hybridd.config.presets import HUB_DOWNLOADS
from hybridd.config.resolved import ProviderSpec
from hybridd.contracts.protocol import Usage
from hybridd.contracts.quotas import Amounts
from hybridd.ledger import Ending, Ledger, Reservation
from hybridd.local.jobs import Job, Jobs
from hybridd.local.residency import Residency

logger = logging.getLogger("hybridd.jobs")


class Pulls:
    """Starts pulls. ``spec`` is that of the provider ``hugging_face``, whose account the downloads are on."""

    def __init__(self, jobs: Jobs, ledger: Ledger, residency: Residency) -> None:
        self._jobs = jobs
        self._ledger = ledger
        self._residency = residency

    async def start(self, request: dict[str, Any], spec: ProviderSpec) -> Job:
        """One more download.

        Raises:
            QuotaRefused: the month's downloads are used up, or the disk refuses records; nothing was started.
            TooManyJobs: as many jobs run as may.
        """
        self._jobs.refuse_more()
        call = self._ledger.admit(
            request_id=self._ledger.new_request_id(),
            provider=spec.name,
            account=spec.account,
            model=HUB_DOWNLOADS,
            task="",
            amounts=Amounts(requests=1),
            price=None,
            linger_seconds=spec.linger_seconds,
        )
        try:
            await self._ledger.dispatch(call)
            return self._jobs.start("pull", request, lambda job: self._ended(job, call))
        except BaseException:
            self._ledger.release(call)
            raise

    async def _ended(self, job: Job, call: Reservation) -> None:
        """Bytes count as they came, also those of a download that was cut; one of which nothing came (there is no such
        file, or it was there already) is no download."""
        usage = Usage(input_tokens=0, output_tokens=0, bytes_down=job.downloaded or 0)
        code = None if job.error is None else str(job.error.get("code"))[:64]
        ending = (
            Ending(kind="refused", sent="no", error_code=code, answered=True)
            if not job.downloaded
            else Ending(kind="ok" if job.error is None else "upstream_error", usage=usage, error_code=code)
        )
        self._ledger.settle(call, ending)
        if job.result is not None:
            await self._residency.scan()
