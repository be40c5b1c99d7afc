"""The machine now: host and GPU samples, each taken where it can hang without harm, and the reasons for gaps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from hybridd.local.gpus import GpuReport
from hybridd.local.nvml import Nvml
from hybridd.monitor.host import HostSample, sampler
from hybridd.monitor.offload import Hung, Offload

SAMPLE_SECONDS = 2.0


class Machine:
    """``host`` and ``gpu`` are the newest samples. ``take_host`` and ``take_gpu`` block; by default they ask the
    kernel (about the disk of ``folder``) and the NVIDIA driver."""

    def __init__(
        self,
        folder: Path,
        *,
        take_host: Callable[[], HostSample] | None = None,
        take_gpu: Callable[[], GpuReport] | None = None,
        timeout: float = SAMPLE_SECONDS,
    ) -> None:
        self.host: HostSample | None = None
        self.host_reason = "not sampled yet"
        self.gpu = GpuReport(reason="not sampled yet")
        self._folder = folder
        self._timeout = timeout
        self._nvml = Nvml()
        self._take_host = take_host
        self._host_offload: Offload[HostSample] | None = None
        self._gpu_offload = Offload("monitor-gpu", take_gpu or self._nvml.sample)

    async def sample(self) -> None:
        """Take both; never raises, never takes longer than the timeout."""
        await asyncio.gather(self._sample_host(), self._sample_gpu())

    def view(self) -> dict[str, Any]:
        """The newest figures as plain data: those of :class:`HostSample`, ``reason`` when there are none, ``gpus``,
        ``gpu_reason``, ``gpu_driver``."""
        host: dict[str, Any] = msgspec.to_builtins(self.host) if self.host is not None else {}
        return {
            **host,
            "reason": self.host_reason,
            "gpus": [msgspec.to_builtins(gpu) for gpu in self.gpu.gpus],
            "gpu_reason": self.gpu.reason,
            "gpu_driver": self.gpu.driver,
        }

    def close(self) -> None:
        """Let the driver go, unless it hangs."""
        if not self._gpu_offload.busy:
            self._nvml.close()

    async def _sample_host(self) -> None:
        if self._host_offload is None:
            self._host_offload = Offload("monitor-host", self._take_host or sampler(self._folder))
        try:
            self.host = await self._host_offload.run(self._timeout)
            self.host_reason = ""
        except (Hung, OSError, RuntimeError) as error:
            self.host, self.host_reason = None, f"the host's counters cannot be read: {error}"

    async def _sample_gpu(self) -> None:
        try:
            self.gpu = await self._gpu_offload.run(self._timeout)
        except Hung as error:
            self.gpu = GpuReport(reason=f"the NVIDIA driver hangs: {error}")
        except Exception as error:  # noqa: BLE001  # a driver's library may raise anything: reported as the reason
            self.gpu = GpuReport(reason=f"the GPU cannot be sampled: {type(error).__name__}: {error}")
