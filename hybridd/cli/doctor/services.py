"""The daemon, the providers (keys and connectivity), the GPU."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from hybridd._version import __version__
from hybridd.cli.doctor.finding import Finding
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.config.resolved import ProviderSpec, Resolved
from hybridd.errors import DaemonUnreachable, HybriddError

_CONNECT_SECONDS = 3.0


def daemon() -> tuple[list[Finding], dict[str, Any] | None]:
    """Does it answer, in our version? Its status, or None."""
    api = Api(timeout=5.0)
    try:
        status = api.send(wire.get("/v1/status"))
    except DaemonUnreachable:
        return [Finding("daemon", "fact", "not running", "hybridd serve")], None
    except HybriddError as error:
        return [Finding("daemon", "error", error.message)], None
    if not isinstance(status, dict):
        return [Finding("daemon", "error", f"{api.socket} answers, but not as hybridd does")], None
    if status.get("version") != __version__:
        message = f"version {status.get('version')} is running, this is {__version__}"
        return [Finding("daemon", "warning", message, "restart the daemon")], status
    return [Finding("daemon", "ok", f"{status.get('state')}, pid {status.get('pid')}")], status


def providers(resolved: Resolved, status: dict[str, Any] | None) -> list[Finding]:
    """Keys (whether they are there, never what they are), and whether hosts can be reached. A running daemon knows
    better than a test connection."""
    known = {one["name"]: one for one in (status or {}).get("providers", [])}
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(lambda spec: _provider(spec, known.get(spec.name)), resolved.providers.values()))


def _provider(spec: ProviderSpec, live: dict[str, Any] | None) -> Finding:
    check = f"provider {spec.name}"
    if not spec.enabled:
        return Finding(check, "fact", "disabled")
    if spec.not_configured is not None:
        return Finding(check, "fact", f"not configured: {spec.not_configured}")
    if live is not None and live.get("state") not in {"ready", "idle", "starting"}:
        return Finding(check, "warning", f"{live.get('state')}: {live.get('reason') or 'no reason given'}")
    if live is not None:
        return Finding(check, "ok", str(live.get("state")))
    url = spec.plugin_config.get("base_url")
    return _connects(check, url) if isinstance(url, str) else Finding(check, "ok", "configured")


def _connects(check: str, url: str) -> Finding:
    """A TCP connection, nothing sent: costs no account anything."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_SECONDS):
            return Finding(check, "ok", f"{host}:{port} can be reached")
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        return Finding(check, "warning", f"{host}:{port} cannot be reached: {reason}")


def gpu() -> list[Finding]:
    """A fact either way."""
    try:
        import pynvml
    except ImportError:
        return [Finding("gpu", "fact", "the module pynvml is not installed")]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [Finding("gpu", "fact", f"none ({error}); local models run on the CPU")]
    try:
        found = list(_gpus(pynvml))
    finally:
        pynvml.nvmlShutdown()
    return found or [Finding("gpu", "fact", "none; local models run on the CPU")]


def _gpus(nvml: Any) -> Iterable[Finding]:
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = nvml.nvmlDeviceGetName(handle)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        shown = name.decode() if isinstance(name, bytes) else name
        message = f"{shown}, {memory.free / 2**20:,.0f} of {memory.total / 2**20:,.0f} MiB free"
        yield Finding("gpu", "fact", message)
