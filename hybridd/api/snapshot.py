"""The state of everything at one moment: ``/v1/status`` and the first event of ``/v1/events``."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from hybridd._version import __version__
from hybridd.api.services import Services
from hybridd.contracts.views import AlertView, LimitView, PluginView, ProviderView


class Status(msgspec.Struct):
    """``uptime_s`` seconds; ``host`` holds the last samples (CPU, memory, GPU), or why there are none."""

    version: str
    pid: int
    uptime_s: float
    state: str
    socket: str
    database: str
    config: str | None
    in_flight: int
    waiting: int
    alerts_open: int
    providers: list[ProviderView]
    plugins: list[PluginView]
    host: dict[str, Any]
    storage: str | None = None


class Snapshot(msgspec.Struct):
    status: Status
    limits: list[LimitView]
    alerts: list[AlertView]


async def status(services: Services) -> Status:
    router = services.router
    return Status(
        version=__version__,
        pid=os.getpid(),
        uptime_s=round((services.clock.boot_ns() - services.started_boot_ns) / 1e9, 3),
        state=services.ready()[1],
        socket=str(services.socket),
        database=str(services.database.path),
        config=router.resolved.path,
        in_flight=router.gate.in_flight,
        waiting=router.gate.waiting,
        alerts_open=services.monitor.open_alerts,
        providers=router.provider_views(),
        plugins=services.hub.plugin_views(),
        host=services.monitor.host_sample(),
        storage=services.database.writer.failed,
    )


async def snapshot(services: Services) -> Snapshot:
    alerts = await services.monitor.list_alerts(state="open")
    return Snapshot(status=await status(services), limits=services.ledger.limits(), alerts=alerts)
